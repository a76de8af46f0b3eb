"""The threshold of the best F1 from calibrated probabilities alone, without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from dense_imb.base.checks import readable
from dense_imb.metrics._checks import checked_score


def best_f1_threshold(probability: Tensor) -> float:
    """Return the threshold with the largest F1 that the probabilities promise.

        argmax_t  2 sum_{p >= t} p / (#{p >= t} + sum p)

    It lies at half of this F1, and below 1/2: keep `probability >= threshold`. No label is needed,
    but probabilities must be calibrated, as natural probabilities are.

    Args:
        probability: probability of the foreground of each pixel (hit), any shape.

    Example:
        >>> round(best_f1_threshold(torch.tensor([0.9, 0.6, 0.4, 0.1, 0.0, 0.0])), 4)
        0.4
    """
    (probability,) = readable(probability=probability)
    score = checked_score(probability, "probability").flatten()
    if score.numel() == 0:
        raise ValueError("Expected `probability` of one pixel or more, got none.")
    value, count = torch.unique(score, return_counts=True)
    kept = count.flip(0).cumsum(0).flip(0)
    mass = (value.double() * count).flip(0).cumsum(0).flip(0)
    return float(value[int(expected_f1(kept, mass).argmax())])


def expected_f1(kept: Tensor, mass: Tensor) -> Tensor:
    """Return the F1 that probabilities promise at each threshold.

    Args:
        kept: number of pixels at or above each threshold; the first keeps all.
        mass: sum of their probabilities.
    """
    return 2 * mass / (kept + mass[0]).clamp(min=1e-300)
