"""Losses by what was typed: a name with options as literals, of which nothing is evaluated."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dense_imb.base.checks import check_choice
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.compound import CompoundLoss

_EXPONENT = re.compile(r"(?<![\w.])[\d.]+[eE]$")  # before the + of 1e+3
_WEIGHTED = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*(.*\S)\s*$", re.DOTALL)


def parse_loss(
    text: str, *, packages: Sequence[str] | None = None, class_counts: Any = None
) -> nn.Module:
    """The loss that a typed name means.

    A public name of `dense_imb.losses` or an import path `package.module:Class`, with options as
    Python literals. Nothing is evaluated; what is imported has to be an `nn.Module` class. The
    option `balance` of our losses takes the arguments of a `Balance`, {} for its defaults. Several
    of them, with weights, are a `CompoundLoss`: "FocalLoss + 0.5 * monai.losses:DiceLoss(...)".

    Args:
        text: what was typed.
        packages: those that may be imported from; all by default, for text that the user typed.
            Text out of a file says what to run on the machine of whoever opens it.
        class_counts: pixels of each class, for a loss that needs them and whose text says none.
    Example:
        >>> parse_loss("torch.nn:HuberLoss(delta=2.0)").delta
        2.0
        >>> parse_loss("HardMiningLoss(balance={}) + 0.5 * torch.nn:CrossEntropyLoss").weights
        {'HardMiningLoss': 1.0, 'CrossEntropyLoss': 0.5}
    """
    terms = split_sum(text)
    losses = [_parse_one(term, text, packages, class_counts) for _, term in terms]
    weights = [weight for weight, _ in terms]
    if len(losses) == 1 and weights == [None]:
        return losses[0]
    try:
        return CompoundLoss(*losses, weights=[1.0 if w is None else w for w in weights])
    except (TypeError, ValueError) as problem:
        raise ValueError(f"Expected losses that add up, got {text!r}: {problem}") from problem


def split_sum(text: str) -> list[tuple[float | None, str]]:
    """The terms of "A + 0.5 * B(x)", each with its weight or None."""
    terms, start, depth, quote = [], 0, 0, ""
    for place, symbol in enumerate(text):
        if quote:
            quote = "" if symbol == quote else quote
        elif symbol in "'\"":
            quote = symbol
        elif symbol in "([{":
            depth += 1
        elif symbol in ")]}":
            depth -= 1
        elif symbol == "+" and depth == 0 and not _EXPONENT.search(text[:place]):
            terms.append(text[start:place])
            start = place + 1
    terms.append(text[start:])
    found: list[tuple[float | None, str]] = []
    for term in terms:
        weighted = _WEIGHTED.match(term)
        found.append((float(weighted[1]), weighted[2]) if weighted else (None, term.strip()))
    return found


def _parse_one(
    term: str, text: str, packages: Sequence[str] | None, class_counts: Any
) -> nn.Module:
    path, call = split_call(term)
    class_name, positional, keywords = parse_call(call, text)
    if path is not None:
        if packages is not None and path.split(".")[0] not in packages:
            raise ValueError(
                f"Expected a loss of {', '.join(packages)}, got {text!r}; a config may come "
                "from anybody, so nothing else is imported for it. From Python, hand the "
                "loss itself to `HitsTask`."
            )
        loss_class = _import(path, class_name, text)
    else:
        check_choice("loss", class_name, [entry.name for entry in CATALOGUE])
        loss_class = getattr(importlib.import_module("dense_imb.losses"), class_name)
    try:
        if path is None and keywords.get("balance") is not None:
            keywords["balance"] = _balance(keywords["balance"])
        if class_counts is not None and _lacks_counts(loss_class, positional, keywords):
            keywords["class_counts"] = class_counts
        return loss_class(*positional, **keywords)
    except Exception as problem:  # a loss of the caller's may refuse its options in any way
        raise ValueError(
            f"Expected options that {class_name} takes, got {text!r}: {_sentence(problem)}"
        ) from (problem)


def _lacks_counts(
    loss_class: type[nn.Module], positional: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Whether a loss needs `class_counts` and was not given any."""
    signature = inspect.signature(loss_class)
    counts = signature.parameters.get("class_counts")
    if counts is None or counts.default is not counts.empty:
        return False
    return "class_counts" not in signature.bind_partial(*positional, **keywords).arguments


def _balance(arguments: object) -> Balance:
    if not isinstance(arguments, dict):
        raise TypeError(
            f"Expected `balance` to be the arguments of a Balance, got {arguments!r}; "
            "write balance={} for its defaults."
        )
    return Balance(**arguments)


def split_call(text: str) -> tuple[str | None, str]:
    """The module, if there is one, and what is called."""
    before, parenthesis, options = text.strip().partition("(")
    path, colon, name = before.rpartition(":")
    return path if colon else None, name + parenthesis + options


def parse_call(call: str, text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, the positional options and the named ones of `Name(1, b=2)`, all literals."""
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
        'literals, "FocalLoss(gamma=2.0)" or "FocalLoss(balance={})" say, or a sum, "FocalLoss + '
        '0.5 * torch.nn:CrossEntropyLoss", '
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
