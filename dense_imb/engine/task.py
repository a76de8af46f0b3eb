"""Protocols of the tasks that the loop can train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASS_NAMES = "class names"  # entry of `describe`; a resume does not depend on it


class Task(Protocol):
    """A network with its loss and its data.

    Everything random in a batch is a function of its samples and the epoch, so that a run can
    resume at any step.

    Example:
        >>> import torch
        >>> from dense_imb.engine import Loop, LoopSettings, Task
        >>> class Line:  # learns y = 2 x; a Task
        ...     monitor, n_samples = "accuracy", 8
        ...     def __init__(self):
        ...         self.network, self.loss = torch.nn.Linear(1, 1), torch.nn.MSELoss()
        ...     def batch(self, samples, epoch, device):
        ...         return torch.as_tensor(samples, device=device)[:, None] / 8.0
        ...     def cost(self, network, x):
        ...         return self.loss(network(x), 2 * x)
        ...     def validate(self, network, device, process, n_processes):
        ...         x = torch.ones(1, 1, device=device)
        ...         return {"accuracy": -float(self.cost(network, x))}
        ...     def describe(self):
        ...         return {"task": "line"}
        >>> task: Task = Line()
        >>> optimizer = torch.optim.Adam(task.network.parameters(), lr=0.1)
        >>> state = Loop(task, optimizer, LoopSettings(steps=100, batch_size=4)).run()
        >>> state.step, state.best > -0.1
        (100, True)
    """

    network: nn.Module
    loss: nn.Module
    monitor: str  # validation score that chooses the best network; larger is better
    n_samples: int  # samples of an epoch

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> Any:
        """Return the batch of these samples, ready for `cost`; called in a thread of its own."""

    def cost(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch, a scalar; `network` is the one to call, perhaps wrapped."""

    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return the scores of the whole validation set, equal on every process, with `monitor`."""

    def describe(self) -> Mapping[str, str]:
        """Describe the task by name; a checkpoint to resume from must have the same description."""


class ScoredTask(Task, Protocol):
    """A task that keeps its validation scores, to choose thresholds later."""

    def save_scores(self, path: Path) -> None:
        """Write the counts of the last validation."""


@runtime_checkable
class TaughtTask(Task, Protocol):
    """A task with a teacher network, which is stored in every checkpoint.

    A batch is made after the validation before it, so it may depend on the teacher and its
    buffers.
    """

    teacher: nn.Module

    def follow(self, network: nn.Module, step: int) -> None:
        """Update the teacher after each step.

        Args:
            network: the trained network, not wrapped.
            step: number of steps done.
        """

    def refresh(self, device: torch.device, process: int, n_processes: int) -> None:
        """Update the teacher after each validation, without gradients, equally on every process."""


@runtime_checkable
class LoggedTerm(Protocol):
    """A part of a task's loss whose value is logged beside the total."""

    def logged(self) -> Mapping[str, float]:
        """Return the values of the last step by column name; empty before the first step."""


@runtime_checkable
class OrderedTask(Task, Protocol):
    """A task that chooses the samples of an epoch.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages
        >>> from dense_imb.engine import OrderedTask
        >>> from dense_imb.tasks import LabelsReading, LabelsTask, TrainingData
        >>> pixels = np.zeros((4, 3, 8, 8), np.uint8)
        >>> images = ClassifiedImages(ArrayImages(pixels), [0, 0, 0, 1], ["sound", "cracked"])
        >>> reading = LabelsReading(("sound", "cracked"), (3, 1), (0.0,) * 3, (1.0,) * 3, (8, 8))
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> data = TrainingData(images, images, class_counts=(3, 1))
        >>> task = LabelsTask(network, torch.nn.CrossEntropyLoss(), data, reading)
        >>> isinstance(task, OrderedTask), sorted(task.order(seed=0, epoch=1).tolist())
        (True, [0, 1, 2, 3])
    """

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the samples of an epoch, (n_samples,); a pure function of the run's seed."""
