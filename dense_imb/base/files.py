"""Files written whole or not at all, and one sentence for a file that cannot be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dense_imb.base.refusals import RefusedFile

MAX_COMPRESSION = 1100  # deflate packs at most 1032 to 1; a bomb declares more
_SMALL = 1 << 26  # bytes that are read whatever the disk holds


class UnreadableFileError(ValueError):
    """A file that is damaged, dangerous, or of another kind than expected."""


@contextmanager
def decoding(wanted: str) -> Iterator[None]:
    """Raise one `UnreadableFileError` for the exceptions of many kinds that decoders raise.

    Errors of the system (a missing file, no permission, a failing disk), missing libraries and a
    lack of memory pass unchanged.

    Args:
        wanted: what was expected and where, without "Expected": "an image in a.png".

    Example:
        >>> with decoding("a number in a.txt"):
        ...     float("1,5")
        Traceback (most recent call last):
        dense_imb.base.files.UnreadableFileError: Expected a number in a.txt, got could not convert
        string to float: '1,5'.
    """
    try:
        yield
    except (ImportError, MemoryError, UnreadableFileError):
        raise
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        raise UnreadableFileError(f"Expected {wanted}, got {reason_of(problem)}.") from problem


def reason_of(problem: Exception) -> str:
    """Return the first paragraph of an exception on one line, without a full stop."""
    first = str(problem).strip().split("\n\n")[0]
    return " ".join(first.split()).rstrip(".") or type(problem).__name__


def check_stored(path: Path, declared: int) -> None:
    """Refuse a file with far fewer bytes on the disk than it declares, before memory is taken.

    Files with holes declare any size over a few stored bytes. Disks may compress, too.

    Args:
        path: the file.
        declared: bytes that its header declares.
    """
    stored = path.stat().st_blocks * 512
    if declared > _SMALL and declared > stored * MAX_COMPRESSION:
        raise UnreadableFileError(
            f"Expected {path} to be stored whole, got {declared / 1e6:,.1f} MB declared and "
            f"{stored / 1e6:,.1f} MB stored; the file is damaged or hostile."
        )


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then move it to `path`: no half-written result."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as problem:
        if problem.errno is None or problem.filename is not None:
            raise
        # a write that fails on a full disk knows no name
        raise OSError(problem.errno, os.strerror(problem.errno), str(path)) from problem
    finally:
        partial.unlink(missing_ok=True)


def write_whole_folder(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then move it to `path` in place of an earlier one."""
    path = Path(path)
    new, old = (path.with_name(f"{path.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        new.mkdir()
        write(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be overwritten."""
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name, got the folder {path}.")
    if path.exists() and not overwrite:
        raise RefusedFile(
            f"no file at {path}", "one", "choose another name or overwrite it with {overwrite}"
        )


def check_space(path: Path, n_bytes: int) -> None:
    """Refuse to write `n_bytes` to a disk that has less room."""
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise OSError(
            f"Expected room for {n_bytes / 1e6:.1f} MB for {path.name}, got {free / 1e6:.1f} MB "
            f"free in {path.parent}; free some or write elsewhere."
        )
