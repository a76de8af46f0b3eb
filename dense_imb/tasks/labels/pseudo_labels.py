"""Pseudo-labels of whole images: unlabelled images for the mean teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.base.refusals import Refused
from dense_imb.data.epochs.views import STRONG, photometric, rand_augment
from dense_imb.data.images.labelled import IGNORED
from dense_imb.data.labels.classified import WholeImages
from dense_imb.losses.foreign.feeding import takes_logits
from dense_imb.tasks.labels.task import LabelsTask
from dense_imb.tasks.mean_teacher import (
    PseudoLoss,
    StrongViews,
    as_trained,
    pseudo_labels,
    sure_shares,
)

_EPOCHS = 2**30  # offset of epochs: unlabelled images vary differently from labelled ones


@dataclass(frozen=True)
class ClassViews:
    """Weak views of images.

    Args:
        shown: the teacher's input, (B, 3, height, width).
        images: the same images in bytes.
        samples, epoch: numbers that decide the strong views.
    """

    shown: Tensor
    images: NDArray[np.uint8]
    samples: NDArray[np.int64]
    epoch: int


@dataclass(frozen=True)
class PseudoClasses:
    """Strong views of images with the teacher's labels.

    Args:
        shown: the network's input, (B, 3, height, width).
        label: classes, (B,); IGNORED where the teacher is not confident.
    """

    shown: Tensor
    label: Tensor


class LabelsPseudoLabels:
    """Unlabelled whole images, see `dense_imb.tasks.mean_teacher.Unlabelled`.

    Args:
        task: labelled part; weak views vary as its images do.
        images: images without labels, or with labels that are not used.
        loss: loss of the pseudo-labels; that of the task by default.
        strong: strong views: "randaugment" (also for "auto"), "photometric" or "none".
    """

    def __init__(
        self,
        task: LabelsTask,
        images: WholeImages,
        loss: nn.Module | None = None,
        strong: StrongViews | None = None,
    ) -> None:
        views = strong or StrongViews()
        strong_kind, operations, magnitude = views.kind, views.operations, views.magnitude
        check_choice("unlabelled.strong", strong_kind, STRONG)
        if strong_kind == "hits":
            raise ValueError(
                "Expected `unlabelled.strong` randaugment, photometric or none for whole images, "
                "got hits, which is for sparse frames."
            )
        if not len(images):
            raise ValueError("Expected at least one unlabelled image, got none.")
        if images.size != task.reading.size:
            raise ValueError(
                f"Expected unlabelled images of {task.reading.size} pixels, as the labelled ones, "
                f"got {images!r}."
            )
        if task.reading.n_classes > IGNORED:
            raise ValueError(
                f"Expected up to {IGNORED} classes with unlabelled images, got "
                f"{task.reading.n_classes}."
            )
        self.loss: nn.Module = task.output_loss if loss is None else loss
        if not takes_logits(self.loss):
            raise Refused(
                "a loss of logits for the pseudo-labels",
                f"{type(self.loss).__name__}, which is fed values",
                "for example {unlabelled.loss=CrossEntropyLoss}",
            )
        self.n_images, self.n_classes = len(images), task.reading.n_classes
        self._task, self._images = task, images
        self.samples = images
        self._cost = PseudoLoss(self.loss, is_dense=False)
        self._strong = "randaugment" if strong_kind == "auto" else strong_kind
        self._operations, self._magnitude = operations, magnitude
        if self._strong == "randaugment":  # refused here, not in the first step
            self._augmented(images.images([0]), np.zeros(1, np.int64), 0)
        self._description = (
            f"{len(images)} images {images.digest()}, strong views {self._strong}"
            f"{f' {operations} {magnitude}' if self._strong == 'randaugment' else ''}"
        )

    def views(
        self,
        samples: NDArray[np.int64],
        places: NDArray[np.int64],
        epoch: int,
        device: torch.device,
    ) -> ClassViews:
        """Return weak views: shifted and mirrored images."""
        task, epoch = self._task, epoch + _EPOCHS
        images = task.varied(self._images.images(places.tolist()), samples, epoch)
        return ClassViews(task.reading.shown(images, device), images, samples, epoch)

    def label_views(
        self, teacher: nn.Module, views: ClassViews, threshold: float
    ) -> tuple[PseudoClasses, Tensor]:
        """Return strong views, labelled with the likeliest class of the weak views."""
        label = pseudo_labels(self._probability(teacher, views.shown), threshold)
        shown = views.shown
        if self._strong == "randaugment":
            augmented = self._augmented(views.images, views.samples, views.epoch)
            shown = self._task.reading.shown(augmented, shown.device)
        elif self._strong == "photometric":
            shown = photometric(shown, views.samples, seed=self._task.seed, epoch=views.epoch)
        return PseudoClasses(shown, label), sure_shares(label, self.n_classes)

    def cost(self, output: Tensor, pseudo: PseudoClasses) -> Tensor:
        """Return the loss of the images with a label."""
        return self._cost(output, pseudo.label)

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """Return 1 for the likeliest class of each image, confident or not, (n, n_classes)."""
        is_class = np.zeros((len(places), self.n_classes), np.int64)
        size = self._task.batch_size
        for start in range(0, len(places), size):
            part = places[start : start + size]
            shown = self._task.reading.shown(self._images.images(part.tolist()), device)
            label = self._probability(teacher, shown).argmax(1).cpu().numpy()
            is_class[start + np.arange(len(part)), label] = 1
        return is_class

    def describe(self) -> str:
        """Describe the images and their views in words, for a checkpoint."""
        return self._description

    def _probability(self, teacher: nn.Module, shown: Tensor) -> Tensor:
        logits: Tensor = self._task.reading.scale * teacher(shown).float()
        return as_trained(self._task.output_loss, logits, self._task.class_counts).softmax(1)

    def _augmented(
        self, images: NDArray[np.uint8], samples: NDArray[np.int64], epoch: int
    ) -> NDArray[np.uint8]:
        augmented = rand_augment(
            torch.from_numpy(images),
            samples,
            seed=self._task.seed,
            epoch=epoch,
            operations=self._operations,
            magnitude=self._magnitude,
        )
        return augmented.numpy()
