"""Parts of large images that a live page shows: their cost must not depend on the image's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dense_imb.tasks.pixels import box_around

_MOST_IMAGES = 32  # first validation images, among which the examples are chosen
N_EXAMPLES = 2
_WINDOWS = {2: 2, 3: 1}  # sides of a part, in patches


def parts_to_show(
    is_lit: Callable[[int], NDArray[np.bool_]], n_images: int, patch: Sequence[int]
) -> dict[int, tuple[slice, ...]]:
    """Return the images to show by number, each with the part around its lit pixels.

    Args:
        is_lit: returns whether each pixel of an image is lit.
        n_images: number of images.
        patch: size of the crops of the training.
    """
    chosen = fullest([int(is_lit(i).sum()) for i in range(min(_MOST_IMAGES, n_images))])
    return {i: part_around(is_lit(i), patch) for i in chosen}


def part_around(is_lit: NDArray[np.bool_], patch: Sequence[int]) -> tuple[slice, ...]:
    """Return the part of an image around its lit pixels: two patches a side in 2-D, one in 3-D.

    Example:
        >>> is_lit = np.zeros((100, 30), bool)
        >>> is_lit[90, 4] = True
        >>> part_around(is_lit, (10, 20))
        (slice(80, 100, None), slice(0, 30, None))
    """
    return box_around(is_lit, [_WINDOWS[is_lit.ndim] * length for length in patch])


def fullest(n_lit: Sequence[int]) -> list[int]:
    """Return the images with the most and with the median number of lit pixels.

    Images without any come last.

    Example:
        >>> fullest([0, 4, 9, 2]), fullest([0]), fullest([])
        ([2, 1], [0], [])
    """
    order = sorted(range(len(n_lit)), key=lambda i: -n_lit[i])
    n_some = max(sum(n > 0 for n in n_lit), 1)
    return list(dict.fromkeys([*order[:1], *order[n_some // 2 : n_some // 2 + 1]]))[:N_EXAMPLES]
