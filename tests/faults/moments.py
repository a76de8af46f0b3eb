"""Moments at which a command is disturbed: each change of a file or a folder is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder: Path, act: Callable[[int], object]) -> None:
    """Call `act` with 0, 1, 2 ... before each change that this process makes below a folder.

    Files that are opened to be written, renamed, removed or synchronised count; a process that is
    killed there leaves what a kill at the worst moment leaves, and the same at each repetition.
    """
    n = 0
    is_acting = False

    def happened() -> None:
        nonlocal n, is_acting
        if is_acting:
            return
        is_acting, n = True, n + 1
        try:
            act(n - 1)
        finally:
            is_acting = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (flags or 0) & _WRITES:
                return
        elif event in _CHANGES:
            path = args[0]
        else:
            return
        if isinstance(path, (str, bytes)) and _is_below(os.fsdecode(path), folder):
            happened()

    fsync = os.fsync

    def synchronise(descriptor: Any) -> None:
        happened()
        fsync(descriptor)

    os.fsync = synchronise
    sys.addaudithook(hook)


def _is_below(path: str, folder: Path) -> bool:
    return os.path.abspath(path).startswith(f"{folder}/")
