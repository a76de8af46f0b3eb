"""Modules for Lightning's Trainer: a network with a loss, or a whole task of dense_imb.

    module = LightningSegmenter(network, BalancedSoftmaxLoss(class_counts), n_classes=3)
    Trainer(max_epochs=20).fit(module, train_loader, validation_loader)

Use this in a project that is built on Lightning. The loop of `dense_imb.engine` imports faster, and
a run that it resumes equals an uninterrupted one to the bit.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dense_imb.base.checks import check_at_least
from dense_imb.engine.task import Task, TaughtTask
from dense_imb.losses.foreign.feeding import feed, intake_of, wants_instances
from dense_imb.metrics import SegmentationScores
from dense_imb.tasks.images.task import validation_scores

try:
    _lightning: Any = importlib.import_module("lightning.pytorch")
except ImportError as why:
    raise ImportError(
        "dense_imb.integrations.lightning needs Lightning, which can't be imported "
        f'({str(why).splitlines()[0]}): pip install "dense-imb[lightning]".'
    ) from why

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def _adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-3, weight_decay=0.01)


class LightningSegmenter(_lightning.LightningModule):  # type: ignore[misc]
    """A network and a loss of label maps, from dense_imb or another library.

    Batches are (image, label), or dictionaries with "image" and "label" as in MONAI. Labels are
    class indices (B, *spatial) or (B, 1, *spatial). A loss with per="instance" needs the instance
    map too: batches are then (image, label, instance), or have the key "instance".

    The module logs `train_loss`. After each validation it logs scores over all images:
    `val_average_precision`, `val_dice`, `val_iou` and more. Losses with a schedule
    (BiasCompensatedLoss) get the progress of the training.

    Args:
        network: maps (B, channels, *spatial) to logits (B, C, *spatial), C = 1 if binary.
        loss: any loss that `dense_imb.losses.foreign.feeding.apply_loss` accepts.
        n_classes: number of classes; 2 for one channel of logits.
        ignore_index: label of the pixels that scores ignore; the loss has its own option.
        optimizer: makes the optimizer from the parameters; AdamW with rate 0.001 by default.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        n_classes: int = 2,
        ignore_index: int | None = None,
        optimizer: MakeOptimizer = _adamw,
    ) -> None:
        super().__init__()
        self.network, self.loss, self._intake = network, loss, intake_of(loss)
        self._wants_instances = wants_instances(loss)
        self._n_classes, self._ignore_index = n_classes, ignore_index
        self._scores, self._optimizer = self._no_scores(), optimizer

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        image, label, instance = _parts_of(batch)
        options = {"instance": instance} if self._wants_instances else {}
        if self._wants_instances and instance is None:
            raise ValueError(
                "Expected batches with `instance`, the map of a loss per instance, got none; let "
                "the data set return label_instances(label) of dense_imb.data.images.instances."
            )
        # losses sum over more pixels than bf16 can count
        cost: Tensor = feed(self.loss, self._intake, self.network(image).float(), label, options)
        self.log("train_loss", cost.detach(), batch_size=len(image))
        return cost

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the progress of the loss."""
        _set_progress(self)

    def on_validation_epoch_start(self) -> None:
        self._scores = self._no_scores()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count a batch."""
        image, label, _ = _parts_of(batch)
        self._scores.update(self.network(image).float(), label)

    def on_validation_epoch_end(self) -> None:
        _log_scores(self, validation_scores(self._scores.reduce_over_processes()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self._optimizer(self.parameters())

    def _no_scores(self) -> SegmentationScores:
        return SegmentationScores(self._n_classes, ignore_index=self._ignore_index)


class LightningTask(_lightning.LightningModule):  # type: ignore[misc]
    """A task of dense_imb with its data, for example `FramesTask`; `Trainer.fit` needs no loaders.

    Each process draws its own part of an epoch, and validates its part of the events or images.

    Args:
        task: see `dense_imb.engine.task.Task`.
        batch_size: number of samples in a step of each process.
        optimizer: makes the optimizer from the parameters; AdamW with rate 0.001 by default.
    """

    def __init__(
        self, task: Task, *, batch_size: int = 16, optimizer: MakeOptimizer = _adamw
    ) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        if isinstance(task, TaughtTask):
            raise ValueError(
                "Lightning updates no teacher, and `task` has unlabelled samples; train it with "
                "dense_imb.engine.Loop."
            )
        if getattr(task, "sampling", None) is not None:
            raise ValueError(
                "Lightning orders samples itself, and `task` has `sampling`; train it with "
                "dense_imb.engine.Loop."
            )
        self.network, self.loss = task.network, task.loss  # where Lightning finds their state
        self._task, self._batch_size, self._optimizer = task, batch_size, optimizer

    def forward(self, shown: Tensor) -> Tensor:
        return self.network(shown)  # type: ignore[no-any-return]

    def train_dataloader(self) -> DataLoader[Any]:
        """Load the indices of samples; a step makes frames or crops from them."""
        numbers: Any = range(self._task.n_samples)
        return DataLoader(numbers, self._batch_size, shuffle=True, collate_fn=np.array)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load a single step, in which the task validates its whole set."""
        one: Any = range(1)
        return DataLoader(one)

    def training_step(self, numbers: Any, batch_idx: int) -> Tensor:
        """Return the loss of the samples with these indices."""
        batch = self._task.batch(numbers, self.current_epoch, self.device)
        cost = self._task.cost(self.network, batch)
        self.log("train_loss", cost.detach(), batch_size=len(numbers))
        return cost

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the progress of the loss."""
        _set_progress(self)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing; see `on_validation_epoch_end`."""

    def on_validation_epoch_end(self) -> None:
        scores = self._task.validate(self.network, self.device, self.global_rank, self._world())
        _log_scores(self, scores)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self._optimizer(self.parameters())

    def _world(self) -> int:
        return int(self.trainer.world_size)


def _set_progress(module: Any) -> None:
    """Give losses with a schedule the fraction of steps done; 0 in a run without an end."""
    share = module.global_step / max(module.trainer.estimated_stepping_batches, 1)
    for part in module.loss.modules():
        if hasattr(part, "set_progress"):
            part.set_progress(min(share, 1.0))


def _log_scores(module: Any, scores: Mapping[str, float]) -> None:
    """Log the scores that are numbers; every process has the same ones."""
    known = {f"val_{name}": value for name, value in scores.items() if not math.isnan(value)}
    module.log_dict(known, prog_bar=False)


class _Parts(NamedTuple):
    """Image, label map and instance map of a batch."""

    image: Tensor
    label: Tensor
    instance: Tensor | None = None


def _parts_of(batch: Any) -> _Parts:
    if isinstance(batch, Mapping):
        missing = [name for name in ("image", "label") if name not in batch]
        if missing:
            raise ValueError(
                f"Expected batches with `image` and `label`, got {', '.join(map(str, batch))}."
            )
        return _Parts(batch["image"], batch["label"], batch.get("instance"))
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise TypeError(
            "Expected batches (image, label), or with `image` and `label` by name, got "
            f"{type(batch).__name__}."
        )
    return _Parts(*batch)
