"""Exported networks of images with masks: pixels in, the class probabilities of each out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.base.checks import is_exporting
from dense_imb.data.images.labelled import IGNORED, LabelledImages, numbered_classes
from dense_imb.export.base import Answer
from dense_imb.export.pixels import (
    ExportablePixels,
    PixelNetwork,
    ValidationSamples,
    exportable_pixels,
    validation_samples,
)
from dense_imb.metrics import SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.runs import Run
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.recipe import open_images
from dense_imb.tasks.images.task import ImagesReading, validation_scores


class SegmentingNetwork(PixelNetwork):
    """Network from pixels, as they are in a file, to the probability of each class.

        probability = softmax(z), or (1 - sigmoid(z), sigmoid(z)) for one channel,
        z = network((image - mean) / std), through windows where the image is larger than the crop

    Args:
        network: network of a run on images.
        reading: reading of the run.
        takes_less: whether the network takes images smaller than the crop.
    """

    def __init__(self, network: nn.Module, reading: ImagesReading, *, takes_less: bool) -> None:
        super().__init__(network, reading, takes_less=takes_less)
        self.reading = reading

    def forward(self, image: Tensor) -> Tensor:  # (B, channels, *spatial)
        shown = self.shown(image)
        if is_exporting():
            logits = self.reading.as_logits(self.windows(shown))
        else:  # as `segment` does it, so that a file is compared with that
            logits = self.reading.logits(self.windows.network, shown)
        if logits.shape[1] > 1:
            return logits.softmax(1)
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground], 1)


@dataclass(frozen=True)
class ExportableSegmenter(ExportablePixels):
    """The network of a run on images with masks."""

    reading: ImagesReading

    kind: ClassVar[str] = "segmenter"
    purpose: ClassVar[str] = "classifies each pixel of an image"
    measured_on: ClassVar[str] = "validation images of the run, mean of the foreground classes"
    command: ClassVar[str] = "segment"

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

    def file_scores(self, answer: Answer) -> dict[str, Any]:
        reading = self.reading
        new_scores = partial(SegmentationScores, reading.n_classes, ignore_index=IGNORED)
        file_scores, run_scores = new_scores(), new_scores()
        for pixels, classes in self.wholes:
            given = (torch.from_numpy(pixels.astype(np.float32))[None],)
            label = torch.from_numpy(classes.astype(np.int64))[None]
            for scores, answers in (
                (file_scores, answer(given)),
                (run_scores, self.answers(given)),
            ):
                scores.update(answers[0].clamp(min=torch.finfo().tiny).log(), label)
        precision = [
            mean_of_known(one.average_precision()[1:]) for one in (file_scores, run_scores)
        ]
        if not all(map(math.isfinite, precision)):
            return {}
        names = ("average_precision", "average_precision_of_segment")
        return self.with_numbers(dict(zip(names, precision, strict=True)))

    def natural_scores(self) -> dict[str, float]:
        try:
            return validation_scores(self.run.scores())
        except (ValueError, OSError):
            return {}

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
        return [
            *self.size_limits(any_size),
            "The validation data chose both the weights and the threshold: scores on new data are "
            "slightly lower.",
        ]


def exportable(run: Run) -> ExportableSegmenter:
    """Return the best network of a run on images."""

    def samples_of(reading: ImagesReading) -> ValidationSamples:
        return validation_samples(
            lambda: open_images(run.config.images),
            LabelledImages.label,
            lambda label: (label > 0) & (label != IGNORED),
        )

    return exportable_pixels(
        run, ExportableSegmenter, SegmentingNetwork, "probability", samples_of, "frames"
    )
