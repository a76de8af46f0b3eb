"""Pseudo-labels of images: crops of unlabelled images for the mean teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.refusals import Refused
from dense_imb.data.epochs.patches import draw_patch, patch_rng
from dense_imb.data.epochs.views import is_sparse, photometric, rand_augment, thin_and_add
from dense_imb.data.images.labelled import IGNORED
from dense_imb.tasks.images.task import ImagesTask, probability_of
from dense_imb.tasks.mean_teacher import (
    PseudoLoss,
    StrongViews,
    as_trained,
    pseudo_labels,
    sure_shares,
)

_BUDGET = 1 << 30  # bytes of decoded images that stay in memory
_EXAMINED = 8  # images that decide the kind of strong view
_VIEW = 1 << 40  # offset of samples: unlabelled crops differ from labelled ones


class Images(Protocol):
    """Images by number: `UnlabelledImages`, or `LabelledImages` without use of their masks."""

    n_channels: int
    spatial_dims: int

    def __len__(self) -> int: ...

    def image(self, i: int) -> NDArray[Any]:
        """Return an image, (C, *spatial)."""

    def fingerprint(self) -> str:
        """Return a text that is equal for equal images."""


@dataclass(frozen=True)
class CropViews:
    """Weak views, and the crops that strong views are made of.

    Args:
        shown: the teacher's input, (B, C, *spatial).
        pixels: crops with the values of the files, (B, C, *spatial).
        is_image: False in the padding of an image smaller than its crop, (B, *spatial).
        samples: numbers of the crops, (B,).
        epoch: epoch of the random numbers.
    """

    shown: Tensor
    pixels: Tensor
    is_image: Tensor
    samples: NDArray[np.int64]
    epoch: int


@dataclass(frozen=True)
class PseudoBatch:
    """Strong views with the teacher's labels, `IGNORED` where it is not confident."""

    shown: Tensor
    label: Tensor


class ImagesPseudoLabels:
    """Crops of unlabelled images, see `dense_imb.tasks.mean_teacher.Unlabelled`.

    Args:
        images: images of any size; only their pixels are used.
        task: labelled part; crops have its size and its flips.
        loss: loss of the pseudo-labels; that of the task by default.
        strong: strong views.
        threshold: probability above which a pixel counts towards the classes of an image.
    """

    def __init__(
        self,
        images: Images,
        task: ImagesTask,
        loss: nn.Module | None = None,
        strong: StrongViews | None = None,
        threshold: float = 0.95,
    ) -> None:
        strong = strong or StrongViews()
        if not len(images):
            raise ValueError("Expected at least one unlabelled image, got none.")
        reading = task.reading
        mine, theirs = (
            f"{n} channels in {dims}-D"
            for n, dims in (
                (reading.in_channels, len(reading.patch)),
                (images.n_channels, images.spatial_dims),
            )
        )
        if mine != theirs:
            raise ValueError(
                f"Expected unlabelled images of {mine}, as the labelled ones, got {theirs}."
            )
        self.images, self.task, self.threshold = images, task, threshold
        self.samples = images
        self.loss = task.output_loss if loss is None else loss
        self._pseudo_loss = PseudoLoss(self.loss, is_dense=True)
        self.n_images, self.n_classes = len(images), reading.n_classes
        self.operations, self.magnitude = strong.operations, strong.magnitude
        self._held: dict[int, NDArray[Any]] = {}
        self._n_bytes = 0
        self.strong = self._strong_view(strong.kind)

    def _strong_view(self, wanted: str) -> str:
        examined = [self._image(i) for i in range(min(_EXAMINED, self.n_images))]
        is_plain = self.images.spatial_dims == 2 and all(
            image.dtype == np.uint8 and len(image) in (1, 3) for image in examined
        )
        if wanted == "auto":
            if all(is_sparse(image) for image in examined):
                return "hits"
            return "randaugment" if is_plain else "photometric"
        if wanted == "randaugment" and not is_plain:
            raise Refused(
                "2-D images of 8 bits with 1 or 3 channels for RandAugment",
                f"{examined[0].shape} of {examined[0].dtype}",
                "{unlabelled.strong=photometric} takes any image",
            )
        return wanted

    def _image(self, i: int) -> NDArray[Any]:
        if i in self._held:
            return self._held[i]
        image = self.images.image(i)
        if self._n_bytes + image.nbytes <= _BUDGET:
            self._held[i] = image
            self._n_bytes += image.nbytes
        return image

    def views(
        self,
        samples: NDArray[np.int64],
        places: NDArray[np.int64],
        epoch: int,
        device: torch.device,
    ) -> CropViews:
        """Return crops anywhere in the images, mirrored as the labelled ones."""
        task, crops, insides = self.task, [], []
        for sample, place in zip(samples.tolist(), places.tolist(), strict=True):
            image = self._image(place)
            crop, inside = draw_patch(
                image,
                np.zeros(image.shape[1:], np.uint8),
                task.reading.patch,
                patch_rng(task.seed, epoch, sample + _VIEW),
                foreground=0,
                flips=task.flips,
            )
            crops.append(crop)
            insides.append(inside != IGNORED)
        pixels = np.stack(crops)
        if not np.issubdtype(pixels.dtype, np.uint8):
            pixels = pixels.astype(np.float32)
        return CropViews(
            task.reading.shown_crops(crops).to(device),
            torch.from_numpy(pixels),
            torch.from_numpy(np.stack(insides)).to(device),
            samples,
            epoch,
        )

    def label_views(
        self, teacher: nn.Module, views: CropViews, threshold: float
    ) -> tuple[PseudoBatch, Tensor]:
        """Return strong views with the teacher's labels, and the fraction of each class."""
        reading = self.task.reading
        answer = reading.as_logits(teacher(views.shown).float())
        label = pseudo_labels(self._probability(answer), threshold)
        label = label.masked_fill(~views.is_image, IGNORED)
        sure = sure_shares(label, self.n_classes)
        options: dict[str, Any] = {"seed": self.task.seed, "epoch": views.epoch}
        keys = views.samples + _VIEW
        if self.strong == "randaugment":
            changed = rand_augment(
                views.pixels,
                keys,
                operations=self.operations,
                magnitude=self.magnitude,
                moves=False,
                **options,
            )
            return PseudoBatch(
                reading.shown_crops(list(changed.numpy())).to(label.device), label
            ), sure
        if self.strong == "hits":
            pixels, label = thin_and_add(views.pixels.to(label.device), label, keys, **options)
            shown = reading.shown_crops(list(pixels.cpu().numpy()))
            return PseudoBatch(shown.to(label.device), label), sure
        if self.strong == "photometric":
            return PseudoBatch(photometric(views.shown, keys, **options), label), sure
        return PseudoBatch(views.shown, label), sure

    def _probability(self, logits: Tensor) -> Tensor:
        return probability_of(as_trained(self.task.output_loss, logits, self.task.class_counts))

    def cost(self, output: Tensor, pseudo: PseudoBatch) -> Tensor:
        """Return the loss of the pixels with a pseudo-label."""
        return self._pseudo_loss(output, pseudo.label)

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """Count the confident pixels of each class in whole images, (n, n_classes)."""
        reading, counts = self.task.reading, []
        for place in places.tolist():
            shown = torch.from_numpy(reading.shown(self._image(place)))[None].to(device)
            probability = self._probability(reading.logits(teacher, shown))
            label = pseudo_labels(probability, self.threshold).flatten().cpu()
            counts.append(torch.bincount(label, minlength=256)[: self.n_classes])
        return torch.stack(counts).numpy() if counts else np.zeros((0, self.n_classes), np.int64)

    def describe(self) -> str:
        """Describe the images and their views in words, for a checkpoint."""
        strong = {"randaugment": f"randaugment {self.operations} x {self.magnitude}"}
        return (
            f"{self.n_images} images {self.images.fingerprint()}, strong views of "
            f"{strong.get(self.strong, self.strong)}"
        )
