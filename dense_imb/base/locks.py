"""Locks of folders: they end with the process that holds them, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dense_imb.base.refusals import Refused

LOCK = ".lock"  # file that processes lock, in the folder of a run or of a comparison


@contextmanager
def locked_folder(folder: Path, *, makes_file: bool = True) -> Iterator[None]:
    """Work alone in a folder; refuse one that another process works in.

    Args:
        folder: folder, which exists.
        makes_file: lock the file `.lock` in the folder. Otherwise the folder itself is locked,
            which leaves no file; a file system without such locks then has none.
    """
    handle = _open(folder, makes_file=makes_file)
    try:
        if not _take(handle, makes_file=makes_file):
            raise Refused(
                "a folder that no other process works in",
                f"{folder}, which one does",
                "wait for it or choose another name",
            )
        yield
    finally:
        os.close(handle)


@contextmanager
def shared_folder(folder: Path, begin: Callable[[], object]) -> Iterator[None]:
    """Work in a folder beside other processes that do the same work.

    Args:
        folder: folder, which exists.
        begin: called if no other process works in the folder; others wait for it.
    """
    handle = _open(folder, makes_file=False)
    try:
        if _take(handle, makes_file=False):
            begin()
        with suppress(OSError):  # a file system without such locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _open(folder: Path, *, makes_file: bool) -> int:
    if makes_file:
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)


def _take(handle: int, *, makes_file: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not makes_file
    return True
