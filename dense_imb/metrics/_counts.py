"""Base class of streaming scores: sums over batches, workers and processes, saved as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from dense_imb.base.files import write_whole
from dense_imb.base.tabular import Rows, Tabular

_VERSION = 1


class StreamingCounts(Tabular):
    """Base class of scores that are functions of sums: `_tensors`, all on the CPU.

    Example:
        >>> import torch
        >>> from dense_imb.metrics import ScoreHistogram, StreamingCounts
        >>> whole, worker = ScoreHistogram(), ScoreHistogram()
        >>> isinstance(whole, StreamingCounts)
        True
        >>> whole.update(torch.tensor([0.9, 0.1]), torch.tensor([True, False]))
        >>> worker.update(torch.tensor([0.2]), torch.tensor([False]))
        >>> whole.merge(worker)
        ScoreHistogram(1 signal, 2 noise; AUC 1, AP 1)
    """

    _n_newer = 0  # number of the last sums that files of older versions lack

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor for JSON; `merge` needs equal ones."""
        raise NotImplementedError

    def _tensors(self) -> tuple[Tensor, ...]:
        """Return the sums; the settings fix their order and shapes."""
        raise NotImplementedError

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        """Return the counts and the main scores by name, for `repr`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({summary_text(*self._summary())})"

    def table_rows(self) -> Rows:
        """Return a row of the counts and the main scores; some scores return a row a class."""
        counts, scores = self._summary()
        return [{**counts, **scores}]

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings)

    def merge(self, other: Self) -> Self:
        """Add the counts of another part of the data, such as a worker's, and return `self`."""
        if type(other) is not type(self):
            raise TypeError(
                f"Expected `other` to be {type(self).__name__}, got {type(other).__name__}."
            )
        if other._settings() != self._settings():
            raise ValueError(f"Expected `other` with {self._settings()}, got {other._settings()}.")
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine += theirs
        return self

    def reduce_over_processes(self) -> Self:
        """Sum over all processes of the default group, if there is one, and return `self`.

        Works in place: call it once, at the end, on every process, even one without data.
        """
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            # float64 holds counts below 2^53 exactly, and also sums of times
            packed = torch.cat([tensor.reshape(-1).double() for tensor in self._tensors()])
            packed = packed.to(device)
            dist.all_reduce(packed)
            totals = torch.split(packed.cpu(), [tensor.numel() for tensor in self._tensors()])
            for tensor, total in zip(self._tensors(), totals, strict=True):
                tensor.copy_(total.reshape(tensor.shape))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, to a temporary name that is then moved into place."""
        counts = [tensor.reshape(-1).tolist() for tensor in self._tensors()]
        write_json(path, type(self).__name__, {"settings": self._settings(), "counts": counts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the counts that `save` wrote."""
        with reading_json(path, cls.__name__) as stored:
            _check_sizes(stored["settings"], os.path.getsize(path))
            scores = cls._from_settings(stored["settings"])
            tensors, stored_counts = scores._tensors(), stored["counts"]
            if len(stored_counts) == len(tensors) - cls._n_newer:
                tensors = tensors[: len(stored_counts)]
            for tensor, counts in zip(tensors, stored_counts, strict=True):
                tensor.copy_(torch.tensor(counts, dtype=tensor.dtype).reshape(tensor.shape))
        return scores


def _check_sizes(settings: Mapping[str, Any], n_bytes: int) -> None:
    """Refuse settings of more counts than a file of `n_bytes` can hold, before they take memory."""
    n_sums = max(int(settings.get(name) or 1) for name in ("n_classes", "n_channels"))
    others = [int(settings.get(name) or 1) for name in ("n_bins", "calibration_bins")]
    if n_sums * max(n_sums, *others) > n_bytes:
        raise ValueError(f"settings of more counts than its {n_bytes:,} bytes hold")


def summary_text(counts: Mapping[str, int], scores: Mapping[str, float]) -> str:
    """Return counts and scores in one line.

    Example:
        >>> summary_text({"signal": 30, "noise": 2000}, {"AUC": 0.97531})
        '30 signal, 2,000 noise; AUC 0.9753'
    """
    counted = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    return f"{counted}; {', '.join(f'{name} {value:.4g}' for name, value in scores.items())}"


def ratio(part: Tensor | float, whole: Tensor | float) -> float:
    """Return part / whole, NaN where whole is 0."""
    return float(part) / float(whole) if whole > 0 else math.nan


def in_float64(value: Tensor) -> Tensor:
    """Return the value in float64 (exact for all narrower types), without gradient."""
    # Apple's devices have no float64
    return (value.cpu() if value.device.type == "mps" else value).detach().double()


def _format(kind: str) -> str:
    return f"dense-imb-{kind}"


def write_json(path: str | os.PathLike[str], kind: str, content: dict[str, Any]) -> None:
    """Write a dictionary to a temporary name and move it into place."""
    # strict JSON has no NaN: pass such numbers as strings
    text = json.dumps({"format": _format(kind), "version": _VERSION, **content}, allow_nan=False)
    write_whole(path, lambda to: to.write_text(text))


@contextmanager
def reading_json(path: str | os.PathLike[str], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the dictionary that `write_json` wrote.

    Errors inside the block mean a foreign or damaged file, and become one ValueError.
    """
    try:
        stored = json.loads(Path(path).read_text())
        if stored["format"] != _format(kind) or stored["version"] != _VERSION:
            raise KeyError("format")
        yield stored
    except (OSError, MemoryError):
        raise
    except Exception as why:  # whatever the values of a foreign file lead to
        raise ValueError(
            f"Expected JSON of version {_VERSION} of {kind} in {os.fspath(path)}, got something "
            f"else ({why}); write it again with {kind}.save."
        ) from why
