"""The folder of a run holds its own files: links that lead out of it are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dense_imb.base.refusals import Refused, literal
from dense_imb.hits.drift import VALIDATION_EVENTS
from dense_imb.runs.natural import NATURAL
from dense_imb.runs.read_out import READ_OUT
from dense_imb.runs.stages import FIRST
from dense_imb.runs.write import CHECKPOINTS, SCORES

_FOLDERS = ("", CHECKPOINTS, NATURAL, READ_OUT)
_FILES = ("config.yaml", "history.csv", "metrics.json", "environment.json", SCORES,
          VALIDATION_EVENTS)  # fmt: skip
_SUFFIXES = (".pt", ".sha256", ".safetensors", ".json")  # of other files that are read


def check_confined(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder of a run with links out of it, or with pipes or devices.

    Only files that are read are checked. The folder itself may be a link.
    """
    root = Path(folder).resolve()
    for name in _FOLDERS:
        place = root / name
        _check_inside(place, root)
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name in (*_FILES, *_FOLDERS, FIRST) or entry.name.endswith(_SUFFIXES):
                    _check_entry(entry, root)


def _check_entry(entry: os.DirEntry[str], root: Path) -> None:
    if entry.is_symlink():
        _check_inside(Path(entry.path), root)
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:  # a writer has just replaced it
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Refused(
            f"files and folders in the run {literal(root)}",
            f"{entry.name}, a pipe or a device",
            "remove it",
        )


def _check_inside(path: Path, root: Path) -> None:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise Refused(
            f"{literal(path)} to be in the folder of its run",
            f"a link to {real}",
            "copy the file to its place",
        )
