"""Any loss is fed a label map in the form that its library wants."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense_imb.losses import ACBMSELoss, Balance, CrossEntropyLoss, FocalLoss, RangeLoss
from dense_imb.losses.foreign.feeding import apply_loss, feeds_on, target_form
from dense_imb.losses.foreign.parse import parse_loss
from tests.curves import stand_in

from .peers import MONAI_IGNORES, SMP_FOCAL, needs

RNG = torch.Generator().manual_seed(0)
LOGITS = {c: torch.randn(2, c, 6, 7, generator=RNG) for c in (1, 2, 4)}
LABEL = {c: torch.randint(0, max(c, 2), (2, 6, 7), generator=RNG) for c in (1, 2, 4)}
HOT = {c: F.one_hot(LABEL[c], max(c, 2)).movedim(-1, 1).float() for c in (1, 2, 4)}
TWO = torch.cat([torch.zeros_like(LOGITS[1]), LOGITS[1]], 1)  # the binary model, as two classes
SMP, MONAI, KORNIA = "segmentation_models_pytorch.losses", "monai.losses", "kornia.losses"


def loss_of(text):
    if ":" in text:
        pytest.importorskip(text.split(".")[0])
    return parse_loss(text)


# what the user of that library writes by hand, of (loss, logits, label, one-hot label)
INDICES = lambda loss, z, y, hot: loss(z, y)  # noqa: E731
CHANNEL = lambda loss, z, y, hot: loss(z, y.unsqueeze(1))  # noqa: E731
ONE_HOT = lambda loss, z, y, hot: loss(z, hot)  # noqa: E731
FLOAT = lambda loss, z, y, hot: loss(z, y.unsqueeze(1).float())  # noqa: E731
LOG_P = lambda loss, z, y, hot: loss(z.log_softmax(1), y)  # noqa: E731

BY_HAND = [
    ("CrossEntropyLoss", 4, INDICES),
    ("HardMiningLoss(balance={})", 1, INDICES),
    ("torch.nn:CrossEntropyLoss", 4, INDICES),
    ("torch.nn:NLLLoss", 4, LOG_P),
    ("torch.nn:BCEWithLogitsLoss", 1, FLOAT),
    ("torch.nn:BCEWithLogitsLoss", 2, ONE_HOT),
    ("torch.nn:BCEWithLogitsLoss", 4, ONE_HOT),
    ("torch.nn:MSELoss", 1, FLOAT),
    ("torch.nn:MSELoss", 4, ONE_HOT),
    ("ACBMSELoss", 1, FLOAT),
    (f"{MONAI}:DiceLoss(to_onehot_y=True, softmax=True)", 4, CHANNEL),
    (f"{MONAI}:DiceLoss(to_onehot_y=True, sigmoid=True)", 4, CHANNEL),
    (f"{MONAI}:DiceLoss(softmax=True)", 4, ONE_HOT),
    (f"{MONAI}:DiceLoss(sigmoid=True)", 1, FLOAT),
    (f"{MONAI}:DiceLoss(sigmoid=True)", 4, ONE_HOT),
    (f"{MONAI}:DiceCELoss(to_onehot_y=True, softmax=True)", 4, CHANNEL),
    (f"{MONAI}:DiceCELoss(softmax=True)", 4, ONE_HOT),
    (f"{MONAI}:DiceCELoss(sigmoid=True)", 1, FLOAT),
    (f"{MONAI}:DiceFocalLoss(to_onehot_y=True, softmax=True)", 4, CHANNEL),
    (f"{MONAI}:GeneralizedDiceLoss(to_onehot_y=True, softmax=True)", 4, CHANNEL),
    (f"{MONAI}:TverskyLoss(to_onehot_y=True, softmax=True)", 4, CHANNEL),
    (f"{MONAI}:FocalLoss(to_onehot_y=True, use_softmax=True)", 4, CHANNEL),
    (f"{MONAI}:FocalLoss()", 1, FLOAT),
    (f"{MONAI}:FocalLoss()", 4, ONE_HOT),
    (f"{SMP}:DiceLoss('binary')", 1, FLOAT),
    (f"{SMP}:DiceLoss('multiclass')", 4, INDICES),
    (f"{SMP}:DiceLoss('multilabel')", 4, ONE_HOT),
    (f"{SMP}:JaccardLoss('multiclass')", 4, INDICES),
    (f"{SMP}:FocalLoss('binary')", 1, FLOAT),
    (f"{SMP}:FocalLoss('multilabel')", 4, ONE_HOT),
    (f"{SMP}:LovaszLoss('binary')", 1, FLOAT),
    (f"{SMP}:SoftBCEWithLogitsLoss", 1, FLOAT),
    (f"{SMP}:SoftCrossEntropyLoss(smooth_factor=0.0)", 4, INDICES),
    (f"{KORNIA}:FocalLoss(0.5)", 4, INDICES),
    (f"{KORNIA}:DiceLoss", 4, INDICES),
    (f"{KORNIA}:TverskyLoss(0.5, 0.5)", 4, INDICES),
    (f"{KORNIA}:BinaryFocalLossWithLogits(0.25, reduction='mean')", 1, FLOAT),
    (f"{KORNIA}:BinaryFocalLossWithLogits(0.25, reduction='mean')", 4, ONE_HOT),
    (f"{KORNIA}:LovaszHingeLoss", 1, INDICES),
]


@pytest.mark.parametrize(
    ("text", "c", "by_hand"),
    [  # smp 0.5 takes no view of another tensor
        pytest.param(
            *row,
            id=f"{row[0]}, {row[1]}",
            marks=needs(*SMP_FOCAL) if "multilabel" in row[0] and "Focal" in row[0] else (),
        )
        for row in BY_HAND
    ],
)
def test_a_label_map_arrives_as_its_library_wants_it(text, c, by_hand):
    loss = loss_of(text)
    expected = by_hand(loss, LOGITS[c], LABEL[c], HOT[c])
    for label in (LABEL[c], LABEL[c].unsqueeze(1), LABEL[c].to(torch.uint8), LABEL[c].float()):
        torch.testing.assert_close(apply_loss(loss, LOGITS[c], label), expected)
    if c > 1:
        torch.testing.assert_close(apply_loss(loss, LOGITS[c], HOT[c]), expected)


@pytest.mark.parametrize(
    "text",
    [
        "torch.nn:CrossEntropyLoss",
        "torch.nn:NLLLoss",
        f"{MONAI}:DiceLoss(to_onehot_y=True, softmax=True)",
        f"{MONAI}:DiceCELoss(softmax=True)",
        f"{SMP}:DiceLoss('multiclass')",
        f"{KORNIA}:FocalLoss(0.5)",
    ],
)
def test_a_softmax_over_two_classes_takes_one_logit(text):
    loss = loss_of(text)
    expected = apply_loss(loss, TWO, LABEL[1])
    torch.testing.assert_close(apply_loss(loss, LOGITS[1], LABEL[1]), expected)


@pytest.mark.parametrize("text", [f"{SMP}:DiceLoss('binary')", f"{KORNIA}:LovaszHingeLoss"])
def test_a_loss_of_one_logit_takes_two_classes(text):
    loss = loss_of(text)
    moved = TWO + torch.randn(2, 1, 6, 7, generator=RNG)  # a softmax does not see it
    expected = apply_loss(loss, LOGITS[1], LABEL[1])
    for label in (LABEL[1], HOT[1]):
        torch.testing.assert_close(apply_loss(loss, moved, label), expected)
    with pytest.raises(ValueError, match=r"one or two channels for \w+, which is binary, got 4"):
        apply_loss(loss, LOGITS[4], LABEL[4])


def test_probabilities_reach_those_who_take_them():
    soft = LOGITS[4].softmax(1)
    theirs = nn.CrossEntropyLoss()
    torch.testing.assert_close(apply_loss(theirs, LOGITS[4], soft), theirs(LOGITS[4], soft))
    foreground = torch.rand(2, 6, 7, generator=RNG)
    torch.testing.assert_close(
        apply_loss(nn.BCEWithLogitsLoss(), LOGITS[1], foreground),
        CrossEntropyLoss()(LOGITS[1], foreground),
    )
    with pytest.raises(ValueError, match="one class for each pixel, got probabilities, which NLL"):
        apply_loss(nn.NLLLoss(), LOGITS[4], soft)
    with pytest.raises(ValueError, match=r"labels from 0 to 1 for NLLLoss, got \d[\d.e-]*:"):
        apply_loss(nn.NLLLoss(), LOGITS[1], foreground)


@pytest.mark.filterwarnings("ignore:single channel prediction")
def test_a_sigmoid_of_one_channel_takes_the_foregrounds_probability():
    dice = loss_of(f"{MONAI}:DiceLoss(sigmoid=True, to_onehot_y=True)")
    soft = torch.rand(2, 6, 7, generator=RNG)
    expected = dice(LOGITS[1], soft.unsqueeze(1))
    torch.testing.assert_close(apply_loss(dice, LOGITS[1], soft), expected)


UNAWARE = [
    ("torch.nn:BCEWithLogitsLoss", 1),
    ("torch.nn:BCEWithLogitsLoss", 4),
    ("torch.nn:CrossEntropyLoss", 4),
    ("torch.nn:MSELoss", 1),
    (f"{MONAI}:DiceLoss(sigmoid=True)", 1),
    (f"{MONAI}:DiceLoss(softmax=True)", 4),
    (f"{MONAI}:DiceCELoss(to_onehot_y=True, softmax=True)", 4),
    (f"{SMP}:FocalLoss('multiclass')", 4),
    (f"{SMP}:DiceLoss('binary')", 1),
]


@pytest.mark.parametrize(("text", "c"), UNAWARE)
def test_a_label_of_no_class_never_becomes_one(text, c):
    loss = loss_of(text)
    holes = LABEL[c].clone()
    holes[0, 0, 0] = 255
    with pytest.raises(ValueError, match=r"labels from 0 to \d for \w+, got 255: .*can ignore th"):
        apply_loss(loss, LOGITS[c], holes)
    # where values can't be looked at, it is no number
    torch.compiler.reset()
    compiled = torch.compile(apply_loss, backend="eager")
    assert compiled(loss, LOGITS[c], holes).isnan()
    torch.testing.assert_close(
        compiled(loss, LOGITS[c], LABEL[c]), apply_loss(loss, LOGITS[c], LABEL[c])
    )


AWARE = [
    ("torch.nn:CrossEntropyLoss(ignore_index=255)", 4),
    ("FocalLoss(ignore_index=255)", 4),
    (f"{MONAI}:DiceLoss(to_onehot_y=True, softmax=True, ignore_index=255)", 4),
    (f"{MONAI}:DiceLoss(softmax=True, ignore_index=255)", 4),
    (f"{MONAI}:DiceLoss(sigmoid=True, ignore_index=255)", 1),
    (f"{SMP}:DiceLoss('binary', ignore_index=255)", 1),
    (f"{SMP}:DiceLoss('multilabel', ignore_index=255)", 4),
    (f"{SMP}:FocalLoss('multiclass', ignore_index=255)", 4),
    (f"{SMP}:SoftBCEWithLogitsLoss(ignore_index=255)", 4),
    (f"{KORNIA}:FocalLoss(0.5, ignore_index=255)", 4),
]


@pytest.mark.parametrize(
    ("text", "c"),
    [
        pytest.param(t, c, marks=needs(*MONAI_IGNORES) if t.startswith(MONAI) else ())
        for t, c in AWARE
    ],
)
def test_a_loss_that_can_leave_pixels_out_does(text, c):
    loss = loss_of(text)
    holes = LABEL[c].clone()
    holes[0, :3] = 255
    logits = LOGITS[c].clone().requires_grad_()
    value = apply_loss(loss, logits, holes)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert math.isfinite(value.sum().item())
    assert (gradient[0, :, :3] == 0).all()
    assert gradient.abs().sum() > 0


def test_half_precision_does_not_overflow():
    logits = torch.full((1, 1, 300, 300), 5.0, dtype=torch.float16)
    label = torch.ones(1, 300, 300, dtype=torch.long)
    dice = loss_of(f"{MONAI}:DiceLoss(sigmoid=True)")
    value = apply_loss(dice, logits, label)
    torch.testing.assert_close(value, apply_loss(dice, logits.float(), label))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{MONAI}:DiceLoss", "Expected sigmoid=True or softmax=True of DiceLoss"),
        (f"{MONAI}:DiceCELoss", "Expected sigmoid=True or softmax=True of DiceCELoss"),
        (f"{SMP}:DiceLoss('binary', from_logits=False)", "Expected from_logits=True of DiceLoss"),
        ("torch.nn:BCELoss", "Expected BCEWithLogitsLoss in place of BCELoss"),
        ("RangeLoss", "Expected a loss of logits or values, got RangeLoss, of features"),
    ],
)
def test_a_loss_that_logits_do_not_suit_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        apply_loss(loss_of(text), LOGITS[1], LABEL[1])


def test_call_options_reach_those_who_take_them():
    mask = torch.rand(2, 6, 7, generator=RNG) < 0.5
    torch.testing.assert_close(
        apply_loss(FocalLoss(), LOGITS[4], LABEL[4], mask=mask),
        FocalLoss()(LOGITS[4], LABEL[4], mask=mask),
    )
    said = "`BCEWithLogitsLoss` takes no `mask`; drop it"
    with pytest.raises(TypeError, match=said):
        apply_loss(nn.BCEWithLogitsLoss(), LOGITS[1], LABEL[1], mask=mask)
    assert apply_loss(nn.BCEWithLogitsLoss(), LOGITS[1], LABEL[1], mask=None).isfinite()


@pytest.mark.parametrize(
    ("loss", "fed", "form"),
    [
        (ACBMSELoss(), "values", "indices"),
        (RangeLoss(), "features", "indices"),
        (CrossEntropyLoss(balance=Balance()), "logits", "indices"),
        (nn.HuberLoss(), "values", "indices"),
        (nn.NLLLoss(), "logits", "indices"),
        (nn.PoissonNLLLoss(), "values", "indices"),
        (stand_in.Mining(), "logits", "indices"),
        (stand_in.Cubic(), "values", "indices"),
        (stand_in.SaysLogits(), "logits", "binary"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_what_a_loss_is_fed(loss, fed, form):
    assert feeds_on(loss) == fed
    assert target_form(loss) == form


def test_monais_wrappers_are_fed_what_is_inside_them():
    monai = importlib.import_module("monai.losses") if pytest.importorskip("monai") else None
    deep = monai.DeepSupervisionLoss(FocalLoss(ignore_index=255))
    holes = LABEL[4].clone()
    holes[0] = 255
    torch.testing.assert_close(
        apply_loss(deep, LOGITS[4], holes), FocalLoss(ignore_index=255)(LOGITS[4], holes)
    )


def test_a_users_loss_made_from_ours_is_fed_as_ours():
    class Mine(FocalLoss):
        pass

    soft = torch.rand(2, 6, 7, generator=RNG)  # of one logit: our contract has it, indices don't
    assert feeds_on(Mine()) == "logits"
    torch.testing.assert_close(
        apply_loss(Mine(), LOGITS[1], soft, mask=soft > 0.5),
        FocalLoss()(LOGITS[1], soft, mask=soft > 0.5),
    )


def test_wrong_shapes_are_refused_by_name():
    for loss in (nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(), FocalLoss()):
        with pytest.raises(ValueError, match="Expected `target` of the shape .*got \\(2, 3, 6, 7"):
            apply_loss(loss, LOGITS[4], torch.zeros(2, 3, 6, 7, dtype=torch.long))
