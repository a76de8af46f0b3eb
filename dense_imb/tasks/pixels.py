"""Networks that read whole images: normalised pixels, crops, and windows of large images."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_at_least
from dense_imb.tasks.base import TaskOptions

OVERLAP = 0.25  # fraction of a window, MONAI's default
_AT_ONCE = 4  # windows; more do not fit the caches of a CPU
_MOST_PLACES = 100_000  # lit pixels whose median is taken
_PATCH = {2: 128, 3: 64}  # largest side of a crop by default


class PatchWarning(UserWarning):
    """Crops that are larger than training images."""


@dataclass(frozen=True)
class CropOptions(TaskOptions):
    """Options of a task that is trained on crops, beside those of `TaskOptions`.

    Args:
        patches: number of crops of each image in an epoch.
        foreground: fraction of the crops around a pixel of the foreground, or of a class.
        flips: whether crops are mirrored.
        seed: random seed of the crops.
    """

    patches: int = 4
    foreground: float = 0.5
    flips: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("patches", self.patches, 1)
        if not 0 <= self.foreground <= 1:
            raise ValueError(f"Expected `foreground` between 0 and 1, got {self.foreground}.")


class PixelReading:
    """Base class of readings of images: the preparation of the input, and windows.

    Attributes:
        mean, std: mean and deviation of each channel over the pixels of the training images.
        patch: size of the training crops, and of the windows of inference.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: tuple[int, ...]

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return len(self.mean)

    def shown(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return normalised pixels (C, *spatial): mean 0, deviation 1 over the training images."""
        self._check(image)
        return self._normal(image)

    def shown_crops(self, crops: Sequence[NDArray[Any]]) -> Tensor:
        """Return normalised crops of one size, (B, C, *spatial); channels last in 2-D."""
        for crop in crops[:1]:
            self._check(crop)
        shown = torch.from_numpy(self._normal(np.stack(crops)))
        return shown.to(memory_format=torch.channels_last) if shown.dim() == 4 else shown

    def output(self, network: nn.Module, shown: Tensor) -> Tensor:
        """Return the output for images (B, channels, *spatial) of any size.

        Images larger than a patch are processed in overlapping windows, by MONAI.
        """
        if all(side <= wanted for side, wanted in zip(shown.shape[2:], self.patch, strict=True)):
            output: Tensor = network(shown).float()
            return output
        inferers = importlib.import_module("monai.inferers")
        output = inferers.sliding_window_inference(
            shown,
            self.patch,
            _AT_ONCE,
            lambda windows: network(windows).float(),
            overlap=OVERLAP,
            mode="gaussian",
            padding_mode="replicate",  # as crops are padded
        )
        return output

    def _normal(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        shape = (-1,) + (1,) * len(self.patch)
        normal = pixels.astype(np.float32)
        normal -= np.reshape(np.asarray(self.mean, np.float32), shape)
        normal /= np.reshape(np.asarray(self.std, np.float32), shape)
        return normal

    def _check(self, image: NDArray[Any]) -> None:
        if image.shape[0] != self.in_channels or image.ndim != 1 + len(self.patch):
            raise ValueError(
                f"Expected images of {self.in_channels} channels in {len(self.patch)}-D, as the "
                f"network was trained on, got an array (C, *spatial) of {image.shape}."
            )


def rarest_first(content: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return n images that show each class, those with most pixels of the rarest class first.

    Args:
        content: (n_images, n_classes) pixels of each class in each image.
        n: number of images.

    Example:
        >>> rarest_first(np.array([[9, 1], [0, 5], [4, 0]]), 2).tolist()
        [1, 0]
    """
    order = np.argsort(content.sum(0), kind="stable")
    # images ranked by pixels of a class, taking classes in turn
    ranked = np.argsort(-content[:, order], axis=0, kind="stable").ravel()
    return ranked[np.sort(np.unique(ranked, return_index=True)[1])][:n]


def box_around(is_lit: NDArray[np.bool_], sides: Sequence[int]) -> tuple[slice, ...]:
    """Return a box of an image around the lit pixel nearest their median, or around its middle.

    Args:
        is_lit: whether each pixel is lit.
        sides: largest sides of the box.

    Example:
        >>> is_lit = np.zeros((100, 30), bool)
        >>> is_lit[90, 4] = True
        >>> box_around(is_lit, (20, 40))
        (slice(80, 100, None), slice(0, 30, None))
    """
    middle = np.array(is_lit.shape) / 2
    lit = np.flatnonzero(is_lit)
    if len(lit):
        some = lit[:: -(-len(lit) // _MOST_PLACES)]
        places = np.stack(np.unravel_index(some, is_lit.shape), 1)
        distance = np.square(places - np.median(places, axis=0)).sum(1)
        middle = places[distance.argmin()]
    box = []
    for side, at, most in zip(is_lit.shape, middle.tolist(), sides, strict=True):
        wanted = min(side, most)
        start = min(max(int(at) - wanted // 2, 0), side - wanted)
        box.append(slice(start, start + wanted))
    return tuple(box)


def default_patch(
    wanted: Sequence[int] | None, spatial_dims: int, sizes: Iterable[tuple[int, ...]], section: str
) -> tuple[int, ...]:
    """Return the size of the training crops; warn of one that is larger than every image.

    Args:
        wanted: size that was asked for; None for the default.
        spatial_dims: 2 or 3.
        sizes: sizes of the training images.
        section: section of the configuration, for the warning.
    """
    largest = tuple(max(sides) for sides in zip(*sizes, strict=True))
    if wanted is None:
        return tuple(min(side, _PATCH[spatial_dims]) for side in largest)
    if len(wanted) != spatial_dims:
        raise ValueError(
            f"Expected `patch` with a number for each of the {spatial_dims} dimensions of the "
            f"images, got {list(wanted)}."
        )
    if any(side > most for side, most in zip(wanted, largest, strict=True)):
        warnings.warn(
            f"{section}.patch {list(wanted)} is larger than every training image (at most "
            f"{' x '.join(map(str, largest))}): crops are padded",
            PatchWarning,
            stacklevel=2,
        )
    return tuple(wanted)
