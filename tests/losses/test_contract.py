"""The contract of the classification losses: shapes, types, weights, and what is left out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense_imb import losses
from dense_imb.losses import (
    Balance,
    BalancedSoftmaxLoss,
    ComplementCrossEntropyLoss,
    CrossEntropyLoss,
    Focal,
    FocalLoss,
    HardMining,
    HardMiningLoss,
    LDAMLoss,
    PixelLoss,
    cross_entropy_loss,
)

COUNTS = (500, 120, 30, 7)
MAKE = {
    "CrossEntropyLoss": CrossEntropyLoss,
    "FocalLoss": FocalLoss,
    "HardMiningLoss": HardMiningLoss,
    "ComplementCrossEntropyLoss": ComplementCrossEntropyLoss,
    "BalancedSoftmaxLoss": lambda **options: BalancedSoftmaxLoss(COUNTS, **options),
    "ClassDependentTemperatureLoss": lambda **options: losses.ClassDependentTemperatureLoss(
        COUNTS, **options
    ),
    "BiasCompensatedLoss": lambda **options: losses.BiasCompensatedLoss(COUNTS, **options),
    "LDAMLoss": lambda **options: LDAMLoss(COUNTS, **options),
    "PixelLoss": lambda **options: PixelLoss(Focal(1.5), losses.LogPrior(COUNTS), **options),
}
REFUSES_SOFT = {"ComplementCrossEntropyLoss", "LDAMLoss"}
SPATIAL = [(), (7,), (5, 6), (3, 4, 2)]


@pytest.fixture(params=MAKE)
def make(request):
    return MAKE[request.param]


@pytest.fixture(params=SPATIAL, ids=lambda shape: f"{len(shape)}d")
def data(request):
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, *request.param, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 4, (3, *request.param), generator=rng)
    return logits, target


def one_hot(target, n_classes=4):
    return F.one_hot(target, n_classes).movedim(-1, 1)


def value_and_gradient(loss, logits, target, **options):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target, **options)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


@pytest.mark.parametrize("balance", [None, Balance()], ids=["plain", "balanced"])
def test_every_form_of_the_target_is_the_same(make, data, balance):
    logits, target = data
    loss = make(balance=balance)
    expected = value_and_gradient(loss, logits, target)
    forms = [
        target.unsqueeze(1),
        target.int(),
        target.to(torch.uint8),
        target.float(),
        target.unsqueeze(1).double(),
        one_hot(target),
        one_hot(target).float(),
        one_hot(target).bool(),
    ]
    for form in forms:
        torch.testing.assert_close(value_and_gradient(loss, logits, form), expected)


@pytest.mark.parametrize("balance", [None, Balance(weight=(1.0, 4.0))], ids=["plain", "balanced"])
def test_binary_is_two_classes_of_which_one_has_logit_zero(data, balance):
    two, target = data
    z, target = two[:, :1], target.clamp(max=1)
    logits = torch.cat([torch.zeros_like(z), z], 1)
    for loss in (
        CrossEntropyLoss(balance=balance),
        FocalLoss((0.25, 0.75), balance=balance),
        HardMiningLoss(balance=balance),
        ComplementCrossEntropyLoss(balance=balance),
        BalancedSoftmaxLoss((90, 10), balance=balance),
        LDAMLoss((90, 10), balance=balance),
    ):
        expected = loss(logits, target)
        for form in (target, target.unsqueeze(1), target.float(), target.bool()):
            torch.testing.assert_close(loss(z, form), expected)


def test_binary_soft_targets_are_torchs_own(data):
    z = data[0][:, :1]
    probability = torch.rand_like(z)
    expected = F.binary_cross_entropy_with_logits(z, probability)
    torch.testing.assert_close(CrossEntropyLoss()(z, probability), expected)
    torch.testing.assert_close(CrossEntropyLoss()(z, probability.squeeze(1)), expected)


def test_cross_entropy_is_torchs_own(data):
    logits, target = data
    weight = (0.1, 2.0, 1.0, 0.5)
    holes = torch.where(target == 3, -100, target)
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(
            logits, holes, torch.tensor(weight).double(), ignore_index=-100, reduction=reduction
        )
        loss = CrossEntropyLoss(class_weight=weight, ignore_index=-100, reduction=reduction)
        torch.testing.assert_close(loss(logits, holes), expected)
        function = cross_entropy_loss(
            logits,
            holes,
            class_weight=torch.tensor(weight),
            ignore_index=-100,
            reduction=reduction,
        )
        torch.testing.assert_close(function, expected)
    probability = torch.softmax(torch.randn_like(logits), 1)
    torch.testing.assert_close(
        CrossEntropyLoss()(logits, probability), F.cross_entropy(logits, probability)
    )


@pytest.mark.parametrize("balance", [None, Balance()], ids=["plain", "balanced"])
def test_what_changes_nothing(make, data, balance):
    logits, target = data
    expected = value_and_gradient(make(balance=balance), logits, target)
    ones = torch.ones(target.shape)
    same = {
        "nothing to ignore": (make(balance=balance, ignore_index=255), {}),
        "a full mask": (make(balance=balance), {"mask": ones}),
        "a constant pixel weight": (make(balance=balance), {"pixel_weight": 0.3 * ones}),
    }
    if balance is None:
        same["equal class weights"] = (make(class_weight=(2.0, 2.0, 2.0, 2.0)), {})
    for what, (loss, options) in same.items():
        found = value_and_gradient(loss, logits, target, **options)
        torch.testing.assert_close(found, expected, msg=lambda m, what=what: f"{what}: {m}")


@pytest.mark.parametrize("balance", [None, Balance()], ids=["plain", "balanced"])
@pytest.mark.parametrize("is_soft", [False, True], ids=["index", "one-hot"])
def test_logits_under_an_ignored_pixel_are_never_seen(make, data, balance, is_soft):
    logits, target = data
    is_ignored = target == 2
    marked = one_hot(target) if is_soft else target
    loss = make(balance=balance, ignore_index=2)
    expected = value_and_gradient(loss, logits, marked)
    spoilt = logits.masked_fill(is_ignored.unsqueeze(1), torch.nan)
    found = value_and_gradient(loss, spoilt, marked)
    torch.testing.assert_close(found, expected)
    assert (found[1][is_ignored.unsqueeze(1).expand_as(found[1])] == 0).all()
    # the mean is over what is left
    left = value_and_gradient(make(balance=balance), logits, target, mask=~is_ignored)
    torch.testing.assert_close(expected, left)


def test_everything_ignored_is_a_connected_zero(make, data):
    logits, target = data
    for options in ({}, {"balance": Balance()}, {"reduction": "sum"}):
        loss = make(ignore_index=255, **options)
        value, gradient = value_and_gradient(
            loss, torch.full_like(logits, torch.nan), torch.full_like(target, 255)
        )
        assert value == 0
        assert (gradient == 0).all()


def test_a_class_of_weight_zero_alone_in_the_batch_is_zero_not_nan():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    value = CrossEntropyLoss(class_weight=(0.0, 1.0, 1.0))(logits, torch.zeros(2, 4).long())
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_pixel_weights_are_copies(make):
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 7, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 4, (3, 7), generator=rng)
    times = torch.tensor([1, 0, 3, 2, 1, 1, 4])
    weight = times.expand(target.shape).double()
    for balance in (None, Balance()):
        loss = make(balance=balance)
        torch.testing.assert_close(
            loss(logits, target, pixel_weight=weight),
            loss(logits.repeat_interleave(times, 2), target.repeat_interleave(times, 1)),
        )


def test_multilabel_is_binary_with_the_channels_in_the_batch():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=rng)
    target = (torch.rand(2, 3, 4, 5, generator=rng) < 0.2).float()
    expected = F.binary_cross_entropy_with_logits(logits, target)
    flat = CrossEntropyLoss()(logits.flatten(0, 1).unsqueeze(1), target.flatten(0, 1))
    torch.testing.assert_close(flat, expected)


def test_soft_targets_are_the_penalties_mean_over_the_classes(make, data, request):
    logits, target = data
    other = (target + 1) % 4
    mixed = 0.7 * one_hot(target) + 0.3 * one_hot(other)
    loss = make(reduction="none")
    if request.node.callspec.params["make"] in REFUSES_SOFT:
        with pytest.raises(ValueError, match="Expected `target` to hold one class for each pixel"):
            loss(logits, mixed)
        return
    expected = 0.7 * loss(logits, target) + 0.3 * loss(logits, other)
    torch.testing.assert_close(loss(logits, mixed), expected)
    # with a balance the pixel belongs to its likeliest class
    balanced = make(balance=Balance())
    parts = balanced(logits, mixed, return_parts=True)
    assert parts.class_count.tolist() == torch.bincount(target.flatten(), minlength=4).tolist()


def test_parts_are_the_class_means(make, data):
    logits, target = data
    errors = make(reduction="none")(logits, target)
    for options in ({}, {"balance": Balance()}):
        parts = make(**options)(logits, target, return_parts=True)
        torch.testing.assert_close(parts.value, make(**options)(logits, target))
        for c in range(4):
            mean = errors[target == c].mean()  # NaN for a class without a pixel
            torch.testing.assert_close(parts.class_mean[c], mean.double(), equal_nan=True)


def test_class_weight_turns_the_background_down():
    logits = torch.zeros(1, 2, 10)
    target = torch.zeros(1, 10, dtype=torch.int64)
    target[0, 0] = 1
    parts = CrossEntropyLoss(class_weight=(0.0, 1.0))
    logits.requires_grad_()
    parts(logits, target).backward()
    assert (logits.grad[0, :, 1:] == 0).all()
    assert (logits.grad[0, :, 0] != 0).all()


def test_float16_logits_have_the_value_of_float32():
    logits = (200 * torch.randn(2, 4, 300, 300)).half()
    target = torch.randint(0, 4, (2, 300, 300))
    for loss in (CrossEntropyLoss(), ComplementCrossEntropyLoss(), HardMiningLoss()):
        value = loss(logits, target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.float(), target))


@pytest.mark.parametrize(
    ("logits", "target", "options", "sentence"),
    [
        ((2, 4, 3), torch.tensor([[0, 1, 4]] * 2), {}, "`target` between 0 and 3, got 4"),
        ((2, 4, 3), torch.tensor([[0, 1, -1]] * 2), {}, "`target` between 0 and 3, got -1"),
        ((2, 4, 3), torch.tensor([[0, 1, 255]] * 2), {}, "got 255; pass `ignore_index=255` or"),
        ((2, 1, 3), torch.tensor([[0, 1, 255]] * 2), {}, "`target` between 0 and 1, got 255"),
        ((2, 1, 3), torch.tensor([[0.0, 1.0, 255.0]] * 2), {}, r"of 0 and 255 with \(target > 0\)"),
        ((2, 4, 3), torch.tensor([[0, 1, 0.5]] * 2), {}, "class indices, got 0.5"),
        ((2, 4, 3), torch.tensor([[0, 1, torch.nan]] * 2), {}, "class indices, got nan"),
        ((2, 1, 3), torch.tensor([[0, 1, torch.nan]] * 2), {}, "between 0 and 1, got values from"),
        ((2, 2, 3), torch.full((2, 2, 3), 0.4), {}, "probabilities that sum to 1 .*0.4, 0.4"),
        ((2, 2, 1), torch.tensor([[[2.0], [-1.0]]] * 2), {}, "probabilities that sum to 1"),
        ((2, 4, 3), torch.zeros(2, 4), {}, r"shape \(2, 3\), \(2, 1, 3\) or \(2, 4, 3\), got"),
        ((2,), torch.zeros(2), {}, r"`logits` of the shape \(B, C, \*spatial\), got \(2,\)"),
        ((2, 4, 3), torch.zeros(2, 3), {"mask": torch.ones(2, 4, 3)}, "Expected `mask` of the sh"),
        ((2, 4), torch.zeros(2), {"class_count": torch.ones(4)}, "Expected a `balance` with `cl"),
    ],
)
def test_bad_input_is_one_sentence(logits, target, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CrossEntropyLoss()(torch.zeros(logits), target, **options)


@pytest.mark.parametrize(
    ("make_loss", "sentence"),
    [
        (lambda: CrossEntropyLoss(class_weight=(1.0,), balance=Balance()), r"Balance\(weight="),
        (lambda: CrossEntropyLoss(balance="batch"), "`balance` to be a Balance, got str"),
        (lambda: CrossEntropyLoss(reduction="avg"), "`reduction` to be one of 'mean', 'sum'"),
        (lambda: CrossEntropyLoss(class_weight=(1.0, -1.0)), "`class_weight` to be a number of at"),
        (lambda: FocalLoss(gamma=-1.0), "`gamma` to be a number of at least 0, got -1.0"),
        (lambda: FocalLoss(alpha=-1.0), "`alpha` to be a number of at least 0"),
        (lambda: FocalLoss(alpha=(1.0, -1.0)), "`alpha` to be a number of at least 0"),
        (lambda: HardMiningLoss(delta=0.5), "`delta` to be a number of at least 1, got 0.5"),
        (lambda: HardMiningLoss(gamma=float("nan")), "`gamma` to be a number of at least 0"),
        (lambda: BalancedSoftmaxLoss((0, 0)), "`class_counts` to count something"),
        (lambda: BalancedSoftmaxLoss((5, -1)), "`class_counts` to be a number of at least 0"),
        (lambda: LDAMLoss(7), "`class_counts` to hold one number for each class, got 7"),
        (lambda: PixelLoss(adjustment="prior"), "`adjustment` to be LogPrior"),
        (lambda: PixelLoss(penalty="focal"), "`penalty` to be CrossEntropy"),
        (
            lambda: losses.BiasCompensatedLoss((5, 1), (1, 1, 1)),
            "`test_counts` with one entry for each of the 2 classes, got 3",
        ),
        (
            lambda: losses.BiasCompensatedLoss((5, 1)).set_progress(1.5),
            "`progress` between 0 and 1, got 1.5",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(make_loss, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        make_loss()


@pytest.mark.parametrize("n_entries", [2, 5])
def test_wrong_number_of_classes_is_refused(n_entries):
    logits, target = torch.zeros(2, 4, 3), torch.zeros(2, 3).long()
    entries = (1.0,) * n_entries
    sentence = f"one entry for each of the 4 classes, got {n_entries}"
    for loss in (
        CrossEntropyLoss(class_weight=entries),
        CrossEntropyLoss(balance=Balance(weight=entries)),
        FocalLoss(entries),
        BalancedSoftmaxLoss(entries),
        LDAMLoss(entries),
    ):
        with pytest.raises(ValueError, match=sentence):
            loss(logits, target)


class TestWhereValuesCannotBeRead:
    """On an accelerator or compiled, an illegal label makes the loss NaN: no crash, no number."""

    @pytest.fixture(autouse=True)
    def _nothing_is_readable(self, monkeypatch):
        for room in (
            "core.target",
            "core.pixels",
            "core.groups",
            "named.hard_mining",
            "named.bias_compensated",
        ):
            monkeypatch.setattr(f"dense_imb.losses.{room}.values_are_readable", lambda value: False)

    @pytest.mark.parametrize("balance", [None, Balance()], ids=["plain", "balanced"])
    @pytest.mark.parametrize(
        "broken",
        [
            torch.tensor([[0, 1, 255]]),
            torch.tensor([[0, 1, -1]]),
            torch.tensor([[0.0, 1.0, 0.5]]),
            torch.tensor([[0.0, 1.0, torch.nan]]),
            torch.full((1, 4, 3), 0.4),
        ],
    )
    def test_an_illegal_target_is_nan(self, broken, balance):
        logits = torch.zeros(1, 4, 3)
        assert CrossEntropyLoss(balance=balance)(logits, broken).isnan()
        mask = torch.tensor([[True, True, False]])
        if broken.shape == (1, 3):
            assert CrossEntropyLoss(balance=balance)(logits, broken, mask=mask).isfinite()

    def test_a_soft_target_is_nan_where_it_has_no_formula(self):
        logits, soft = torch.zeros(1, 4, 3), torch.full((1, 4, 3), 0.25)
        assert ComplementCrossEntropyLoss()(logits, soft).isnan()
        assert LDAMLoss(COUNTS)(logits, soft).isnan()
        assert ComplementCrossEntropyLoss()(torch.zeros(1, 1, 3), torch.full((1, 3), 0.5)).isnan()

    def test_legal_targets_have_their_value(self, make, data):
        logits, target = data
        loss = make()
        value = loss(logits, target)
        torch.testing.assert_close(loss(logits, one_hot(target)), value)
        torch.testing.assert_close(loss(logits, target.float()), value)


def test_losses_are_monais_and_torchs_kind_of_module(make):
    assert isinstance(make(), nn.modules.loss._Loss)


def test_hard_mining_on_any_adjustment():
    logits, target = torch.randn(2, 4, 5), torch.randint(0, 4, (2, 5))
    shifted = logits + torch.tensor(COUNTS).log().view(1, 4, 1)
    combined = BalancedSoftmaxLoss(COUNTS, penalty=HardMining())
    torch.testing.assert_close(combined(logits, target), HardMiningLoss()(shifted, target))
    focal = FocalLoss(gamma=2.0, adjustment=losses.Margin(COUNTS))
    torch.testing.assert_close(
        focal(logits, target), LDAMLoss(COUNTS, penalty=Focal(2.0))(logits, target)
    )
