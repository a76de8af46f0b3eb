"""Natural probabilities: the outputs of each loss with an inverse give the true posterior back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dense_imb import losses
from dense_imb.losses import Balance, Focal
from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.natural import NoInverseError, balance_weights
from dense_imb.losses.core.penalty import Penalty
from tests.losses.cases import CASES

_COUNTS = {2: [90.0, 10.0], 3: [80.0, 15.0, 5.0]}
Make = Callable[[int], nn.Module]

WITH_INVERSE: dict[str, Make] = {
    "cross-entropy": lambda c: losses.CrossEntropyLoss(),
    "class weights": lambda c: losses.CrossEntropyLoss(class_weight=[1.0, 5.0, 2.0][:c]),
    "balance": lambda c: losses.CrossEntropyLoss(balance=Balance()),
    "balance, sum, weights": lambda c: losses.CrossEntropyLoss(
        balance=Balance(weight=[1.0, 0.5, 3.0][:c], combine="sum", frame_weight=0.3)
    ),
    "balance, count_power, weights": lambda c: losses.CrossEntropyLoss(
        balance=Balance(weight=[1.0, 0.5, 3.0][:c], count_power=0.4, frame_weight=0.3)
    ),
    "balance, mixed combine": lambda c: losses.CrossEntropyLoss(
        balance=Balance(combine=["mean", "sum", "mean"][:c], frame_weight=0.3)
    ),
    "focal 2": lambda c: losses.FocalLoss(gamma=2.0),
    "focal 1/2": lambda c: losses.FocalLoss(gamma=0.5),
    "balanced focal, alpha": lambda c: losses.FocalLoss(
        [0.25, 0.75, 0.5][:c], 1.5, balance=Balance()
    ),
    "balanced softmax": lambda c: losses.BalancedSoftmaxLoss(_COUNTS[c]),
    "balanced softmax, tau, focal": lambda c: losses.BalancedSoftmaxLoss(
        _COUNTS[c], 0.7, penalty=Focal(1.0)
    ),
    "temperature": lambda c: losses.ClassDependentTemperatureLoss(_COUNTS[c], 0.2),
    "LDAM": lambda c: losses.LDAMLoss(_COUNTS[c], scale=4.0),
    "LDAM, focal, balance": lambda c: losses.LDAMLoss(
        _COUNTS[c], scale=4.0, penalty=Focal(1.0), balance=Balance()
    ),
    "bias-compensated": lambda c: losses.BiasCompensatedLoss(_COUNTS[c]),
    "bias-compensated, half": lambda c: _at_half(losses.BiasCompensatedLoss(_COUNTS[c])),
    "sum of one": lambda c: losses.CompoundLoss(
        losses.FocalLoss(), losses.HardMiningLoss(), weights=[2.0, 0.0]
    ),
}


def _at_half(loss: Any) -> nn.Module:
    loss.set_progress(0.5)
    return loss  # type: ignore[no-any-return]


def _posterior(n_classes: int, n: int = 12) -> tuple[Tensor, Tensor]:
    """Random P(k|x) of a table of n values of x, and P(x)."""
    rng = torch.Generator().manual_seed(n_classes)
    shift = torch.tensor(_COUNTS[n_classes], dtype=torch.float64).log()
    logits = 1.5 * torch.randn(n, n_classes, generator=rng, dtype=torch.float64) + shift / 2
    weight = torch.rand(n, generator=rng, dtype=torch.float64) + 0.1
    return logits.softmax(1), weight / weight.sum()


def _fitted(loss: nn.Module, n_classes: int, n_channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise a loss over a table of logits; return them, the true posterior and the shares."""
    posterior, weight = _posterior(n_classes)
    mass = weight[:, None] * posterior  # (n, n_classes)
    label = torch.arange(n_classes).expand(len(mass), n_classes).reshape(-1)
    z = torch.zeros(len(mass), n_channels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [z], max_iter=3000, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        shown = z.repeat_interleave(n_classes, 0)
        cost: Tensor = loss(shown, label, pixel_weight=mass.reshape(-1))
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[arg-type]
    return z.detach(), posterior, mass.sum(0)


@pytest.mark.parametrize("name", WITH_INVERSE)
@pytest.mark.parametrize(("n_classes", "n_channels"), [(2, 1), (2, 2), (3, 3)])
def test_the_true_posterior_comes_back(name: str, n_classes: int, n_channels: int) -> None:
    loss = WITH_INVERSE[name](n_classes)
    z, posterior, share = _fitted(loss, n_classes, n_channels)
    natural = loss.probability(z, share)  # type: ignore[operator]
    wanted = posterior if n_channels > 1 else posterior[:, 1:]
    torch.testing.assert_close(natural, wanted, atol=1e-6, rtol=0)
    plain = z.softmax(1) if n_channels > 1 else z.sigmoid()
    if name != "cross-entropy":
        assert (plain - wanted).abs().max() > 0.01


def test_weights_between_balanced_and_plain() -> None:
    share = (0.9, 0.1)
    assert balance_weights(Balance(), share) == pytest.approx((0.5 / 0.9, 5.0))
    assert balance_weights(Balance(count_power=1.0), share) == pytest.approx((1.0, 1.0))
    first, second = balance_weights(Balance(count_power=0.5), share)
    assert second / first == pytest.approx(3.0)


def test_complement_cross_entropy_of_two_classes_is_cross_entropy() -> None:
    loss = losses.ComplementCrossEntropyLoss(balance=Balance())
    z, posterior, share = _fitted(loss, 2, 2)
    torch.testing.assert_close(loss.probability(z, share), posterior, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "loss",
    [
        losses.ACBMSELoss(0.7, 2.0, frame_weight=0.5),
        losses.ACBMSELoss(combine="mean"),
        losses.BalancedRegressionLoss("huber"),
        losses.BalancedRegressionLoss("mse", balance=Balance(weight=(1.0, 3.0))),
    ],
    ids=repr,
)
def test_values_of_targets_0_and_1(loss: Any) -> None:
    posterior, weight = _posterior(2)
    mass = (weight[:, None] * posterior).reshape(-1)
    target = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(len(weight))
    value = torch.full_like(weight, 0.5).requires_grad_()
    optimizer = torch.optim.LBFGS([value], max_iter=500, tolerance_grad=1e-14, tolerance_change=0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        cost: Tensor = loss(value.repeat_interleave(2), target, pixel_weight=mass)
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[arg-type]
    share = (mass.view(-1, 2)).sum(0)
    natural = loss.probability(value.detach(), share)
    torch.testing.assert_close(natural, posterior[:, 1], atol=1e-6, rtol=0)
    assert loss.probability(torch.tensor([-0.1, 1.2]), share).tolist() == [0.0, 1.0]


class _Own(Penalty):
    def __call__(self, lp: Tensor) -> Tensor:
        return torch.expm1(lp) ** 2


class _Shift(Adjustment):
    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return logits + 1


@pytest.mark.parametrize(
    ("loss", "n", "said"),
    [
        (losses.HardMiningLoss(), 2, "`HardMiningLoss` gives no probabilities: the slope of"),
        (losses.RangeLoss(), 2, "`RangeLoss` gives no probabilities: it trains features"),
        (losses.DiceLoss(), 2, "`DiceLoss` gives no probabilities: the best outputs of a region"),
        (losses.TverskyLoss(), 3, "are 0 or 1, whatever the probability"),
        (
            losses.CompoundLoss(losses.DiceLoss(), losses.CrossEntropyLoss()),
            2,
            "a sum of several losses has no inverse",
        ),
        (losses.OutcomeBalancedMSELoss(), 2, "depends on its prediction"),
        (losses.ComplementCrossEntropyLoss(), 3, "more than two classes"),
        (losses.BalancedRegressionLoss("l1"), 2, "only squared errors"),
        (losses.BalancedRegressionLoss("mse", losses.ValueBins([1.0])), 2, 'partition "hits"'),
        (losses.CrossEntropyLoss(balance=Balance(scope="image")), 2, 'scope "image"'),
        (losses.ACBMSELoss(scope="image"), 2, 'scope "image"'),
        (losses.CrossEntropyLoss(balance=Balance(power=4.0)), 2, "with a power"),
        (losses.CrossEntropyLoss(per="instance"), 2, "depends on its instance"),
        (losses.BalancedRegressionLoss(per="instance"), 2, "depends on its instance"),
        (losses.PixelLoss(_Own()), 2, "its penalty _Own has no `log_slope`"),
        (losses.PixelLoss(adjustment=_Shift([1, 1])), 2, "_Shift has no `per_class_terms`"),
        (losses.CrossEntropyLoss(class_weight=[1.0, 0.0]), 2, "class 1 has the weight 0"),
        (
            losses.CompoundLoss(losses.FocalLoss(), losses.CrossEntropyLoss()),
            2,
            "a sum of several losses has no inverse",
        ),
        (
            losses.CompoundLoss(losses.ACBMSELoss(), losses.FocalLoss(), weights=[1.0, 0.0]),
            2,
            "a sum of several losses has no inverse",
        ),
        (
            _at_half(losses.BiasCompensatedLoss([9, 1], penalty=Focal())),
            2,
            "only cross-entropy has an inverse",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_losses_without_an_inverse_say_why(loss: Any, n: int, said: str) -> None:
    with pytest.raises(ValueError, match="gives no probabilities") as problem:
        loss.probability(torch.zeros(1, n, 2), [0.9] * n)
    assert said in str(problem.value)
    assert str(problem.value).count("on validation data") == 1
    assert ". " not in str(problem.value)
    assert str(problem.value).endswith("(--calibrate true).")
    assert problem.value.reason.count(".") == 0


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "Expected `class_share`, the fraction of pixels of each class, for the balance of "
         "CrossEntropyLoss, got none."),
        ([0.5, 0.3, 0.2], "`class_share`"),
        ([1.0, 0.0], "Expected `class_share` above 0 for every class, got 0 for class 1"),
        ([1.5, -0.5], "Expected `class_share` to be a number of at least 0, got -0.5."),
        (0.5, "Expected `class_share` to hold one number for each class"),
    ],
)  # fmt: skip
def test_class_shares_that_do_not_fit(share: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError)) as problem:
        losses.CrossEntropyLoss(balance=Balance()).probability(torch.zeros(1, 1), share)
    assert said in str(problem.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_public_loss_gives_probabilities_or_says_why(case: Any) -> None:
    loss, outputs = case.make(), torch.full((1, case.n_classes, 3), 0.4)
    share = [1 / case.n_classes] * case.n_classes
    probability, refusal = None, ""
    try:
        probability = loss.probability(outputs, share)
    except NoInverseError as problem:
        refusal = str(problem)
    if probability is None:
        assert f"`{case.name}` gives no probabilities: " in refusal
        return
    assert probability.shape == outputs.shape
    assert ((probability >= 0) & (probability <= 1)).all()


def test_counts_are_as_good_as_shares() -> None:
    loss, z = losses.CrossEntropyLoss(balance=Balance()), torch.tensor([[0.3]])
    assert torch.equal(loss.probability(z, [90, 10]), loss.probability(z, torch.tensor([0.9, 0.1])))


@pytest.mark.parametrize("name", WITH_INVERSE)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_large_logits_and_narrow_types(name: str, n_classes: int) -> None:
    """float32 stays near float64 in the log-odds, +-1e4 stays finite, 16 bits are widened."""
    loss: Any = WITH_INVERSE[name](n_classes)
    share = _COUNTS[n_classes]
    part = loss.losses["FocalLoss"] if isinstance(loss, losses.CompoundLoss) else loss
    natural = part.natural(n_classes, share)
    rng = torch.Generator().manual_seed(0)
    z = 8 * torch.randn(500, n_classes, generator=rng)
    wide = natural.logits(z.double())
    torch.testing.assert_close(natural.logits(z).double(), wide, atol=2e-5, rtol=2e-6)
    for extreme in (1e4, -1e4):
        far = torch.zeros(2, n_classes, 3)
        far[0, 1] = extreme
        far[1, 0] = extreme
        for z in (far, far.double()):
            probability = loss.probability(z, share)
            assert probability.isfinite().all()
            torch.testing.assert_close(probability.sum(1), torch.ones(2, 3, dtype=z.dtype))
    half = torch.tensor([[1.0, -2.0, 0.5][:n_classes]], dtype=torch.float16)
    assert loss.probability(half, share).dtype == torch.float32
    assert torch.equal(loss.probability(half, share), loss.probability(half.float(), share))


def test_focal_slope_where_the_pixel_is_certain() -> None:
    """Log-odds of a certain pixel follow (1 + gamma) z, long after 1 - p has no digits left."""
    natural = losses.FocalLoss(gamma=2.0).natural(2)
    z = torch.tensor([[30.0], [60.0], [500.0]])
    # q / |phi'| -> 1 / ((1 + gamma) (1 - p)^gamma) for the likely class, q for the other
    wanted = 3 * z - torch.tensor(3.0).log()
    torch.testing.assert_close(natural.logits(z), wanted, rtol=1e-6, atol=1e-5)


def test_one_channel_equals_two() -> None:
    loss = losses.FocalLoss(gamma=1.0, balance=Balance())
    z = torch.linspace(-9, 9, 31).view(1, 1, 31)
    two = loss.probability(torch.cat([torch.zeros_like(z), z], 1), [0.99, 0.01])
    torch.testing.assert_close(loss.probability(z, [0.99, 0.01]), two[:, 1:], atol=1e-6, rtol=1e-5)


def test_logits_without_channels_are_refused():
    for loss in (losses.CrossEntropyLoss(), losses.CompoundLoss(losses.FocalLoss())):
        with pytest.raises(ValueError, match=r"of the shape \(B, C, \*spatial\), got \(3,\); uns"):
            loss.probability(torch.zeros(3))
