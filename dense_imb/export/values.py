"""Exported networks of maps of values: pixels in, values out, with the read-out of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.base.checks import is_exporting
from dense_imb.data.values.pairs import ValueImages
from dense_imb.export.base import Answer
from dense_imb.export.pixels import (
    ExportablePixels,
    PixelNetwork,
    ValidationSamples,
    exportable_pixels,
    validation_samples,
)
from dense_imb.runs import Run
from dense_imb.tasks.values.recipe import open_images
from dense_imb.tasks.values.scores import headline_scores
from dense_imb.tasks.values.task import ValuesReading


class PredictingNetwork(PixelNetwork):
    """Network from pixels, as they are in a file, to values in the units of the training maps.

        value = read_out(scale network((image - mean) / std)),
        through windows where the image is larger than the crop

    Args:
        network: network of a run on values.
        reading: reading of the run.
        takes_less: whether the network takes images smaller than the crop.
    """

    def __init__(self, network: nn.Module, reading: ValuesReading, *, takes_less: bool) -> None:
        super().__init__(network, reading, takes_less=takes_less)
        self.reading = reading

    def forward(self, image: Tensor) -> Tensor:  # (B, channels, *spatial)
        shown = self.shown(image)
        if not is_exporting():  # as `predict` does it
            return self.reading.values(self.windows.network, shown)
        values: Tensor = self.reading.scale * self.windows(shown)
        return values if self.reading.read_out is None else self.reading.read_out.apply(values)


@dataclass(frozen=True)
class ExportablePredictor(ExportablePixels):
    """The network of a run on values."""

    reading: ValuesReading

    kind: ClassVar[str] = "predictor"
    purpose: ClassVar[str] = "predicts a value, or several, for each pixel of an image"
    measured_on: ClassVar[str] = "validation images of the run, as trained"
    command: ClassVar[str] = "predict"

    @property
    def unit_of_outputs(self) -> float:
        """Size of a typical output."""
        return self.reading.scale

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        reading = self.reading
        names = reading.names or tuple(f"channel {k}" for k in range(reading.n_targets))
        read_out = "" if reading.read_out is None else ", with the read-out of the run"
        return [
            {
                "name": "value",
                "dtype": "float32",
                "shape": ["batch", reading.n_targets, *self.sides(any_size)],
                "is": f"values in the units of the training maps{read_out}",
                "channels": list(names),
                "scale": reading.scale,
            }
        ]

    def training_facts(self) -> dict[str, Any]:
        values = self.run.config.values
        return {"train": values.train, "validation": values.validation, "sizes": self.sizes}

    @torch.no_grad()
    def file_scores(self, answer: Answer) -> dict[str, Any]:
        errors = []
        for pixels, target in self.wholes:
            given = (torch.from_numpy(pixels.astype(np.float32))[None],)
            truth = torch.from_numpy(target.copy())[None]
            both = (answer(given)[0], self.answers(given)[0])
            errors.append([float((one - truth).abs().double().mean()) for one in both])
        if not errors:
            return {}
        means = np.mean(errors, 0).tolist()
        names = ("mean_absolute_error", "mean_absolute_error_of_predict")
        return self.with_numbers(dict(zip(names, means, strict=True)))

    def read_out_scores(self) -> dict[str, float]:
        return headline_scores(self.run.scores())

    def operating_point(self) -> dict[str, Any] | None:
        if self.reading.read_out is None:
            return None
        read_out = self.reading.read_out.describe(self.reading.names)
        return {"scale": "value", "read_out": read_out}

    def limitations(self, any_size: bool) -> list[str]:
        limits = self.size_limits(any_size)
        if self.reading.read_out is not None:
            limits.append(
                "The read-out answers for data in which values are as frequent as in the "
                "validation images."
            )
        return [
            *limits,
            "The validation data chose both the weights and the read-out: errors on new data are "
            "slightly larger.",
        ]


def exportable(run: Run) -> ExportablePredictor:
    """Return the best network of a run on values."""

    def samples_of(reading: ValuesReading) -> ValidationSamples:
        return validation_samples(
            lambda: open_images(run.config.values),
            ValueImages.target,
            lambda target: np.logical_or.reduce(target > reading.level),
        )

    return exportable_pixels(
        run, ExportablePredictor, PredictingNetwork, "value", samples_of, "images"
    )
