"""A row of the table of formats."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import cut, mutated_bytes

# changes a file, or a folder; True if the content must then be refused, or read as it was
Mutator = Callable[[random.Random, Path], bool]


def accept(path: Path, content: list[Any]) -> str:
    """Find nothing wrong."""
    return ""


@dataclass(frozen=True)
class Format:
    """A format: valid files, their readers, and ways to damage them.

    Args:
        make: writes valid files, or folders, to an empty folder; a mutant is a copy of one.
        readers: read a file as commands do, and return its content.
        mutators: changes, each drawn as often as the others.
        check: tells from the file what is wrong with the contents that were read, "" for nothing;
            None stands for a reader that refused.
        needs: packages without which the format is skipped.
        seconds: processor time that a mutant may take.
    """

    make: Callable[[Path], object]
    readers: tuple[Callable[[Path], Any], ...]
    mutators: tuple[Mutator, ...]
    check: Callable[[Path, list[Any]], str] = accept
    needs: tuple[str, ...] = ()
    seconds: int = 3


def of_bytes(*, sealed: bool, header: int = 256) -> Mutator:
    """Return a mutator of the bytes of a file.

    Args:
        sealed: the file has checksums of all its bytes.
        header: bytes at the front that are changed half of the time.
    """

    def change_bytes(rng: random.Random, path: Path) -> bool:
        path.write_bytes(mutated_bytes(rng, path.read_bytes(), header=header))
        return sealed

    return change_bytes


def truncate(rng: random.Random, path: Path) -> bool:
    """Cut a file of a format that declares its size."""
    path.write_bytes(cut(rng, path.read_bytes()))
    return True


def unsealed(mutator: Mutator) -> Mutator:
    """Return a mutator whose changes the format cannot tell."""

    def change(rng: random.Random, path: Path) -> bool:
        mutator(rng, path)
        return False

    change.__name__ = mutator.__name__
    return change


def unsealed_reader(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a reader that compares no checksums, whose content is not compared either."""

    def read_unsealed(path: Path) -> None:
        read(path)

    return read_unsealed
