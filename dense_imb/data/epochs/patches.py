"""Random training patches of images, with rare classes in many of them.

rng = patch_rng(seed=0, epoch=3, sample=17)
patch, label = draw_patch(image, label, 128, rng)  # (C, 128, 128), (128, 128)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
        >>> bool(patch_rng(7, 0, 3).integers(1000) == patch_rng(7, 0, 3).integers(1000))
        True
    """
    for name, number in (("seed", seed), ("epoch", epoch), ("sample", sample)):
        if int(number) != number or not 0 <= number < 1 << 64:
            raise ValueError(f"Expected `{name}` from 0 to 2^64 - 1, got {number}.")
    # Philox counts up in the first word of its counter: streams of other words never meet
    counter = np.array([0, 0, int(sample), int(epoch)], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=int(seed) | _PURPOSE << 64))


class Patch(NamedTuple):
    """Place of a patch in an image: its box, the padding around the image, mirrors and turns."""

    box: tuple[slice, ...]
    padding: tuple[tuple[int, int], ...]
    mirrored: tuple[int, ...]  # axes
    quarters: int

    def image(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the patch of an image (C, *spatial); its outermost pixels are repeated."""
        return self._cut(image, mode="edge")

    def label(self, label: NDArray[np.uint8], *, pads_labels: bool = False) -> NDArray[np.uint8]:
        """Return the patch of a label map (*spatial), IGNORED around the image.

        With `pads_labels` its outermost labels are repeated, for losses that can ignore no pixel.
        """
        if pads_labels:
            return self._cut(label, mode="edge")
        return self._cut(label, constant_values=IGNORED)

    def instance(self, instance: NDArray[Any]) -> NDArray[Any]:
        """Return the patch of an instance map (*spatial), 0 around the image.

        Numbers are kept: an instance that the border cuts in two remains one.
        """
        return self._cut(instance, constant_values=0)

    def _cut(self, pixels: NDArray[Any], **around: Any) -> NDArray[Any]:
        n_dims = len(self.box)
        index: tuple[Any, ...] = (..., *self.box)
        patch = pixels[index]
        if any(pad != (0, 0) for pad in self.padding):
            patch = np.pad(patch, [*[(0, 0)] * (patch.ndim - n_dims), *self.padding], **around)
        patch = np.flip(patch, tuple(axis - n_dims for axis in self.mirrored))
        if self.quarters:
            patch = np.rot90(patch, self.quarters, (-2, -1))
        return np.array(patch, order="C")


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
    """Cut a random patch, with a foreground pixel in some of them; see `place_patch`.

    Args:
        image: (C, *spatial).
        label: (*spatial) classes and IGNORED.
        size, rng, foreground, flips, turns, pixels: as in `place_patch`.
        pads_labels: repeat the outermost labels too, for losses that can ignore no pixel.

    Returns:
        (C, *size) image and (*size) label, new arrays.
    """
    if image.shape[1:] != label.shape or label.dtype != np.uint8:
        raise ValueError(
            f"Expected `image` (C, *spatial) and `label` (*spatial) of uint8, got {image.shape} "
            f"and {label.shape} of {label.dtype}."
        )
    patch = place_patch(
        label, size, rng, foreground=foreground, flips=flips, turns=turns, pixels=pixels
    )
    return patch.image(image), patch.label(label, pads_labels=pads_labels)


def place_patch(
    label: NDArray[np.uint8],
    size: int | Sequence[int],
    rng: np.random.Generator,
    *,
    foreground: float = 0.5,
    flips: bool = True,
    turns: bool = False,
    pixels: Mapping[int, NDArray[np.int64]] | None = None,
) -> Patch:
    """Draw the place of a random patch, with a foreground pixel in some of them.

    With probability `foreground`, a foreground class of the image is drawn uniformly, then one of
    its pixels, then one of the patches inside the image that hold this pixel. The pixel can lie
    anywhere in the patch, not only at its centre. Otherwise, and if the image has no foreground,
    all patches inside the image are equally likely.

    An image smaller than the patch lies anywhere in it. The pixels around it repeat its outermost
    pixels, so that no edge appears. Their label is IGNORED, so that no loss uses them.

    Args:
        label: (*spatial) classes and IGNORED.
        size: size of the patch, one number or one for each dimension.
        rng: random generator, see `patch_rng`.
        foreground: probability of a patch around a foreground pixel.
        flips: mirror each axis with probability 1/2.
        turns: rotate square patches in 2-D by 0 to 3 quarters.
        pixels: `class_pixels(label)`, which `LabelledImages.pixels` keeps; saves a search through
            all pixels for each patch.
    """
    n_dims = label.ndim
    wanted = [int(size)] * n_dims if isinstance(size, (int, np.integer)) else [*map(int, size)]
    _check(n_dims, wanted, foreground)
    pixel = _foreground_pixel(label, pixels, rng) if rng.random() < foreground else None
    box, padding = [], []
    for axis, (length, side) in enumerate(zip(label.shape, wanted, strict=True)):
        if length < side:  # starts before the image, which lies in it as a whole
            low, high = length - side, 0
        else:
            low, high = 0, length - side
            if pixel is not None:
                low, high = max(low, pixel[axis] - side + 1), min(high, pixel[axis])
        start = int(rng.integers(low, high + 1))
        box.append(slice(max(start, 0), min(start + side, length)))
        padding.append((max(-start, 0), max(start + side - length, 0)))
    mirrored = tuple(axis for axis in range(n_dims) if rng.random() < 0.5) if flips else ()
    is_turned = turns and n_dims == 2 and wanted[0] == wanted[1]
    quarters = int(rng.integers(4)) if is_turned else 0
    return Patch(tuple(box), tuple(padding), mirrored, quarters)


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


def _check(n_dims: int, size: list[int], foreground: float) -> None:
    if len(size) != n_dims or min(size) < 1:
        raise ValueError(
            f"Expected `size` of at least 1, one number or one for each of {n_dims} dimensions, "
            f"got {size}."
        )
    if not 0 <= foreground <= 1:
        raise ValueError(f"Expected `foreground` between 0 and 1, got {foreground}.")
