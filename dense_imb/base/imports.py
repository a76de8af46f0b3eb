"""Imports of installed packages, without the current folder, whose files may come from anybody."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_OURS = Path(__file__).resolve().parents[2]  # folder that this package is imported from


@contextmanager
def installed_only() -> Iterator[None]:
    """Import without searching the current folder.

    `python -m` searches it first, and so does an empty entry of PYTHONPATH: a file kornia.py beside
    somebody's data would be the package kornia.
    """
    searched = list(sys.path)
    sys.path[:] = without_current_folder(searched)
    try:
        yield
    finally:
        sys.path[:] = searched


def without_current_folder(searched: list[str]) -> list[str]:
    """Return the folders that imports search, without the current one.

    It stays where this package is imported from it, as in a checkout.
    """
    here = Path.cwd()
    if here == _OURS:
        return list(searched)
    return [folder for folder in searched if Path(folder or os.curdir).resolve() != here]


def import_installed(name: str) -> ModuleType:
    """Import a module of an installed package, never one of the current folder.

    Example:
        >>> import_installed("torch.nn").__name__
        'torch.nn'
    """
    with installed_only():
        return importlib.import_module(name)
