"""Exported networks of whole images: pixels in, the probability of each class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.export.base import (
    FROM_RANDOM,
    FROM_VALIDATION,
    N_SAMPLES,
    ExportableFrames,
    random_pixels,
)
from dense_imb.runs import Run
from dense_imb.tasks.labels.recipe import open_classified
from dense_imb.tasks.labels.task import LabelsReading


class ClassifyingNetwork(nn.Module):
    """Network from pixels of 0 to 255 to the probability of each class.

        probability = softmax(scale network((image - mean) / std))

    Args:
        network: network of a run on whole images.
        reading: reading of the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, reading: LabelsReading) -> None:
        super().__init__()
        self.network, self.scale = network, reading.scale
        self.register_buffer("mean", torch.tensor(reading.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(reading.std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, height, width)
        logits: Tensor = self.scale * self.network((image - self.mean) / self.std)
        return logits.softmax(1)


@dataclass(frozen=True)
class ExportableClassifier(ExportableFrames):
    """The network of a run on whole images.

    Args:
        reading: reading of the run.
        sizes: numbers of training and validation images, in words; None if unknown.
    """

    reading: LabelsReading
    sizes: str | None

    kind: ClassVar[str] = "classifier"
    purpose: ClassVar[str] = "classifies whole images"
    input: ClassVar[str] = "image"
    measured_on: ClassVar[str] = "validation images of the run"

    def meaning(self) -> dict[str, Any]:
        return {
            "is": "red, green and blue of each pixel, 0 to 255; normalised inside",
            "mean": list(self.reading.mean),
            "std": list(self.reading.std),
        }

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        reading = self.reading
        classes = {
            str(k): {"name": name, "training_images": n}
            for k, (name, n) in enumerate(
                zip(reading.class_names, reading.train_counts, strict=True)
            )
        }
        return [
            {
                "name": "probability",
                "dtype": "float32",
                "shape": ["batch", reading.n_classes],
                "is": "probability of each class; they sum to 1",
                "classes": classes,
            }
        ]

    def training_facts(self) -> dict[str, Any]:
        labels = self.run.config.labels
        return {"train": labels.train, "validation": labels.validation, "sizes": self.sizes}

    def operating_point(self) -> dict[str, Any] | None:
        return {"scale": "probability", "chosen_for": "the likeliest class of each image"}

    def limitations(self, any_size: bool) -> list[str]:
        size = f"It takes images of {self.frame_text} pixels only (height x width)."
        if self.run.config.labels.size is not None:
            size += (
                " The training images were resized to this size whatever their shape, bilinearly "
                "with Pillow; resize yours in the same way."
            )
        return [
            size,
            "The validation data chose the weights: scores on new data are slightly lower.",
            "The probabilities are those of data with the class frequencies of the training, "
            "unless the loss or the sampling changed them.",
        ]


def exportable(run: Run) -> ExportableClassifier:
    """Return the best network of a run on whole images."""
    classifier = run.trained(device="cpu")
    reading = classifier.reading
    sizes = None
    try:
        validation = open_classified(run.config.labels)[1]
        pixels = [validation.image(i) for i in range(min(len(validation), N_SAMPLES))]
        n_train = sum(reading.train_counts)
        source, sizes = FROM_VALIDATION, f"{n_train} images, {len(validation)} to validate"
    except (ValueError, OSError):
        pixels = [
            x.round().clip(0, 255) for x in random_pixels(reading.mean, reading.std, reading.size)
        ]
        source = FROM_RANDOM.format("frames")
    return ExportableClassifier(
        run,
        ClassifyingNetwork(classifier.network, reading).eval(),
        ("probability",),
        tuple(torch.from_numpy(x.astype(np.float32))[None] for x in pixels),
        source,
        reading.size,
        3,
        reading,
        sizes,
    )
