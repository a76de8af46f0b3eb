"""Texts of what users see of the package: public names, and the help of every command."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from unittest import mock

import dense_imb
from dense_imb import cli

FOLDER = Path(__file__).parent
_WIDTH = "100000"  # characters: no line is wrapped, so that none breaks at a hyphen


def packages() -> list[str]:
    """Return the public packages; those of a missing library among them."""
    root = Path(next(iter(dense_imb.__path__)))
    folders = sorted(path.parent.relative_to(root.parent) for path in root.rglob("__init__.py"))
    names = [".".join(folder.parts) for folder in folders]
    return [name for name in names if "._" not in name]


def commands() -> list[tuple[str, ...]]:
    """Return the words that print every help text; none for `dense-imb` itself."""
    names = [tuple(name.split()) for name in cli.COMMANDS]
    everything = [(*name, "--help", "all") for name in names if name[0] == "train"]
    return [(), ("train",), *((*name, "--help") for name in names), *everything]


def names_text(package: str) -> str:
    """Return the public names of a package, a line each.

    Modules count where `__all__` lists them only, as `dir` holds those that were imported so far.
    A package without `__all__` is a shelf of modules: their names follow, marked as modules.
    """
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        names = sorted(module.__all__)
    else:
        public = (name for name in dir(module) if not name.startswith("_"))
        names = [name for name in public if _is_own(getattr(module, name))]
        names += [
            f"{one.name} (module)"
            for one in pkgutil.iter_modules(module.__path__)
            if not one.name.startswith("_")
        ]
    return "".join(f"{name}\n" for name in names)


def _is_own(value: object) -> bool:
    if isinstance(value, ModuleType):
        return False
    home = str(getattr(value, "__module__", "dense_imb"))
    return home.startswith("dense_imb") and "._" not in home


def help_text(words: tuple[str, ...]) -> str:
    """Return the help of a command without its usage; runs of white space are one space."""
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS=_WIDTH),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        cli.main(words)
    usage, _, text = printed.getvalue().partition("\n\n")
    assert usage.startswith("usage: "), usage
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines)


def snapshot_path(kind: str, name: str) -> Path:
    """Return the file of a snapshot: names/dense_imb.losses.txt, help/train.txt."""
    return FOLDER / kind / f"{name}.txt"


def command_name(words: tuple[str, ...]) -> str:
    """Return what the file of a command is called."""
    return "-".join(("dense-imb", *(word for word in words if word != "--help")))
