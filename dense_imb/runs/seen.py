"""Hashes of the samples that a run was trained and validated on, to find them among others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from dense_imb.base.files import UnreadableFileError, decoding, write_whole
from dense_imb.data.hashes import WORDS, SampleHashes, hash_samples
from dense_imb.runs.read import Run
from dense_imb.tasks.mean_teacher import SemiSupervised

HASHES = "sample_hashes.safetensors"  # in the folder of a run
SILENCE = "or silence this with --allow-overlap (allow_overlap=True)"
_TRAIN, _VALIDATION, _UNLABELLED = "train", "validation", "unlabelled"
_LARGEST = 1 << 30  # bytes of the file
_DID = {_TRAIN: "trained on", _VALIDATION: "validated on", _UNLABELLED: "trained on, unlabelled"}


class OverlapWarning(UserWarning):
    """Samples that are measured on, and trained on, too."""


def write_hashes(folder: Path, task: Any, name: str, *, allow_overlap: bool = False) -> None:
    """Write the hashes of a task's samples, unless they are there; warn of samples in two parts.

    A damaged file is written again.

    Args:
        folder: folder of the run.
        task: task of the run.
        name: name of the samples, "events" or "images".
        allow_overlap: warn of nothing.
    """
    if (folder / HASHES).exists() and _is_readable(folder / HASHES):
        return
    labelled = task.task if isinstance(task, SemiSupervised) else task
    parts = {_TRAIN: labelled.train, _VALIDATION: labelled.validation}
    if isinstance(task, SemiSupervised):
        parts[_UNLABELLED] = task.unlabelled.samples
    hashes = {part: hash_samples(samples, show_progress=True) for part, samples in parts.items()}
    write_whole(folder / HASHES, lambda to: _save(hashes, to))
    if allow_overlap:
        return
    held_out = hashes.pop(_VALIDATION)
    sentence = _sentence(f"validation {name}", "this run is", held_out, hashes)
    if sentence:
        warnings.warn(f"{sentence}, {SILENCE}", OverlapWarning, stacklevel=3)


def read_hashes(run: Run) -> dict[str, SampleHashes] | None:
    """Read the hashes of a run's samples by part; None if it has none, as runs of older versions.

    Raises `UnreadableFileError` if the file is damaged.
    """
    path = run.folder / HASHES
    return _read(path) if path.is_file() else None


def _read(path: Path) -> dict[str, SampleHashes]:
    wanted = f"hashes of samples in {path}"
    if path.stat().st_size > _LARGEST:
        raise UnreadableFileError(f"Expected {wanted}, got more than {_LARGEST:,} bytes.")
    with decoding(wanted):
        stored = load_file(path)
        names = ("n", "exact", "near")
        if not stored or {name.partition(".")[2] for name in stored} != {*names}:
            raise ValueError(f"the entries {sorted(stored)[:9]}")
        return {
            part: _checked(*(stored[f"{part}.{name}"] for name in names))
            for part in _DID
            if f"{part}.exact" in stored
        }


def _is_readable(path: Path) -> bool:
    try:
        _read(path)
    except UnreadableFileError:
        return False
    return True


def describe_overlap(runs: Sequence[Run], samples: Any, most: int | None = None) -> str:
    """Describe the test samples that runs were trained or validated on; "" for none.

    Runs of older versions keep no hashes, and are passed over. Runs whose hashes are damaged are
    named.

    Args:
        runs: the runs.
        samples: test samples, see `hash_samples`.
        most: number of samples that are measured; all by default.
    """
    stored, damaged = [], []
    for run in runs:
        try:
            hashes = read_hashes(run)
        except UnreadableFileError:
            damaged.append(
                f"{run.folder / HASHES} is damaged, so test {run.kind.samples} that the run was "
                "trained on cannot be found; repeat its training command with --resume, which "
                "writes the file again"
            )
            continue
        if hashes:
            stored.append((run, hashes))
    if not stored:
        return ". ".join(damaged)
    asked = hash_samples(samples, most)
    sentences = [
        _sentence(f"test {run.kind.samples}", f"{run.folder} was", asked, hashes)
        for run, hashes in stored
    ]
    return ". ".join(sentence for sentence in (*sentences, *damaged) if sentence)


def _sentence(what: str, who: str, asked: SampleHashes, others: Mapping[str, SampleHashes]) -> str:
    """Return the sentence about samples among the parts of a run; "" if there are none.

    Args:
        what: name of the samples, in the plural.
        who: the run, and its verb.
        asked: the samples.
        others: parts of the run.
    """
    counts = {part: asked.overlap(content) for part, content in others.items()}
    clauses = [
        f"{_DID[part]} {overlap.total:,} of the {asked.n:,} {what} ({overlap.describe()})"
        for part, overlap in counts.items()
        if not overlap.is_chance
    ]
    return (
        f"{who} {' and '.join(clauses)}, whose scores are too good; take others" if clauses else ""
    )


def _checked(n: NDArray[Any], exact: NDArray[Any], near: NDArray[Any]) -> SampleHashes:
    """Return hashes out of a file; refuse other shapes and types."""
    is_sound = (
        exact.ndim == 1
        and near.ndim == 2
        and near.shape[1:] == (WORDS,)
        and len(near) in (0, len(exact))
    )
    if not is_sound or exact.dtype != np.uint64 or near.dtype != np.uint64:
        raise ValueError(f"Expected hashes, got {exact.dtype} of {exact.shape} and {near.shape}.")
    return SampleHashes(int(n.item()), exact, near)


def _save(hashes: Mapping[str, SampleHashes], to: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for part, content in hashes.items():
        kept = content.sorted()
        arrays |= {
            f"{part}.n": np.array([kept.n], np.int64),
            f"{part}.exact": kept.exact,
            f"{part}.near": kept.near,
        }
    stored = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    to.write_bytes(stored)  # save_file hides a full disk
