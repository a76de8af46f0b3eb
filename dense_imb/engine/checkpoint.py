"""Checkpoints: written atomically, checked by a digest, loaded without running code."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.bundles import check_bundle
from dense_imb.base.files import write_whole
from dense_imb.base.refusals import Refused

FORMAT = "dense-imb-checkpoint"
_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another program or of another setup.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.engine import CheckpointError, load_checkpoint
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "best.pt"
        >>> _ = path.write_bytes(b"half a file")
        >>> try:
        ...     load_checkpoint(path)
        ... except CheckpointError:
        ...     print("take an older one")
        take an older one
    """


class OtherSetupError(Refused, CheckpointError):
    """A checkpoint was made with another setup than that of the run."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was skipped.

    Example:
        >>> import warnings
        >>> from dense_imb.engine import CheckpointWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CheckpointWarning)  # stop at a damaged one
    """


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a checkpoint and its digest, atomically.

    An existing file of that name stays whole until the new one is complete.

    Args:
        path: file to write; the digest goes to the same name with .sha256.
        state: tensors, numbers, strings and containers of them.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from dense_imb.engine import load_checkpoint, save_checkpoint
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "step-00000010.pt"
        >>> save_checkpoint(path, {"step": 10, "weight": torch.ones(2)})
        >>> sorted(one.name for one in path.parent.iterdir()), load_checkpoint(path)["step"]
        (['step-00000010.pt', 'step-00000010.pt.sha256'], 10)
    """
    path = Path(path)
    # through memory: torch's own writer hides a full disk behind a RuntimeError
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": _VERSION, **state}, buffer)
    content = buffer.getvalue()

    def write(partial: Path) -> None:
        partial.write_bytes(content)
        # before the old file is replaced: a full disk changes nothing
        write_whole(digest_of(path), lambda beside: beside.write_text(_digest(content)))

    try:
        write_whole(path, write)
    except OSError:
        if not path.exists():
            digest_of(path).unlink(missing_ok=True)
        raise


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a checkpoint to the CPU; raise `CheckpointError` if anything is wrong with it.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from dense_imb.engine import load_checkpoint, save_checkpoint
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "best.pt"
        >>> save_checkpoint(path, {"step": 10, "weight": torch.ones(2)})
        >>> load_checkpoint(path)
        {'format': 'dense-imb-checkpoint', 'version': 1, 'step': 10, 'weight': tensor([1., 1.])}
    """
    path = Path(path)
    cure = "use an older checkpoint or train again"
    try:
        content = path.read_bytes()
        if digest_of(path).read_text().strip() != _digest(content):
            raise CheckpointError(f"Expected {path} as it was written, got other bytes; {cure}.")
        check_bundle(io.BytesIO(content))
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
            f"Expected a dense_imb checkpoint in {path}, got {sentence!r}; {cure}."
        ) from problem
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"Expected a dense_imb checkpoint in {path}, got another file.")
    if state.get("version") != _VERSION:
        raise CheckpointError(
            f"Expected version {_VERSION} of a checkpoint in {path}, got {state.get('version')}."
        )
    return dict(state)


def check_weights(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint without plain weights and a setup.

    Args:
        content: content of the checkpoint.
        path: its file, for the error.
    """
    weights, setup = content.get("network"), content.get("setup")
    if not isinstance(weights, dict) or not isinstance(setup, dict):
        raise CheckpointError(f"Expected weights and a setup in {path}, got another checkpoint.")
    for name, value in weights.items():
        if not _is_plain(value):
            raise CheckpointError(
                f"Expected the weights `{name}` of {path} as a plain tensor, got "
                f"{type(value).__name__ if not isinstance(value, Tensor) else 'another kind'}; use "
                "an older checkpoint or train again."
            )


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor of numbers that is stored whole."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
        # an expanded tensor can declare any size over a few stored bytes
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def newest_checkpoint(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Load the newest undamaged checkpoint of a folder; None if it has no checkpoint."""
    problems = []
    for path in sorted(Path(folder).glob("step-*.pt"), reverse=True):
        try:
            return load_checkpoint(path)
        except CheckpointError as problem:
            problems.append(str(problem))
            warnings.warn(f"checkpoint skipped: {problem}", CheckpointWarning, stacklevel=2)
    if problems:
        raise CheckpointError(f"Expected one whole checkpoint in {folder}, got none: {problems[0]}")
    return None


def prune_checkpoints(folder: str | os.PathLike[str], keep: int = 2) -> None:
    """Remove all but the newest checkpoints of a folder, and all but the newest best ones.

    Args:
        folder: folder of checkpoints.
        keep: number of each to keep; with two, one may be damaged.
    """
    for kind in ("step", "best"):
        for path in sorted(Path(folder).glob(f"{kind}-*.pt"), reverse=True)[keep:]:
            path.unlink(missing_ok=True)
            digest_of(path).unlink(missing_ok=True)


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a digest of the state of a network: names and bytes.

    Example:
        >>> digest_weights({"scale": torch.ones(2)})
        'f16b16bcbea8e60c99bb5d037e2afbdd'
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in weights.items():
        digest.update(name.encode())
        stored = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(stored.numpy().data)
    return digest.hexdigest()


def digest_of(path: Path) -> Path:
    """Return the path of a checkpoint's digest."""
    return path.with_name(path.name + ".sha256")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
