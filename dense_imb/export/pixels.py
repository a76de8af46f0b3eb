"""The base of exported networks that read whole images of any size, through windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.export.base import ExportableFrames
from dense_imb.tasks.pixels import PixelReading


@dataclass(frozen=True)
class ExportablePixels(ExportableFrames):
    """Base class of networks with an output for each pixel of an image.

    Args:
        reading: reading of the run.
        sizes: numbers of training and validation images, in words; None if unknown.
        wholes: whole validation images, the pixels and the map of each.
        takes_less: whether the network takes images smaller than the crop.
    """

    reading: PixelReading
    sizes: str | None
    wholes: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    takes_less: bool

    input: ClassVar[str] = "image"
    sizes_to_try: ClassVar[tuple[bool, ...]] = (True, False)
    command: ClassVar[str]  # that processes images as the file does

    def meaning(self) -> dict[str, Any]:
        return {
            "is": "pixels in the units of the files, as they are read; normalised inside",
            "mean": list(self.reading.mean),
            "std": list(self.reading.std),
        }

    def samples_of_other_sizes(self) -> list[Tensor]:
        """Return larger samples, on all axes and on one, and a smaller one where it is possible."""
        less = [-(k + 1) if side > 2 * k + 4 else 0 for k, side in enumerate(self.frame)]
        larger = [
            [side // 2 + k for k, side in enumerate(self.frame)],
            [*less[:-1], self.frame[-1]],
        ]
        if not self.takes_less:
            return [self.resized(extra) for extra in larger]
        return [self.resized(extra) for extra in (*larger, less)]

    def size_limits(self, any_size: bool) -> list[str]:
        """Return the limits of sizes and units, a sentence each."""
        windows = "overlapping windows of that size (a quarter of overlap, Gaussian weights)"
        size = (
            f"It was trained on crops of {self.frame_text} pixels. It takes any size: larger ones "
            f"are processed inside through {windows}, as by `{self.command}`. They need memory for "
            "the outputs of all windows."
            if any_size
            else f"This network has a fixed size: images of {self.frame_text} pixels. "
            f"{self.command.capitalize()} larger ones through {windows}."
        )
        less = (
            []
            if self.takes_less or not any_size
            else [
                "The edges of images smaller than that are repeated: this network has a fixed size."
            ]
        )
        units = "The images must have the units and the channels of the training images."
        return [size, *less, units]


@torch.no_grad()
def takes_smaller(network: nn.Module, reading: PixelReading) -> bool:
    """Whether a network takes images smaller than the crop, as one of a fixed size does not."""
    sides = [max(side - 3, 1) for side in reading.patch]
    try:
        network.eval()(torch.zeros(1, reading.in_channels, *sides))
    except (RuntimeError, ValueError):
        return False
    return True


def cropped(image: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Return the middle of an image (C, *spatial); repeat its edges if it is too small."""
    missing = [max(s - n, 0) for s, n in zip(size, image.shape[1:], strict=True)]
    image = np.pad(image, [(0, 0), *((0, more) for more in missing)], mode="edge")
    starts = [(n - s) // 2 for s, n in zip(size, image.shape[1:], strict=True)]
    return image[(slice(None), *(slice(a, a + s) for a, s in zip(starts, size, strict=True)))]
