"""LDAM: cross-entropy of scaled logits with a margin, in every precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dense_imb.losses import ComplementCrossEntropyLoss, LDAMLoss, Margin

COUNTS = (5000, 300, 20)


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_cross_entropy_of_logits_with_a_margin(size, dtype):
    rng = torch.Generator().manual_seed(0)
    logits = (size * torch.randn(4, 3, 6, generator=rng, dtype=torch.float64)).to(dtype)
    target = torch.randint(0, 3, (4, 6), generator=rng)
    margin = torch.tensor([0.5 * (20 / n) ** 0.25 for n in COUNTS], dtype=torch.float64)
    one_hot = F.one_hot(target, 3).movedim(-1, 1)
    z = logits.double().clone().requires_grad_()
    expected = F.cross_entropy(30 * (z - one_hot * margin.view(1, 3, 1)), target)
    expected.backward()
    traced = logits.clone().requires_grad_()
    value = LDAMLoss(COUNTS)(traced, target)
    value.backward()
    resolution = 30 * 3 * size * torch.finfo(dtype).eps  # of the scaled logits
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=resolution)
    torch.testing.assert_close(traced.grad.double(), z.grad, rtol=1e-4, atol=1e-6)


def test_extreme_logits_and_margins_are_finite():
    for scale in (1.0, 30.0, 1000.0):
        for size in (0.0, 1.0, 1e3, 1e4):
            logits = torch.tensor([[size, 0.0, -size], [-size, size, 0.0]], requires_grad=True)
            value = LDAMLoss(COUNTS, scale=scale)(logits, torch.tensor([0, 0]))
            value.backward()
            assert value.isfinite()
            assert logits.grad.isfinite().all()


def test_margins_reach_other_losses_through_the_logits():
    logits, target = torch.randn(4, 3, 6), torch.randint(0, 3, (4, 6))
    margin = Margin(COUNTS, scale=2.0)
    torch.testing.assert_close(
        ComplementCrossEntropyLoss(adjustment=margin)(logits, target),
        ComplementCrossEntropyLoss()(margin(logits, target), target),
    )
