"""Common mistakes of users of other libraries, and the cure that the refusal names."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    Matthews,
    RegionLoss,
    TverskyLoss,
    balanced_regression_loss,
    focal_loss,
    pixel_loss,
)
from dense_imb.losses.foreign.feeding import apply_loss
from dense_imb.losses.foreign.parse import parse_loss

RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 4, 6, 7, generator=RNG)
TARGET = torch.randint(0, 4, (2, 6, 7), generator=RNG)
BINARY = LOGITS[:, :1]
MASK = (TARGET > 1).long()


@pytest.mark.parametrize(
    ("call", "target", "logits"),
    [
        (CrossEntropyLoss(), TARGET, LOGITS),
        (CrossEntropyLoss(), TARGET.unsqueeze(1), LOGITS),
        (CrossEntropyLoss(), TARGET.float(), LOGITS),
        (CrossEntropyLoss(), TARGET.unsqueeze(1).float(), LOGITS),
        (CrossEntropyLoss(), F.one_hot(TARGET, 4).movedim(-1, 1), LOGITS),
        (CrossEntropyLoss(), F.one_hot(TARGET, 4).movedim(-1, 1).float(), LOGITS),
        (CrossEntropyLoss(), MASK.unsqueeze(1), BINARY),
        (CrossEntropyLoss(), MASK.unsqueeze(1).float(), BINARY),
        (CrossEntropyLoss(), MASK.unsqueeze(1).bool(), BINARY),
        (pixel_loss, TARGET, LOGITS),
        (lambda a, b: apply_loss(nn.CrossEntropyLoss(), a, b), TARGET, LOGITS),
        (lambda a, b: apply_loss(nn.CrossEntropyLoss(), a, b), TARGET.float(), LOGITS),
    ],
)
def test_swapped_arguments_are_named(call, target, logits):
    call(logits, target)
    with pytest.raises((TypeError, ValueError), match="look swapped; call the loss as loss.logits"):
        call(target, logits)


@pytest.mark.parametrize("call", [ACBMSELoss(), balanced_regression_loss])
def test_swapped_values_are_named(call):
    with pytest.raises(TypeError, match=r"look swapped; call the loss as loss\(prediction, target"):
        call(MASK.unsqueeze(1), BINARY)
    with pytest.raises(TypeError, match=r"floating point, got torch.int64; call .float\(\) on it"):
        call(MASK, MASK)


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (LOGITS, TARGET + 1),
        (LOGITS, TARGET.float() + 1),
        (LOGITS, torch.where(TARGET == 2, 1, TARGET + 1).unsqueeze(1)),  # a class is missing
        (BINARY, MASK + 1),
        (torch.cat([-BINARY, BINARY], 1), MASK + 1),
    ],
)
def test_labels_that_begin_at_one_are_named(logits, target):
    highest = int(target.max())
    with pytest.raises(ValueError, match=f"got {highest}; its labels begin at 1: subtract 1"):
        CrossEntropyLoss()(logits, target)


def test_labels_that_begin_at_one_are_looked_for_where_pixels_count():
    holes = TARGET + 1
    holes[0, 0] = 0
    with pytest.raises(
        ValueError, match="got 4; pass `ignore_index=4` or `mask` for [^,]*, or take"
    ):
        CrossEntropyLoss()(LOGITS, holes)
    with pytest.raises(ValueError, match="got 4; its labels begin at 1: subtract 1"):
        CrossEntropyLoss(ignore_index=0)(LOGITS, holes)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("softmax", True, "our losses take logits"),
        ("sigmoid", True, "our losses take logits"),
        ("use_softmax", True, "our losses take logits"),
        ("from_logits", True, "our losses take logits"),
        ("mode", "binary", "our losses take logits, of one channel or of one for each class"),
        ("to_onehot_y", True, "our losses take class indices as well as one-hot targets"),
    ],
)
def test_options_of_other_libraries_are_named(name, value, reason):
    with pytest.raises(TypeError, match=f"`FocalLoss` takes no `{name}`: {reason}; drop it"):
        FocalLoss(**{name: value})
    with pytest.raises(TypeError, match=f"The loss takes no `{name}`: {reason}; drop it"):
        focal_loss(LOGITS, TARGET, **{name: value})
    with pytest.raises(ValueError, match=f"`FocalLoss` takes no `{name}`: {reason}; drop it"):
        parse_loss(f"FocalLoss({name}={value!r})")


def test_a_list_of_losses_is_named():
    for losses in ([FocalLoss(), CrossEntropyLoss()], (FocalLoss(), CrossEntropyLoss())):
        with pytest.raises(TypeError, match=r"got a (list|tuple); pass CompoundLoss\(a, b\) or"):
            CompoundLoss(losses)


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        (
            {"ignore_index": 255},
            "`ignore_index`; give it to each part that has it, such as CompoundLoss("
            "DiceLoss(ignore_index=255), CrossEntropyLoss(ignore_index=255)).",
        ),
        (
            {"class_weight": (1, 2)},
            "CompoundLoss(DiceLoss(), CrossEntropyLoss(class_weight=(1, 2))).",
        ),
        ({"include_background": True}, "(DiceLoss(include_background=True), CrossEntropyLoss())."),
        ({"balance": Balance(weight=(1.0,) * 30)}, "DiceLoss(balance=...), CrossEntropyLoss("),
        ({"lambda_dice": 0.7}, "in their order as `weights`, such as weights=(0.7, 1)."),
        ({"weight_ce": 1}, "in their order as `weights`, such as weights=(0.7, 1)."),
        ({"to_onehot_y": True}, "`to_onehot_y`: our losses take class indices as well as one-hot"),
        ({"weigths": (1, 1)}, "(losses, more, weights), got 'weigths'. Did you mean 'weights'?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_a_part_are_refused_by_the_sum(option, cure):
    with pytest.raises(TypeError) as refused:
        CompoundLoss(DiceLoss(), CrossEntropyLoss(), **option)
    assert cure in str(refused.value)


def test_the_signature_of_a_sum_shows_no_options():
    assert list(inspect.signature(CompoundLoss).parameters) == ["losses", "more", "weights"]


@pytest.mark.parametrize("loss", [DiceLoss, TverskyLoss, FocalLoss])
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_a_mode_is_refused_by_position_as_by_name(loss, mode):
    for options in ((mode,), ()):
        with pytest.raises(TypeError, match=f"`{loss.__name__}` takes no `mode`: .* drop it"):
            loss(*options, **({} if options else {"mode": mode}))


@pytest.mark.parametrize("loss", [DiceLoss(), CrossEntropyLoss()])
@pytest.mark.parametrize(
    ("logits", "target", "cure"),
    [
        (LOGITS, (LOGITS > 0).long(), r"a multilabel target needs one call a channel.*k:k\+1\]\)"),
        (LOGITS, (LOGITS > 0).float(), "a multilabel target needs one call a channel"),
        (LOGITS[:, 0], TARGET, r"the logits lack the class dimension, \(B, C, \*spatial\)\.$"),
        (LOGITS[:, 0], MASK, r"lack the class dimension.*binary network has logits.unsqueeze\(1"),
        (LOGITS, (LOGITS > 0).long(), r"; logits \(2, 4, 6, 7\) are read as 4 classes: if the"),
        (LOGITS, (LOGITS > 0).bool(), r"channel is missing, use logits.unsqueeze\(1\); a"),
        (LOGITS, (LOGITS > 0) / 3, r"got \[[^]]*\] at a pixel\.$"),
    ],
)
def test_a_target_of_the_shape_of_the_logits_is_named(loss, logits, target, cure):
    with pytest.raises(ValueError, match="hold probabilities that sum to 1 over the classes, got"):
        loss(logits, target)
    with pytest.raises(ValueError, match=cure):
        loss(logits, target)


@pytest.mark.parametrize("loss", [DiceLoss(), CrossEntropyLoss()])
def test_a_volume_without_its_channel_is_cured_as_the_sentence_says(loss):
    logits, mask = LOGITS, (LOGITS > 0).float()  # (B, D, H, W), both without a channel
    with pytest.raises(ValueError, match=r"if the channel is missing, use logits.unsqueeze\(1\)"):
        loss(logits, mask)
    assert loss(logits.unsqueeze(1), mask).isfinite()


def test_the_numbers_of_many_classes_are_shown_in_part():
    logits = torch.zeros(1, 100, 2, 2)
    with pytest.raises(ValueError, match=r"got \[(1\.0, ){6}\.\.\.\] at a pixel") as refused:
        CrossEntropyLoss()(logits, torch.ones(1, 100, 2, 2))
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "loss", [DiceLoss(), CrossEntropyLoss(), CompoundLoss(DiceLoss(), CrossEntropyLoss())]
)
@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 1, 6, 7)])
def test_stacked_outputs_of_deep_supervision_are_named(loss, shape):
    stacked = LOGITS.unsqueeze(1).repeat(1, 3, 1, 1, 1)
    with pytest.raises(ValueError, match=r"DeepSupervisionLoss.* with list\(torch.unbind\(logits"):
        loss(stacked, torch.zeros(shape))


@pytest.mark.parametrize(
    ("logits", "shape"), [((2, 4, 6, 7), (2, 1, 7)), ((2, 3, 4, 6, 7), (2, 1, 6, 6))]
)
def test_a_target_of_another_size_is_told_nothing_of_deep_supervision(logits, shape):
    with pytest.raises(ValueError, match=r"`target` of the shape [^;]*\.$"):
        CrossEntropyLoss()(torch.zeros(logits), torch.zeros(shape))


def test_the_share_of_the_foreground_alone_is_told_the_background():
    with pytest.raises(TypeError, match=r"got 0\.01; write \(0\.99, 0\.01\), of background and"):
        CrossEntropyLoss(balance=Balance()).probability(torch.zeros(1, 1), class_share=0.01)


def test_an_index_of_four_arguments_is_told_to_take_one():
    with pytest.raises(
        TypeError, match=r"of \(tp, fp, fn, tn\); an index takes one Overlap, whose"
    ):
        RegionLoss(lambda tp, fp, fn, tn: tp / (tp + fp + fn))


def test_an_index_above_one_has_no_power():
    logits = LOGITS.clone().requires_grad_()  # no warning of torch about a scalar of it
    with pytest.raises(
        ValueError, match=r"`index` of at most 1 with gamma=0\.5, got [\d.]+; divide"
    ):
        RegionLoss(lambda o: o.tp, gamma=0.5)(logits, TARGET)
    RegionLoss(lambda o: o.tp)(logits, TARGET)
    RegionLoss(Matthews(1e8), gamma=0.5)(logits, TARGET)


def test_an_index_that_is_nan_is_refused_without_a_warning_of_torch():
    with pytest.raises(ValueError, match="`index` to be finite for finite counts, got nan"):
        RegionLoss(lambda o: o.tp * torch.nan)(LOGITS.clone().requires_grad_(), TARGET)
