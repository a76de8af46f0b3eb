"""What is swept: a loss, the name it appears under, and the way it wants to be fed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses._checks import check_choice
from dense_imb.losses.catalogue import CATALOGUE
from dense_imb.losses.parse import parse_loss, split_call

# the name of each of our losses, and what it is fed
CATALOGUED = {entry.name: entry.feeds_on for entry in CATALOGUE}
# (B, *spatial), (B, 1, *spatial), (B, C, *spatial) and, with one logit, (B, 1, *spatial)
_TARGET_FORMS = ("indices", "channel", "one-hot", "binary")


@dataclass(frozen=True)
class Subject:
    """A loss with its name; `feeds_on` "values", "logits" or something no scenario has."""

    name: str
    loss: nn.Module
    feeds_on: str
    target: str = "indices"  # one of _TARGET_FORMS
    # double precision: a figure shows the loss, not its rounding
    dtype: torch.dtype = torch.double

    def __call__(self, prediction: Tensor, target: Tensor) -> Any:
        prediction = prediction.to(self.dtype)
        if target.is_floating_point():
            target = target.to(self.dtype)
        if self.feeds_on == "values" or self.target == "indices":
            return self.loss(prediction, target)
        if self.target == "channel":
            return self.loss(prediction, target.unsqueeze(1))
        if self.target == "one-hot":
            one_hot = nn.functional.one_hot(target, prediction.shape[1])
            return self.loss(prediction, one_hot.movedim(-1, 1).to(prediction.dtype))
        if prediction.shape[1] != 2:
            raise ValueError(
                f"{self.name} is binary, the scenario has {prediction.shape[1]} classes"
            )
        log_odds = prediction[:, 1:] - prediction[:, :1]
        return self.loss(log_odds, target.unsqueeze(1).to(prediction.dtype))

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
    subject = Subject(name, copy.deepcopy(loss).double(), *_what_it_takes(loss))
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


def _what_it_takes(loss: nn.Module) -> tuple[str, str]:
    """What the loss is fed, and the form of its target."""
    owner = type(loss)
    if owner.__module__.startswith("dense_imb.") and owner.__name__ in CATALOGUED:
        return CATALOGUED[owner.__name__], "indices"
    if hasattr(loss, "feeds_on"):  # a loss of the caller's that says so
        form = str(getattr(loss, "target_form", "indices"))
        check_choice("target_form", form, _TARGET_FORMS)
        return str(loss.feeds_on), form
    if owner.__module__.startswith("monai."):
        if getattr(loss, "to_onehot_y", False):
            return "logits", "channel"
        is_sigmoid = getattr(loss, "sigmoid", False) or not getattr(loss, "use_softmax", True)
        return "logits", "binary" if is_sigmoid else "one-hot"
    # segmentation-models-pytorch says `mode`
    if getattr(loss, "mode", "") in ("binary", "multilabel") or "BCEWithLogits" in owner.__name__:
        return "logits", "binary"
    # a loss of values cannot broadcast the example's logits and labels against each other
    is_fed_logits = _accepts(Subject("", loss, "logits", dtype=torch.float))
    return ("logits" if is_fed_logits else "values"), "indices"


def parse_losses(texts: Sequence[str]) -> dict[str, nn.Module]:
    """The losses that typed names mean, by the shortest name that tells them apart."""
    calls = [split_call(text)[1].removesuffix("()") for text in texts]
    return {
        text if calls.count(call) > 1 else call: parse_loss(text)
        for text, call in zip(texts, calls, strict=True)
    }
