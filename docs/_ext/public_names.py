"""Public names of dense_imb, and the page of each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sphinx.ext.autodoc.mock import mock

import dense_imb

# modules that users import by their own name; those of missing libraries are read all the same
_MODULES = ("dense_imb.integrations.lightning",)
_MOCKED = ["lightning"]


@dataclass(frozen=True)
class Name:
    """One public name.

    Args:
        package: package that the page of the name belongs to.
        name: name in that package.
        value: class, function or constant.
    """

    package: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        """Import path, which is also the name of the page."""
        return f"{self.package}.{self.name}"

    @property
    def kind(self) -> str:
        """Kind of object in Sphinx's words: class, exception, function or data."""
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if inspect.isroutine(self.value) else "data"


@dataclass(frozen=True)
class Package:
    """One public package or module with its `__all__`.

    Args:
        module: the package itself.
        listed: the entry of each name of `__all__`; its package may be another one.
    """

    module: ModuleType
    listed: tuple[Name, ...]

    @property
    def own(self) -> tuple[Name, ...]:
        """Names whose page belongs to this package."""
        return tuple(one for one in self.listed if one.package == self.module.__name__)


def read_packages() -> dict[str, Package]:
    """Return the public packages by name.

    A name in several packages has one page: in the package that its module lies in, else in the
    first one.
    """
    modules = {name: _import(name) for name in (*_package_names(), *_MODULES)}
    modules = {name: module for name, module in modules.items() if hasattr(module, "__all__")}
    homes: dict[int, Name] = {}
    for name in sorted(modules, key=len, reverse=True):
        for listed in modules[name].__all__:
            value = getattr(modules[name], listed)
            key = _key(name, listed, value)
            home = str(getattr(value, "__module__", name))
            if key not in homes or (_is_in(home, name) and not _is_in(home, homes[key].package)):
                homes[key] = Name(name, listed, value)
    return {
        name: Package(
            module,
            tuple(homes[_key(name, one, getattr(module, one))] for one in sorted(module.__all__)),
        )
        for name, module in sorted(modules.items())
    }


def qualified_names(packages: Mapping[str, Package]) -> dict[str, str]:
    """Return the page of every spelling: public path, defining module, and the bare name.

    Bare names that two packages define differently are left out.
    """
    pages: dict[str, str] = {}
    bare: dict[str, set[str]] = {}
    for package in packages.values():
        for name, one in zip(sorted(package.module.__all__), package.listed, strict=True):
            pages[f"{package.module.__name__}.{name}"] = one.path
            home = getattr(one.value, "__module__", None)
            if one.kind != "data" and home:
                pages[f"{home}.{one.value.__qualname__}"] = one.path
            bare.setdefault(name, set()).add(one.path)
    return pages | {name: paths.pop() for name, paths in bare.items() if len(paths) == 1}


def _package_names() -> list[str]:
    found = pkgutil.walk_packages(dense_imb.__path__, "dense_imb.")
    names = [one.name for one in found if one.ispkg and "._" not in one.name]
    return ["dense_imb", *names]


def _import(name: str) -> ModuleType:
    with mock(_MOCKED if name in _MODULES else []):
        module = importlib.import_module(name)
    if name in _MODULES:
        module.__all__ = [  # type: ignore[attr-defined]
            one
            for one, value in vars(module).items()
            if getattr(value, "__module__", None) == name and not one.startswith("_")
        ]
    return module


def _key(package: str, name: str, value: Any) -> int | str:
    """Return one key for equal objects; constants may be equal by chance, so they have names."""
    return id(value) if hasattr(value, "__qualname__") else f"{package}.{name}"


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
