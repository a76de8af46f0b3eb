"""Training patches of images in which the rare classes are not rare.

rng = patch_rng(seed=0, epoch=3, sample=17)
patch, label = draw_patch(image, label, 128, rng)  # (C, 128, 128), (128, 128)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.data.images.labelled import IGNORED, class_pixels

_PURPOSE = 0x9A7C4  # keeps these numbers apart from others of the same seed


def patch_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """A generator that is a pure function of its arguments, whatever ran before or beside it.

    Args:
        seed, epoch, sample: 0 .. 2^64 - 1.
    Example:
        >>> patch_rng(7, 0, 3).integers(1000) == patch_rng(7, 0, 3).integers(1000)
        np.True_
    """
    for name, number in (("seed", seed), ("epoch", epoch), ("sample", sample)):
        if int(number) != number or not 0 <= number < 1 << 64:
            raise ValueError(f"Expected `{name}` from 0 to 2^64 - 1, got {number}.")
    # Philox counts up in the first word of its counter: streams of other words never meet
    counter = np.array([0, 0, int(sample), int(epoch)], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=int(seed) | _PURPOSE << 64))


def draw_patch(
    image: NDArray[Any],
    label: NDArray[np.uint8],
    size: int | Sequence[int],
    rng: np.random.Generator,
    *,
    foreground: float = 0.5,
    flips: bool = True,
    turns: bool = False,
    pixels: Mapping[int, NDArray[np.int64]] | None = None,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Cut a patch at random; some patches are drawn so that they hold a foreground pixel.

    With probability `foreground` a class is drawn, all foreground classes of this image being as
    likely, then one of its pixels, then one of the patches that hold this pixel, all being as
    likely. So the pixel lies anywhere in the patch, and not at its centre; close to a border of
    the image, at those places only that keep the patch inside the image. Otherwise, and where
    the image has no foreground, all patches inside the image are as likely.

    Where the image is smaller than the patch, it lies anywhere in the patch. Around it the image
    goes on with its outermost pixels, so that no edge appears, and the label is IGNORED, so that
    no loss sees it.

    Args:
        image: (C, *spatial).
        label: (*spatial) classes and IGNORED.
        size: of the patch, one number or one for each dimension.
        rng: where all random numbers come from; see `patch_rng`.
        foreground: probability of a patch around a foreground pixel.
        flips: mirror each axis with probability 1/2.
        turns: turn square patches in 2-D by 0 to 3 quarters.
        pixels: `class_pixels(label)`, as `LabelledImages.pixels` holds it: saves looking at all
            pixels for each patch.
    Returns:
        (C, *size) and (*size), new arrays.
    """
    n_dims = label.ndim
    wanted = [int(size)] * n_dims if isinstance(size, (int, np.integer)) else [*map(int, size)]
    _check(image, label, wanted, foreground)
    pixel = _foreground_pixel(label, pixels, rng) if rng.random() < foreground else None
    source, target = [], []
    for axis, (length, side) in enumerate(zip(label.shape, wanted, strict=True)):
        if length < side:  # starts before the image, which lies in it as a whole
            low, high = length - side, 0
        else:
            low, high = 0, length - side
            if pixel is not None:
                low, high = max(low, pixel[axis] - side + 1), min(high, pixel[axis])
        start = int(rng.integers(low, high + 1))
        source.append(slice(max(start, 0), min(start + side, length)))
        target.append((max(-start, 0), max(start + side - length, 0)))
    patch, found = image[(slice(None), *source)], label[tuple(source)]
    if any(pad != (0, 0) for pad in target):
        patch = np.pad(patch, [(0, 0), *target], mode="edge")
        found = np.pad(found, target, constant_values=IGNORED)
    if flips:
        mirrored = tuple(axis for axis in range(n_dims) if rng.random() < 0.5)
        patch = np.flip(patch, tuple(1 + axis for axis in mirrored))
        found = np.flip(found, mirrored)
    if turns and n_dims == 2 and wanted[0] == wanted[1]:
        quarters = int(rng.integers(4))
        patch, found = np.rot90(patch, quarters, (1, 2)), np.rot90(found, quarters)
    return np.array(patch, order="C"), np.array(found, order="C")


def _foreground_pixel(
    label: NDArray[np.uint8],
    pixels: Mapping[int, NDArray[np.int64]] | None,
    rng: np.random.Generator,
) -> tuple[int, ...] | None:
    pixels = class_pixels(label) if pixels is None else pixels
    if not pixels:
        return None
    of_class = pixels[sorted(pixels)[int(rng.integers(len(pixels)))]]
    place = of_class[int(rng.integers(len(of_class)))]
    return tuple(int(k) for k in np.unravel_index(place, label.shape))


def _check(
    image: NDArray[Any], label: NDArray[np.uint8], size: list[int], foreground: float
) -> None:
    if image.shape[1:] != label.shape or label.dtype != np.uint8:
        raise ValueError(
            f"Expected `image` (C, *spatial) and `label` (*spatial) of uint8, got {image.shape} "
            f"and {label.shape} of {label.dtype}."
        )
    if len(size) != label.ndim or min(size) < 1:
        raise ValueError(
            f"Expected `size` of at least 1, one number or one for each of {label.ndim} "
            f"dimensions, got {size}."
        )
    if not 0 <= foreground <= 1:
        raise ValueError(f"Expected `foreground` between 0 and 1, got {foreground}.")
