"""Long-tailed subsets of balanced data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.random import Draws

PROFILES = ("exponential", "step")
_WHICH = 0xC1A57  # purpose of the random numbers


def long_tail_counts(
    n_classes: int, largest: int, imb_ratio: float, profile: str = "exponential"
) -> tuple[int, ...]:
    """Return the images of each class, from `largest` to `largest` / ratio (Cui et al., 2019).

        exponential   n_k = floor(largest r^(k / (C - 1)))
        step          n_k = largest in the first half of the classes, floor(largest r) in the other

    with r = 1 / ratio. A ratio of 100 and one of 0.01 mean the same.

    Args:
        n_classes: C, 2 or more.
        largest: number of images of the first class.
        imb_ratio: ratio of the largest class to the smallest; 1 keeps all images.
        profile: "exponential" or "step".

    Example:
        >>> long_tail_counts(10, 5000, 100)
        (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
        >>> long_tail_counts(4, 500, 0.1, "step")
        (500, 500, 50, 50)
    """
    check_choice("profile", profile, PROFILES)
    check_at_least("n_classes", n_classes, 2)
    check_at_least("largest", largest, 1)
    if not (math.isfinite(imb_ratio) and imb_ratio > 0):
        raise ValueError(f"Expected `imb_ratio` above 0, for example 100 or 0.01, got {imb_ratio}.")
    ratio = imb_ratio if imb_ratio >= 1 else 1 / imb_ratio
    if profile == "step":
        power = [float(k >= n_classes // 2) for k in range(n_classes)]
    else:
        power = [k / (n_classes - 1) for k in range(n_classes)]
    # a whole number up to rounding is one
    counts = tuple(math.floor(largest * ratio**-p * (1 + 1e-12)) for p in power)
    if counts[-1] < 1:
        raise ValueError(
            f"Expected `imb_ratio` up to {largest}, the images of the largest class, so that each "
            f"class keeps one, got {imb_ratio:g}."
        )
    return counts


def long_tail(labels: ArrayLike, counts: Sequence[int], seed: int = 0) -> NDArray[np.int64]:
    """Draw `counts[k]` images of each class k; return their numbers in increasing order.

    Args:
        labels: (N,) classes.
        counts: number of images of each class.
        seed: random seed. A larger count keeps the images of a smaller one.

    Example:
        >>> labels = np.repeat([0, 1], 5)
        >>> np.bincount(labels[long_tail(labels, (4, 1))]).tolist()
        [4, 1]
    """
    label = np.asarray(labels, np.int64)
    key = Draws(seed, 0, np.arange(len(label))).uniform(_WHICH, 1)[0]
    stay = []
    for k, count in enumerate(counts):
        members = np.flatnonzero(label == k)
        if len(members) < count:
            raise ValueError(f"Expected {count} images of class {k}, got {len(members)}.")
        stay.append(members[np.argsort(key[members], kind="stable")[:count]])
    return np.sort(np.concatenate(stay))
