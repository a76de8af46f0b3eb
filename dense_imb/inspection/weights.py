"""Class weights and priors that follow from class statistics, with Python lines to paste."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dense_imb.statistics import ClassStatistics

_DIGITS = 4  # significant digits


class Partition(NamedTuple):
    """Pixels divided into classes, with the counts of each."""

    classes: tuple[str, ...]
    statistics: ClassStatistics

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the pixels, the share and the images of each class, by its name."""
        counted = self.statistics
        columns = zip(
            self.classes, counted.class_counts, counted.shares, counted.image_presence, strict=True
        )
        return {
            name: {"pixels": pixels, "share": share, "images": images}
            for name, pixels, share, images in columns
        }

    @property
    def imbalance(self) -> float:
        """Pixels of the largest class over those of the smallest present class."""
        present = [count for count in self.statistics.class_counts if count > 0]
        return max(present) / min(present) if len(present) > 1 else math.nan

    def absent(self) -> list[str]:
        """Return the classes without a pixel."""
        counts = self.statistics.class_counts
        return [name for name, count in zip(self.classes, counts, strict=True) if count == 0]


def proposals(partition: Partition) -> dict[str, Any]:
    """Return weights by each method, log-priors and the Python lines that use them.

    An absent class gets the weight 1. With fewer than two classes present, nothing is returned.

    Example:
        >>> statistics = ClassStatistics.from_counts((900, 100), (10, 5), (1000, 500), n_images=10)
        >>> proposed = proposals(Partition(("empty", "hit"), statistics))
        >>> proposed["weights"]["inverse"], proposed["python"]["inverse"]
        ((0.2, 1.8), 'CrossEntropyLoss(class_weight=(0.2, 1.8))')
    """
    statistics = partition.statistics
    counts = statistics.class_counts
    if sum(count > 0 for count in counts) < 2:
        return {}
    # the effective number saturates at 1 / (1 - beta), here at the number of pixels
    beta = 1 - 10.0 ** -math.ceil(math.log10(sum(counts)))
    present = _present(statistics)
    present_weights = {
        "inverse": present.weights("inverse"),
        "sqrt": present.weights("sqrt"),
        f"effective, beta={beta:.12g}": present.weights("effective", beta=beta),
        "median-frequency": present.weights("median-frequency"),
    }
    weights = {
        name: _spread(rounded(values), counts, 1.0) for name, values in present_weights.items()
    }
    log_prior = _spread(rounded(present.log_prior()), counts, -math.inf)
    python = {name: f"CrossEntropyLoss(class_weight={weight})" for name, weight in weights.items()}
    python["priors"] = f"BalancedSoftmaxLoss({tuple(counts)})"
    return {"weights": weights, "log_prior": log_prior, "python": python}


def _present(statistics: ClassStatistics) -> ClassStatistics:
    """Return the statistics of the present classes; absent ones would dominate a mean weight."""
    columns = zip(
        statistics.class_counts,
        statistics.image_presence,
        statistics.pixels_of_images,
        strict=True,
    )
    pixels, images, image_pixels = zip(*(one for one in columns if one[0]), strict=True)
    return ClassStatistics.from_counts(pixels, images, image_pixels, statistics.n_images)


def _spread(values: Sequence[float], counts: Sequence[int], other: float) -> tuple[float, ...]:
    """Return the value of each present class, in its place, and `other` for absent ones."""
    numbers = iter(values)
    return tuple(next(numbers) if count else other for count in counts)


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Round to a few significant digits."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
