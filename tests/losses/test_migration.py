"""Migration pages: a loss of another library stays beside ours, or is exchanged in part."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, FocalLoss, HardMiningLoss

kornia = pytest.importorskip("kornia.losses")
monai = pytest.importorskip("monai.losses")
smp = pytest.importorskip("segmentation_models_pytorch.losses")

C = 4
RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, C, 8, 9, generator=RNG)
TARGET = torch.randint(0, C, (2, 1, 8, 9), generator=RNG)
BINARY = torch.randn(2, 1, 8, 9, generator=RNG)
MASK = (torch.rand(2, 1, 8, 9, generator=RNG) < 0.2).float()
MULTILABEL = (torch.rand(2, C, 8, 9, generator=RNG) < 0.2).float()
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 1.5])
SOFTMAX = {"to_onehot_y": True, "softmax": True}


def test_monai_dice_ce():
    theirs = monai.DiceCELoss(**SOFTMAX, lambda_dice=0.7, lambda_ce=1.3, weight=WEIGHT)
    ours = CompoundLoss(
        monai.DiceLoss(**SOFTMAX, weight=WEIGHT),
        CrossEntropyLoss(class_weight=WEIGHT),
        weights=(0.7, 1.3),
    )
    torch.testing.assert_close(ours(LOGITS, TARGET), theirs(LOGITS, TARGET))


def test_monai_dice_ce_binary():
    ours = CompoundLoss(monai.DiceLoss(sigmoid=True), CrossEntropyLoss())
    torch.testing.assert_close(ours(BINARY, MASK), monai.DiceCELoss(sigmoid=True)(BINARY, MASK))


def test_monai_dice_focal_binary():
    ours = CompoundLoss(monai.DiceLoss(sigmoid=True), FocalLoss(gamma=2.0))
    torch.testing.assert_close(ours(BINARY, MASK), monai.DiceFocalLoss(sigmoid=True)(BINARY, MASK))


def test_monai_generalized_dice_focal_binary():
    theirs = monai.GeneralizedDiceFocalLoss(sigmoid=True)
    ours = CompoundLoss(monai.GeneralizedDiceLoss(sigmoid=True), FocalLoss(gamma=2.0))
    torch.testing.assert_close(ours(BINARY, MASK), theirs(BINARY, MASK))


def test_monai_tversky_stays_beside_ours():
    tversky = monai.TverskyLoss(**SOFTMAX, alpha=0.3, beta=0.7)
    ours = CompoundLoss({"tversky": tversky, "hard": HardMiningLoss(balance=Balance())})
    expected = tversky(LOGITS, TARGET) + HardMiningLoss(balance=Balance())(LOGITS, TARGET)
    torch.testing.assert_close(ours(LOGITS, TARGET), expected)


def test_smp_soft_bce():
    theirs = smp.SoftBCEWithLogitsLoss()
    torch.testing.assert_close(CrossEntropyLoss()(BINARY, MASK), theirs(BINARY, MASK))
    theirs = smp.SoftBCEWithLogitsLoss(pos_weight=torch.tensor(5.0))
    torch.testing.assert_close(FocalLoss((1.0, 5.0), 0.0)(BINARY, MASK), theirs(BINARY, MASK))


def test_smp_soft_bce_averages_over_ignored_pixels():
    holes = torch.where(torch.rand(MASK.shape, generator=RNG) < 0.3, 255.0, MASK)
    theirs = smp.SoftBCEWithLogitsLoss(ignore_index=255)
    share_used = (holes != 255).float().mean()
    ours = CrossEntropyLoss(ignore_index=255)(BINARY, holes) * share_used
    torch.testing.assert_close(ours, theirs(BINARY, holes))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CrossEntropyLoss(), smp.SoftBCEWithLogitsLoss()),
        (FocalLoss(gamma=2.0), smp.FocalLoss("multilabel", gamma=2.0)),
    ],
)
def test_smp_multilabel_is_binary_of_every_channel(ours, theirs):
    value = ours(LOGITS.flatten(0, 1).unsqueeze(1), MULTILABEL.flatten(0, 1))
    torch.testing.assert_close(value, theirs(LOGITS, MULTILABEL))


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("region", ["DiceLoss", "JaccardLoss", "TverskyLoss"])
def test_smp_region_losses_stay_beside_ours_in_every_mode(region, mode):
    theirs = getattr(smp, region)(mode)
    logits, target = (BINARY, MASK) if mode == "binary" else (LOGITS, TARGET)
    as_theirs = F.one_hot(TARGET[:, 0], C).movedim(-1, 1) if mode == "multilabel" else target
    expected = theirs(logits, as_theirs) + FocalLoss()(logits, target)
    torch.testing.assert_close(CompoundLoss(FocalLoss(), theirs)(logits, target), expected)


def test_kornia_dice_stays_beside_ours():
    dice = kornia.DiceLoss()
    expected = dice(LOGITS, TARGET[:, 0]) + FocalLoss()(LOGITS, TARGET)
    torch.testing.assert_close(CompoundLoss(FocalLoss(), dice)(LOGITS, TARGET), expected)


def test_nnunet_takes_ours_where_its_cross_entropy_was():
    compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
    wrapper = pytest.importorskip("nnunetv2.training.loss.deep_supervision")

    def loss(ignore_label):
        return compound.DC_and_CE_loss(
            {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            ignore_label=ignore_label,
        )

    holes = TARGET.float()
    holes[0, 0, :2] = C
    for ignore_label, target in ((None, TARGET.float()), (C, holes)):
        theirs, ours = loss(ignore_label), loss(ignore_label)
        ours.ce = CrossEntropyLoss(ignore_index=ignore_label)
        torch.testing.assert_close(ours(LOGITS, target), theirs(LOGITS, target))
    deep = wrapper.DeepSupervisionWrapper(ours, (0.5, 0.5))
    assert deep([LOGITS, LOGITS], [holes, holes]).isfinite()
    assert isinstance(deep, nn.Module)
