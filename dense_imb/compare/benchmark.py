"""Data of a comparison: the common part of all kinds."""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from dense_imb.base.refusals import option, refusal
from dense_imb.compare.contestants import Contestant
from dense_imb.config import TrainConfig
from dense_imb.runs import Run

N_VALIDATIONS = 4  # validations of a run; the best of them is measured
_N_TIMED = 4  # steps that the speed is measured on
Row = dict[str, float]
ReferenceRow = dict[str, str | float]  # a row without a network, with its name as `loss`


class Benchmark(Protocol):
    """Data on which contestants are trained and scored."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores; the first one decides."""

    def contestants(self) -> list[Contestant]:
        """Return the losses that compete by default, the most important ones first."""

    def references(self) -> list[ReferenceRow]:
        """Return rows without a network, which a loss must beat."""

    def config(self, contestant: Contestant) -> TrainConfig:
        """Return the config that trains with a contestant; a Module is named by its class."""

    def speed(self) -> tuple[float, float]:
        """Return the seconds of a step, and of all validations and tests of a run."""

    def measure(self, run: Run) -> Row:
        """Return the scores of a run on held-out data."""


class Settings(NamedTuple):
    """Settings of the scores.

    Args:
        test: file of test images, for whole images.
        tolerance, precision: for images with masks, see `evaluate_images`.
        false_objects: for images with masks: number of false objects an image, on validation
            images, at which the recall of objects is measured.
    """

    test: str | None = None
    tolerance: float = 2.0
    precision: float = 0.5
    false_objects: float = 1.0


def refuse_test(settings: Settings, data: str) -> None:
    """Refuse test images, which are for whole images."""
    if settings.test is not None:
        raise refusal(f"{option('test', settings.test)} is for whole images, got {data}; drop it.")


def device_of_runs() -> torch.device:
    """Return the device that runs train on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def step_seconds(task: Any, batch_size: int, device: torch.device) -> float:
    """Return the median duration of a few steps after a first one."""
    size = min(batch_size, task.n_samples)
    network = task.network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-9)
    seconds = []
    for k in range(_N_TIMED + 1):
        start = time.perf_counter()
        samples = (np.arange(size) + k * size) % task.n_samples
        task.cost(network, task.batch(samples, 0, device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
