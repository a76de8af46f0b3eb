"""Losses from text: names with literal options, of which nothing is evaluated."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from dense_imb.base.checks import check_choice
from dense_imb.base.imports import import_installed
from dense_imb.base.refusals import Refused, option, suggest
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.class_weights import class_weights
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.core.spread import Spread
from dense_imb.losses.foreign.catalogue import OUR_INPUTS, feeding_rule
from dense_imb.losses.foreign.compound import CompoundLoss
from dense_imb.losses.foreign.short_names import full_text, suggest_loss
from dense_imb.losses.foreign.values import built, read_value
from dense_imb.losses.named.value_bins import ValueBins
from dense_imb.losses.spread import Hardest, WorstNeighbour

LIBRARIES = ("dense_imb", "torch", "monai", "segmentation_models_pytorch", "kornia", "torchvision")
# a text may come from anybody: losses are imported from the modules on the left and no others, and
# their classes are defined in those on the right
LOSS_MODULES = {
    "dense_imb": "dense_imb.losses",
    "torch.nn": "torch.nn.modules.loss",
    "monai.losses": "monai.losses",
    "segmentation_models_pytorch.losses": "segmentation_models_pytorch.losses",
    "kornia.losses": "kornia.losses",
}
_SPREADS: dict[str, Callable[[Any], Spread]] = {
    "hardest": Hardest,
    "worst_neighbour": WorstNeighbour,
}
_LOADED = re.compile(r"pretrained|cache_dir|checkpoint|hub|url")  # options that name files
_EXPONENT = re.compile(r"(?<![\w.])[\d.]+[eE]$")  # before the + of 1e+3
_WEIGHT = re.compile(r"((?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)\s*+\*")
_LONGEST = 20_000  # characters, enough for the weights of 1,000 classes


class Term(NamedTuple):
    """One loss of a text: its name and its options, literals or a `Value`."""

    module: str | None  # import path; None for a loss of `dense_imb.losses`
    name: str
    positional: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def feeds_on(self) -> str:
        """Input of the loss, "logits", "values" or "features", by its name; see `feeding_rule`."""
        return feeding_rule(self.module, self.name)


class Spec(NamedTuple):
    """A loss as text, parsed: nothing is imported or built for it."""

    text: str
    terms: tuple[Term, ...]
    weights: tuple[float | None, ...]  # None where the text has no weight

    @property
    def feeds_on(self) -> str:
        """Input of the loss. A sum is fed logits, unless all its terms are fed values."""
        inputs = {term.feeds_on for term in self.terms}
        return inputs.pop() if len(inputs) == 1 else "logits"

    @property
    def takes_logits(self) -> bool:
        """Whether the loss is fed logits."""
        return self.feeds_on == "logits"


def parse_spec(text: str) -> Spec:
    """Parse the text of a loss, see `parse_loss`, without importing or building anything.

    Short names, see `SHORT_NAMES`, are replaced by what they stand for. Safe for text from a file
    of unknown origin.

    Example:
        >>> spec = parse_spec("FocalLoss(gamma=1.0) + 0.5 * torch.nn:HuberLoss(delta=2.0)")
        >>> spec.terms[1]
        Term(module='torch.nn', name='HuberLoss', positional=(), options={'delta': 2.0})
        >>> spec.takes_logits, parse_spec("ACBMSELoss + torch.nn:L1Loss").takes_logits
        (True, False)
    """
    check_length(text)
    weights, terms = [], []
    for weight, call in split_sum(text):
        weights.append(weight)
        terms.append(_parse_term(call, text))
    return Spec(text, tuple(terms), tuple(weights))


def check_length(text: str) -> None:
    """Refuse a text that is too long for a loss, before the time to read it grows."""
    if len(text) > _LONGEST:
        raise ValueError(
            f"Expected `loss` in at most {_LONGEST:,} characters, got {len(text):,}, which begin "
            f"with {text[:60]!r}."
        )


def _parse_term(call: str, text: str) -> Term:
    module, call = split_call(full_text(call) or call)
    name, positional, options = parse_call(call, text)
    if module is None and name not in OUR_INPUTS:
        raise ValueError(
            f"Expected `loss` to be a name of `dense-imb losses`, package.module:Class or a sum, "
            f"got {name!r}.{suggest_loss(name)}"
        )
    return Term(module, name, tuple(positional), options)


def parse_loss(
    text: str, *, packages: Sequence[str] | None = None, class_counts: Any = None
) -> nn.Module:
    """Build a loss from its text.

    The text is a public name of `dense_imb.losses`, a short name (`SHORT_NAMES`), or an import path
    `package.module:Class`, with options as Python literals. Nothing in it is evaluated. An imported
    object must be an `nn.Module` class. The options may be the objects of our losses, written as in
    Python: "RegionLoss(Matthews(), balance=Balance(scope='image'))". Some have a literal form, too:
    `balance={}` holds the arguments of a `Balance`, `partition={"edges": [1, 10]}` those of
    `ValueBins`, `partition={"n_cells": 3}` those of a `Cover`, `spread` is {"hardest": share} or
    {"worst_neighbour": size}, and `class_weight='inverse'` names a method of `class_weights`. A sum
    with weights, "FocalLoss + 0.5 * monai.losses:DiceLoss(...)", is a `CompoundLoss`.

    Args:
        text: text of the loss.
        packages: packages and modules that may be imported; all by default. Restrict them for text
            from a file, as importing a package runs its code. Modules of `LOSS_MODULES` give
            their losses only.
        class_counts: pixels of each class, for a loss that needs them and whose text has none.

    Example:
        >>> parse_loss("torch.nn:HuberLoss(delta=2.0)").delta
        2.0
        >>> parse_loss("HardMiningLoss(balance={}) + 0.5 * torch.nn:CrossEntropyLoss").weights
        {'HardMiningLoss': 1.0, 'CrossEntropyLoss': 0.5}
    """
    return build_spec(parse_spec(text), packages=packages, class_counts=class_counts)


def build_spec(
    spec: Spec, *, packages: Sequence[str] | None = None, class_counts: Any = None
) -> nn.Module:
    """Build a loss that is parsed already; see `parse_loss` for the arguments."""
    text = spec.text
    losses = [_build(term, text, packages, class_counts) for term in spec.terms]
    if spec.weights == (None,):
        return losses[0]
    try:
        return CompoundLoss(*losses, weights=[1.0 if w is None else w for w in spec.weights])
    except (TypeError, ValueError) as problem:
        raise ValueError(f"Expected losses that add up, got {text!r}: {problem}") from problem


def split_sum(text: str) -> list[tuple[float | None, str]]:
    """Split "A + 0.5 * B(x)" into terms, each with its weight or None."""
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
        elif symbol == "+" and depth == 0 and not _EXPONENT.search(text[:place][-40:]):
            terms.append(text[start:place])
            start = place + 1
    terms.append(text[start:])
    weighted_terms: list[tuple[float | None, str]] = []
    for term in map(str.strip, terms):
        weighted = _WEIGHT.match(term)
        call = term[weighted.end() :].strip() if weighted else ""
        weighted_terms.append((float(weighted[1]), call) if weighted and call else (None, term))
    return weighted_terms


def _build(term: Term, text: str, packages: Sequence[str] | None, class_counts: Any) -> nn.Module:
    options = dict(term.options)
    if term.module is not None:
        if packages is not None:
            _check_permitted(term.module, term.module, text, packages)
        loss_class = _import(term.module, term.name, text)
        if packages is not None:
            _check_permitted(term.module, loss_class.__module__, text, packages)
            _check_loads_nothing(loss_class)
    else:
        loss_class = getattr(importlib.import_module("dense_imb.losses"), term.name)
    try:
        positional = [built(option) for option in term.positional]
        options = {name: built(option) for name, option in options.items()}
        if term.module is None:
            names = [*inspect.signature(loss_class).parameters]
            own = dict(zip(names, positional, strict=False))
            positional[: len(own)] = [_literal(n, v, class_counts) for n, v in own.items()]
            options = {n: _literal(n, v, class_counts) for n, v in options.items()}
        if class_counts is not None and _lacks_counts(loss_class, positional, options):
            options["class_counts"] = class_counts
        return loss_class(*positional, **options)
    except Exception as problem:  # a loss of the caller's may refuse its options in any way
        raise ValueError(
            f"Expected options that {term.name} takes, got {text!r}: {_sentence(problem)}"
        ) from problem


def _check_permitted(path: str, module: str, text: str, packages: Sequence[str]) -> None:
    """Refuse a loss that is not of the permitted packages.

    Args:
        path: import path in the text.
        module: the import path, or the module that defines the class imported from there.
        text: text of the loss.
        packages: see `parse_loss`.
    """
    for package in packages:
        home = package if module == path else LOSS_MODULES.get(package, module)
        if is_in(path, package) and is_in(module, home):
            return
    name, cure = path.split(".")[0], "nothing else is imported, because importing runs code"
    if name.isidentifier():
        cure += f"; add {option('allow_import', name)} if you trust it"
    raise Refused(f"a loss of {', '.join(packages)}", repr(text), cure)


def is_in(module: str, package: str) -> bool:
    """Whether an import path is a package or leads into it.

    Example:
        >>> is_in("monai.losses.dice", "monai.losses"), is_in("monai.losses2", "monai.losses")
        (True, False)
    """
    return module == package or module.startswith(f"{package}.")


def _lacks_counts(
    loss_class: type[nn.Module], positional: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Whether a loss needs `class_counts` and has none among its options."""
    signature = inspect.signature(loss_class)
    counts = signature.parameters.get("class_counts")
    if counts is None or counts.default is not counts.empty:
        return False
    return "class_counts" not in signature.bind_partial(*positional, **keywords).arguments


def _weights_by_rule(method: str, class_counts: Any) -> tuple[float, ...]:
    if class_counts is None:
        raise ValueError(
            f"class_weight={method!r} needs the pixels of each class, which are not known here; "
            "write the weights as numbers."
        )
    return class_weights(class_counts, method)


def _literal(name: str, value: Any, class_counts: Any) -> Any:
    """Return an option of a loss of ours from its literal form; other values as they are."""
    if name == "balance" and value is not None:
        return _balance(value)
    if name == "spread" and value is not None:
        return _spread(value)
    if name == "partition" and isinstance(value, dict):
        return _partition(value)
    if name == "class_weight" and isinstance(value, str):
        return _weights_by_rule(value, class_counts)
    return value


def _balance(arguments: object) -> Balance:
    if isinstance(arguments, Balance):
        return arguments
    if not isinstance(arguments, dict):
        raise TypeError(
            f"Expected `balance` to be the arguments of a Balance, got {arguments!r}; "
            "write balance={} for its defaults."
        )
    return Balance(**arguments)


def _partition(arguments: dict[str, Any]) -> ValueBins | Cover:
    if "edges" in arguments:
        return ValueBins(**arguments)
    if "n_cells" in arguments:
        return Cover(**arguments)
    raise TypeError(
        "Expected `partition` to be the arguments of ValueBins or of a Cover, got "
        f'{arguments!r}; write partition={{"edges": [1, 10]}} or partition={{"n_cells": 3}}, and '
        "a balance by its name, balance={}."
    )


def _spread(given: object) -> Spread:
    if isinstance(given, Spread):
        return given
    if not isinstance(given, dict) or len(given) != 1:
        raise TypeError(
            f"Expected `spread` to be one entry, its name and its number, got {given!r}; "
            'write spread={"hardest": 0.1} or spread={"worst_neighbour": 3}.'
        )
    ((name, number),) = given.items()
    check_choice("spread", name, _SPREADS)
    return _SPREADS[name](number)


def split_call(text: str) -> tuple[str | None, str]:
    """Split "package.module:Name(1)" into the module, or None, and the call."""
    before, parenthesis, options = text.strip().partition("(")
    path, colon, name = before.rpartition(":")
    return path if colon else None, name + parenthesis + options


def parse_call(call: str, text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name, the positional and the named options of `Name(1, b=2)`.

    They are literals, or each a `Value`.
    """
    try:
        tree = ast.parse(call, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            keywords = {str(option.arg): option.value for option in tree.keywords if option.arg}
            if len(keywords) == len(tree.keywords):
                return (
                    tree.func.id,
                    [read_value(option) for option in tree.args],
                    {name: read_value(option) for name, option in keywords.items()},
                )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    near = suggest_loss(text) if re.fullmatch(r"[\w -]+", text) else ""
    raise ValueError(
        "Expected a loss as a name of the catalogue or package.module:Class, with options as "
        'literals or objects of ours, like "FocalLoss(gamma=2.0)" or "FocalLoss(balance={})" or '
        '"RegionLoss(Matthews())", or a sum, "FocalLoss + 0.5 * torch.nn:CrossEntropyLoss", '
        f"got {text!r}.{near}"
    )


def _import(path: str, class_name: str, text: str) -> type[nn.Module]:
    if path.endswith(".py") or "/" in path:
        raise ValueError(
            f"Expected an import path, package.module:Class, got the file {path!r}; run in its "
            "folder and drop the .py."
        )
    try:
        if path.partition(".")[0] in LIBRARIES:
            module = import_installed(path)
        else:
            module = _import_own(path)
    except Exception as problem:  # importing runs the module, which may fail in any way
        sentence = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise ValueError(
            f"Expected an import path that resolves, got {text!r} ({sentence})."
        ) from problem
    loss_class = getattr(module, class_name, None)
    if loss_class is None:
        near = suggest(class_name, (name for name in dir(module) if name.endswith("Loss")))
        raise ValueError(f"Expected a class of the module {path}, got {class_name!r}.{near}")
    if not (isinstance(loss_class, type) and issubclass(loss_class, nn.Module)):
        raise ValueError(f"Expected {path}:{class_name} to be a torch.nn.Module class.")
    return loss_class


def _import_own(path: str) -> ModuleType:
    """Import a module of the user, also from the working directory.

    The installed command does not search it.
    """
    searched = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(path)
    finally:
        sys.path[:] = searched


def _check_loads_nothing(loss_class: type[nn.Module]) -> None:
    """Refuse a loss of a known library that loads a network, from a hub or a folder."""
    module = loss_class.__module__
    if module.partition(".")[0] not in LIBRARIES:
        return
    options = inspect.signature(loss_class).parameters
    if "erceptual" in f"{module}:{loss_class}" or any(map(_LOADED.search, options)):
        raise ValueError(
            f"{loss_class.__name__} loads a network, which may run code that comes with it; pass "
            "it from Python, Recipe.of(config, loss=...)."
        )


def _sentence(problem: Exception) -> str:
    """Return the message of an exception on one line, with one full stop."""
    sentence = " ".join(str(problem).split())
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."
