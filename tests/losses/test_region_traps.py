"""Traps of region losses: absent classes, perfect predictions, transforms, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dense_imb.losses import (
    Balance,
    CompoundLoss,
    CrossEntropyLoss,
    Dice,
    DiceLoss,
    FocalLoss,
    GeneralizedDice,
    Jaccard,
    LDAMLoss,
    Margin,
    Matthews,
    RegionLoss,
    Tversky,
    TverskyLoss,
    overlap,
)

RNG = torch.Generator().manual_seed(0)
Z = 2 * torch.randn(2, 3, 6, 7, generator=RNG, dtype=torch.float64)
EMPTY = torch.zeros(2, 6, 7).long()
TARGET = EMPTY.clone()
TARGET[0, :2] = 1
TARGET[1, 3:] = 2
COMPONENT = (TARGET > 0).long()
INDICES = [
    Dice(),
    Jaccard(1.0),
    Tversky(0.3, 0.7),
    Matthews(),
    Matthews(0.0),
    GeneralizedDice(),
    GeneralizedDice(0, 0),
    lambda o: o.tp / (o.tp + o.fn),
    lambda o: o.tn / (o.tn + o.fp),
]


def value_and_gradient(loss, z=Z, y=TARGET, **options):
    z = z.clone().requires_grad_()
    value = loss(z, y, **options)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


# classes that do not count are never shown to a formula


@pytest.mark.parametrize("index", INDICES, ids=map(str, range(len(INDICES))))
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("absent", ["rate", "zero", "skip"])
def test_an_all_background_batch_has_a_finite_gradient(index, scope, absent):
    """Its excluded background has fp + tn = 0, and the others have tp + fn = 0."""
    loss = RegionLoss(index, balance=Balance(scope=scope, absent=absent))
    value, gradient = value_and_gradient(loss, y=EMPTY)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if absent == "rate":  # the mean of a probability over the frame
        rate = Z.softmax(1)[:, 1:].mean((0, 2, 3))
        expected = rate.sum() if loss.is_joint else rate.mean()
        torch.testing.assert_close(value, expected)
    else:
        assert value == 0


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_instances_of_an_all_background_batch(scope):
    nothing = torch.zeros_like(EMPTY)
    loss = DiceLoss(per="instance", balance=Balance(scope=scope))
    value, gradient = value_and_gradient(loss, y=EMPTY, instance=nothing)
    torch.testing.assert_close(value, Z.softmax(1)[:, 1:].mean())
    assert gradient.isfinite().all()
    loss = DiceLoss(per="instance", balance=Balance(scope=scope, absent="skip"))
    value, gradient = value_and_gradient(loss, y=EMPTY, instance=nothing)
    assert value == 0
    assert (gradient == 0).all()


def test_a_joint_index_counts_where_any_class_is_present():
    balance = Balance(scope="image")
    y = torch.where(torch.tensor([True, False]).view(2, 1, 1), TARGET, 0)
    value = RegionLoss(GeneralizedDice(), balance=balance)(Z, y)
    one = RegionLoss(GeneralizedDice())(Z[:1], y[:1])
    rate = Z[1].softmax(0)[1:].sum(0).mean()
    torch.testing.assert_close(value, (one + rate) / 2)
    skipping = RegionLoss(GeneralizedDice(), balance=Balance(scope="image", absent="skip"))
    torch.testing.assert_close(skipping(Z, y), one)


def test_a_class_whose_pixels_all_weigh_nothing_is_absent():
    weight = (TARGET != 1).double()
    value, gradient = value_and_gradient(DiceLoss(), pixel_weight=weight)
    p = Z.softmax(1)
    rate = (p[:, 1] * weight).sum() / weight.sum()
    tp, size = p[:, 2][TARGET == 2].sum(), (TARGET == 2).sum()
    dice = 2 * tp / ((p[:, 2] * weight).sum() + size)
    torch.testing.assert_close(value, (rate + 1 - dice) / 2)
    assert gradient.isfinite().all()


def test_tiny_weights_are_weights():
    expected = value_and_gradient(DiceLoss())
    for scale in (1e-12, 1e12):
        weight = torch.full(TARGET.shape, scale, dtype=torch.float64)
        torch.testing.assert_close(value_and_gradient(DiceLoss(), pixel_weight=weight), expected)


# near perfection fp = P - H may be -1e-9, and a power below 1 has an infinite slope at 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.5, 0.75, 1.0, 2.0])
def test_near_perfection_the_slope_is_finite(dtype, gamma):
    y = torch.randint(0, 3, (2, 64, 64), generator=RNG)
    halves = torch.ones_like(y)
    halves[:, :32] = 2
    for scale in (5.0, 15.0, 20.0, 40.0, 1e4):
        z = (scale * F.one_hot(y, 3).movedim(-1, 1)).to(dtype)
        binary = (scale * (2.0 * (y > 0) - 1)).unsqueeze(1).to(dtype)
        for loss, logits, target, options in (
            (RegionLoss(Dice(), gamma=gamma), z, y, {}),
            (TverskyLoss(gamma=gamma), binary, (y > 0).long(), {}),
            (
                TverskyLoss(gamma=gamma, per="instance"),
                binary,
                (y > 0).long(),
                {"instance": halves},
            ),
        ):
            value, gradient = value_and_gradient(loss, logits, target, **options)
            assert 0 <= value < 0.2
            assert gradient.isfinite().all()


def test_a_perfect_prediction_is_0_and_the_opposite_1():
    z = 1e4 * F.one_hot(TARGET, 3).movedim(-1, 1).double()
    assert DiceLoss()(z, TARGET) == 0
    assert DiceLoss()(-z, TARGET) == 1
    assert RegionLoss(Matthews(0.0))(z, TARGET) == 0


# an illegal label that cannot be refused makes the loss NaN


def test_an_illegal_label_shows_where_values_cannot_be_read():
    illegal = TARGET + 1

    def of_one(z, y):
        return DiceLoss()(z.unsqueeze(0), y.unsqueeze(0))

    values = torch.func.vmap(of_one)(Z, illegal)
    assert values[1].isnan()
    with pytest.raises(ValueError, match=r"Expected `target` .*got 3"):
        DiceLoss()(Z, illegal)


# torch.func


@pytest.mark.parametrize(
    "loss",
    [
        DiceLoss(),
        TverskyLoss(gamma=0.75),
        RegionLoss(GeneralizedDice()),
        CompoundLoss(DiceLoss(), FocalLoss(balance=Balance())),
    ],
    ids=["dice", "tversky", "generalised", "compound"],
)
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # of torch's own jvp
def test_gradients_through_torch_func(loss, n_channels):
    z, y = Z[:, :n_channels], TARGET.clamp(max=max(n_channels - 1, 1))
    value, gradient = value_and_gradient(loss, z, y)
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, y))(z), gradient)
    torch.testing.assert_close(torch.func.jvp(lambda x: loss(x, y), (z,), (z,))[0], value)

    def of_one(one, label):
        return loss(one.unsqueeze(0), label.unsqueeze(0))

    each = torch.func.vmap(torch.func.grad(of_one))(z, y)
    for found, one, label in zip(each, z, y, strict=True):
        torch.testing.assert_close(found, torch.func.grad(of_one)(one, label))


def test_instances_through_vmap_need_a_bound():
    def of_one(loss):
        return lambda z, y, m: loss(z.unsqueeze(0), y.unsqueeze(0), instance=m.unsqueeze(0))

    bounded = DiceLoss(per="instance", max_instances=4)
    each = torch.func.vmap(torch.func.grad(of_one(bounded)))(Z, TARGET, COMPONENT)
    for found, *inputs in zip(each, Z, TARGET, COMPONENT, strict=True):
        torch.testing.assert_close(found, torch.func.grad(of_one(bounded))(*inputs))
    with pytest.raises(ValueError, match=r"Expected `max_instances` where the values .*torch.func"):
        torch.func.vmap(of_one(DiceLoss(per="instance")))(Z, TARGET, COMPONENT)


def test_second_derivatives_are_those_of_plain_operations():
    z, y, m = Z[:, :, :2, :3], TARGET[:, :2, :3], COMPONENT[:, :2, :3]
    for loss, options in ((DiceLoss(), {}), (DiceLoss(per="instance"), {"instance": m})):
        assert torch.autograd.gradgradcheck(
            lambda x, loss=loss, options=options: loss(x, y, **options), z.clone().requires_grad_()
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_instances(dtype):
    loss = DiceLoss(per="instance")
    z = Z.to(dtype)
    value, gradient = value_and_gradient(loss, z, instance=COMPONENT)
    expected, expected_gradient = value_and_gradient(loss, z.double(), instance=COMPONENT)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=torch.finfo(dtype).eps, atol=1e-6
    )


# bad input is one sentence


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (
            lambda o: o.tp.sum(),
            r"one number for each class, in the shape \(1, 2\), got \(\); compu",
        ),
        (
            lambda o: o.tp[:, :1],
            r"in the shape \(1, 2\), got \(1, 1\); compute it elementwise from",
        ),
        (lambda o: 0.5, r"one number for each class, in the shape \(1, 2\), got float"),
        (
            lambda o: o.tp > o.fp,
            r"one number for each class, in the shape \(1, 2\), got torch.bool",
        ),
        (
            lambda o: o.tp * math.nan,
            r"`index` to be finite for finite counts, got nan for tp=[\d.]+, fp=[\d.]+, fn=[\d.]+, "
            r"tn=[\d.]+; add a small number to its denominator",
        ),
        (lambda o: o.tp / (0 * o.fp), "to be finite for finite counts, got inf for tp="),
    ],
)
def test_an_index_of_another_shape_or_nan_is_refused(index, sentence):
    with pytest.raises(ValueError, match=sentence):
        RegionLoss(index)(Z, TARGET)
    # the same of instances, of which both images have one
    if "1, 1" not in sentence:
        with pytest.raises(ValueError, match=sentence.replace("(1, 2", "(2, 1")):
            RegionLoss(index, per="instance")(Z, TARGET, instance=COMPONENT)


def test_a_joint_index_names_the_counts_of_all_classes():
    with pytest.raises(ValueError, match=r"got nan for tp=\(0, 0\), fp=\([\d.]+, [\d.]+\), fn=\(0"):
        RegionLoss(GeneralizedDice(0, 0), balance=Balance(absent="index"))(Z, EMPTY)


def test_nan_of_the_network_is_no_fault_of_the_index():
    z = Z.clone()
    z[0, 1, 0, 0] = math.nan
    for index in (Dice(), Matthews(0.0), GeneralizedDice()):
        assert RegionLoss(index)(z, TARGET).isnan()
    assert DiceLoss(per="instance")(z, TARGET, instance=COMPONENT).isnan()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: DiceLoss(per="instance")(Z, TARGET, instance=COMPONENT[:, :5]),
            ValueError,
            r"Expected `instance` of the shape \(2, 6, 7\) or \(2, 1, 6, 7\), got \(2, 5, 7\)",
        ),
        (
            lambda: DiceLoss(per="instance")(
                Z, torch.cat([TARGET[:1], 1 + (TARGET[1:] > 0).long()]), instance=1 + 0 * TARGET
            ),
            ValueError,
            "numbers of one class each, got instance 1 of image 1 with pixels of the classes 1, 2",
        ),
        (
            lambda: DiceLoss(per="instance")(Z, Z.softmax(1), instance=COMPONENT),
            ValueError,
            'got probabilities: a loss with per="instance" has no formula for soft targets; use',
        ),
        (
            lambda: DiceLoss(per="instance")(Z, TARGET),
            ValueError,
            'Expected `instance` with per="instance", got none',
        ),
        (
            lambda: DiceLoss()(Z, TARGET, instance=COMPONENT),
            ValueError,
            '`DiceLoss` takes no `instance`; drop it or use per="instance"',
        ),
        (
            lambda: DiceLoss(validate=True)(Z.softmax(1), TARGET),
            ValueError,
            r"Expected `logits`, got 252 numbers from .* look like probabilities; drop the network",
        ),
        (
            lambda: CompoundLoss(DiceLoss(), CrossEntropyLoss(validate=True))(Z.softmax(1), TARGET),
            ValueError,
            "which look like probabilities",
        ),
        (
            lambda: RegionLoss(GeneralizedDice(), balance=Balance(combine=("sum", "mean", "sum"))),
            ValueError,
            r'Expected `combine` to be "mean" or "sum" for GeneralizedDice.*one number for all',
        ),
        (
            lambda: RegionLoss(GeneralizedDice(), balance=Balance(weight=(1, 1, 1))),
            ValueError,
            "Expected a balance without `weight` for GeneralizedDice",
        ),
        (
            lambda: DiceLoss(balance=Balance(weight=(1.0, 2.0)))(Z, TARGET),
            ValueError,
            "Expected `weight` with one entry for each of the 3 classes, got 2",
        ),
        (
            lambda: DiceLoss(weight=(1.0, 2.0)),
            TypeError,
            r"takes no `weight`: its weights are Balance\(weight=...\), with an entry for class 0",
        ),
        (
            lambda: DiceLoss(per="blob"),
            ValueError,
            "Expected `per` to be one of 'class', 'instance'",
        ),
        (
            lambda: DiceLoss(max_instances=4),
            ValueError,
            'Expected `max_instances` with per="instan',
        ),
        (
            lambda: DiceLoss(per="instance", include_background=True),
            ValueError,
            "got include_background=True; the background has no instances",
        ),
        (lambda: DiceLoss(gamma=0), ValueError, "Expected `gamma` above 0, got 0"),
        (lambda: RegionLoss("dice"), TypeError, "Expected `index` to be Dice.*got 'dice'"),
        (lambda: RegionLoss(balance="image"), TypeError, "Expected `balance` to be a Balance"),
        (
            lambda: CrossEntropyLoss(balance=Balance(absent="rate"))(Z, TARGET),
            ValueError,
            "`absent` .* for a mean of errors, got 'rate', which region losses have",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


# sums of losses


def test_a_sum_with_soft_targets_has_the_same_value_as_its_parts():
    soft = (2 * Z.roll(1, 1)).softmax(1)
    loss = CompoundLoss(DiceLoss(), CrossEntropyLoss())
    value, gradient = value_and_gradient(loss, y=soft)
    parts = [value_and_gradient(part, y=soft) for part in (DiceLoss(), CrossEntropyLoss())]
    torch.testing.assert_close(value, parts[0][0] + parts[1][0])
    torch.testing.assert_close(gradient, parts[0][1] + parts[1][1])
    with pytest.raises(ValueError, match="penalties of hard targets for `window`"):
        loss.sums(Z, soft)


def test_a_sum_with_parts_of_others():
    monai = pytest.importorskip("monai.losses", reason="monai is not installed")
    theirs = monai.DiceLoss(softmax=True, to_onehot_y=True)
    loss = CompoundLoss(theirs, DiceLoss(), DiceLoss(per="instance"), LDAMLoss([9, 1, 1]))
    value, gradient = value_and_gradient(loss, instance=COMPONENT)
    parts = [
        value_and_gradient(lambda z, y: theirs(z, y.unsqueeze(1))),
        value_and_gradient(DiceLoss()),
        value_and_gradient(DiceLoss(per="instance"), instance=COMPONENT),
        value_and_gradient(LDAMLoss([9, 1, 1])),
    ]
    torch.testing.assert_close(value, sum(part[0] for part in parts))
    torch.testing.assert_close(gradient, sum(part[1] for part in parts))
    with pytest.raises(
        ValueError, match=r"all of dense_imb .*got a sum of DiceLoss, DiceLoss_2, D"
    ):
        loss.sums(Z, TARGET, instance=COMPONENT)


# gradient accumulation


WINDOWED = [
    (DiceLoss(), False),
    (TverskyLoss(gamma=0.75), False),
    (RegionLoss(Matthews()), False),
    (RegionLoss(GeneralizedDice()), False),
    (DiceLoss(balance=Balance(scope="image")), False),
    (DiceLoss(per="instance"), True),
    (DiceLoss(per="instance", balance=Balance(scope="image")), True),
    (CompoundLoss(DiceLoss(), CrossEntropyLoss(balance=Balance())), False),
    (CompoundLoss(DiceLoss(), FocalLoss((1.0, 2.0, 3.0))), False),
    (CompoundLoss(DiceLoss(per="instance"), CrossEntropyLoss()), True),
]


@pytest.mark.parametrize(("loss", "has_map"), WINDOWED, ids=lambda v: None)
def test_a_window_equals_one_large_batch(loss, has_map):
    """Calls of different sizes, one of them without foreground, and one empty."""
    rng = torch.Generator().manual_seed(2)
    z = torch.randn(6, 3, 6, 7, generator=rng, dtype=torch.float64)
    y = torch.randint(0, 6, (6, 6, 7), generator=rng)
    y = torch.where(y < 3, y, 0)
    y[3:5] = 0
    u = torch.rand(6, 6, 7, generator=rng, dtype=torch.float64)
    whole = {"pixel_weight": u, **({"instance": y} if has_map else {})}
    expected, expected_gradient = value_and_gradient(loss, z, y, **whole)
    slices = [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 6), slice(6, 6)]
    calls = [(z[s], y[s], {name: part[s] for name, part in whole.items()}) for s in slices]
    window = sum(loss.sums(a, b, **options) for a, b, options in calls)
    gradients = []
    for a, b, options in calls:
        value, gradient = value_and_gradient(loss, a, b, window=window, **options)
        torch.testing.assert_close(value, expected)
        gradients.append(gradient)
    torch.testing.assert_close(torch.cat(gradients), expected_gradient)


def test_a_window_of_another_loss_is_refused():
    window = DiceLoss().sums(Z, TARGET)
    with pytest.raises(ValueError, match=r"made by Dice\(smooth=1.0\) per class .*got one of Dice"):
        DiceLoss(1.0)(Z, TARGET, window=window)
    with pytest.raises(TypeError, match=r"Expected `window` to be a sum of loss.sums.*got int"):
        DiceLoss()(Z, TARGET, window=3)
    with pytest.raises(ValueError, match="Expected `window` to be made by"):
        window + TverskyLoss().sums(Z, TARGET)


@pytest.mark.parametrize("loss", [DiceLoss(), CompoundLoss(DiceLoss(), CrossEntropyLoss())])
def test_a_window_of_other_classes_is_refused(loss):
    window = loss.sums(Z, TARGET)
    wide = torch.cat([Z, Z[:, :2]], 1)
    with pytest.raises(
        ValueError, match=r"`window` to be made of calls like this one.*\(3, 1, 3\)"
    ):
        loss(wide, TARGET, window=window)
    with pytest.raises(ValueError, match=r"calls of a `window` to have as many classes"):
        window + loss.sums(wide, TARGET)


def test_a_window_of_hard_and_soft_targets_is_refused():
    hard, soft = DiceLoss().sums(Z, TARGET), DiceLoss().sums(Z, Z.softmax(1))
    with pytest.raises(ValueError, match="the same kind of target"):
        hard + soft
    with pytest.raises(ValueError, match="the same kind of target"):
        DiceLoss()(Z, Z.softmax(1), window=hard)


def test_an_index_of_another_signature_is_refused_when_the_loss_is_built():
    with pytest.raises(TypeError, match=r"got one of \(tp, fp, fn, tn\); an index takes one Ov"):
        RegionLoss(lambda tp, fp, fn, tn: tp / (tp + fp + fn))
    with pytest.raises(TypeError, match=r"got the class Dice; write Dice\(\)\."):
        RegionLoss(Dice)
    with pytest.raises(TypeError, match=r"or a function of an Overlap, got 'dice'\."):
        RegionLoss("dice")
    assert torch.equal(RegionLoss(torch.nn.Sequential(Wrapped()))(Z, TARGET), DiceLoss()(Z, TARGET))


class Wrapped(torch.nn.Module):
    def forward(self, overlap):
        return Dice()(overlap)


@pytest.mark.parametrize(
    "call",
    [
        DiceLoss(adjustment=Margin([9, 3, 1])),
        CompoundLoss(DiceLoss(adjustment=Margin([9, 3, 1])), LDAMLoss([9, 3, 1])),
        lambda z, t: overlap(z, t, adjustment=Margin([9, 3, 1])),
    ],
)
def test_an_adjustment_by_the_label_refuses_soft_targets(call):
    with pytest.raises(ValueError, match="Margin has no formula for soft targets"):
        call(Z, Z.softmax(1))
    call(Z, TARGET)


def test_a_sum_takes_a_window_or_returns_parts():
    loss = CompoundLoss(DiceLoss(), CrossEntropyLoss())
    with pytest.raises(ValueError, match="`window` or `return_parts`, not both; its attribute"):
        loss(Z, TARGET, window=loss.sums(Z, TARGET), return_parts=True)


def test_an_index_without_costs_is_refused():
    with pytest.raises(ValueError, match="`alpha` or `beta` above 0, got 0 for both"):
        TverskyLoss(0, 0)
    assert float(TverskyLoss(0, 1)(Z, TARGET)) > 0
