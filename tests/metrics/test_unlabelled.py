"""The threshold of the best F1 without labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_imb.metrics import ScoreHistogram, best_f1_threshold


def _calibrated(n: int = 200_000) -> tuple[Tensor, Tensor]:
    """Rare pixels whose label has exactly the probability that they state."""
    rng = torch.Generator().manual_seed(0)
    probability = (3 * torch.randn(n, generator=rng, dtype=torch.float64) - 6).sigmoid()
    return probability, torch.rand(n, generator=rng, dtype=torch.float64) < probability


def _f1(probability: Tensor, is_signal: Tensor, threshold: float) -> float:
    kept = probability >= threshold
    return float(2 * (kept & is_signal).sum() / (kept.sum() + is_signal.sum()))


def test_it_finds_the_best_f1_of_the_labels() -> None:
    probability, is_signal = _calibrated()
    threshold = best_f1_threshold(probability)
    histogram = ScoreHistogram()
    histogram.update(probability, is_signal)
    best, _ = histogram.best_f1()
    assert best == pytest.approx(0.56, abs=0.01)
    assert _f1(probability, is_signal, threshold) > best - 0.003
    assert _f1(probability, is_signal, 0.5) < best - 0.03
    assert threshold == pytest.approx(best / 2, abs=0.01)  # the rule of F*/2


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_a_histogram_finds_the_same(scale: str) -> None:
    probability, is_signal = _calibrated()
    histogram = ScoreHistogram(scale=scale)
    histogram.update(probability if scale == "probability" else probability.logit(), is_signal)
    f1, threshold = histogram.expected_best_f1()
    if scale == "logit":
        threshold = float(torch.tensor(threshold, dtype=torch.float64).sigmoid())
    assert threshold == pytest.approx(best_f1_threshold(probability), abs=0.01)
    assert f1 == pytest.approx(histogram.best_f1()[0], abs=0.005)
    nothing = ScoreHistogram().expected_best_f1()
    assert nothing[0] != nothing[0]


def test_by_hand_and_ties() -> None:
    p = torch.tensor([0.8, 0.4, 0.4, 0.1, 0.1])
    kept = {0.8: 2 * 0.8 / (1 + 1.8), 0.4: 2 * 1.6 / (3 + 1.8), 0.1: 2 * 1.8 / (5 + 1.8)}
    assert max(kept, key=kept.__getitem__) == pytest.approx(best_f1_threshold(p))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one pixel or more, got none"):
        best_f1_threshold(torch.zeros(0))
    with pytest.raises(ValueError, match="between 0 and 1|0 and 1"):
        best_f1_threshold(torch.tensor([1.5]))
