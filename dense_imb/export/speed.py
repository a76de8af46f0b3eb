"""Speed of a run's network in PyTorch and in ONNX Runtime, side by side on this machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dense_imb.export.network import exportable
from dense_imb.export.write import onnx_session
from dense_imb.runs import Run, open_run

BATCHES = (1, 16)
_LEAST, _MOST = 5, 200  # repetitions


@dataclass(frozen=True)
class Throughput:
    """Frames, or events of hits, per second at a batch size.

    Args:
        batch: batch size.
        pytorch, onnx: frames or events per second, the median of `n_repetitions`.
        threads: threads of both.
        size: size of a frame, or number of hits in an event.
        n_repetitions: repetitions of each, in turns.
        unit: "frames" or "events".

    Example:
        >>> Throughput(16, 80.0, 120.0, 1, "128 x 88 pixels", 30).ratio
        1.5
    """

    batch: int
    pytorch: float
    onnx: float
    threads: int
    size: str
    n_repetitions: int
    unit: str = "frames"

    @property
    def ratio(self) -> float:
        """Speed of ONNX Runtime divided by that of PyTorch."""
        return self.onnx / self.pytorch

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: PyTorch {self.pytorch:.4g} {self.unit}/s, ONNX Runtime "
            f"{self.onnx:.4g} {self.unit}/s, ratio {self.ratio:.2f} ({self.threads} threads, "
            f"{self.size}, median of {self.n_repetitions})"
        )


@torch.no_grad()
def throughput(
    run: Run | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    batches: tuple[int, ...] = BATCHES,
    seconds: float = 10.0,
) -> list[Throughput]:
    """Measure PyTorch and ONNX Runtime in turns, so that other load slows both alike.

    Args:
        run: the run, or its folder.
        path: its .onnx file.
        batches: batch sizes.
        seconds: time to spend on each batch size.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from PIL import Image
        >>> from dense_imb import LabelsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.export import export_run, throughput
        >>> folder, rng = pathlib.Path(tempfile.mkdtemp()), np.random.default_rng(0)
        >>> for i in range(12):
        ...     pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        ...     Image.fromarray(pixels).save(folder / f"{i}.png")
        >>> rows = "".join(f"{i}.png,{int(i > 7)}\\n" for i in range(12))
        >>> _ = (folder / "train.csv").write_text("name,label\\n" + rows)
        >>> tiny = ModelConfig("resnet32", {"depth": 8, "width": 4})
        >>> labels = LabelsConfig(str(folder / "train.csv"))
        >>> config = TrainConfig(labels=labels, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder / "run", is_quiet=True, device="cpu")
        >>> _ = export_run(run, folder / "tiny.onnx")
        >>> for row in throughput(run, folder / "tiny.onnx", seconds=0.05):
        ...     print(row.batch, row.unit, row.size)
        1 frames 8 x 8 pixels
        16 frames 8 x 8 pixels
    """
    what = exportable(run if isinstance(run, Run) else open_run(run))
    threads = torch.get_num_threads()
    session = onnx_session(Path(path), threads)
    rows = []
    for batch in batches:
        given = what.batch([k % len(what.samples) for k in range(batch)])
        feed = {name: one.numpy() for name, one in zip(what.inputs, given, strict=True)}
        sides: list[Callable[[], object]] = [
            lambda given=given: what.answers(given),  # type: ignore[misc]
            lambda feed=feed: session.run(None, feed),  # type: ignore[misc]
        ]
        times = _in_turns(sides, seconds)
        pytorch, onnx = (batch / statistics.median(one) for one in times)
        size, n_repetitions = what.describe_size(given), len(times[0])
        rows.append(Throughput(batch, pytorch, onnx, threads, size, n_repetitions, what.unit))
    return rows


def _in_turns(sides: list[Callable[[], object]], seconds: float) -> list[list[float]]:
    for side in sides:  # warm up: allocate memory, choose kernels
        side()
    times: list[list[float]] = [[] for _ in sides]
    end = time.perf_counter() + seconds
    while len(times[0]) < _LEAST or (time.perf_counter() < end and len(times[0]) < _MOST):
        for side, own in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            own.append(time.perf_counter() - start)
    return times
