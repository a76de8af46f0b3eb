"""Which weights and priors class statistics propose, with the Python lines to paste."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dense_imb.statistics import ClassStatistics

_DIGITS = 4  # significant ones: a weight is no measurement


class Partition(NamedTuple):
    """A way to divide pixels into classes, and what was counted so."""

    classes: tuple[str, ...]
    statistics: ClassStatistics

    def shares(self) -> dict[str, dict[str, float]]:
        """Pixels, share and images of each class by its name."""
        found = self.statistics
        columns = zip(
            self.classes, found.class_counts, found.shares, found.image_presence, strict=True
        )
        return {
            name: {"pixels": pixels, "share": share, "images": images}
            for name, pixels, share, images in columns
        }

    @property
    def imbalance(self) -> float:
        """Pixels of the largest class to those of the smallest that was seen at all."""
        seen = [count for count in self.statistics.class_counts if count > 0]
        return max(seen) / min(seen) if len(seen) > 1 else math.nan

    def unseen(self) -> list[str]:
        """The classes without a pixel."""
        counts = self.statistics.class_counts
        return [name for name, count in zip(self.classes, counts, strict=True) if count == 0]


def proposals(partition: Partition) -> dict[str, Any]:
    """Weights by each method, log-priors and counts; nothing where fewer than two classes are.

    A class never seen gets the weight 1.

    Example:
        >>> statistics = ClassStatistics.from_counts((900, 100), (10, 5), (1000, 500), n_images=10)
        >>> found = proposals(Partition(("empty", "hit"), statistics))
        >>> found["weights"]["inverse"], found["python"]["inverse"]
        ((0.2, 1.8), 'CrossEntropyLoss(class_weight=(0.2, 1.8))')
    """
    statistics = partition.statistics
    counts = statistics.class_counts
    if sum(count > 0 for count in counts) < 2:
        return {}
    # the effective number saturates at 1 / (1 - beta): let it be as many as there are pixels
    beta = 1 - 10.0 ** -math.ceil(math.log10(sum(counts)))
    seen = _seen(statistics)
    found = {
        "inverse": seen.weights("inverse"),
        "sqrt": seen.weights("sqrt"),
        f"effective, beta={beta:.12g}": seen.weights("effective", beta=beta),
        "median-frequency": seen.weights("median-frequency"),
    }
    weights = {name: _among(rounded(of_seen), counts, 1.0) for name, of_seen in found.items()}
    log_prior = _among(rounded(seen.log_prior()), counts, -math.inf)
    python = {name: f"CrossEntropyLoss(class_weight={weight})" for name, weight in weights.items()}
    python["priors"] = f"BalancedSoftmaxLoss({tuple(counts)})"
    return {"weights": weights, "log_prior": log_prior, "python": python}


def _seen(statistics: ClassStatistics) -> ClassStatistics:
    """The same without the classes never seen, which would drown the others in a mean weight."""
    columns = zip(
        statistics.class_counts,
        statistics.image_presence,
        statistics.pixels_of_images,
        strict=True,
    )
    pixels, images, of_images = zip(*(column for column in columns if column[0]), strict=True)
    return ClassStatistics.from_counts(pixels, images, of_images, statistics.n_images)


def _among(of_seen: Sequence[float], counts: Sequence[int], other: float) -> tuple[float, ...]:
    """A number for each class, `other` for those never seen."""
    numbers = iter(of_seen)
    return tuple(next(numbers) if count else other for count in counts)


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """To a few significant digits, as one pastes them."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
