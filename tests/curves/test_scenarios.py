"""What the scenarios ask: their pairs, counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dense_imb.curves import (
    SCENARIOS,
    ClassFrequency,
    Collapse,
    GradientShare,
    OverlappingCells,
    Probability,
    Recovery,
    SignalSize,
    ValueResidual,
    sweep,
)
from dense_imb.losses import (
    ACBMSELoss,
    BalancedRegressionLoss,
    CompoundLoss,
    Cover,
    CrossEntropyLoss,
    DiceLoss,
    TverskyLoss,
)

SMALL = {"frame": (6, 10)}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
@pytest.mark.parametrize("points", [3, 17, 200])
def test_axis_rises_and_keeps_to_its_points(scenario, points):
    options = {"points": points} | (SMALL if hasattr(scenario, "frame") else {})
    places = [point.x for point in replace(scenario, **options)]
    assert places == sorted(set(places))
    assert 3 <= len(places) <= points


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_feeds_what_it_says(scenario):
    point = next(iter(scenario))
    if scenario.feeds_on == "values":
        assert point.prediction.shape == point.target.shape == (1, 1, 128, 88)
    else:
        assert point.prediction.shape[1] == scenario.n_classes
        assert point.target.dtype == torch.long
        # log-probabilities: losses that want these, and those that want logits, are both served
        total = point.prediction.exp().sum(dim=1)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_signal_grows_by_two_pixels_and_half_is_recovered():
    points = list(SignalSize(frame=(10, 10)))
    assert [round(point.x * 100) for point in points] == list(range(2, 101, 2))
    for n_hits, point in zip(range(2, 101, 2), points, strict=True):
        assert (point.target == 100).sum() == n_hits
        assert ((point.prediction == 100) & (point.target == 100)).sum() == n_hits / 2
        assert (point.prediction != 0).sum() == n_hits / 2


def test_signal_size_in_a_large_frame_keeps_even_steps():
    counts = [round(point.x * 11_264) for point in SignalSize()]
    assert counts[0] == 2
    assert counts[-1] == 11_264
    assert len(counts) == 200
    assert all(count % 2 == 0 for count in counts)


def test_recovered_part_and_value_are_free():
    *_, last = SignalSize(frame=(10, 10), recovered=0.8, value=3.0)
    assert (last.prediction == 3).sum() == 80


def test_signal_returns_pixel_by_pixel_then_overshoots():
    points = list(Recovery(frame=(6, 10)))
    assert [round(point.x * 30) for point in points] == list(range(61))
    for returned, point in enumerate(points):
        assert (point.target != 0).sum() == 10
        assert (point.prediction != 0).sum() == returned
        assert ((point.prediction != 0) & (point.target != 0)).sum() == min(returned, 10)


@pytest.mark.parametrize("points", [3, 4, 50, 200])
def test_recovery_passes_the_perfect_answer(points):
    scenario = Recovery(points=points)
    perfect = [point.x for point in scenario if torch.equal(point.prediction, point.target)]
    assert perfect == [2 * 1877 / 11_264]


def test_every_hit_is_wrong_by_the_residual():
    for point in ValueResidual(points=11):
        residual = (point.prediction - point.target).flatten()
        assert residual[:30].tolist() == pytest.approx([point.x] * 30, rel=1e-5, abs=1e-9)
        assert not residual[30:].any()


def test_true_class_gets_exactly_its_probability():
    points = list(Probability())
    assert (points[0].x, points[-1].x) == (1e-7, 1 - 1e-7)
    for x, logits, target, *_ in points:
        p = torch.softmax(logits, dim=1).gather(1, target.unsqueeze(1)).item()
        assert p == pytest.approx(x, rel=1e-12)
    assert {0.01, 0.1, 0.5, 0.9} <= {round(point.x, 12) for point in points}


@pytest.mark.parametrize("error_rate", [0.25, 0.1, 0.15])
def test_every_class_has_the_error_rate(error_rate):
    scenario = ClassFrequency(frame=(6, 10), error_rate=error_rate, confidence=0.7)
    for x, logits, label, *_ in scenario:
        assert (label == 3).sum() == round(x * 60) * label.shape[0]
        chosen = logits.argmax(dim=1)
        torch.testing.assert_close(
            logits.amax(dim=1).exp(), torch.full(label.shape, 0.7, dtype=torch.double)
        )
        for c in range(4):
            wrong = (chosen != label)[label == c]
            assert wrong.double().mean().item() == pytest.approx(error_rate)
    assert round(x * 60) == 30


def test_rare_class_starts_with_one_pixel():
    assert next(iter(ClassFrequency())).x == 1 / 11_264


def test_trap_of_the_mean_squared_error():
    losses = {"MSE": torch.nn.MSELoss(), "ACB": ACBMSELoss(), "9": ACBMSELoss(hit_weight=9.0)}
    table = sweep(Collapse(frame=(10, 10)), losses)
    columns = {(column.name, column.quantity): column.values for column in table.curves}
    for i, f in enumerate(table.axis.values):
        # the best constant is the mean, and there the loss is the variance
        assert columns["MSE", "loss of a blank frame"][i] == pytest.approx(f * 1e4)
        assert columns["MSE", "loss of the best constant"][i] == pytest.approx(
            f * (1 - f) * 1e4, rel=1e-5
        )
        # half the value misses both classes by half
        assert columns["ACB", "loss of a blank frame"][i] == pytest.approx(1e4)
        assert columns["ACB", "loss of the best constant"][i] == pytest.approx(5e3)
        # a hit that weighs nine times as much draws the constant to nine tenths
        assert columns["9", "loss of the best constant"][i] == pytest.approx(9e3, rel=1e-5)
        for name in losses:
            assert columns[name, "loss of a perfect answer"][i] == 0


def test_trap_of_the_cross_entropy():
    scenario = Collapse(frame=(10, 10), feeds="logits", confidence=0.9)
    table = sweep(scenario, {"CE": torch.nn.CrossEntropyLoss()})
    columns = {column.quantity: column.values for column in table.curves}
    for i, f in enumerate(table.axis.values):
        entropy = -f * math.log(f) - (1 - f) * math.log(1 - f)
        assert columns["loss of the best constant"][i] == pytest.approx(entropy, rel=1e-4)
        blank = -f * math.log(0.1) - (1 - f) * math.log(0.9)
        assert columns["loss of a blank frame"][i] == pytest.approx(blank, rel=1e-5)
        assert columns["loss of a perfect answer"][i] == pytest.approx(-math.log(0.9), rel=1e-5)


def test_trap_of_the_dice_loss():
    """A blank frame is as bad as can be, and so is every constant: only a mask is better."""
    scenario = Collapse(frame=(10, 10), feeds="logits", confidence=0.9)
    losses = {"Dice": DiceLoss(), "sum": CompoundLoss(DiceLoss(), CrossEntropyLoss())}
    table = sweep(scenario, losses)
    columns = {(column.name, column.quantity): column.values for column in table.curves}
    for i, f in enumerate(table.axis.values):
        blank = 1 - 0.2 * f / (0.1 + f)
        assert columns["Dice", "loss of a blank frame"][i] == pytest.approx(blank)
        full = 1 - 2 * f / (1 + f)
        assert columns["Dice", "loss of the best constant"][i] == pytest.approx(full, rel=1e-3)
        perfect = 1 - 1.8 * f / (0.1 + 1.8 * f)
        assert columns["Dice", "loss of a perfect answer"][i] == pytest.approx(perfect)
        cross_entropy = -f * math.log(0.1) - (1 - f) * math.log(0.9)
        assert columns["sum", "loss of a blank frame"][i] == pytest.approx(blank + cross_entropy)


@pytest.mark.parametrize(
    ("feeds", "loss", "share"),
    [
        ("values", torch.nn.MSELoss(), lambda f: 0.9 * f / (0.9 * f + 0.1 * (1 - f))),
        ("values", torch.nn.L1Loss(), lambda f: f),
        ("values", ACBMSELoss(), lambda f: 0.9),
        ("logits", torch.nn.CrossEntropyLoss(), lambda f: 0.9 * f / (0.9 * f + 0.1 * (1 - f))),
        # Dice: 1/2 for a single pixel, whatever the answer
        ("logits", DiceLoss(), lambda f: (0.1 + 0.9 * f) / (0.2 + 0.8 * f)),
        ("logits", TverskyLoss(0.5, 0.5), lambda f: (0.1 + 0.9 * f) / (0.2 + 0.8 * f)),
    ],
)
def test_gradient_share(feeds, loss, share):
    table = sweep(GradientShare(frame=(10, 10), feeds=feeds), {"it": loss})
    columns = {column.quantity: column.values for column in table.curves}
    for i, f in enumerate(table.axis.values):
        rare = columns["gradient share of the rare class"][i]
        assert rare == pytest.approx(share(f), rel=1e-5)
        assert rare + columns["gradient share of the background"][i] == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SignalSize(points=2), "`points` between 3 and 200"),
        (lambda: SignalSize(points=201), "`points` between 3 and 200"),
        (lambda: SignalSize(frame=(1, 5)), "`frame` of at least 6 pixels"),
        (lambda: SignalSize(frame=(-4, -4)), "`frame` of at least 6 pixels"),
        (lambda: SignalSize(value=0.0), "`value` above 0"),
        (lambda: SignalSize(value=math.nan), "`value`"),
        (lambda: SignalSize(recovered=1.5), "`recovered` between 0 and 1"),
        (lambda: Recovery(signal=0.0), "`signal` between 0 and 1"),
        (lambda: ClassFrequency(error_rate=1 / math.pi), "denominator up to 20"),
        (lambda: Collapse(feeds="features"), "`feeds`"),
        (lambda: Collapse(confidence=1.0), "`confidence` between 0 and 1"),
        (lambda: GradientShare(given=0.0), "`given` between 0 and 1"),
    ],
)
def test_bad_settings_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_caption_names_the_settings(scenario):
    other = {"frame": (31, 37)} if hasattr(scenario, "frame") else {"points": 3}
    assert scenario.caption().endswith(".")
    if "frame" in other:
        assert "31 x 37" in replace(scenario, **other).caption()


def test_shared_pixels_count_in_both_cells():
    scenario = OverlappingCells(frame=(4, 8), cell=1 / 4, points=9, value=2.0)
    points = list(scenario)
    assert [point.x * 8 for point in points] == list(range(9))
    for n_shared, point in enumerate(points):
        assert point.cells.shape == (1, 2, 4, 8)
        assert point.cells.sum((0, 2, 3)).tolist() == [8, 8]
        assert point.cells.all(1).sum() == n_shared
        assert (point.target != 0).sum() == 16 - n_shared
        assert (point.prediction != point.target).sum() == n_shared
    table = sweep(
        scenario,
        {
            "cover": BalancedRegressionLoss("l1", Cover(2, "cell")),
            "masks": BalancedRegressionLoss("l1", "masks", n_classes=2),
            "hits": BalancedRegressionLoss("l1"),
        },
    )
    expected = [2.0 * n / 8 for n in range(9)]  # the mean error in each cell
    assert table["cover"] == pytest.approx([2 / 3 * e for e in expected])
    assert table["masks"] == pytest.approx(expected)
    assert table["hits"] == pytest.approx([n / (16 - n) for n in range(9)])
    with pytest.raises(ValueError, match="Expected `cell` above 0 and at most 1/2, got 0.75"):
        OverlappingCells(cell=0.75)
