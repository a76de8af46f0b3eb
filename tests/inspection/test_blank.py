"""The loss of a whole data set, out of its counts, is the loss of its frames."""

from __future__ import annotations

import math

import pytest
import torch

from dense_imb import losses
from dense_imb.inspection.blank import (
    _LOGIT_LOSSES,
    _VALUE_LOSSES,
    CONFIDENCE,
    LossRow,
    rows_of_logits,
    rows_of_values,
)
from dense_imb.losses.foreign.catalogue import CATALOGUE


def test_every_loss_of_the_catalogue_is_judged():
    shown = {name.partition("(")[0] for name in (*_VALUE_LOSSES, *_LOGIT_LOSSES)}
    left_out = {entry.name for entry in CATALOGUE} - shown
    # PixelLoss is cross-entropy and RegionLoss is Dice by default; RangeLoss takes features
    assert left_out == {"PixelLoss", "RangeLoss", "RegionLoss", "TverskyLoss"}


@pytest.mark.parametrize("n_classes", [2, 4])
def test_losses_of_logits_are_those_of_the_frames(n_classes):
    rng = torch.Generator().manual_seed(1)
    label = torch.randint(0, n_classes, (3, 8, 9), generator=rng)
    label[torch.rand(label.shape, generator=rng) < 0.8] = 0
    counts = torch.bincount(label.reshape(-1), minlength=n_classes).tolist()
    one_hot = torch.nn.functional.one_hot(label, n_classes).movedim(-1, 1).double()
    off = (1 - CONFIDENCE) / (n_classes - 1)
    right = (off + (CONFIDENCE - off) * one_hot).log()
    blank = torch.full_like(right, off)
    blank[:, 0] = CONFIDENCE
    scope = {name: getattr(losses, name) for name in losses.__all__} | {"class_counts": counts}
    rows = rows_of_logits(counts)
    assert len(rows) == len(_LOGIT_LOSSES)
    for row in rows:
        loss = eval(row.loss, scope)  # the expression that the user pastes
        for shown, prediction in (
            (row.perfect, right),
            (row.undecided, torch.zeros_like(right)),
            (row.blank, blank.log()),
        ):
            assert shown == pytest.approx(float(loss(prediction, label)), rel=1e-9), row.loss


def test_losses_of_values_are_those_of_the_frames():
    rng = torch.Generator().manual_seed(2)
    kind = torch.randint(0, 10, (4, 1, 12, 10), generator=rng)
    value = torch.tensor([0.6, 0.8, 1.0], dtype=torch.float64)
    which = torch.randint(0, 3, kind.shape, generator=rng)
    given = torch.where(kind < 5, value[which], 0.0)
    target = torch.where(kind < 2, value[which], 0.0)
    wanted = torch.bincount(which[kind < 2], minlength=3)
    unwanted = torch.bincount(which[(kind >= 2) & (kind < 5)], minlength=3)
    rows = rows_of_values(value, wanted, unwanted, int((kind >= 5).sum()))
    scope = {name: getattr(losses, name) for name in losses.__all__} | {"torch": torch}
    assert len(rows) == len(_VALUE_LOSSES)
    for row in rows:
        loss = eval(row.loss, scope)
        for shown, prediction in (
            (row.perfect, target),
            (row.undecided, torch.full_like(target, 0.5)),
            (row.blank, torch.zeros_like(target)),
            (row.input, given),
        ):
            assert shown == pytest.approx(float(loss(prediction, target)), rel=1e-9), row.loss


def test_plain_means_let_a_blank_frame_look_good_and_balanced_ones_do_not():
    verdict = {row.loss: row.verdict for row in rows_of_logits([11_234, 30])}
    assert verdict["CrossEntropyLoss()"] == "blank looks good"
    assert verdict["FocalLoss()"] == "blank looks good"
    assert verdict["CrossEntropyLoss(balance=Balance())"] == "blank looks bad"
    assert verdict["DiceLoss()"] == "blank looks bad"
    hits = torch.tensor([30.0])
    values = rows_of_values(torch.tensor([0.75]), hits, 0 * hits, 11_234)
    verdict = {row.loss: row.verdict for row in values}
    assert verdict["torch.nn.MSELoss()"] == "blank looks good"
    assert verdict["ACBMSELoss()"] == "blank looks bad"


def test_without_pixels_there_is_nothing_to_judge():
    assert rows_of_logits([0, 0]) == []
    assert rows_of_values(torch.ones(2), torch.zeros(2), torch.zeros(2), 0) == []
    assert LossRow("x", 1.0, 1.0, 1.0).verdict == "can't tell"
    assert math.isnan(LossRow("x", 1.0, 1.0, 1.0).blank_share)
