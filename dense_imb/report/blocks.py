"""Large images drawn small: a block of pixels becomes one, and rare pixels stay visible.

A page draws an image some 500 pixels wide. matplotlib takes a hundred bytes for each pixel that it
is given, and leaves most of them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.inspection.figure import BRIGHT

MOST = 1200  # pixels of a side that is drawn


def block_side(shape: Sequence[int]) -> int:
    """Return the side of the blocks that an image (H, W) is drawn in; 1 for all its pixels.

    Example:
        >>> block_side((1200, 900)), block_side((600, 6000))
        (1, 5)
    """
    return -(-max(shape) // MOST)


def blocks_text(side: int, shown: str) -> str:
    """Return a sentence about blocks for a caption, after a space; "" for single pixels.

    Args:
        side: side of the blocks.
        shown: what a block shows, for example "its largest value".
    """
    return f" Drawn with {side} x {side} pixels as one, which shows {shown}." if side > 1 else ""


def in_blocks(plane: NDArray[Any], side: int, rest: Any = None) -> NDArray[Any]:
    """Return a plane (H, W, ...) as (rows, side, columns, side, ...).

    Args:
        plane: pixels.
        side: side of the blocks.
        rest: value that fills the blocks at the end; by default the pixels of the edge.
    """
    ends = [(0, -length % side) for length in plane.shape[:2]]
    if any(more for _, more in ends):
        ends += [(0, 0)] * (plane.ndim - 2)
        options: Any = {"mode": "edge"} if rest is None else {"constant_values": rest}
        plane = np.pad(plane, ends, **options)
    rows, columns = (length // side for length in plane.shape[:2])
    return plane.reshape(rows, side, columns, side, *plane.shape[2:])


def mean_of_blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the mean of each block of an image (H, W, C), float32; a bright uint8 image stays one.

    Example:
        >>> mean_of_blocks(np.array([[[0], [1]], [[0], [0]]], np.uint8), 2).tolist()
        [[[0.25]]]
    """
    if side == 1:
        return image
    means: NDArray[Any] = in_blocks(image, side).mean((1, 3), dtype=np.float32)
    is_bright = image.dtype == np.uint8 and means.max(initial=0) > BRIGHT
    return np.rint(means).astype(np.uint8) if is_bright else means


def largest_of_blocks(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the value of largest magnitude of each block; NaN where all are.

    Example:
        >>> largest_of_blocks(np.array([[0.0, -3.0], [2.0, np.nan]], np.float32), 2).tolist()
        [[-3.0]]
    """
    if side == 1:
        return values
    blocks = in_blocks(values, side, np.nan)
    top: NDArray[np.float32] = np.fmax.reduce(blocks, (1, 3))
    bottom: NDArray[np.float32] = np.fmin.reduce(blocks, (1, 3))
    return np.where(top >= -bottom, top, bottom)


def first_of_blocks(
    classes: NDArray[np.uint8], side: int, order: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the class of each block that comes first in an order; 0 where it has none of them.

    Args:
        classes: (H, W).
        side: side of the blocks.
        order: classes above 0, those to show first.

    Example:
        >>> first_of_blocks(np.array([[1, 1, 0, 0], [1, 2, 0, 0]], np.uint8), 2, [2, 1]).tolist()
        [[2, 0]]
    """
    if side == 1:
        return classes
    shown = np.zeros([-(-length // side) for length in classes.shape], np.uint8)
    for k in reversed(order):
        shown[in_blocks(classes == k, side, False).any((1, 3))] = k
    return shown


def classes_by_rarity(classes: NDArray[np.uint8], last: Sequence[int] = ()) -> list[int]:
    """Return the classes above 0 of an image by their number of pixels, those in `last` at the end.

    Example:
        >>> classes_by_rarity(np.array([0, 0, 1, 1, 2, 255], np.uint8), last=[255])
        [2, 1, 255]
    """
    present, n = np.unique(classes, return_counts=True)
    order = [k for k in present[np.argsort(n, kind="stable")].tolist() if k > 0]
    return [k for k in order if k not in last] + [k for k in order if k in last]
