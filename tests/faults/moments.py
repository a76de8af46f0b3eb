"""Moments at which a command is disturbed: each change of a file or a folder is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder: Path, act: Callable[[int, str | None], object]) -> None:
    """Call `act` before each change that this process makes below a folder.

    Files that are opened to be written, renamed, removed or synchronised count. A process that is
    killed there leaves the same at each repetition.

    Args:
        folder: the folder.
        act: called with 0, 1, 2 ..., and the name of a file that is opened to be written anew.
    """
    n = 0
    is_acting = False

    def happened(begun: str | None = None) -> None:
        nonlocal n, is_acting
        if is_acting:
            return
        is_acting, n = True, n + 1
        try:
            act(n - 1, begun)
        finally:
            is_acting = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        is_new = False
        if event == "open":
            path, _, flags = args
            if not (flags or 0) & _WRITES:
                return
            is_new = bool(flags & (os.O_TRUNC | os.O_EXCL))
        elif event in _CHANGES:
            path = args[0]
        else:
            return
        if isinstance(path, (str, bytes)) and _is_below(os.fsdecode(path), folder):
            happened(os.fsdecode(path) if is_new else None)

    fsync = os.fsync

    def synchronise(descriptor: Any) -> None:
        happened()
        fsync(descriptor)

    os.fsync = synchronise
    sys.addaudithook(hook)


def tear(path: str) -> None:
    """Leave a file as a process does that is killed while it writes: begun, and not ended."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(descriptor, b"half")
        os.close(descriptor)


def _is_below(path: str, folder: Path) -> bool:
    return os.path.abspath(path).startswith(f"{folder}/")
