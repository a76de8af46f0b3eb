"""What is swept: a loss, the name it appears under, and the way it wants to be fed."""

from __future__ import annotations

import ast
import copy
import importlib
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dense_imb.losses
from dense_imb.losses._checks import check_choice
from dense_imb.losses.catalogue import CATALOGUE

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
    calls = [_split(text)[1].removesuffix("()") for text in texts]
    return {
        text if calls.count(call) > 1 else call: parse_loss(text)
        for text, call in zip(texts, calls, strict=True)
    }


def parse_loss(text: str) -> nn.Module:
    """The loss that a typed name means.

    A public name of `dense_imb.losses` or an import path `package.module:Class`, with options as
    Python literals. Nothing is evaluated; what is imported has to be an `nn.Module` class. The
    option `balance` of our losses takes the arguments of a `Balance`, {} for its defaults.

    Example:
        >>> parse_loss("torch.nn:HuberLoss(delta=2.0)").delta
        2.0
    """
    path, call = _split(text)
    class_name, positional, keywords = _parse_call(call, text)
    if path is not None:
        loss_class = _import(path, class_name, text)
    else:
        check_choice("loss", class_name, CATALOGUED)
        loss_class = getattr(dense_imb.losses, class_name)
    try:
        if path is None and keywords.get("balance") is not None:
            keywords["balance"] = _balance(keywords["balance"])
        return loss_class(*positional, **keywords)
    except Exception as problem:  # a loss of the caller's may refuse its options in any way
        raise ValueError(
            f"Expected options that {class_name} takes, got {text!r}: {_sentence(problem)}"
        ) from (problem)


def _balance(arguments: object) -> dense_imb.losses.Balance:
    if not isinstance(arguments, dict):
        raise TypeError(
            f"Expected `balance` to be the arguments of a Balance, got {arguments!r}; "
            "write balance={} for its defaults."
        )
    return dense_imb.losses.Balance(**arguments)


def _split(text: str) -> tuple[str | None, str]:
    """The module, if there is one, and what is called."""
    before, parenthesis, options = text.strip().partition("(")
    path, colon, name = before.rpartition(":")
    return path if colon else None, name + parenthesis + options


def _parse_call(call: str, text: str) -> tuple[str, list[Any], dict[str, Any]]:
    try:
        tree = ast.parse(call, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            keywords = {str(option.arg): option.value for option in tree.keywords if option.arg}
            if len(keywords) == len(tree.keywords):
                return (
                    tree.func.id,
                    [ast.literal_eval(option) for option in tree.args],
                    {name: ast.literal_eval(option) for name, option in keywords.items()},
                )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise ValueError(
        "Expected a loss as a name of the catalogue or package.module:Class, with options as "
        'literals, "FocalLoss(gamma=2.0)" or "FocalLoss(balance={})" say, '
        f"got {text!r}."
    )


def _import(path: str, class_name: str, text: str) -> type[nn.Module]:
    if path.endswith(".py") or "/" in path:
        raise ValueError(
            f"Expected an import path, package.module:Class, got the file {path!r}; run in its "
            "folder and leave the .py away."
        )
    # the installed command does not look where it was started; a user's own file lies there
    searched = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(path)
    except Exception as problem:  # importing runs the module, which may fail in any way
        sentence = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise ValueError(
            f"Expected an import path that resolves, got {text!r} ({sentence})."
        ) from (problem)
    finally:
        sys.path[:] = searched
    found = getattr(module, class_name, None)
    if found is None:
        raise ValueError(f"Expected a class of the module {path}, got {class_name!r}.")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"Expected {path}:{class_name} to be a torch.nn.Module class.")
    return found


def _sentence(problem: Exception) -> str:
    """What an exception says, on one line, with one full stop."""
    sentence = " ".join(str(problem).split())
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."
