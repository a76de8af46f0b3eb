"""Examples in the docstrings of all public names: they are there, and pytest runs them.

`python -m tests.test_examples` prints the number of names with an example, and those without.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.snapshots.public import packages

# public names without an example that runs, and why; keep it short
EXCUSED: dict[str, str] = {}
_SKIP = doctest.OPTIONFLAGS_BY_NAME["SKIP"]


class Name(NamedTuple):
    """A public name, and the packages that list it."""

    value: Any
    name: str
    packages: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"{self.packages[0]}.{self.name}"

    @property
    def is_constant(self) -> bool:
        """Whether it has no docstring of its own; that of its package then shows it."""
        return not (inspect.isclass(self.value) or inspect.isroutine(self.value))


def public_names() -> list[Name]:
    """Return every name in the `__all__` of a package once; modules do not count."""
    names: dict[Any, Name] = {}
    for package in packages():
        try:
            module = importlib.import_module(package)
        except ImportError as problem:
            if "dense-imb[" not in str(problem):  # an extra that is not installed
                raise
            continue
        for name in getattr(module, "__all__", ()):
            one = Name(getattr(module, name), name, (package,))
            if not isinstance(one.value, ModuleType):
                key = one.path if one.is_constant else one.value
                first = names.get(key, one)
                names[key] = first._replace(packages=(*first.packages, package))
    return list(names.values())


def examples_of(one: Name) -> list[doctest.Example]:
    """Return the examples in the docstring of a name that use it."""
    texts = [one.value.__doc__]
    if one.is_constant:
        texts = [sys.modules[package].__doc__ for package in one.packages]
    own = {one.name, getattr(one.value, "__name__", one.name)}
    uses = re.compile(rf"\b({'|'.join(map(re.escape, own))})\b")
    parser = doctest.DocTestParser()
    groups = [parser.get_examples(text or "") for text in texts]
    return [
        example
        for group in groups
        if any(uses.search(example.source) for example in group)
        for example in group
    ]


def is_skipped(examples: list[doctest.Example]) -> bool:
    """Tell whether an option keeps an example from running."""
    return any(example.options.get(_SKIP) for example in examples)


def missing() -> Iterator[tuple[str, str]]:
    """Yield every public name without an example that runs, and what is wrong with it."""
    for one in public_names():
        examples = examples_of(one)
        if not examples:
            yield one.path, "no example that uses the name"
        elif is_skipped(examples):
            yield one.path, "the example is skipped"
        elif not one.is_constant and not is_collected(one.value):
            yield one.path, "doctest does not find the example"


def is_collected(value: Any) -> bool:
    """Tell whether doctest finds the docstring of a class or function in its module."""
    return f"{value.__module__}.{value.__qualname__}" in _collected(value.__module__)


@cache
def _collected(module: str) -> set[str]:
    return {test.name for test in doctest.DocTestFinder().find(sys.modules[module])}


def test_every_public_name_has_an_example_that_runs() -> None:
    wrong = dict(missing())
    listed = "\n".join(f"{name}: {why}" for name, why in wrong.items() if name not in EXCUSED)
    assert not listed, f"\n{listed}"


def test_every_excuse_is_needed_and_has_a_reason() -> None:
    known = {one.path for one in public_names()}
    needed = dict(missing())
    assert not [name for name in EXCUSED if name in known and name not in needed]
    assert all(len(why) > 20 for why in EXCUSED.values())


@pytest.mark.parametrize(
    ("text", "n", "skipped"),
    [
        (">>> Shown()", 1, False),
        (">>> 1 + 1", 0, False),
        (">>> Shown()  # doctest: +SKIP", 1, True),
    ],
)
def test_an_example_uses_the_name(text: str, n: int, skipped: bool) -> None:
    shown = type("Shown", (), {"__doc__": f"A class.\n\n{text}\n"})
    examples = examples_of(Name(shown, "Shown", ("tests",)))
    assert len(examples) == n
    assert is_skipped(examples) == skipped


def test_an_example_that_doctest_does_not_find_is_seen() -> None:
    def local() -> None:
        """Do nothing."""

    assert is_collected(Name)
    assert not is_collected(local)


if __name__ == "__main__":
    without = dict(missing())
    n_names = len(public_names())
    print(f"{n_names - len(without)} of {n_names} public names have an example that runs")
    print("\n".join(f"{name}: {why}" for name, why in without.items()))
