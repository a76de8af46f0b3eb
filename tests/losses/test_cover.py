"""Cells that overlap, against plain loops: masks, bit fields, and the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.losses import Balance, BalancedRegressionLoss, Cover, balanced_mean

from .cases import covered_frames
from .test_balance import as_on_an_accelerator, power_mean


def in_plain_loops(error, masks, cover, balance, valid, weight):
    """The definition: one cell after the other; masks (B, G, pixels)."""
    cells = list(masks.unbind(1))
    nowhere = ~masks.any(1)
    if cover.rest == "cell":
        cells.append(nowhere)
    else:
        valid = valid & ~nowhere
    valid = valid & (weight != 0)
    rows = [slice(0, None)]
    if balance.scope == "image":
        rows = [slice(i, i + 1) for i in range(len(error))]
    values = []
    for row in rows:
        e, u, v = error[row], weight[row], valid[row]
        present = [c for c, cell in enumerate(cells) if (cell[row] & v).any()]
        if not present:
            continue
        has_frame = balance.frame_weight > 0
        n_mean = (len(present) if balance.absent != "zero" else len(cells)) + has_frame
        n_mean = 1 if balance.combine == "sum" else n_mean
        mass = {c: float(u[cells[c][row] & v].sum()) for c in present}
        total = sum(mass.values())
        sizes = {c: (mass[c] / total) ** balance.count_power for c in present}
        entries = []
        for c in present:
            inside = cells[c][row] & v
            size = sizes[c] / (sum(sizes.values()) / len(sizes))
            mean = float((u * e)[inside].sum()) / mass[c]
            entries.append(((balance.weight or [1.0] * 99)[c] * size / n_mean, mean))
        if has_frame:
            entries.append((balance.frame_weight / n_mean, float((u * e)[v].sum() / u[v].sum())))
        values.append(power_mean(entries, balance.power))
    return sum(values) / len(values) if values else 0.0


def bit_field(masks):
    bits = torch.arange(masks.shape[1]).view(1, -1, *[1] * (masks.dim() - 2))
    return (masks.long() << bits).sum(1)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 12, 13, 25]),
    st.sampled_from(["ignore", "cell"]),
    st.sampled_from(["image", "batch", "global"]),
    st.sampled_from(["sum", "mean"]),
    st.sampled_from(["skip", "zero"]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([1, 2, float("inf")]),
    st.sampled_from([0, 0.5]),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_equals_its_definition(
    seed, n_cells, rest, scope, combine, absent, frame_weight, power, count_power, is_weighted
):
    rng = torch.Generator().manual_seed(seed)
    cover = Cover(n_cells, rest)
    share = 1.5 / n_cells if seed % 2 else 0.0 if seed % 3 else 0.9
    masks = torch.rand(2, n_cells, 9, generator=rng) < share
    error = torch.rand(2, 9, generator=rng, dtype=torch.float64)
    valid = torch.rand(2, 9, generator=rng) < 0.8
    weight = torch.randint(0, 3, (2, 9), generator=rng).double()
    weight = weight if is_weighted else torch.ones_like(weight)
    balance = Balance(
        scope=scope, combine=combine, absent=absent, frame_weight=frame_weight, power=power,
        count_power=count_power,
    )  # fmt: skip
    options = {"cover": cover, "balance": balance, "mask": valid}
    if is_weighted:
        options["pixel_weight"] = weight
    expected = in_plain_loops(error, masks, cover, balance, valid, weight)
    for label in (masks, bit_field(masks)):
        value = balanced_mean(error, label, **options)
        assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        torch.testing.assert_close(as_on_an_accelerator(error, label, **options), value)


def test_a_pixel_has_the_sum_of_the_coefficients_of_its_cells():
    inputs = covered_frames(2)
    prediction = inputs["prediction"].requires_grad_()
    loss = BalancedRegressionLoss("l1", "masks", Balance(combine="sum"), n_classes=3)
    (gradient,) = torch.autograd.grad(loss(**inputs), prediction)
    masks = inputs["label"].double()
    share = (masks / masks.sum((0, 2, 3), keepdim=True)).sum(1, keepdim=True)
    torch.testing.assert_close(gradient.abs(), share)


def test_masks_is_the_short_name_of_a_cover():
    inputs = covered_frames(2)
    weights = Balance(weight=(1.0, 2.0, 0.5))
    expected = BalancedRegressionLoss("l1", Cover(3), weights)(**inputs)
    torch.testing.assert_close(BalancedRegressionLoss("l1", "masks", weights)(**inputs), expected)


def test_disjoint_cells_are_classes():
    inputs = covered_frames(3)
    label = torch.randint(0, 3, (3, 6, 7))
    masks = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).bool()
    for balance in (Balance(), Balance(scope="image", absent="zero", frame_weight=0.5)):
        torch.testing.assert_close(
            BalancedRegressionLoss("l1", "masks", balance, n_classes=3)(
                **{**inputs, "label": masks}
            ),
            BalancedRegressionLoss("l1", "labels", balance, n_classes=3)(
                **{**inputs, "label": label}
            ),
        )


def test_masks_are_not_copied_as_floats():
    """Eleven masks of a volume take less than one float map of each."""
    from torch.profiler import ProfilerActivity, profile

    masks = torch.rand(2, 11, 16, 16, 16) < 0.2
    prediction, target = torch.rand(2, 2, 1, 16, 16, 16).unbind(1)
    loss = BalancedRegressionLoss("l1", Cover(11, "cell"))
    loss(prediction, target, label=masks)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(prediction, target, label=masks)
    events = profiler.profiler.kineto_results.events()
    largest = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert largest <= 8 * prediction.numel()


def test_pixels_in_no_cell_are_refused_if_wanted():
    error, masks = torch.ones(1, 4), torch.tensor([[[True, False, False, True]]])
    cover = Cover(1, "refuse")
    with pytest.raises(ValueError, match="in a cell of the cover, got 2 of 4 in none; use rest="):
        balanced_mean(error, masks, cover=cover, balance=Balance())
    assert as_on_an_accelerator(error, masks, cover=cover, balance=Balance()).isnan()
    mask = masks[:, 0]
    options = {"cover": cover, "balance": Balance(), "mask": mask}
    assert balanced_mean(error, masks, **options) == 1
    assert as_on_an_accelerator(error, masks, **options) == 1


def test_undeclared_bits_are_refused_or_nan():
    error, field = torch.ones(1, 3), torch.tensor([[1, 2, 4]])
    options = {"cover": Cover(2), "balance": Balance()}
    with pytest.raises(ValueError, match="bits of the 2 cells, from 0 to 3, got 4; use Cover.3."):
        balanced_mean(error, field, **options)
    assert as_on_an_accelerator(error, field, **options).isnan()
    mask = field < 4
    assert balanced_mean(error, field, mask=mask, **options) == 1
    assert as_on_an_accelerator(error, field, mask=mask, **options) == 1
    with pytest.raises(ValueError, match="got -1"):
        balanced_mean(error, -field // 4, **options)
    assert balanced_mean(error, field.to(torch.uint8), cover=Cover(8), balance=Balance()) == 1


@pytest.mark.parametrize(
    ("label", "error", "sentence"),
    [
        (None, ValueError, "Expected `label` with the cells of a cover, got none: call the loss"),
        (torch.ones(2, 2, 6, 7).bool(), ValueError, r"a mask for each of the 3 cells, \(2, 3, 6"),
        (torch.ones(2, 3, 6, 6).bool(), ValueError, r"\(2, 3, 6, 7\) for a `prediction` of \(2, 1"),
        (torch.ones(2, 3, 6, 7), TypeError, r"a bit field of integers, got torch.float32; call .b"),
        (torch.ones(2, 3, 6, 7).long(), TypeError, r"with 3 channels to hold masks of bool, got t"),
        (torch.ones(2, 6, 6).long(), ValueError, "Expected `label` in the shape of `prediction`"),
        ([1], TypeError, "Expected `label` to be a torch.Tensor, got list"),
    ],
)
def test_bad_labels_are_refused_by_name(label, error, sentence):
    inputs = covered_frames(2)
    loss = BalancedRegressionLoss("l1", "masks", n_classes=3)
    with pytest.raises(error, match=sentence):
        loss(inputs["prediction"], inputs["target"], label=label)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: Cover(0), ValueError, "Expected `n_cells` of at least 1, got 0"),
        (lambda: Cover(2.0), TypeError, "Expected `n_cells` to be a whole number, got 2.0"),
        (lambda: Cover(2, "cells"), ValueError, "Did you mean 'cell'"),
        (lambda: BalancedRegressionLoss("l1", "masks"), ValueError, "Expected `n_classes`"),
        (lambda: BalancedRegressionLoss("l1", "mask"), ValueError, "Did you mean 'masks'"),
        (
            lambda: BalancedRegressionLoss("l1", Cover(2, "cell"), n_classes=2),
            ValueError,
            "Expected `n_classes` of 3 with partition=Cover",
        ),
        (
            lambda: BalancedRegressionLoss("l1", Cover(2), ignore_index=255),
            ValueError,
            "Expected no `ignore_index` with a cover, got 255; use `mask`",
        ),
        (
            lambda: balanced_mean(
                torch.ones(1, 3), torch.ones(1, 3).long(), cover=Cover(63), balance=Balance()
            ),
            ValueError,
            "a bit field of at most 62 cells, got 63; pass masks",
        ),
        (
            lambda: balanced_mean(torch.ones(1, 3), torch.ones(1, 3).long(), balance=Balance()),
            TypeError,
            "Expected `n_classes` with a label of classes, got none",
        ),
        (
            lambda: balanced_mean(
                torch.ones(1, 3),
                torch.ones(1, 3).long(),
                cover=Cover(1),
                balance=Balance(frame_weight=1.0),
                class_count=(3,),
            ),
            ValueError,
            "Expected no `class_count` with the frame_weight of a cover",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_more_masks_than_bits_of_an_integer():
    masks = torch.rand(2, 70, 9) < 0.1
    error = torch.rand(2, 9, dtype=torch.float64)
    valid, weight = torch.ones(2, 9, dtype=torch.bool), torch.ones(2, 9)
    value = balanced_mean(error, masks, cover=Cover(70), balance=Balance())
    expected = in_plain_loops(error, masks, Cover(70), Balance(), valid, weight)
    assert value.item() == pytest.approx(expected)
