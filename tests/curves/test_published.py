"""The three published figures, against the published numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from torch import nn

from dense_imb.curves import Probability, draw, sweep
from dense_imb.curves.gallery import (
    positive_label_view,
    published_positive_label,
    published_recovery,
    published_signal_size,
)
from tests.curves import stand_in

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference" / "seed_values.json").read_text(encoding="utf-8")
)
HARD = "Hard mining (gamma 1, delta 110)"


def on_axes(table):
    axes = Figure().add_subplot()
    draw(table, axes)
    return axes, {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_signal_class_size():
    axes, curves = on_axes(published_signal_size())
    assert axes.get_title(loc="left") == "Loss Curves Compared Varying Signal Class Size"
    assert axes.get_yscale() == "log"
    for i, x in enumerate(REFERENCE["loss_curve_1"]["signal_fraction"]):
        for label, key in (("ACB-MSE", "acb_mse"), ("MSE", "mse"), ("MAE", "mae")):
            assert curves[label][x] == pytest.approx(REFERENCE["loss_curve_1"][key][i], rel=1e-12)
    assert list(curves["ACB-MSE"]) == [n / 100 for n in range(2, 101, 2)]
    assert list(curves["ACB-MSE"].values()) == pytest.approx([5000.0] * 50, rel=1e-12)


def test_recovery_and_overshoot():
    axes, curves = on_axes(published_recovery())
    assert axes.get_title(loc="left") == "Loss Curves Compared in Signal Recovery and Overshoot"
    for row in REFERENCE["loss_curve_2"]["rows"]:
        for label, key in (("ACB-MSE", "acb_mse"), ("MSE", "mse"), ("MAE", "mae")):
            assert curves[label][row["x"]] == pytest.approx(row[key], rel=1e-12)
    for curve in curves.values():
        assert min(curve, key=curve.get) == 1 / 3
        assert len(curve) == 121


def check_positive_label(table):
    axes, curves = on_axes(table)
    assert axes.get_title(loc="left") == "Loss for positive label"
    for p in (0.01, 0.1, 0.5, 0.9):
        (p,) = [x for x in curves["Cross-entropy"] if math.isclose(x, p)]
        assert curves["Cross-entropy"][p] == pytest.approx(-math.log(p), rel=1e-9)
        assert curves["Focal (gamma 1)"][p] == pytest.approx(-(1 - p) * math.log(p), rel=1e-9)
        x = 110 * p
        h = math.sin(math.pi * min(p, 1 - p)) / (math.pi * p)
        h -= math.exp(-x) * math.sin(math.pi * x) / (math.pi * x)
        assert curves[HARD][p] == pytest.approx(-h * math.log(p), rel=1e-9)

    values = list(curves[HARD].values())
    peak = values.index(max(values))
    assert values[peak] == pytest.approx(4.75, abs=0.02)
    assert list(curves[HARD])[peak] == pytest.approx(0.01, rel=0.15)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert values[-1] == pytest.approx(0, abs=1e-3)

    named = [name for name, _, _ in table.view.regions]
    assert named == ["outlier", "informative", "easy"]
    assert {*named} <= {text.get_text() for text in axes.texts}
    assert [stop for _, _, stop in table.view.regions] == [list(curves[HARD])[peak], 0.5, 1.0]


def test_positive_label_with_plain_formulas():
    table = sweep(
        Probability(),
        {
            "Cross-entropy": nn.CrossEntropyLoss(),
            "Focal (gamma 1)": stand_in.Focal(1.0),
            HARD: stand_in.Mining(delta=110.0),
        },
    )
    check_positive_label(positive_label_view(table, HARD))


def test_positive_label():
    check_positive_label(published_positive_label())
