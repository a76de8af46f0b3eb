"""The base of exported networks that read whole images of any size, through windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.export.base import (
    FROM_RANDOM,
    FROM_VALIDATION,
    N_SAMPLES,
    ExportableFrames,
    random_pixels,
)
from dense_imb.export.windows import Windows
from dense_imb.runs import Run
from dense_imb.tasks.pixels import PixelReading, box_around

Wholes = tuple[tuple[NDArray[Any], NDArray[Any]], ...]
_MOST = {2: 2048, 3: 160}  # sides of an image that a file is tried on; it holds all its windows
Form = TypeVar("Form", bound="ExportablePixels")


class ValidationSamples(NamedTuple):
    """Validation images to try a file on.

    Args:
        wholes: pixels and map of each image.
        sizes: numbers of training and validation images, in words; None without the images.
        parts: largest sides of the images, in words, if one was larger; else "".
    """

    wholes: Wholes
    sizes: str | None
    parts: str


class PixelNetwork(nn.Module):
    """Base class of networks from pixels, as they are in a file.

    Args:
        network: network of a run.
        reading: reading of the run.
        takes_less: whether the network takes images smaller than the crop.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, reading: PixelReading, *, takes_less: bool) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * len(reading.patch)
        self.windows = Windows(network, reading.patch, takes_less=takes_less)
        self.register_buffer("mean", torch.tensor(reading.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(reading.std).reshape(shape))

    def shown(self, image: Tensor) -> Tensor:
        """Return the normalised input of the network."""
        return (image - self.mean) / self.std


@dataclass(frozen=True)
class ExportablePixels(ExportableFrames):
    """Base class of networks with an output for each pixel of an image.

    Args:
        reading: reading of the run.
        sizes, wholes, parts: see `ValidationSamples`.
        takes_less: whether the network takes images smaller than the crop.
    """

    reading: PixelReading
    sizes: str | None
    wholes: Wholes
    parts: str
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

    def with_numbers(self, scores: Mapping[str, float]) -> dict[str, Any]:
        """Return scores of a file with the number of images, and the size of parts of them."""
        parts = {"parts": self.parts} if self.parts else {}
        return {**scores, "n_images": len(self.wholes), **parts}

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


def validation_samples(
    open_images: Callable[[], tuple[Any, Any]],
    map_of: Callable[[Any, int], NDArray[Any]],
    is_lit: Callable[[NDArray[Any]], NDArray[np.bool_]],
) -> ValidationSamples:
    """Return some validation images with their maps, of a large one the part around a lit pixel.

    Args:
        open_images: opens the training and the validation images.
        map_of: reads the map of an image.
        is_lit: whether each pixel of a map is lit, (*spatial).
    """
    wholes, text = [], ""
    try:
        train, images = open_images()
        for i in range(min(len(images), N_SAMPLES)):
            image, map_ = images.image(i), map_of(images, i)
            most = [_MOST[image.ndim - 1]] * (image.ndim - 1)
            part: Any = (..., *box_around(is_lit(map_), most))
            wholes.append((image[part].copy(), map_[part].copy()))
            if wholes[-1][0].shape != image.shape:
                text = " x ".join(map(str, most))
    except (ValueError, OSError):
        return ValidationSamples((), None, "")
    sizes = f"{len(train)} images, {len(images)} to validate"
    return ValidationSamples(tuple(wholes), sizes, text)


def exportable_pixels(
    run: Run,
    form: type[Form],
    network_class: Callable[..., PixelNetwork],
    output: str,
    samples_of: Callable[[Any], ValidationSamples],
    random_name: str,
) -> Form:
    """Return the best network of a run, with images to try it on.

    Args:
        run: run on images.
        form: class of the result.
        network_class: class of the exported network.
        output: name of the output.
        samples_of: returns validation images for a reading; random ones are taken without them.
        random_name: name of the random samples in the card.
    """
    trained = run.trained(device="cpu")
    reading = trained.reading
    samples = samples_of(reading)
    if not samples.wholes:
        pixels = random_pixels(reading.mean, reading.std, reading.patch)
        source = FROM_RANDOM.format(random_name)
    else:
        pixels, source = [image for image, _ in samples.wholes], FROM_VALIDATION
    takes_less = takes_smaller(trained.network, reading)
    crops = [cropped(x.astype(np.float32), reading.patch) for x in pixels]
    return form(
        run,
        network_class(trained.network, reading, takes_less=takes_less).eval(),
        (output,),
        tuple(torch.from_numpy(crop)[None] for crop in crops),
        source,
        reading.patch,
        reading.in_channels,
        reading,
        samples.sizes,
        samples.wholes,
        samples.parts,
        takes_less,
    )
