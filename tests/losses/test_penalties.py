"""Penalties against the published implementations, their limits, and their extremes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.losses import (
    ClassDependentTemperatureLoss,
    ComplementCrossEntropyLoss,
    CrossEntropyLoss,
    FocalLoss,
    HardMining,
    HardMiningLoss,
    LDAMLoss,
    balanced_softmax_loss,
    bias_compensated_loss,
    complement_cross_entropy_loss,
    focal_loss,
    hard_mining_loss,
)

from .cases import reference


def tensors(case):
    return torch.tensor(case["inputs"]["logits"]), torch.tensor(case["inputs"]["target"])


def gradient_of(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("case", reference("hard_mining"))
def test_published_hard_mining(case):
    value = hard_mining_loss(*tensors(case), **case["args"])
    assert value.item() == pytest.approx(case["value"], rel=3e-7)


def test_published_hard_mining_of_the_softmax_form():
    (case,) = reference("hard_mining_x10")
    value = HardMiningLoss(alpha=case["args"]["scale"], delta=case["args"]["delta"])(*tensors(case))
    assert value.item() == pytest.approx(case["value"], rel=3e-7)


def test_documented_hard_mining():
    """Probabilities enter as their logarithms, which the softmax leaves as they are."""
    (case,) = reference("hard_mining_documented")
    logits = torch.tensor(case["inputs"]["probabilities"]).log().clamp(min=-1e4)
    one_hot = torch.tensor(case["inputs"]["target_one_hot"])
    for target in (one_hot, one_hot.argmax(1)):
        value = hard_mining_loss(logits, target, **case["args"])
        assert value.item() == pytest.approx(0.46121484, abs=3e-8)


@pytest.mark.parametrize("case", reference("complement_cross_entropy"))
def test_published_complement_cross_entropy(case):
    value = complement_cross_entropy_loss(*tensors(case), **case["args"])
    assert value.item() == pytest.approx(case["value"], rel=3e-7)


def test_published_long_tail_losses():
    (case,) = reference("balanced_softmax")
    counts = case["args"]["class_counts"]
    value = balanced_softmax_loss(*tensors(case), class_counts=counts)
    assert value.item() == pytest.approx(case["value"], rel=3e-7)
    (case,) = reference("class_dependent_temperature")
    value = ClassDependentTemperatureLoss(counts)(*tensors(case))
    assert value.item() == pytest.approx(case["value"], rel=3e-7)
    for case in reference("bias_compensated"):
        progress = case["args"]["epoch"] / case["args"]["max_epochs"]
        value = bias_compensated_loss(*tensors(case), class_counts=counts, progress=progress)
        assert value.item() == pytest.approx(case["value"], rel=3e-7)


def naive_hard_mining(p: float, alpha: float, gamma: float, delta: float) -> float:
    """The definition, one pixel at a time."""

    def sinc(x: float) -> float:
        return math.sin(math.pi * x) / (math.pi * x) if x else 1.0

    bounded = min(max(p, 1e-7), 1.0)
    h = max(sinc(bounded) - math.exp(-delta * bounded) * sinc(delta * bounded), 0.0)
    return -alpha * h**gamma * math.log(p)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0, 2), st.floats(0.5, 3), st.floats(1, 1e10))
@settings(deadline=None, max_examples=300)
def test_hard_mining_is_its_definition(p, alpha, gamma, delta):
    lp = torch.tensor(math.log(p), dtype=torch.float64)
    value = HardMining(alpha, gamma, delta)(lp)
    expected = naive_hard_mining(p, alpha, gamma, delta)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_limits():
    logits, target = torch.randn(6, 4, 5), torch.randint(0, 4, (6, 5))
    plain = F.cross_entropy(logits, target)
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0), plain)
    torch.testing.assert_close(hard_mining_loss(logits, target, gamma=0.0), plain)
    torch.testing.assert_close(
        complement_cross_entropy_loss(logits, target, balancing_factor=0.0), plain
    )
    torch.testing.assert_close(LDAMLoss((3, 3, 3, 3), 0.0, 1.0)(logits, target), plain)
    torch.testing.assert_close(
        balanced_softmax_loss(logits, target, class_counts=(5, 5, 5, 5)), plain
    )
    two, target = torch.randn(6, 2, 5), torch.randint(0, 2, (6, 5))
    torch.testing.assert_close(
        ComplementCrossEntropyLoss()(two, target), F.cross_entropy(two, target)
    )


def test_the_sign_of_the_complement():
    """f > 0 pays for a flat complement (sharpens), f < 0 for a sharp one (flattens)."""
    flat, sharp = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, -9.0]])
    target = torch.tensor([0])

    def entropy_term(logits, f):
        loss = complement_cross_entropy_loss(logits, target, balancing_factor=f)
        return (loss - F.cross_entropy(logits, target)).item()

    assert entropy_term(flat, 1.0) > entropy_term(sharp, 1.0)
    assert entropy_term(flat, -1.0) < entropy_term(sharp, -1.0)


def test_hard_mining_of_110_peaks_near_one_percent():
    p = torch.linspace(1e-4, 1, 9999, dtype=torch.float64)
    value = HardMining(delta=110.0)(p.log())
    assert value.max().item() == pytest.approx(4.75, abs=0.01)
    assert p[value.argmax()].item() == pytest.approx(0.01, abs=0.002)


EXTREMES = [
    FocalLoss(gamma=0.3), FocalLoss(gamma=0.5), FocalLoss(gamma=1.0), FocalLoss(gamma=2.0),
    HardMiningLoss(), HardMiningLoss(gamma=0.5), HardMiningLoss(delta=1e7),
    HardMiningLoss(delta=1e10),
    HardMiningLoss(gamma=0.5, delta=1e10), HardMiningLoss(delta=1.0), HardMiningLoss(delta=110.0),
    ComplementCrossEntropyLoss(1.0), ComplementCrossEntropyLoss(-1.0), CrossEntropyLoss(),
]  # fmt: skip


@pytest.mark.parametrize("loss", EXTREMES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("is_soft", [False, True], ids=["index", "one-hot"])
def test_extreme_logits_are_finite(loss, dtype, is_soft):
    for size in (1e4, 88.0, 17.0, 1e-6, 0.0):
        for sign in (1, -1):
            logits = sign * size * torch.tensor([[1.0, -1.0, 0.0, 0.5]], dtype=dtype).T.repeat(1, 4)
            target = torch.tensor([0, 1, 2, 3])
            logits = logits.T.contiguous()
            form = F.one_hot(target, 4).to(dtype) if is_soft else target
            value, gradient = gradient_of(loss, logits, form)
            assert value.isfinite()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("delta", [1e7, 1e10])
def test_the_published_deltas_turn_no_outlier_down(delta):
    for margin in (10.0, 15.0, 20.0, 100.0):
        logits, target = torch.tensor([[0.0, margin]]), torch.tensor([0])
        expected = F.cross_entropy(logits, target).item()
        value = HardMiningLoss(delta=delta)(logits, target).item()
        assert value == pytest.approx(expected, rel=2e-3)


def test_the_default_delta_turns_outliers_down():
    for margin in (20.0, 100.0, 1e4):
        logits, target = torch.tensor([[0.0, margin]]), torch.tensor([0])
        value, gradient = gradient_of(HardMiningLoss(), logits, target)
        assert value.item() < 0.2 * F.cross_entropy(logits, target).item()
        assert -0.2 < gradient[0, 0] < -0.1  # and leave them a little of their gradient
    ordinary = torch.tensor([[0.0, 9.0]]), torch.tensor([0])
    assert HardMiningLoss()(*ordinary).item() == pytest.approx(9.0, rel=1e-3)
    assert HardMiningLoss().penalty.delta <= 1e6


@pytest.mark.parametrize("loss", [HardMiningLoss(delta=1e7), HardMiningLoss(delta=1e10)], ids=repr)
def test_a_confidently_wrong_pixel_keeps_its_gradient(loss):
    for margin in (15.0, 20.0, 100.0, 1e4):  # p from 3e-7 to 0
        _, gradient = gradient_of(loss, torch.tensor([[0.0, margin]]), torch.tensor([0]))
        assert gradient[0, 0] < -0.1


@pytest.mark.parametrize("margin", [5.0, 12.0, 16.0, 18.0, 40.0, 80.0, 120.0, 1e3, 1e4])
@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_complement_is_exact_at_every_margin(margin, factor):
    rest = torch.tensor([0.3, -0.2, 0.1])
    for sign in (1, -1):
        logits = torch.cat([torch.tensor([sign * margin]), rest]).unsqueeze(0)
        target = torch.tensor([0])

        def loss(z, y):
            return complement_cross_entropy_loss(z, y, balancing_factor=factor)

        value, gradient = gradient_of(loss, logits, target)
        z = logits.double()
        others = z[0, 1:]
        q = torch.softmax(others, 0)
        entropy = -(q * q.log()).sum()
        expected = F.cross_entropy(z, target) + factor / 4 * entropy
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
        _, exact = gradient_of(loss, z, target)
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", EXTREMES, ids=repr)
def test_fast_and_plain_ways_agree(loss):
    """Eager training, inference and the second derivative take different ways to one formula."""
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 4, 5, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 4, (3, 5), generator=rng)
    value, gradient = gradient_of(loss, logits, target)
    with torch.no_grad():
        torch.testing.assert_close(loss(logits, target), value)
    traced = logits.clone().requires_grad_()
    (again,) = torch.autograd.grad(loss(traced, target), traced, create_graph=True)
    torch.testing.assert_close(again, gradient)
    torch.testing.assert_close(torch.func.grad(loss)(logits, target), gradient)


@pytest.mark.parametrize("loss", EXTREMES, ids=repr)
def test_gradients_of_single_images_through_vmap(loss):
    logits, target = torch.randn(3, 4, 5), torch.randint(0, 4, (3, 5))

    def of_one(z, y):
        return loss(z.unsqueeze(0), y.unsqueeze(0))

    each = torch.func.vmap(torch.func.grad(of_one))(logits, target)
    for one, z, y in zip(each, logits, target, strict=True):
        torch.testing.assert_close(one, torch.func.grad(of_one)(z, y))


def test_alpha_is_a_factor_or_one_for_each_class():
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    alpha = torch.tensor([0.2, 1.0, 3.0])
    errors = FocalLoss(reduction="none")(logits, target)
    torch.testing.assert_close(
        FocalLoss(alpha, reduction="none")(logits, target), alpha[target] * errors
    )
    torch.testing.assert_close(FocalLoss(0.25, reduction="none")(logits, target), 0.25 * errors)
