"""Power means of classes, and weights between plain and balanced: limits and refusals."""

from __future__ import annotations

import math

import pytest
import torch

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    ComplementCrossEntropyLoss,
    CrossEntropyLoss,
    balanced_mean,
)
from dense_imb.losses.foreign.parse import parse_loss

from .cases import frames, labelled_logits
from .test_balance import as_on_an_accelerator

POWERS = (1.5, 2, 7, math.inf)


def by_autograd(error, label, power, share):
    """The definition, differentiated by autograd."""
    means = torch.stack([error[label == c].mean() for c in range(len(share))])
    if math.isinf(power):
        return means.max()
    return (torch.tensor(share) * means**power).sum() ** (1 / power)


@pytest.mark.parametrize("power", POWERS)
def test_value_and_gradients_are_those_of_the_definition(power):
    error = torch.rand(3, 20, dtype=torch.float64, requires_grad=True)
    label = torch.arange(60).view(3, 20) % 3
    balance = Balance(power=power, weight=(1.0, 2.0, 0.5))
    value = balanced_mean(error, label, 3, balance=balance)
    expected = by_autograd(error, label, power, (1 / 3, 2 / 3, 0.5 / 3))
    results = []
    for loss in (value, expected):
        (gradient,) = torch.autograd.grad(loss, error, create_graph=True)
        second = torch.zeros_like(error)
        if gradient.requires_grad:
            (second,) = torch.autograd.grad(gradient.square().sum(), error)
        results.append((loss, gradient, second))
    torch.testing.assert_close(*results)


def test_count_power_goes_from_balanced_to_plain():
    error, label = torch.rand(3, 20, dtype=torch.float64), (torch.arange(60) < 4).view(3, 20)
    one = [error[label == c].mean() for c in (0, 1)]
    for count_power in (0.0, 0.5, 1.0):
        size = torch.tensor([56.0, 4.0]).double() ** count_power
        expected = (size / size.sum() * torch.stack(one)).sum()
        value = balanced_mean(error, label, 2, balance=Balance(count_power=count_power))
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(expected, error.mean())
    absent = Balance(count_power=1, absent="zero")
    torch.testing.assert_close(
        balanced_mean(error, label.long(), 4, balance=absent), error.mean() / 2
    )


@pytest.mark.parametrize("power", POWERS)
def test_no_error_at_all_is_a_finite_zero(power):
    inputs = frames(2)
    target = inputs["target"]
    loss = BalancedRegressionLoss("l1", balance=Balance(power=power, frame_weight=0.5))
    prediction = target.clone().requires_grad_()
    value = loss(prediction, target)
    value.backward()
    assert value == 0
    assert prediction.grad.isfinite().all()
    error = torch.zeros(2, 3, requires_grad=True)
    label = torch.tensor([[0, 1, 1], [0, 0, 1]])
    for weight in ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0)):
        balance = Balance(power=power, weight=weight)
        value = balanced_mean(error, label, 2, balance=balance)
        (gradient,) = torch.autograd.grad(value, error)
        assert value == 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("power", POWERS)
def test_one_class_of_weight_zero_does_not_count(power):
    error, label = torch.tensor([1.0, 7.0]), torch.tensor([0, 1])
    balance = Balance(power=power, weight=(1.0, 0.0), combine="sum")
    assert balanced_mean(error, label, 2, balance=balance) == 1
    error = torch.tensor([0.0, 7.0])
    assert balanced_mean(error, label, 2, balance=balance) == 0
    assert balanced_mean(torch.tensor([1.0, torch.nan]), label, 2, balance=balance).isnan()


@pytest.mark.parametrize("power", POWERS)
def test_infinite_errors_and_nan_come_out(power):
    label = torch.tensor([0, 1, 1])
    for balance in (Balance(power=power), Balance(power=power, frame_weight=1.0)):
        infinite = balanced_mean(torch.tensor([1.0, torch.inf, 2.0]), label, 2, balance=balance)
        assert infinite == math.inf
        error = torch.tensor([1.0, torch.nan, 2.0], requires_grad=True)
        value = balanced_mean(error, label, 2, balance=balance)
        (gradient,) = torch.autograd.grad(value, error)
        assert value.isnan()
        assert gradient.isnan().any()
        weight = torch.tensor([1.0, torch.nan, 1.0])
        assert balanced_mean(torch.ones(3), label, 2, balance=balance, pixel_weight=weight).isnan()


def test_equal_worst_classes_share_the_gradient():
    error = torch.tensor([2.0, 2.0, 1.0], requires_grad=True)
    balance = Balance(power=math.inf)
    value = balanced_mean(error, torch.tensor([0, 1, 2]), 3, balance=balance)
    value.backward()
    assert value == 2
    assert error.grad.tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("power", POWERS)
def test_a_large_power_of_large_and_small_errors_does_not_overflow(power):
    for scale in (1e-30, 1e30):
        error = torch.tensor([scale, 3 * scale])
        value = balanced_mean(error, torch.tensor([0, 1]), 2, balance=Balance(power=power))
        plain = balanced_mean(error / scale, torch.tensor([0, 1]), 2, balance=Balance(power=power))
        torch.testing.assert_close(value / scale, plain)


def test_torch_func_has_the_same_first_and_second_derivatives():
    error = torch.rand(2, 5, dtype=torch.float64)
    label = torch.arange(10).view(2, 5) % 2

    def loss(error):
        return balanced_mean(error, label, 2, balance=Balance(power=3))

    hessian = torch.autograd.functional.hessian(loss, error)
    twice = torch.func.jacrev(torch.func.jacrev(loss))(error)
    torch.testing.assert_close(twice, hessian)
    gradient = torch.func.grad(loss)(error)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(loss, error))
    absent = Balance(power=3, frame_weight=0.5)
    both = [
        differentiate(lambda e: balanced_mean(e, label, 4, balance=absent), error)
        for differentiate in (
            lambda loss, e: torch.func.jacrev(torch.func.jacrev(loss))(e),
            torch.autograd.functional.hessian,
        )
    ]
    assert both[0].isfinite().all()
    torch.testing.assert_close(both[0], both[1])
    zero = error.clone()
    zero[label == 0] = 0  # a power below 2 has an infinite slope there
    steep = Balance(power=1.5)
    gradient = torch.func.grad(lambda e: balanced_mean(e, label, 2, balance=steep))(zero)
    assert gradient.isfinite().all()


def test_a_typed_loss_takes_a_power():
    inputs = labelled_logits(3)
    for text, power in (("4", 4), ('"inf"', math.inf), ("1e999", math.inf)):
        loss = parse_loss(f'CrossEntropyLoss(balance={{"power": {text}}})')
        expected = CrossEntropyLoss(balance=Balance(power=power))
        assert loss.balance == expected.balance
        torch.testing.assert_close(loss(**inputs), expected(**inputs))
    with pytest.raises(ValueError, match="Expected `power` to be a number of at least 1, got 0.5"):
        parse_loss('CrossEntropyLoss(balance={"power": 0.5})')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"power": 0.5}, "Expected `power` to be a number of at least 1, got 0.5"),
        ({"power": -math.inf}, "Expected `power` to be a number of at least 1, got -inf"),
        ({"power": math.nan}, "Expected `power` to be a number of at least 1, got nan"),
        ({"power": "worst"}, "Expected `power` to be a number, got str"),
        ({"count_power": -1}, "Expected `count_power` to be a number of at least 0, got -1"),
    ],
)
def test_bad_powers_are_refused_by_name(arguments, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Balance(**arguments)


def test_calls_without_a_power_mean_are_refused_by_name():
    error, label = torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.int64)
    for scope in ("batch", "global", "image"):
        balance = Balance(power=4, scope=scope)
        with pytest.raises(ValueError, match="Expected no `class_count` with power=4, got one"):
            balanced_mean(error, label, 2, balance=balance, class_count=(8, 1))
    negative = torch.tensor([[-1.0, 1.0, 1.0, 1.0]])
    label = torch.tensor([[0, 0, 0, 1]])
    assert balanced_mean(negative, label, 2, balance=Balance(power=4)) > 0  # a mean of 1/3
    label = torch.tensor([[0, 1, 1, 1]])
    with pytest.raises(
        ValueError, match="class means are at least 0 with power=4, got a mean of -"
    ):
        balanced_mean(negative, label, 2, balance=Balance(power=4))
    assert as_on_an_accelerator(negative, label, 2, balance=Balance(power=4)).isnan()
    loss = ComplementCrossEntropyLoss(-20.0, balance=Balance(power=2))
    with pytest.raises(ValueError, match="class means are at least 0 with power=2"):
        loss(torch.zeros(2, 4, 5, 5), torch.zeros(2, 5, 5, dtype=torch.int64))


def test_without_a_power_nothing_is_kept_for_second_derivatives():
    prediction = torch.rand(2, 1, 4, 4, requires_grad=True)
    value = ACBMSELoss()(prediction, torch.zeros(2, 1, 4, 4))
    (gradient,) = torch.autograd.grad(value, prediction, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), prediction)
    torch.testing.assert_close(second, torch.full_like(second, 2 / 32))
