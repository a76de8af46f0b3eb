"""What is swept: a loss, the name it appears under, and the way it is fed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses.foreign.feeding import Intake, feed, look_at
from dense_imb.losses.foreign.parse import parse_loss, split_call, split_sum


@dataclass(frozen=True)
class Subject:
    """A loss with its name and how it is fed."""

    name: str
    loss: nn.Module
    intake: Intake
    # double precision: a figure shows the loss, not its rounding
    dtype: torch.dtype = torch.double

    @property
    def feeds_on(self) -> str:
        """What the loss is fed: values, logits, or something that no scenario has."""
        return self.intake.feeds_on

    @property
    def target(self) -> str:
        """The form of the target, one of `feeding.TARGET_FORMS`."""
        return self.intake.form

    def __call__(self, prediction: Tensor, target: Tensor) -> Any:
        prediction = prediction.to(self.dtype)
        if target.is_floating_point():
            target = target.to(self.dtype)
        if self.feeds_on != "logits":
            return self.loss(prediction, target)
        if self.target == "binary":  # a scenario's two classes are one pixel's probability
            if prediction.shape[1] != 2:
                raise ValueError(
                    f"{self.name} is binary, the scenario has {prediction.shape[1]} classes"
                )
            prediction = prediction[:, 1:] - prediction[:, :1]
        return feed(self.loss, self.intake, prediction, target, {})

    @property
    def explained(self) -> str:
        """The name, and the loss with its options where the name does not say them."""
        full = " ".join(repr(self.loss).split())
        if full in (self.name, f"{self.name}()"):
            full = ""
        package = type(self.loss).__module__.split(".")[0]
        owner = "" if package == "dense_imb" else f" (of {package})"
        return f"{self.name}{owner}: {full}" if full else f"{self.name}{owner}"


def as_subjects(
    losses: Mapping[str, nn.Module] | Iterable[nn.Module | Subject],
) -> list[Subject]:
    """Name the losses (by their classes, unless a mapping names them) and see what they take."""
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
        if len({name for name, _ in named}) < len(named):  # one class twice: tell its options
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
    # some losses of other libraries mix in single precision of their own
    return single if not _accepts(subject) and _accepts(single) else subject


def _accepts(subject: Subject) -> bool:
    """Whether the loss takes a small example of its kind."""
    subject = replace(subject, loss=copy.deepcopy(subject.loss))  # a call may leave a trace
    example, label = torch.zeros(3, 2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            subject(example, label if subject.feeds_on == "logits" else example)
        except Exception:  # whatever a loss may answer
            return False
    return True


def parse_losses(texts: Sequence[str]) -> dict[str, nn.Module]:
    """The losses that typed names mean, by the shortest name that tells them apart."""
    calls = [
        text if len(split_sum(text)) > 1 else split_call(text)[1].removesuffix("()")
        for text in texts
    ]
    return {
        text if calls.count(call) > 1 else call: parse_loss(text)
        for text, call in zip(texts, calls, strict=True)
    }
