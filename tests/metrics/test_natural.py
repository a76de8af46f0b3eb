"""Natural probabilities fitted on the logits and labels of one's own data."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from dense_imb.metrics import fit_probability

RNG = torch.Generator().manual_seed(0)
Z = 3 * torch.randn(4, 1, 200, 200, generator=RNG)
POSTERIOR = (0.6 * Z - 2).sigmoid()
LABEL = (torch.rand(POSTERIOR.shape, generator=RNG) < POSTERIOR)[:, 0].long()


def both_channels(z: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(z), z + 1], 1)


@pytest.mark.parametrize("channels", [1, 2])
def test_slope_and_bias_of_two_classes(channels: int) -> None:
    z = Z if channels == 1 else both_channels(Z)
    natural = fit_probability(z, LABEL)
    assert natural.slope[1] == pytest.approx(0.6, abs=0.01)
    assert natural.bias[1] == pytest.approx(-2, abs=0.04)
    probability = natural.probability(z)
    assert probability.shape == z.shape
    torch.testing.assert_close(probability[:, -1:], POSTERIOR, atol=0.01, rtol=0)
    # a fit on one form serves the other, and is stored as any object
    again = pickle.loads(pickle.dumps(natural))
    torch.testing.assert_close(again.probability(Z), POSTERIOR, atol=0.01, rtol=0)


def test_three_classes() -> None:
    z = 2 * torch.randn(100_000, 3, generator=RNG)
    true = (torch.tensor([1.0, 0.6, 1.5]) * z.log_softmax(1) - torch.tensor([0.0, 1.0, 2.0])).exp()
    true = true / true.sum(1, keepdim=True)
    natural = fit_probability(z, torch.multinomial(true, 1, generator=RNG)[:, 0])
    assert (natural.probability(z) - true).abs().mean() < 0.01
    assert (z.softmax(1) - true).abs().mean() > 0.1


def test_ignored_pixels_do_not_count() -> None:
    z, label = Z.clone(), LABEL.clone()
    label[:, :50] = 255
    z[:, :, :50] = torch.nan
    expected = fit_probability(Z[:, :, 50:], LABEL[:, 50:])
    assert fit_probability(z, label, ignore_index=255) == expected
    assert fit_probability(z, LABEL, mask=label < 255) == expected


@pytest.mark.parametrize(
    ("logits", "target", "sentence"),
    [
        (Z, 0 * LABEL, "at least 20 validation pixels or hits of every class .* fewer of class 1;"),
        (Z / 0, LABEL, "Expected `logits` to be finite, got "),
        (Z, LABEL * 255, "Expected `target` between 0 and 1, got 255"),
        (both_channels(Z), both_channels(Z).softmax(1), "a fit of probabilities has no formula"),
    ],
)
def test_data_that_fit_nothing_are_refused(logits: Tensor, target: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_probability(logits, target)
