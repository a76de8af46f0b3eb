"""Temporary files as killed processes leave them behind."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from dense_imb.base import files


@cache
def ended_process() -> int:
    """Return the number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def leave_behind(path: Path, pid: int | None = None, suffix: str = "partial") -> Path:
    """Write what a process leaves that is killed while it writes `path`.

    Args:
        path: file that it was to become.
        pid: number of the process; by default that of one that has ended.
        suffix: ending of the temporary name.
    """
    pid = ended_process() if pid is None else pid
    left = path.with_name(f".{path.name}.{files._machine()}-{pid}-3.{suffix}")
    left.write_bytes(b"half")
    files._cleared.clear()  # as a new process begins
    return left
