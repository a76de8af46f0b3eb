"""Losses of a sweep, with their names and their inputs."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses.core.cover import Cover
from dense_imb.losses.core.module import Loss
from dense_imb.losses.foreign.feeding import Intake, feed, look_at
from dense_imb.losses.foreign.parse import parse_loss, split_call, split_sum


@dataclass(frozen=True)
class Subject:
    """A loss with its name and its input."""

    name: str
    loss: nn.Module
    intake: Intake
    # double precision: a figure shows the loss, not its rounding
    dtype: torch.dtype = torch.double

    @property
    def feeds_on(self) -> str:
        """Input of the loss: values, logits, or another one, which no scenario has."""
        return self.intake.feeds_on

    @property
    def target(self) -> str:
        """The form of the target, one of `feeding.TARGET_FORMS`."""
        return self.intake.form

    def __call__(self, prediction: Tensor, target: Tensor, cells: Tensor | None = None) -> Any:
        prediction = prediction.to(self.dtype)
        if target.is_floating_point():
            target = target.to(self.dtype)
        if cells is not None and self._takes_cells:
            return self.loss(prediction, target, label=cells)
        if self.feeds_on != "logits":
            return self.loss(prediction, target)
        if self.target == "binary":  # two classes become one logit
            if prediction.shape[1] != 2:
                raise ValueError(
                    f"{self.name} is binary, the scenario has {prediction.shape[1]} classes"
                )
            prediction = prediction[:, 1:] - prediction[:, :1]
        return feed(self.loss, self.intake, prediction, target, {})

    @property
    def _takes_cells(self) -> bool:
        partition = getattr(self.loss, "partition", None)
        return partition == "masks" or isinstance(partition, Cover)

    @property
    def explained(self) -> str:
        """The name, and the loss with its options where the name lacks them."""
        full = short_repr(self.loss)
        if full in (self.name, f"{self.name}()"):
            full = ""
        package = type(self.loss).__module__.split(".")[0]
        owner = "" if package == "dense_imb" else f" (of {package})"
        return f"{self.name}{owner}: {full}" if full else f"{self.name}{owner}"


def short_repr(value: object) -> str:
    """Return an object as text on one line; ours with the arguments that are no defaults.

    Example:
        >>> from dense_imb.losses import Balance, CrossEntropyLoss
        >>> short_repr(CrossEntropyLoss(balance=Balance(scope="image")))
        "CrossEntropyLoss(balance=Balance(scope='image'))"
    """
    kind = type(value)
    is_ours = kind.__module__.partition(".")[0] == "dense_imb"
    if is_ours and isinstance(value, Loss):
        children = [  # of a sum, its losses
            part
            for child in value.children()
            for part in (child.values() if isinstance(child, nn.ModuleDict) else [child])
        ]
        names, parts = value.shown, [short_repr(part) for part in children]
    elif is_ours and is_dataclass(value):
        names, parts = tuple(field.name for field in fields(value) if field.init), []
    else:
        return " ".join(repr(value).split())
    options = inspect.signature(kind).parameters
    its_own = f"{kind.__name__.removesuffix('Loss')}()"  # the penalty that it is named after
    for name in names:
        text = short_repr(getattr(value, name))
        default = short_repr(options[name].default) if name in options else its_own
        if text != default:
            parts.append(f"{name}={text}")
    return f"{kind.__name__}({', '.join(parts)})"


def as_subjects(
    losses: Mapping[str, nn.Module] | Iterable[nn.Module | Subject],
) -> list[Subject]:
    """Name losses by their classes, unless a mapping names them, and find out their inputs."""
    if isinstance(losses, nn.Module):
        losses = [losses]
    named: list[tuple[str, nn.Module | Subject]]
    if isinstance(losses, Mapping):
        named = list(losses.items())
    else:
        named = [
            (loss.name if isinstance(loss, Subject) else type(loss).__name__, loss)
            for loss in losses
        ]
        if len({name for name, _ in named}) < len(named):  # one class twice: add the options
            named = [(" ".join(repr(loss).split()), loss) for _, loss in named]
    if len({name for name, _ in named}) < len(named):
        raise ValueError("Expected losses of different names; pass a mapping {name: loss}.")
    return [_subject(name, loss) for name, loss in named]


def _subject(name: str, loss: nn.Module | Subject) -> Subject:
    if isinstance(loss, Subject):
        return loss
    if not isinstance(loss, nn.Module):
        raise TypeError(f"Expected the loss {name} to be a torch.nn.Module, got {loss!r}.")
    if not name or any(symbol in name for symbol in "\n\r"):
        raise ValueError(f"Expected a loss's name on one line, got {name!r}.")
    # a scenario's logits are log-probabilities already
    intake = look_at(loss)._replace(takes_log_probability=False)
    subject = Subject(name, copy.deepcopy(loss).double(), intake)
    single = replace(subject, loss=copy.deepcopy(loss), dtype=torch.float)
    # some losses of other libraries compute in single precision
    return single if not _accepts(subject) and _accepts(single) else subject


def _accepts(subject: Subject) -> bool:
    """Whether the loss takes a small example of its kind."""
    subject = replace(subject, loss=copy.deepcopy(subject.loss))  # a call may change the loss
    example, label = torch.zeros(3, 2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            subject(example, label if subject.feeds_on == "logits" else example)
        except Exception:  # any error means refusal
            return False
    return True


def parse_losses(texts: Sequence[str]) -> dict[str, nn.Module]:
    """Parse losses, and name each by the shortest distinct part of its text.

    Example:
        >>> from dense_imb.curves import parse_losses
        >>> losses = parse_losses(["FocalLoss(gamma=1.0)", "torch.nn:MSELoss"])
        >>> losses["MSELoss"]
        MSELoss()
    """
    calls = [
        text if len(split_sum(text)) > 1 else split_call(text)[1].removesuffix("()")
        for text in texts
    ]
    return {
        text if calls.count(call) > 1 else call: parse_loss(text)
        for text, call in zip(texts, calls, strict=True)
    }
