"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a file of another name, then move it to `path`: no half-written result."""
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
        # a full disk is met by a write, which knows no name
        raise OSError(problem.errno, os.strerror(problem.errno), str(path)) from problem
    finally:
        partial.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Say in one sentence that an output is there already, unless it may go."""
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name, got the folder {path}.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"Expected no file at {path}, got one; choose another name or overwrite it "
            "(overwrite=True, --overwrite)."
        )
