"""Validation and test images, held out at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.data.parts import assign_parts


def split_by_image(
    n: int, share: float, seed: int = 0, groups: NDArray[Any] | Sequence[Any] | None = None
) -> tuple[list[int], list[int]]:
    """Split images into those to train on and those held out, at least one each.

    Args:
        n: number of images.
        share: fraction of the images to hold out.
        seed: random seed of the split; nothing else enters it.
        groups: (n,) images with equal values, for example of one patient, stay together.

    Returns:
        The numbers of the training images, and of the held-out images.

    Example:
        >>> split_by_image(5, 0.2)
        ([0, 2, 3, 4], [1])
    """
    if n < 2:
        raise ValueError(f"Expected two images or more to hold one out, got {n}.")
    if not 0 < share < 1:
        raise ValueError(f"Expected `share` between 0 and 1, got {share}.")
    group = np.arange(n) if groups is None else np.asarray(groups)
    if group.shape != (n,):
        raise ValueError(
            f"Expected `groups` with a value for each of {n} images, got {group.shape}."
        )
    part = assign_parts(group, [1 - share, share], seed, at_least_one=True)
    return np.flatnonzero(part == 0).tolist(), np.flatnonzero(part == 1).tolist()
