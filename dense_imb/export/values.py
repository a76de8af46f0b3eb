"""Exported networks of maps of values: pixels in, values out, with the read-out of the run."""

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
    Answer,
    random_pixels,
)
from dense_imb.export.pixels import ExportablePixels, cropped, takes_smaller
from dense_imb.export.windows import Windows
from dense_imb.runs import Run
from dense_imb.tasks.values.recipe import open_images
from dense_imb.tasks.values.task import ValuesReading


class PredictingNetwork(nn.Module):
    """Network from pixels, as they are in a file, to values in the units of the training maps.

        value = read_out(scale network((image - mean) / std)),
        through windows where the image is larger than the crop

    Args:
        network: network of a run on values.
        reading: reading of the run.
        takes_less: whether the network takes images smaller than the crop.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, reading: ValuesReading, *, takes_less: bool) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * len(reading.patch)
        self.windows = Windows(network, reading.patch, takes_less=takes_less)
        self.reading = reading
        self.register_buffer("mean", torch.tensor(reading.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(reading.std).reshape(shape))

    def forward(self, image: Tensor) -> Tensor:  # (B, channels, *spatial)
        shown = (image - self.mean) / self.std
        if not torch.compiler.is_exporting():  # as `predict` does it
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
        return {**dict(zip(names, means, strict=True)), "n_images": len(self.wholes)}

    def operating_point(self) -> dict[str, Any] | None:
        if self.reading.read_out is None:
            return None
        return {"scale": "value", "read_out": self.reading.read_out.describe()}

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
    predictor = run.trained(device="cpu")
    reading = predictor.reading
    sizes = None
    try:
        train, images = open_images(run.config.values)
        numbers = range(min(len(images), N_SAMPLES))
        wholes = [(images.image(i), images.target(i)) for i in numbers]
        pixels = [image for image, _ in wholes]
        source, sizes = FROM_VALIDATION, f"{len(train)} images, {len(images)} to validate"
    except (ValueError, OSError):
        wholes, pixels = [], random_pixels(reading.mean, reading.std, reading.patch)
        source = FROM_RANDOM.format("images")
    takes_less = takes_smaller(predictor.network, reading)
    crops = [cropped(x.astype(np.float32), reading.patch) for x in pixels]
    return ExportablePredictor(
        run,
        PredictingNetwork(predictor.network, reading, takes_less=takes_less).eval(),
        ("value",),
        tuple(torch.from_numpy(crop)[None] for crop in crops),
        source,
        reading.patch,
        reading.in_channels,
        reading,
        sizes,
        tuple(wholes),
        takes_less,
    )
