"""The sweep against direct calls, and what it says of losses that misbehave."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dense_imb import losses as ours
from dense_imb.curves import SCENARIOS, CurveWarning, Probability, SignalSize, parse_losses, sweep
from dense_imb.curves.subjects import as_subjects
from tests.curves import stand_in

SMALL = SignalSize(frame=(6, 10))


def column(table, name, quantity):
    (found,) = [c for c in table.curves if (c.name, c.quantity) == (name, quantity)]
    return found


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_point_is_a_direct_call(scenario):
    values = [ours.ACBMSELoss(hit_weight=3.0), ours.OutcomeBalancedMSELoss(), stand_in.Cubic()]
    logits = [nn.CrossEntropyLoss(), stand_in.Mining(delta=110.0), nn.NLLLoss()]
    losses = values if scenario.feeds_on == "values" else logits
    table = sweep(scenario, losses)
    of = f" of {scenario.answer}" if scenario.answer else ""
    for loss in losses:
        name = type(loss).__name__
        answers = column(table, name, f"loss{of}"), column(table, name, f"gradient{of}")
        for i, point in enumerate(scenario):
            if i % 9:
                continue
            prediction = point.prediction.clone().requires_grad_()
            value = loss(prediction, point.target)
            value.backward()
            gradient = prediction.grad
            if scenario.feeds_on == "logits":
                gradient = gradient.gather(1, point.target.unsqueeze(1))
            assert answers[0].values[i] == value.item()
            assert answers[1].values[i] == pytest.approx(gradient.double().abs().sum().item())


def test_works_where_gradients_are_off():
    with torch.no_grad():
        table = sweep(SMALL, {"MSE": nn.MSELoss()})
    # the first point has one missed pixel of value 100 among 60
    assert column(table, "MSE", "gradient").values[0] == pytest.approx(2 * 100 / 60)


def test_columns_have_units():
    table = sweep(SMALL, [nn.MSELoss()])
    assert table.axis.unit == "fraction of the frame"
    assert {c.quantity: c.unit for c in table.curves} == {
        "loss": "a.u.",
        "gradient": "a.u. per value",
    }


def test_gap_is_named_with_its_place():
    with pytest.warns(CurveWarning, match=r"Gap returned nan at signal size = 0\.5333 and at 14 m"):
        table = sweep(SMALL, [stand_in.Gap()])
    values = table["Gap"]
    assert [math.isnan(value) for value in values] == [x > 0.5 for x in table.axis.values]


def test_gap_where_a_map_is_returned():
    said = (
        r"SometimesShaped returned the shape \(1, 1, 6, 10\), not a scalar, at signal size = 0.03"
    )
    with pytest.warns(CurveWarning, match=said):
        table = sweep(SMALL, [stand_in.SometimesShaped()])
    assert [math.isnan(value) for value in table["SometimesShaped"]] == [
        x < 0.5 for x in table.axis.values
    ]


def test_infinity_is_a_gap():
    class Infinite(nn.Module):
        def forward(self, prediction, target):
            return (prediction - target).square().mean() / (target.mean() - 100)

    with pytest.warns(CurveWarning, match="Infinite returned inf at signal size = 1$"):
        assert math.isnan(sweep(SMALL, [Infinite()])["Infinite"][-1])


def test_gradient_of_nan_is_named_and_the_value_stays():
    scenario = SCENARIOS["value-error"]
    with pytest.warns(CurveWarning, match="the gradient nan at residual of a hit's value = 0$"):
        table = sweep(scenario, [stand_in.NaNGradient()])
    assert table["NaNGradient"][0] == 0
    assert math.isnan(column(table, "NaNGradient", "gradient").values[0])


def test_no_value_anywhere_is_an_error():
    with pytest.raises(ValueError, match="Unreduced has no value in signal-size: it returned the"):
        sweep(SMALL, [stand_in.Unreduced()])


def test_refusal_names_the_loss_and_the_place():
    said = r"Refuses failed in signal-size at signal size = 0\.03333: not today"
    with pytest.raises(ValueError, match=said):
        sweep(SMALL, [stand_in.Refuses()])


def test_the_other_kind_is_skipped_by_name():
    said = "skipped CrossEntropyLoss: it takes logits, signal-size feeds values"
    with pytest.warns(CurveWarning, match=said):
        table = sweep(SMALL, [nn.MSELoss(), nn.CrossEntropyLoss()])
    assert {c.name for c in table.curves} == {"MSELoss"}
    with (
        pytest.warns(CurveWarning),
        pytest.raises(ValueError, match="a loss that takes values for signal-size, got none"),
    ):
        sweep(SMALL, [nn.CrossEntropyLoss()])


@pytest.mark.parametrize(
    ("text", "feeds_on", "target"),
    [
        ("ACBMSELoss", "values", "indices"),
        ("torch.nn:MSELoss", "values", "indices"),
        ("torch.nn:L1Loss", "values", "indices"),
        ("torch.nn:HuberLoss", "values", "indices"),
        ("torch.nn:CrossEntropyLoss", "logits", "indices"),
        ("torch.nn:BCEWithLogitsLoss", "logits", "binary"),
        ("tests.curves.stand_in:Cubic", "values", "indices"),
        ("tests.curves.stand_in:Mining", "logits", "indices"),
        ("tests.curves.stand_in:SaysLogits", "logits", "binary"),
    ],
)
def test_what_a_loss_takes(text, feeds_on, target):
    (subject,) = as_subjects(parse_losses([text]))
    assert (subject.feeds_on, subject.target) == (feeds_on, target)


def monai(text):
    pytest.importorskip("monai")
    return f"monai.losses:{text}"


def smp(text):
    pytest.importorskip("segmentation_models_pytorch")
    return f"segmentation_models_pytorch.losses:{text}"


@pytest.mark.parametrize(
    ("library", "text", "expected"),
    [
        # cross-entropy of one pixel of two classes, however the library wants its target
        (smp, "SoftCrossEntropyLoss(smooth_factor=0.0)", lambda p: -math.log(p)),
        (smp, "SoftBCEWithLogitsLoss()", lambda p: -math.log(p)),
        (smp, 'LovaszLoss("multiclass")', lambda p: 1 - p),
        (smp, 'FocalLoss("binary", gamma=2.0)', lambda p: -((1 - p) ** 2) * math.log(p)),
        (monai, "FocalLoss(gamma=2.0)", lambda p: -((1 - p) ** 2) * math.log(p)),
        # softmax focal of MONAI is the mean over the channels: 1 / C of the usual
        (
            monai,
            "FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)",
            lambda p: -((1 - p) ** 2) * math.log(p) / 2,
        ),
        # background: an empty class whose Dice is 0; rare: 2 p / (p + 1)
        (
            monai,
            "DiceLoss(to_onehot_y=True, softmax=True, include_background=False, smooth_dr=0.0)",
            lambda p: 1 - (2 * p + 1e-5) / (p + 1),
        ),
        (
            monai,
            "DiceLoss(softmax=True, include_background=False, smooth_dr=0.0)",
            lambda p: 1 - (2 * p + 1e-5) / (p + 1),
        ),
        (
            monai,
            "DiceLoss(sigmoid=True, smooth_dr=0.0)",
            lambda p: 1 - (2 * p + 1e-5) / (p + 1),
        ),
    ],
)
def test_losses_of_other_libraries(library, text, expected):
    losses = parse_losses([library(text)])
    table = sweep(Probability(points=20), losses)
    assert list(dict.fromkeys(c.name for c in table.curves)) == [text.removesuffix("()")]
    for x, value in zip(table.axis.values, table[text.removesuffix("()")], strict=True):
        if 1e-4 < x < 0.95:
            assert value == pytest.approx(expected(x), rel=1e-3)


def test_binary_loss_says_why_it_cannot():
    with pytest.raises(ValueError, match="is binary, the scenario has 4 classes"):
        sweep(SCENARIOS["class-frequency"], [nn.BCEWithLogitsLoss()])


def test_one_class_twice_is_told_apart():
    table = sweep(SMALL, [ours.ACBMSELoss(), ours.ACBMSELoss(hit_weight=2.0)])
    first, second = dict.fromkeys(c.name for c in table.curves)
    assert "(1.0, 1.0)" in first
    assert "(1.0, 2.0)" in second
    with pytest.raises(ValueError, match="different names"):
        sweep(SMALL, [nn.MSELoss(), nn.MSELoss()])


@pytest.mark.parametrize("losses", [["MSELoss"], {"it": nn.MSELoss}])
def test_only_modules_are_swept(losses):
    with pytest.raises(TypeError, match=r"to be a torch\.nn\.Module"):
        sweep(SMALL, losses)


def test_one_loss_needs_no_list():
    assert sweep(SMALL, nn.MSELoss())["MSELoss"][0] == pytest.approx(1e4 / 60)


def test_options_are_kept_with_the_table():
    table = sweep(SMALL, {"mine": ours.ACBMSELoss(hit_weight=3.0)})
    assert "weight=(1.0, 3.0)" in table.losses[0]


def test_form_of_the_target_is_checked():
    loss = stand_in.SaysLogits()
    loss.target_form = "labels"
    with pytest.raises(ValueError, match="`target_form` to be one of 'indices', 'channel'"):
        sweep(Probability(), loss)


def test_the_callers_loss_stays_as_it_is():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, prediction, target):
            self.calls += 1
            return (prediction - target).square().mean() + 0 * self.calls

    loss = Counts()
    assert sweep(SMALL, loss)["Counts"] == sweep(SMALL, nn.MSELoss())["MSELoss"]
    assert loss.calls == 0
    assert loss.calls.dtype == torch.float32


@pytest.mark.parametrize("kind", ["values", "logits"])
def test_loss_that_mixes_in_single_precision(kind):
    class Dot(nn.Module):
        feeds_on = kind

        def forward(self, prediction, target):
            return torch.dot(prediction.flatten(), torch.ones(prediction.numel()))

    scenario = SMALL if kind == "values" else Probability()
    assert len(sweep(scenario, Dot())["Dot"]) == len(list(scenario))


def test_weights_in_single_precision_are_welcome():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), reduction="sum")
    assert sweep(Probability(), loss)["CrossEntropyLoss"][0] == pytest.approx(3 * math.log(1e7))
