"""The balanced mean against its definition in plain loops, its properties, and bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    CrossEntropyLoss,
    balanced_mean,
)

N_CLASSES = 3


def in_plain_loops(error, label, n_classes, balance, valid, weight):
    """The definition: Python numbers, one pixel at a time."""
    scope_images = balance.scope == "image"
    rows = [list(range(len(error)))] if not scope_images else [[i] for i in range(len(error))]
    values = []
    for images in rows:
        count, mass, total = [0] * n_classes, [0.0] * n_classes, [0.0] * n_classes
        for i in images:
            for e, c, v, u in zip(error[i], label[i], valid[i], weight[i], strict=True):
                if v and u != 0:
                    count[c] += 1
                    mass[c] += u
                    total[c] += u * e
        weights = balance.weight or [1.0] * n_classes
        combine = balance.combine
        combine = [combine] * n_classes if isinstance(combine, str) else combine
        present = [c for c in range(n_classes) if count[c] > 0]
        entries = present if balance.absent != "zero" else range(n_classes)
        has_frame = balance.frame_weight > 0
        n_mean = max(sum(combine[c] == "mean" for c in entries) + has_frame, 1)
        sizes = {c: (mass[c] / sum(mass)) ** balance.count_power for c in present}
        entries = []  # of the power mean: v, m
        for c in present:
            divisor = max(mass[c], balance.min_count) if balance.min_count > 1 else mass[c]
            share = weights[c] / (n_mean if combine[c] == "mean" else 1)
            share *= sizes[c] / (sum(sizes.values()) / len(sizes))
            entries.append((share, total[c] / divisor))
        if has_frame and present:
            share = balance.frame_weight / (1 if all(e == "sum" for e in combine) else n_mean)
            entries.append((share, sum(total) / sum(mass)))
        if present:
            values.append(power_mean(entries, balance.power))
    return sum(values) / len(values) if values else 0.0


def power_mean(entries, power):
    """(sum of v m^p)^(1/p) of pairs (v, m)."""
    entries = [(v, m) for v, m in entries if v > 0]
    if math.isinf(power):
        return max((m for _, m in entries), default=0.0)
    return sum(v * m**power for v, m in entries) ** (1 / power)


number = st.floats(0.0, 4.0, allow_subnormal=False).map(lambda x: round(x, 3))
combines = st.one_of(
    st.sampled_from(["sum", "mean"]),
    st.tuples(*[st.sampled_from(["sum", "mean"])] * N_CLASSES).filter(lambda c: len(set(c)) > 1),
)
balances = st.builds(
    Balance,
    weight=st.none() | st.tuples(*[number] * N_CLASSES),
    scope=st.sampled_from(["image", "batch", "global"]),
    combine=combines,
    absent=st.sampled_from(["skip", "zero"]),
    min_count=st.sampled_from([1, 2.5, 4]),
    frame_weight=st.sampled_from([0.0, 0.5]),
    power=st.sampled_from([1, 1, 1.5, 4, math.inf]),
    count_power=st.sampled_from([0, 0, 0.5, 1]),
)


@st.composite
def pictures(draw, max_images=3, max_pixels=7):
    """Error, label, mask and pixel weight of a few small images."""
    shape = (draw(st.integers(0, max_images)), draw(st.integers(1, max_pixels)))

    def fill(of):
        return [[draw(of) for _ in range(shape[1])] for _ in range(shape[0])]

    tensors = (
        torch.tensor(fill(number), dtype=torch.float64),
        torch.tensor(fill(st.integers(0, N_CLASSES - 1)), dtype=torch.int64),
        torch.tensor(fill(st.booleans()), dtype=torch.bool),
        torch.tensor(fill(st.sampled_from([0.0, 0.25, 1.0, 3.0])), dtype=torch.float64),
    )
    return tuple(tensor.reshape(shape) for tensor in tensors)


@given(pictures(), balances, st.booleans(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_equals_its_definition(picture, balance, is_masked, is_weighted):
    error, label, mask, weight = picture
    options = {}
    if is_masked:
        options["mask"] = mask
    if is_weighted:
        options["pixel_weight"] = weight
    value = balanced_mean(error, label, N_CLASSES, balance=balance, **options)
    expected = in_plain_loops(
        error.tolist(),
        label.tolist(),
        N_CLASSES,
        balance,
        (mask if is_masked else torch.ones_like(mask)).tolist(),
        (weight if is_weighted else torch.ones_like(weight)).tolist(),
    )
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    # the path of compiled code and accelerators, which cannot count with bincount
    torch.testing.assert_close(
        as_on_an_accelerator(error, label, N_CLASSES, balance=balance, **options), value
    )


def as_on_an_accelerator(*args, **options):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("balance", "coefficient", "cover", "groups", "instances", "pixels"):
            name = f"dense_imb.losses.core.{module}.values_are_readable"
            patch.setattr(name, lambda value: False)
        return balanced_mean(*args, **options)


@given(pictures(), balances)
@settings(deadline=None)
def test_a_label_to_ignore_is_a_mask(picture, balance):
    error, label, mask, _ = picture
    expected = balanced_mean(error, label, N_CLASSES, balance=balance, mask=mask)
    for ignored in (255, -1, -100):
        marked = torch.where(mask, label, ignored)
        options = {"balance": balance, "ignore_index": ignored}
        torch.testing.assert_close(balanced_mean(error, marked, N_CLASSES, **options), expected)
        torch.testing.assert_close(
            as_on_an_accelerator(error, marked, N_CLASSES, **options), expected
        )


@given(pictures(), balances, st.permutations(range(N_CLASSES)))
@settings(deadline=None)
def test_relabelling_the_classes_changes_nothing(picture, balance, order):
    error, label, mask, _ = picture
    moved = torch.tensor(order)[label]  # class c becomes order[c]
    back = [order.index(c) for c in range(N_CLASSES)]
    weight = None if balance.weight is None else [balance.weight[c] for c in back]
    combine = balance.combine
    if not isinstance(combine, str):
        combine = [combine[c] for c in back]
    twin = replace(balance, weight=weight, combine=combine)
    torch.testing.assert_close(
        balanced_mean(error, moved, N_CLASSES, balance=twin, mask=mask),
        balanced_mean(error, label, N_CLASSES, balance=balance, mask=mask),
    )


@given(pictures(), balances, st.randoms())
@settings(deadline=None)
def test_the_order_of_the_pixels_changes_nothing(picture, balance, random):
    error, label, mask, weight = picture
    order = list(range(error.shape[1]))
    random.shuffle(order)
    options = {"balance": balance, "mask": mask, "pixel_weight": weight}
    moved = {**options, "mask": mask[:, order], "pixel_weight": weight[:, order]}
    torch.testing.assert_close(
        balanced_mean(error[:, order], label[:, order], N_CLASSES, **moved),
        balanced_mean(error, label, N_CLASSES, **options),
    )


@given(pictures(), balances, st.sampled_from([1e-3, 0.5, 7.0]))
@settings(deadline=None)
def test_a_constant_pixel_weight_changes_nothing(picture, balance, constant):
    error, label, mask, _ = picture
    if balance.min_count > 1:  # a floor on the sum of the weights does feel them
        balance = replace(balance, min_count=1)
    weight = torch.full_like(error, constant)
    torch.testing.assert_close(
        balanced_mean(error, label, N_CLASSES, balance=balance, mask=mask, pixel_weight=weight),
        balanced_mean(error, label, N_CLASSES, balance=balance, mask=mask),
    )


@given(pictures(), balances, st.lists(st.integers(0, 3), min_size=7, max_size=7))
@settings(deadline=None)
def test_an_integer_pixel_weight_is_so_many_copies(picture, balance, copies):
    error, label, _, _ = picture
    times = torch.tensor(copies[: error.shape[1]])
    weight = times.double().expand(error.shape)
    if times.sum() == 0:
        return
    torch.testing.assert_close(
        balanced_mean(error, label, N_CLASSES, balance=balance, pixel_weight=weight),
        balanced_mean(
            error.repeat_interleave(times, 1),
            label.repeat_interleave(times, 1),
            N_CLASSES,
            balance=balance,
        ),
    )


@given(pictures(), balances, st.integers(2, 4))
@settings(deadline=None)
def test_duplicating_the_background_changes_nothing(picture, balance, times):
    error, label, _, _ = picture
    balance = replace(balance, frame_weight=0.0, min_count=1, count_power=0)
    label = label[:1]
    background = label.flatten() == 0
    repeats = torch.where(background, times, 1)
    error = error[:1]
    if len(error) == 0:
        return
    torch.testing.assert_close(
        balanced_mean(
            error.repeat_interleave(repeats, 1),
            label.repeat_interleave(repeats, 1),
            N_CLASSES,
            balance=balance,
        ),
        balanced_mean(error, label, N_CLASSES, balance=balance),
    )


@given(pictures(), st.sampled_from(["sum", "mean"]), st.integers(0, N_CLASSES - 1))
@settings(deadline=None)
def test_one_class_only_is_the_plain_mean(picture, combine, only):
    error = picture[0]
    value = balanced_mean(
        error, torch.full_like(error, only).long(), N_CLASSES, balance=Balance(combine=combine)
    )
    torch.testing.assert_close(value, error.mean() if error.numel() else error.sum())


@given(pictures(), balances)
@settings(deadline=None)
def test_a_window_of_accumulation_sums_to_one_batch(picture, balance):
    error, label, mask, weight = picture
    balance = replace(balance, scope="batch", power=1)
    options = {"balance": balance, "mask": mask, "pixel_weight": weight}
    whole = balanced_mean(error, label, N_CLASSES, **options)
    count = torch.stack([(weight * mask)[label == c].sum() for c in range(N_CLASSES)])
    parts = sum(
        balanced_mean(
            error[i : i + 1],
            label[i : i + 1],
            N_CLASSES,
            balance=balance,
            mask=mask[i : i + 1],
            pixel_weight=weight[i : i + 1],
            class_count=count,
        )
        for i in range(len(error))
    )
    torch.testing.assert_close(torch.as_tensor(parts, dtype=torch.float64), whole)


def test_counts_are_exact_beyond_two_to_the_24():
    n_pixels = 2**24 + 3
    label = torch.zeros(1, n_pixels, dtype=torch.bool)
    label[0, -1] = True
    error = torch.ones(1, 1).expand(1, n_pixels)
    for labels in (label, label.to(torch.int32)):
        parts = balanced_mean(error, labels, 2, balance=Balance(), return_parts=True)
        assert parts.class_count.tolist() == [n_pixels - 1, 1]
        assert parts.value.item() == pytest.approx(1.0, rel=1e-6)


def test_a_nan_weight_shows_and_does_not_hide_its_class():
    error, label = torch.ones(4), torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([1.0, 1.0, torch.nan, 1.0])
    value = balanced_mean(error, label, 2, balance=Balance(), pixel_weight=weight)
    assert value.isnan()


def test_a_masked_nan_does_not_reach_the_value():
    error = torch.tensor([1.0, torch.nan, 3.0])
    label, mask = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1])
    assert balanced_mean(error, label, 2, balance=Balance(), mask=mask) == 2


def test_a_nan_shows_even_at_weight_zero():
    error = torch.tensor([1.0, torch.nan], requires_grad=True)
    value = balanced_mean(error, torch.tensor([0, 1]), 2, balance=Balance(weight=(1.0, 0.0)))
    assert value.isnan()


def test_an_infinite_error_stays_infinite():
    error = torch.tensor([1.0, torch.inf, 2.0])
    assert balanced_mean(error, torch.tensor([0, 1, 1]), 2, balance=Balance()) == math.inf


def test_an_illegal_label_is_refused_or_nan():
    error = torch.ones(2, 3)
    for illegal in (3, 255, -1):
        label = torch.tensor([[0, 1, 2], [0, illegal, 1]])
        with pytest.raises(ValueError, match=rf"Expected `label` between 0 and 2, got {illegal};"):
            balanced_mean(error, label, 3, balance=Balance())
        for scope in ("image", "batch"):
            value = as_on_an_accelerator(error, label, 3, balance=Balance(scope=scope))
            assert value.isnan()
        mask = label != illegal
        value = balanced_mean(error, label, 3, balance=Balance(), mask=mask)
        assert value == 1
        assert as_on_an_accelerator(error, label, 3, balance=Balance(), mask=mask) == 1


@pytest.mark.parametrize("absent", ["skip", "zero"])
def test_a_bool_label_is_an_index_whatever_the_number_of_classes(absent):
    error = torch.rand(2, 6)
    label = torch.tensor([[True, False, False, True, False, False]] * 2)
    for n_classes in (2, 3):
        balance = Balance(absent=absent, weight=(1.0, 2.0, 3.0)[:n_classes])
        for scope in ("image", "batch"):
            options = {"balance": replace(balance, scope=scope)}
            torch.testing.assert_close(
                balanced_mean(error, label, n_classes, **options),
                balanced_mean(error, label.long(), n_classes, **options),
            )
    with pytest.raises(ValueError, match="`label` between 0 and 0, got 1"):
        balanced_mean(error, label, 1, balance=Balance())


def test_label_may_lack_its_channel_dimension():
    error = torch.rand(2, 3, 4, 5)
    label = torch.randint(0, 2, (2, 4, 5))
    expected = balanced_mean(
        error, label.unsqueeze(1).expand(2, 3, 4, 5), 2, balance=Balance(scope="image")
    )
    for given_label in (label, label.unsqueeze(1)):
        value = balanced_mean(error, given_label, 2, balance=Balance(scope="image"))
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"weight": (1.0, -2.0)}, r"Expected `weight` to be a number of at least 0, got -2.0"),
        ({"weight": (1.0, math.nan)}, r"Expected `weight` to be a number of at least 0, got nan"),
        ({"weight": 2.0}, r"Expected `weight` to hold one number for each class, got 2.0"),
        ({"scope": "imgae"}, r"Expected `scope` to be one of .*'imgae'. Did you mean 'image'\?"),
        ({"combine": "max"}, r"Expected `combine` to be one of 'sum', 'mean', got 'max'"),
        ({"combine": ("sum", "x")}, r"Expected `combine` to be one of 'sum', 'mean', got 'x'"),
        (
            {"absent": "drop"},
            r"Expected `absent` to be one of 'skip', 'zero', 'rate', 'index', got 'drop'",
        ),
        ({"gradient": "max"}, r"Expected `gradient` to be one of 'mean', 'sum', got 'max'"),
        ({"min_count": 0}, r"Expected `min_count` to be a number of at least 1, got 0"),
        ({"frame_weight": -1.0}, r"Expected `frame_weight` to be a number of at least 0"),
    ],
)
def test_bad_balance_is_refused_by_name(arguments, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Balance(**arguments)


def test_bad_input_is_refused_by_name():
    error, label = torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.int64)
    balance = Balance()
    with pytest.raises(
        ValueError, match="`weight` with one entry for each of the 2 classes, got 3"
    ):
        balanced_mean(error, label, 2, balance=Balance(weight=(1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="`combine` with one entry for each of the 2 classes"):
        balanced_mean(error, label, 2, balance=Balance(combine=("sum", "mean", "sum")))
    with pytest.raises(TypeError, match="`label` to be bool or integer, got torch.float32"):
        balanced_mean(error, label.float(), 2, balance=balance)
    with pytest.raises(TypeError, match="`error` to be floating point, got torch.int64"):
        balanced_mean(label, label, 2, balance=balance)
    with pytest.raises(ValueError, match=r"`label` in the shape of `error`, \(2, 4\)"):
        balanced_mean(error, label[:, :3], 2, balance=balance)
    with pytest.raises(ValueError, match=r"`class_count` with one entry for each of the 2 classes"):
        balanced_mean(error, label, 2, balance=balance, class_count=torch.ones(3))
    with pytest.raises(ValueError, match="`class_count` of at least 0, got"):
        balanced_mean(error, label, 2, balance=balance, class_count=torch.tensor([8, -1]))
    with pytest.raises(ValueError, match=r"whole window, got 0 for class 0, of which .* 8\."):
        balanced_mean(error, label, 2, balance=balance, class_count=torch.tensor([0, 8]))
    with pytest.raises(ValueError, match='no `class_count` with scope "image"'):
        balanced_mean(
            error, label, 2, balance=Balance(scope="image"), class_count=torch.tensor([8, 8])
        )


def test_a_window_that_lacks_a_class_of_the_call_is_nan_where_it_cannot_be_refused():
    error, label = torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.int64)
    count = torch.tensor([0, 8])
    value = as_on_an_accelerator(error, label, 2, balance=Balance(), class_count=count)
    assert value.isnan()


def test_weights_may_be_arrays_and_balances_compare():
    weights = [1.0, 2.0, 0.5]
    for given_weights in (weights, tuple(weights), torch.tensor(weights).numpy()):
        assert Balance(weight=given_weights) == Balance(weight=weights)
    assert Balance(weight=torch.tensor(weights)) == Balance(weight=weights)
    assert hash(Balance(weight=weights)) == hash(Balance(weight=tuple(weights)))


def test_treatments_of_region_losses_are_refused_when_a_mean_of_errors_is_built():
    balance = Balance(absent="rate")
    for make in (CrossEntropyLoss, BalancedRegressionLoss):
        with pytest.raises(
            ValueError, match=r'"skip" or "zero" for a mean of errors, got \'rate\''
        ):
            make(balance=balance)
    with pytest.raises(ValueError, match="`absent` to be one of 'skip', 'zero', got 'index'"):
        ACBMSELoss(absent="index")
