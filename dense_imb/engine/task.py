"""What the loop asks of a thing that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASS_NAMES = "class names"  # in `describe`: what people call them, no resume depends on it


class Task(Protocol):
    """A network with its loss and its data: how a batch is made, costed and scored.

    Everything random in a batch is a function of its samples and the epoch, so that a run can be
    taken up at any step.
    """

    network: nn.Module
    loss: nn.Module
    monitor: str  # the validation score that says which network is best; more is better
    n_samples: int  # of the training set

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> Any:
        """The samples of these numbers, ready for `cost`; called in a thread of its own."""

    def cost(self, network: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, a scalar; `network` is the one to call, perhaps wrapped."""

    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Scores of the whole validation set, the same on every process; has `monitor`."""

    def describe(self) -> Mapping[str, str]:
        """What a checkpoint of this task must agree with, by name."""


class ScoredTask(Task, Protocol):
    """A task whose run keeps the scores of its validation, for thresholds to be chosen later."""

    def save_scores(self, path: Path) -> None:
        """The counts of the last validation."""


@runtime_checkable
class TaughtTask(Task, Protocol):
    """A task with a teacher, which follows the network and is kept in every checkpoint.

    Batches are made after the validation that they follow, so that they may depend on what the
    teacher holds, its buffers included.
    """

    teacher: nn.Module

    def follow(self, network: nn.Module, step: int) -> None:
        """After each step; `network` is the bare one, `step` the number of steps done."""

    def refresh(self, device: torch.device, process: int, n_processes: int) -> None:
        """After each validation, without gradients; the same on every process in the end."""


@runtime_checkable
class LoggedTerm(Protocol):
    """A part of a task's loss whose value is logged beside the total."""

    def logged(self) -> Mapping[str, float]:
        """Values of the last step by column name; empty before the first step."""


@runtime_checkable
class OrderedTask(Task, Protocol):
    """A task that says itself which samples an epoch shows, and how often."""

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """(n_samples,) numbers for `batch`, a pure function; `seed` is the run's."""
