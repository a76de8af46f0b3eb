"""A watch on the process: files that it reads, programs, connections, code, pickles."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch

_PROGRAMS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn",
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "ftplib",
)  # fmt: skip
_DANGEROUS = ("os", "posix", "nt", "subprocess", "builtins", "importlib", "runpy", "shutil")
_INSTALLED = {
    Path(place).expanduser().resolve()
    for place in (
        sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), Path(__file__).parents[2],
        Path(torch.__file__).parents[1], Path(numpy.__file__).parents[1],
        "~/.cache/matplotlib", "/proc", "/sys", "/dev", "/etc", "/usr", "/lib",
    )
}  # fmt: skip


@dataclass
class Watch:
    """Record of a block.

    Args:
        folders: folders whose files may be read.
    """

    folders: tuple[Path, ...]
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record an event that must not happen."""
        if event.startswith(_PROGRAMS):
            self.seen.append(f"{event}{arguments!r:.200}")
        elif event == "pickle.find_class" and arguments[0] in _DANGEROUS:
            self.seen.append(f"{event}{arguments!r}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = Path(os.fsdecode(arguments[0])).resolve()
            if not any(path.is_relative_to(place) for place in (*self.folders, *_INSTALLED)):
                self.seen.append(f"{event} {path}")
        elif event == "exec":
            name = str(getattr(arguments[0], "co_filename", ""))
            path = Path(name).absolute()
            if not name.startswith("<") and any(
                path.is_relative_to(place) for place in self.folders
            ):
                self.seen.append(f"{event} {path}")


_active: list[Watch] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active:
        watch = _active.pop()  # the watch itself may open a file
        try:
            watch(event, arguments)
        finally:
            _active.append(watch)


sys.addaudithook(_hook)  # for ever: Python has no way to remove it


@contextmanager
def nothing_but(*folders: Path) -> Iterator[Watch]:
    """Fail if the block runs a program, connects, runs code of the folders or reads elsewhere."""
    watch = Watch(tuple(folder.resolve() for folder in folders))
    _active.append(watch)
    try:
        yield watch
    finally:
        _active.remove(watch)
    assert not watch.seen, watch.seen[:5]
