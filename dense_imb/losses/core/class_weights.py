"""Class weights from class counts: the usual formulas, scaled to a mean of 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.losses.core.counts import class_counts_of

EFFECTIVE_BETA = 0.9999  # Cui et al., 2019, arXiv 1901.05555


def class_weights(
    class_counts: Any, method: str = "inverse", *, beta: float = EFFECTIVE_BETA
) -> tuple[float, ...]:
    """Return one weight for each class, with a mean of 1.

    | method | weight of class k |
    | --- | --- |
    | inverse | 1 / n_k |
    | sqrt | 1 / sqrt(n_k) |
    | effective | (1 - beta) / (1 - beta^n_k) |

    The effective number saturates at 1 / (1 - beta) = 10,000 samples. Pixels come in millions:
    pass a beta nearer to 1, or use another method.

    Args:
        class_counts: n_k, a sequence or a `ClassStatistics`. A class without samples gets a finite
            weight, with a warning.
        method: one of the table.
        beta: parameter of "effective", below 1.

    Example:
        >>> class_weights([900, 100])
        (0.2, 1.8)
    """
    check_choice("method", method, _METHODS)
    check_at_least("beta", beta, 0)
    if beta >= 1:
        raise ValueError(f"Expected `beta` below 1, got {beta}.")
    weight = [_METHODS[method](count, beta) for count in class_counts_of(class_counts)]
    return scale_to_mean_one(weight)


def scale_to_mean_one(weight: list[float]) -> tuple[float, ...]:
    """Scale weights to a mean of 1."""
    scale = len(weight) / sum(weight)
    return tuple(value * scale for value in weight)


_METHODS: dict[str, Callable[[float, float], float]] = {
    "inverse": lambda count, beta: 1 / count,
    "sqrt": lambda count, beta: count**-0.5,
    "effective": lambda count, beta: (1 - beta) / (1 - beta**count),
}
