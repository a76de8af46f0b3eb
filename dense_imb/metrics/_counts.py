"""Counts that add up: over batches, workers and processes, and in a JSON file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from dense_imb.base.files import write_whole

_VERSION = 1


class StreamingCounts:
    """A score that is a function of sums; what is summed is `_tensors`, all on the CPU."""

    def _settings(self) -> dict[str, Any]:
        """Arguments of the constructor, for JSON; parts add up only where these agree."""
        raise NotImplementedError

    def _tensors(self) -> tuple[Tensor, ...]:
        """The sums, in an order and in shapes that the settings fix."""
        raise NotImplementedError

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings)

    def merge(self, other: Self) -> Self:
        """Add the counts of another part of the data, of a worker say; returns itself."""
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
        """Sum over all processes of the default group, if there is one; returns itself.

        In place: call it once, at the end, on every process, also on one that saw no data.
        """
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            # float64 holds every count below 2^53 exactly, and sums of times beside them
            packed = torch.cat([tensor.reshape(-1).double() for tensor in self._tensors()])
            packed = packed.to(device)
            dist.all_reduce(packed)
            totals = torch.split(packed.cpu(), [tensor.numel() for tensor in self._tensors()])
            for tensor, total in zip(self._tensors(), totals, strict=True):
                tensor.copy_(total.reshape(tensor.shape))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON: to a temporary name, then moved into place."""
        counts = [tensor.reshape(-1).tolist() for tensor in self._tensors()]
        write_json(path, type(self).__name__, {"settings": self._settings(), "counts": counts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote."""
        with reading_json(path, cls.__name__) as stored:
            found = cls._from_settings(stored["settings"])
            for tensor, counts in zip(found._tensors(), stored["counts"], strict=True):
                tensor.copy_(torch.tensor(counts, dtype=tensor.dtype).reshape(tensor.shape))
        return found


def share(part: Tensor | float, whole: Tensor | float) -> float:
    """Return part / whole, NaN where there is nothing to have a share of."""
    return float(part) / float(whole) if whole > 0 else math.nan


def in_float64(value: Tensor) -> Tensor:
    """Return the value in float64, that holds every narrower type exactly, without gradient."""
    # Apple's devices have no float64
    return (value.cpu() if value.device.type == "mps" else value).detach().double()


def _format(kind: str) -> str:
    return f"dense-imb-{kind}"


def write_json(path: str | os.PathLike[str], kind: str, content: dict[str, Any]) -> None:
    """Write a dictionary to a temporary name and move it into place."""
    # strict JSON knows no NaN: write such numbers as strings
    text = json.dumps({"format": _format(kind), "version": _VERSION, **content}, allow_nan=False)
    write_whole(path, lambda to: to.write_text(text))


@contextmanager
def reading_json(path: str | os.PathLike[str], kind: str) -> Iterator[dict[str, Any]]:
    """Yield what `write_json` wrote; what goes wrong inside is a foreign or damaged file."""
    try:
        stored = json.loads(Path(path).read_text())
        if stored["format"] != _format(kind) or stored["version"] != _VERSION:
            raise KeyError("format")
        yield stored
    except (ValueError, KeyError, TypeError, RuntimeError) as why:
        raise ValueError(
            f"Expected JSON of version {_VERSION} of {kind} in {os.fspath(path)}, got something "
            f"else ({why}); make it again with {kind}.save."
        ) from why
