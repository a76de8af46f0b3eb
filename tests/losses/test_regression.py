"""Regression losses against the published code and against plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from acb_mse import ACBLoss
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb import losses
from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    Outcome,
    OutcomeBalancedMSELoss,
    ValueBins,
    acb_mse_loss,
)
from dense_imb.losses.foreign.parse import parse_loss

from .cases import frames, reference


@pytest.mark.parametrize("case", reference("acb_mse") + reference("acb_mse_mean_of_present"))
def test_published_value_and_gradient(case):
    combine = "mean" if case["name"].endswith("present") else "sum"
    prediction = torch.tensor(case["inputs"]["prediction"], requires_grad=True)
    loss = ACBMSELoss(**case["args"], combine=combine)
    value = loss(prediction, torch.tensor(case["inputs"]["target"]))
    value.backward()
    assert value.item() == pytest.approx(case["value"], rel=5e-7)
    torch.testing.assert_close(prediction.grad, torch.tensor(case["grad"]), rtol=2e-6, atol=1e-8)


def test_published_outcome_gradient():
    (case,) = reference("outcome_balanced_mse_mean")
    args = {k.replace("ff_weighting", "frame_weight"): v for k, v in case["args"].items()}
    args = {k.replace("weighting", "weight"): v for k, v in args.items()}
    prediction = torch.tensor(case["inputs"]["prediction"], requires_grad=True)
    OutcomeBalancedMSELoss(**args)(prediction, torch.tensor(case["inputs"]["target"])).backward()
    torch.testing.assert_close(prediction.grad, torch.tensor(case["grad"]), rtol=2e-6, atol=1e-8)


@given(
    st.integers(0, 10_000), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.floats(0, 3), st.floats(0, 3)
)
@settings(deadline=None, max_examples=50)
def test_stands_in_for_the_published_package(seed, hit_share, empty_weight, hit_weight):
    inputs = frames(2, seed, hit_share=hit_share)
    ours = ACBMSELoss(empty_weight, hit_weight)(**inputs)
    theirs = ACBLoss(empty_weight, hit_weight)(inputs["prediction"], inputs["target"])
    torch.testing.assert_close(ours, theirs)


def test_hits_alone_without_weight_leave_no_gradient_to_empty_pixels():
    inputs = frames(2)
    prediction = inputs["prediction"].requires_grad_()
    acb_mse_loss(prediction, inputs["target"], empty_weight=0.0).backward()
    assert (prediction.grad[inputs["target"] == 0] == 0).all()
    assert (prediction.grad[inputs["target"] != 0] != 0).all()


@pytest.mark.parametrize("error", ["mse", "l1", "huber"])
def test_error_maps_are_torchs_own(error):
    formula = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}[error]
    inputs = frames(2, hit_share=0.0)  # one class only: the plain mean
    value = BalancedRegressionLoss(error)(**inputs)
    torch.testing.assert_close(value, formula(inputs["prediction"], inputs["target"]))


@pytest.mark.parametrize("shape", [(50,), (2, 30), (2, 3, 8, 9), (1, 1, 4, 5, 6)])
def test_any_shape_has_the_same_value(shape):
    rng = torch.Generator().manual_seed(0)
    prediction = torch.rand(shape, generator=rng)
    target = torch.rand(shape, generator=rng) * (torch.rand(shape, generator=rng) < 0.2)
    hit = target != 0
    squared = (prediction - target) ** 2
    expected = squared[hit].mean() + squared[~hit].mean()
    torch.testing.assert_close(ACBMSELoss()(prediction, target), expected)


def test_image_scope_is_the_mean_of_the_images():
    inputs = frames(4, hit_share=0.1)
    inputs["target"][1] = 0  # an image without a hit
    loss = ACBMSELoss(scope="image")
    each = [ACBMSELoss()(p, t) for p, t in zip(*inputs.values(), strict=True)]
    torch.testing.assert_close(loss(**inputs), torch.stack(each).mean())
    mask = torch.ones_like(inputs["target"])
    mask[2] = 0  # an image without a valid pixel is no image
    torch.testing.assert_close(
        loss(**inputs, mask=mask), torch.stack([each[0], each[1], each[3]]).mean()
    )
    with pytest.raises(ValueError, match="Expected `prediction` with images in its first dim"):
        loss(torch.rand(5), torch.rand(5))


def test_value_bins_by_hand():
    target = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 99.0])
    label = ValueBins([0.0, 1.0, 2.0])(target, target)
    assert label.tolist() == [0, 1, 1, 2, 3, 3]
    assert ValueBins([0.5])(target, torch.tensor([0, 1, 2])).tolist() == [0, 1, 1]


@given(
    st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=2, max_size=60),
    st.integers(2, 8),
)
@settings(deadline=None)
def test_bins_from_quantiles(sample, n_bins):
    values = torch.tensor(sample)
    if values.unique().numel() < 2:
        with pytest.raises(ValueError, match="`sample` to hold different values"):
            ValueBins.from_quantiles(values, n_bins)
        return
    edges = ValueBins.from_quantiles(values, n_bins).edges
    expected = torch.quantile(values.double(), torch.arange(1, n_bins).double() / n_bins)
    second = values.unique()[1].item()
    expected = sorted({max(e, second) if e <= values.min() else e for e in expected.tolist()})
    assert list(edges) == pytest.approx(expected)


def test_bins_of_sparse_frames_keep_the_empty_pixels_apart():
    target = torch.zeros(1000)
    target[:20] = torch.arange(1.0, 21.0)
    assert ValueBins.from_quantiles(target, 4).edges == (1.0,)


def test_bins_balance_a_skewed_value():
    rng = torch.Generator().manual_seed(0)
    target = torch.rand(4000, generator=rng) ** 4
    bins = ValueBins.from_quantiles(target, 8)
    parts = BalancedRegressionLoss("l1", bins)(torch.zeros(4000), target, return_parts=True)
    assert parts.class_count.tolist() == [500] * 8


def test_outcomes_by_hand():
    prediction = torch.tensor([0.6, 0.6, 0.4, 0.4])
    target = torch.tensor([0.3, 0.0, 1.0, 0.0])
    assert Outcome(0.5)(prediction, target).tolist() == [0, 1, 2, 3]


def test_a_mask_of_lit_pixels_gives_the_loss_of_the_lit_pixels():
    inputs = frames(3)
    lit = torch.rand(inputs["target"].shape, generator=torch.Generator().manual_seed(1)) < 0.4
    value = ACBMSELoss()(**inputs, mask=lit)
    torch.testing.assert_close(
        value, ACBMSELoss()(inputs["prediction"][lit], inputs["target"][lit])
    )


def test_a_float64_target_does_not_widen_a_float32_prediction():
    inputs = frames(2)
    value = ACBMSELoss()(inputs["prediction"].float(), inputs["target"])
    assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BalancedRegressionLoss("msee"), r"Expected `error` .*Did you mean 'mse'\?"),
        (lambda: BalancedRegressionLoss(partition="hit"), r"`partition` .*Did you mean 'hits'\?"),
        (lambda: BalancedRegressionLoss(partition="labels"), "Expected `n_classes`"),
        (lambda: BalancedRegressionLoss(partition=lambda p, t: t > 0), "Expected `n_classes`"),
        (
            lambda: BalancedRegressionLoss(balance=Balance(weight=(1.0, 1.0, 1.0))),
            "Expected `weight` with one entry for each of the 2 classes, got 3",
        ),
        (
            lambda: BalancedRegressionLoss(partition=Outcome(), n_classes=3),
            r"Expected `n_classes` of 4 with partition=Outcome\(threshold=0.0\), got 3",
        ),
        (lambda: ValueBins([1.0, 1.0]), "Expected `edges` to increase, got 1 before 1"),
        (lambda: ValueBins([]), "Expected `edges` to hold one finite number or more"),
        (lambda: ValueBins([0.0, float("nan")]), "Expected `edges` to hold one finite number"),
        (
            lambda: ACBMSELoss(-1.0),
            "Expected `empty_weight` to be a number of at least 0",
        ),
        (lambda: OutcomeBalancedMSELoss(combine="stick"), r"`combine` .*'carrot_stick', got"),
        (lambda: ValueBins.from_quantiles(torch.rand(9), 1), "`n_bins` .* at least 2, got 1"),
        (lambda: ValueBins.from_quantiles(torch.tensor([torch.nan]), 2), "1 of them not finite"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_bad_calls_are_refused_by_name():
    prediction, target = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    by_label = BalancedRegressionLoss(partition="labels", n_classes=2)
    with pytest.raises(ValueError, match='Expected `label` with partition="labels", got none'):
        by_label(prediction, target)
    with pytest.raises(ValueError, match="Expected `label` between 0 and 1, got 2"):
        by_label(prediction, target, label=torch.full((2, 4, 4), 2))
    scalar = BalancedRegressionLoss(error=F.mse_loss)
    with pytest.raises(ValueError, match='`error` to return one number .*reduction="none"'):
        scalar(prediction, target)
    with pytest.raises(TypeError, match="Expected `target` to be real, got torch.complex64"):
        ACBMSELoss()(prediction, target.to(torch.complex64))


def test_ignored_labels_are_left_out():
    inputs = frames(2)
    label = torch.randint(0, 2, (2, 6, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    by_label = BalancedRegressionLoss(partition="labels", n_classes=2)
    ignoring = BalancedRegressionLoss(partition="labels", n_classes=2, ignore_index=255)
    torch.testing.assert_close(
        ignoring(**inputs, label=torch.where(mask, label, 255)),
        by_label(**inputs, label=label, mask=mask),
    )


def test_functions_and_modules_are_both_public():
    assert {"acb_mse_loss", "balanced_mean", "balanced_regression_loss"} <= set(losses.__all__)


@pytest.mark.parametrize("n_edges", [1, 15, 40])
def test_compiled_bins_are_the_same_bins(n_edges):
    """Few edges are compared one by one there, many are searched."""
    torch.compiler.reset()
    bins = ValueBins([i / n_edges for i in range(n_edges)])
    target = torch.cat([torch.rand(200), torch.tensor(bins.edges), torch.tensor([-1.0, 2.0])])
    compiled = torch.compile(lambda t: bins(t, t), fullgraph=True, backend="aot_eager")
    for value in (target, target.double(), (4 * target).int()):
        assert torch.equal(compiled(value), bins(value, value))


def test_one_class_is_a_plain_mean():
    one = BalancedRegressionLoss(partition=lambda p, t: torch.zeros_like(t).long(), n_classes=1)
    prediction, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])
    torch.testing.assert_close(one(prediction, target), torch.tensor(5.0))


def test_options_of_a_loss_as_text_may_stand_in_their_order():
    parsed = parse_loss('BalancedRegressionLoss("l1", {"edges": [1, 10]}, {"combine": "sum"})')
    assert parsed.partition == ValueBins([1, 10])
    assert parsed.balance == Balance(combine="sum")
    with pytest.raises(ValueError, match="a balance by its name, balance={}"):
        parse_loss('BalancedRegressionLoss("l1", {})')
    with pytest.raises(ValueError, match="multiple values for argument 'error'"):
        parse_loss('BalancedRegressionLoss("l1", error="l1")')


def test_a_balance_in_place_of_a_partition_is_named():
    for partition in ({}, Balance()):
        with pytest.raises(TypeError, match="give a balance by its name, balance=Balance()"):
            BalancedRegressionLoss("l1", partition)
    with pytest.raises(TypeError, match="Expected `balance` to be a Balance, got dict"):
        BalancedRegressionLoss("l1", "hits", {})
