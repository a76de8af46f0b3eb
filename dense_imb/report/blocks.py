"""Large images drawn small: a block of pixels becomes one, and rare pixels stay visible.

A page draws an image some 500 pixels wide. matplotlib takes a hundred bytes for each pixel that it
is given, and leaves most of them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 1200  # pixels of a side that is drawn


def block_side(shape: Sequence[int]) -> int:
    """Return the side of the blocks that an image (H, W) is drawn in; 1 for all its pixels.

    Example:
        >>> block_side((1200, 900)), block_side((600, 6000))
        (1, 5)
    """
    return -(-max(shape) // MOST)


def blocks_text(side: int) -> str:
    """Return a sentence about blocks of this side for a caption, after a space; "" for pixels."""
    return f" Drawn with {side} x {side} pixels as one." if side > 1 else ""


def in_blocks(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Return a plane (H, W, ...) as (rows, side, columns, side, ...); a rest at the end is cut."""
    rows, columns = (max(length // side, 1) for length in plane.shape[:2])
    side_y, side_x = (min(side, length) for length in plane.shape[:2])
    whole = plane[: rows * side_y, : columns * side_x]
    return whole.reshape(rows, side_y, columns, side_x, *plane.shape[2:])


def mean_of_blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the mean of each block of an image (H, W, C), in the type of the image."""
    if side == 1:
        return image
    means: NDArray[Any] = in_blocks(image, side).mean((1, 3), dtype=np.float32)
    return means.astype(image.dtype)


def largest_of_blocks(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the value of largest magnitude of each block; NaN where all are.

    Example:
        >>> largest_of_blocks(np.array([[0.0, -3.0], [2.0, np.nan]], np.float32), 2).tolist()
        [[-3.0]]
    """
    if side == 1:
        return values
    blocks = in_blocks(values, side)
    top: NDArray[np.float32] = np.fmax.reduce(blocks, (1, 3))
    bottom: NDArray[np.float32] = np.fmin.reduce(blocks, (1, 3))
    return np.where(top >= -bottom, top, bottom)


def prevailing(classes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the most frequent class above 0 of each block, and 0 where there is none.

    Example:
        >>> prevailing(np.array([[0, 0, 0, 0], [0, 2, 0, 0]], np.uint8), 2).tolist()
        [[2, 0]]
    """
    if side == 1:
        return classes
    shown = np.zeros(in_blocks(classes, side)[:, 0, :, 0].shape, np.uint8)
    most = np.zeros(shown.shape, np.int64)
    for k in np.unique(classes[classes > 0]).tolist():
        n = in_blocks(classes == k, side).sum((1, 3))
        shown[n > most] = k
        most = np.maximum(n, most)
    return shown
