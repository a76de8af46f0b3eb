"""Checkpoints: written whole or not at all, checked by a digest, loaded without running them."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from dense_imb.base.files import write_whole

FORMAT = "dense-imb-checkpoint"
_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign or of another setup."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over."""


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, and the digest beside them.

    What had that name stays whole until the new one is.
    """
    path = Path(path)
    # through the memory: torch's own writer hides a full disk behind a RuntimeError
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": _VERSION, **state}, buffer)
    content = buffer.getvalue()

    def write(partial: Path) -> None:
        partial.write_bytes(content)
        # while both names are still the old ones: where there is no room left, nothing changed
        write_whole(digest_of(path), lambda beside: beside.write_text(_digest(content)))

    try:
        write_whole(path, write)
    except OSError:
        if not path.exists():
            digest_of(path).unlink(missing_ok=True)
        raise


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, to the CPU; all that is wrong is a `CheckpointError`."""
    path = Path(path)
    cure = "take an older checkpoint or train again"
    try:
        content = path.read_bytes()
        if digest_of(path).read_text().strip() != _digest(content):
            raise CheckpointError(f"Expected {path} as it was written, got other bytes; {cure}.")
        with warnings.catch_warnings(action="ignore"):  # torch's, about a foreign file
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as problem:
        raise CheckpointError(
            f"Expected a checkpoint with its digest in {path.parent}, got no "
            f"{Path(str(problem.filename)).name}; {cure}."
        ) from problem
    except Exception as problem:  # damaged files raise whatever their bytes lead to
        sentence = str(problem).split("\n", 1)[0]
        raise CheckpointError(
            f"Expected a checkpoint of ours in {path}, got {sentence!r}; {cure}."
        ) from problem
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"Expected a checkpoint of ours in {path}, got a foreign file.")
    if state.get("version") != _VERSION:
        raise CheckpointError(
            f"Expected version {_VERSION} of a checkpoint in {path}, got {state.get('version')}."
        )
    return dict(state)


def newest_checkpoint(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The newest undamaged checkpoint of a folder, None where there is none at all."""
    found = sorted(Path(folder).glob("step-*.pt"), reverse=True)
    problems = []
    for path in found:
        try:
            return load_checkpoint(path)
        except CheckpointError as problem:
            problems.append(str(problem))
            warnings.warn(f"passed over: {problem}", CheckpointWarning, stacklevel=2)
    if problems:
        raise CheckpointError(f"Expected one whole checkpoint in {folder}, got none: {problems[0]}")
    return None


def prune_checkpoints(folder: str | os.PathLike[str], keep: int = 2) -> None:
    """Remove all but the newest of a folder; two, so that one can be damaged.

    Of the best ones two stay as well: the checkpoint before the newest may have had another.
    """
    for kind in ("step", "best"):
        for path in sorted(Path(folder).glob(f"{kind}-*.pt"), reverse=True)[keep:]:
            path.unlink(missing_ok=True)
            digest_of(path).unlink(missing_ok=True)


def digest_of(path: Path) -> Path:
    """Where a checkpoint's digest is kept."""
    return path.with_name(path.name + ".sha256")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
