"""Exported networks of images with masks: pixels in, the class probabilities of each out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.data.images.labelled import numbered_classes
from dense_imb.export.base import (
    FROM_RANDOM,
    FROM_VALIDATION,
    N_SAMPLES,
    ExportableFrames,
    random_pixels,
)
from dense_imb.runs import Run
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.recipe import open_images
from dense_imb.tasks.images.task import ImagesReading


class SegmentingNetwork(nn.Module):
    """Network from pixels, as they are in a file, to the probability of each class.

        probability = softmax(z), or (1 - sigmoid(z), sigmoid(z)) for one channel,
        z = network((image - mean) / std)

    Args:
        network: network of a run on images.
        reading: reading of the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, reading: ImagesReading) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * len(reading.patch)
        self.network, self.reading = network, reading
        self.register_buffer("mean", torch.tensor(reading.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(reading.std).reshape(shape))

    def forward(self, image: Tensor) -> Tensor:  # (B, channels, *spatial)
        logits = self.network((image - self.mean) / self.std)
        logits = self.reading.as_logits(logits)
        if logits.shape[1] > 1:
            return logits.softmax(1)
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground], 1)


@dataclass(frozen=True)
class ExportableSegmenter(ExportableFrames):
    """The network of a run on images.

    Args:
        reading: reading of the run.
        sizes: numbers of training and validation images, in words; None if unknown.
    """

    reading: ImagesReading
    sizes: str | None

    kind: ClassVar[str] = "segmenter"
    purpose: ClassVar[str] = "classifies each pixel of an image"
    input: ClassVar[str] = "image"
    sizes_to_try: ClassVar[tuple[bool, ...]] = (True, False)
    measured_on: ClassVar[str] = "validation images of the run, mean of the foreground classes"

    def meaning(self) -> dict[str, Any]:
        return {
            "is": "pixels in the units of the files, as they are read; normalised inside",
            "mean": list(self.reading.mean),
            "std": list(self.reading.std),
        }

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        reading = self.reading
        names = reading.names or numbered_classes(reading.n_classes)
        values = reading.labels or range(reading.n_classes)
        classes = {
            str(k): {"name": names[k], "value_in_masks": value} for k, value in enumerate(values)
        }
        return [
            {
                "name": "probability",
                "dtype": "float32",
                "shape": ["batch", reading.n_classes, *self.sides(any_size)],
                "is": "probability of each class; they sum to 1",
                "classes": classes,
            }
        ]

    def training_facts(self) -> dict[str, Any]:
        images = self.run.config.images
        return {"train": images.train, "validation": images.validation, "sizes": self.sizes}

    def operating_point(self) -> dict[str, Any] | None:
        try:
            scores = self.run.scores()
        except (ValueError, OSError):
            return None
        classes = {}
        for k, threshold in enumerate(chosen_thresholds(scores)):
            f1 = scores.best_f1()[k][0]
            probability = 1 / (1 + math.exp(-threshold)) if threshold > -700 else 0.0
            classes[str(k)] = {"threshold": probability, "f1": f1 if math.isfinite(f1) else None}
        return {"scale": "probability", "chosen_for": "best F1 of each class", "classes": classes}

    def limitations(self, any_size: bool) -> list[str]:
        windows = "overlapping windows of that size (a quarter of overlap, Gaussian weights)"
        size = (
            f"It was trained on crops of {self.frame_text} pixels. It takes any size, but scores "
            f"and thresholds of larger images were measured through {windows}, as `dense_imb` "
            "does it."
            if any_size
            else f"This network has a fixed size: images of {self.frame_text} pixels. Segment "
            f"larger ones through {windows}."
        )
        return [
            size,
            "The images must have the units and the channels of the training images.",
            "The validation data chose both the weights and the threshold: scores on new data are "
            "slightly lower.",
        ]


def exportable(run: Run) -> ExportableSegmenter:
    """Return the best network of a run on images."""
    segmenter = run.trained(device="cpu")
    reading = segmenter.reading
    sizes = None
    try:
        train, images = open_images(run.config.images)
        pixels = [images.image(i) for i in range(min(len(images), N_SAMPLES))]
        source, sizes = FROM_VALIDATION, f"{len(train)} images, {len(images)} to validate"
    except (ValueError, OSError):
        pixels = random_pixels(reading.mean, reading.std, reading.patch)
        source = FROM_RANDOM.format("frames")
    crops = [_cropped(x.astype(np.float32), reading.patch) for x in pixels]
    return ExportableSegmenter(
        run,
        SegmentingNetwork(segmenter.network, reading).eval(),
        ("probability",),
        tuple(torch.from_numpy(crop)[None] for crop in crops),
        source,
        reading.patch,
        reading.in_channels,
        reading,
        sizes,
    )


def _cropped(image: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Return the middle of an image (C, *spatial); repeat its edges if it is too small."""
    missing = [max(s - n, 0) for s, n in zip(size, image.shape[1:], strict=True)]
    image = np.pad(image, [(0, 0), *((0, more) for more in missing)], mode="edge")
    starts = [(n - s) // 2 for s, n in zip(size, image.shape[1:], strict=True)]
    return image[(slice(None), *(slice(a, a + s) for a, s in zip(starts, size, strict=True)))]
