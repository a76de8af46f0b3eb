"""Whole images without labels, for a classifier, see `dense_imb.tasks.mean_teacher`."""

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

_EPOCHS = 2**30  # from here on epochs vary images without labels: not as labelled ones are varied


@dataclass(frozen=True)
class ClassViews:
    """Weak views of images.

    Args:
        shown: (B, 3, height, width) the teacher's input.
        images: the same in bytes.
        samples, epoch: of the strong views.
    """

    shown: Tensor
    images: NDArray[np.uint8]
    samples: NDArray[np.int64]
    epoch: int


@dataclass(frozen=True)
class PseudoClasses:
    """Strong views of images with the teacher's labels.

    Args:
        shown: (B, 3, height, width) the network's input.
        label: (B,) classes; IGNORED where the teacher is not sure.
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
                "Expected strong views of whole images by randaugment, photometric or none, got "
                "hits, which are of sparse frames."
            )
        if not len(images):
            raise ValueError("Expected images without labels, got none.")
        if images.size != task.reading.size:
            raise ValueError(
                f"Expected images without labels of {task.reading.size} pixels, as those with "
                f"labels, got {images!r}."
            )
        if task.reading.n_classes > IGNORED:
            raise ValueError(
                f"Expected up to {IGNORED} classes to learn from images without labels, got "
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
        self._cost = PseudoLoss(self.loss, is_dense=False)
        self._strong = "randaugment" if strong_kind == "auto" else strong_kind
        self._operations, self._magnitude = operations, magnitude
        if self._strong == "randaugment":  # what it can't do is said here, not in the first step
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
        """Weak views: shifted and mirrored."""
        task, epoch = self._task, epoch + _EPOCHS
        images = task.varied(self._images.images(places.tolist()), samples, epoch)
        return ClassViews(task.reading.shown(images, device), images, samples, epoch)

    def labelled(
        self, teacher: nn.Module, views: ClassViews, threshold: float
    ) -> tuple[PseudoClasses, Tensor]:
        """Strong views of the weak ones, with the likeliest class of the weak ones."""
        label = pseudo_labels(self._probability(teacher, views.shown), threshold)
        shown = views.shown
        if self._strong == "randaugment":
            augmented = self._augmented(views.images, views.samples, views.epoch)
            shown = self._task.reading.shown(augmented, shown.device)
        elif self._strong == "photometric":
            shown = photometric(shown, views.samples, seed=self._task.seed, epoch=views.epoch)
        return PseudoClasses(shown, label), sure_shares(label, self.n_classes)

    def cost(self, output: Tensor, pseudo: PseudoClasses) -> Tensor:
        """The loss of the images that have a label."""
        return self._cost(output, pseudo.label)

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """(n, n_classes) 1 for the likeliest class of each image, sure or not."""
        found = np.zeros((len(places), self.n_classes), np.int64)
        size = self._task.batch_size
        for start in range(0, len(places), size):
            part = places[start : start + size]
            shown = self._task.reading.shown(self._images.images(part.tolist()), device)
            label = self._probability(teacher, shown).argmax(1).cpu().numpy()
            found[start + np.arange(len(part)), label] = 1
        return found

    def describe(self) -> str:
        """Which images these are, and how strong their views."""
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
