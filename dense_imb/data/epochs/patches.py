"""Random training patches of images, with rare classes in many of them.

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
    """Return a random generator that depends on its arguments only.

    Args:
        seed: random seed, 0 .. 2^64 - 1.
        epoch: pass over the data, 0 .. 2^64 - 1.
        sample: number of the sample, 0 .. 2^64 - 1.

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
    pads_labels: bool = False,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Cut a random patch, with a foreground pixel in some of them.

    With probability `foreground`, a foreground class of the image is drawn uniformly, then one of
    its pixels, then one of the patches inside the image that hold this pixel. The pixel can lie
    anywhere in the patch, not only at its centre. Otherwise, and if the image has no foreground,
    all patches inside the image are equally likely.

    An image smaller than the patch lies anywhere in it. The pixels around it repeat its outermost
    pixels, so that no edge appears. Their label is IGNORED, so that no loss uses them, unless
    `pads_labels` is set.

    Args:
        image: (C, *spatial).
        label: (*spatial) classes and IGNORED.
        size: size of the patch, one number or one for each dimension.
        rng: random generator, see `patch_rng`.
        foreground: probability of a patch around a foreground pixel.
        flips: mirror each axis with probability 1/2.
        turns: rotate square patches in 2-D by 0 to 3 quarters.
        pixels: `class_pixels(label)`, which `LabelledImages.pixels` keeps; saves a search through
            all pixels for each patch.
        pads_labels: repeat the outermost labels too, for losses that can ignore no pixel.

    Returns:
        (C, *size) image and (*size) label, new arrays.
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
    patch, classes = image[(slice(None), *source)], label[tuple(source)]
    if any(pad != (0, 0) for pad in target):
        patch = np.pad(patch, [(0, 0), *target], mode="edge")
        if pads_labels:
            classes = np.pad(classes, target, mode="edge")
        else:
            classes = np.pad(classes, target, constant_values=IGNORED)
    if flips:
        mirrored = tuple(axis for axis in range(n_dims) if rng.random() < 0.5)
        patch = np.flip(patch, tuple(1 + axis for axis in mirrored))
        classes = np.flip(classes, mirrored)
    if turns and n_dims == 2 and wanted[0] == wanted[1]:
        quarters = int(rng.integers(4))
        patch, classes = np.rot90(patch, quarters, (1, 2)), np.rot90(classes, quarters)
    return np.array(patch, order="C"), np.array(classes, order="C")


def _foreground_pixel(
    label: NDArray[np.uint8],
    pixels: Mapping[int, NDArray[np.int64]] | None,
    rng: np.random.Generator,
) -> tuple[int, ...] | None:
    pixels = class_pixels(label) if pixels is None else pixels
    if not pixels:
        return None
    members = pixels[sorted(pixels)[int(rng.integers(len(pixels)))]]
    place = members[int(rng.integers(len(members)))]
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
