"""Counts of whole numbers, for exact quantiles and means in little memory."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1.0}


class Tally:
    """Frequency of each whole number.

    Example:
        >>> tally = Tally()
        >>> tally.add(np.array([3, 3, 5, 9]))
        >>> tally.summary()
        {'mean': 5.0, 'min': 3, 'q05': 3, 'median': 3, 'q95': 9, 'max': 9}
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, numbers: NDArray[np.integer]) -> None:
        """Count more numbers."""
        values, counts = np.unique(numbers, return_counts=True)
        self._counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers in ascending order, and the frequency of each."""
        pairs = np.array(sorted(self._counts.items()), np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def summary(self) -> dict[str, float]:
        """Return mean and quantiles; NaN where nothing was counted."""
        return summary_of(*self.arrays())


def summary_of(values: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Return mean and quantiles of values in ascending order.

    A quantile is the smallest value that at least that fraction does not exceed.

    Args:
        values: different values.
        counts: frequency of each value.
    """
    total = int(counts.sum())
    if total == 0:
        return dict.fromkeys(["mean", *QUANTILES], math.nan)
    below = counts.cumsum()
    summary = {"mean": float((values * counts).sum() / total)}
    for name, share in QUANTILES.items():
        rank = max(1, math.ceil(share * total))
        summary[name] = int(values[np.searchsorted(below, rank)])
    return summary
