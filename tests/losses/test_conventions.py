"""Conventions on the migration pages: our number against that of the installed library."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dense_imb.losses import (
    Balance,
    CrossEntropyLoss,
    FocalLoss,
    Hardest,
    HardMiningLoss,
    cross_entropy_loss,
)

from .peers import MONAI_IGNORES, SMP_FOCAL, needs

kornia = pytest.importorskip("kornia.losses")
monai = pytest.importorskip("monai.losses")
smp = pytest.importorskip("segmentation_models_pytorch.losses")
torchvision = pytest.importorskip("torchvision.ops")

C = 4
RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, C, 8, 9, generator=RNG)
TARGET = torch.randint(0, C, (2, 8, 9), generator=RNG)
BINARY = torch.randn(2, 1, 8, 9, generator=RNG)
MASK = (torch.rand(2, 1, 8, 9, generator=RNG) < 0.2).float()
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 1.5])


def test_torch_cross_entropy():
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(
            CrossEntropyLoss(class_weight=WEIGHT, reduction=reduction)(LOGITS, TARGET),
            F.cross_entropy(LOGITS, TARGET, WEIGHT, reduction=reduction),
        )


def test_torch_binary_cross_entropy():
    torch.testing.assert_close(
        CrossEntropyLoss()(BINARY, MASK), F.binary_cross_entropy_with_logits(BINARY, MASK)
    )
    # pos_weight does not divide: it is a factor of the foreground's errors
    expected = F.binary_cross_entropy_with_logits(BINARY, MASK, pos_weight=torch.tensor(5.0))
    torch.testing.assert_close(FocalLoss((1.0, 5.0), 0.0)(BINARY, MASK), expected)


def test_torch_soft_cross_entropy_with_class_weights():
    """torch weighs each class's term and divides by the pixels; ours by the pixels' own weights."""
    soft = torch.softmax(torch.randn(LOGITS.shape, generator=RNG), 1)
    torch.testing.assert_close(
        FocalLoss(WEIGHT, 0.0)(LOGITS, soft), F.cross_entropy(LOGITS, soft, WEIGHT)
    )


def test_monai_focal_with_softmax_is_a_cth():
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
    torch.testing.assert_close(
        FocalLoss(gamma=2.0)(LOGITS, TARGET) / C, theirs(LOGITS, TARGET.unsqueeze(1))
    )


def test_monai_focal_with_weights_is_alpha():
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, weight=WEIGHT)
    torch.testing.assert_close(
        FocalLoss(WEIGHT, 2.0)(LOGITS, TARGET) / C, theirs(LOGITS, TARGET.unsqueeze(1))
    )


def test_monai_focal_binary():
    theirs = monai.FocalLoss(gamma=2.0, alpha=0.25)
    torch.testing.assert_close(FocalLoss((0.75, 0.25), 2.0)(BINARY, MASK), theirs(BINARY, MASK))


def test_monai_dice_ce_is_a_sum_with_our_cross_entropy():
    target = TARGET.unsqueeze(1)
    theirs = monai.DiceCELoss(to_onehot_y=True, softmax=True)
    dice = monai.DiceLoss(to_onehot_y=True, softmax=True)
    torch.testing.assert_close(
        dice(LOGITS, target) + CrossEntropyLoss()(LOGITS, target), theirs(LOGITS, target)
    )


@needs(*SMP_FOCAL)
def test_smp_focal_multiclass_is_binary_focal_of_every_channel():
    theirs = smp.FocalLoss("multiclass", gamma=2.0)
    one_hot = F.one_hot(TARGET, C).movedim(-1, 1).float()
    channels = FocalLoss(gamma=2.0)(LOGITS.flatten(0, 1).unsqueeze(1), one_hot.flatten(0, 1))
    torch.testing.assert_close(channels, theirs(LOGITS, TARGET))


def test_smp_focal_binary():
    theirs = smp.FocalLoss("binary", gamma=2.0, alpha=0.25)
    torch.testing.assert_close(FocalLoss((0.75, 0.25), 2.0)(BINARY, MASK), theirs(BINARY, MASK))


def test_smp_soft_cross_entropy_averages_over_ignored_pixels():
    holes = torch.where(TARGET == 3, -100, TARGET)
    theirs = smp.SoftCrossEntropyLoss(ignore_index=-100, smooth_factor=0.0)
    ours = CrossEntropyLoss(ignore_index=-100)(LOGITS, holes)
    share_used = (holes != -100).float().mean()
    torch.testing.assert_close(ours * share_used, theirs(LOGITS, holes))


def test_kornia_focal_is_a_cth():
    theirs = kornia.FocalLoss(alpha=None, gamma=2.0, reduction="mean")
    torch.testing.assert_close(FocalLoss(gamma=2.0)(LOGITS, TARGET) / C, theirs(LOGITS, TARGET))


def test_kornia_binary_focal():
    theirs = kornia.BinaryFocalLossWithLogits(alpha=0.25, gamma=2.0, reduction="mean")
    torch.testing.assert_close(FocalLoss((0.75, 0.25), 2.0)(BINARY, MASK), theirs(BINARY, MASK))


def test_torchvision_focal():
    theirs = torchvision.sigmoid_focal_loss(BINARY, MASK, alpha=0.25, gamma=2.0, reduction="mean")
    torch.testing.assert_close(FocalLoss((0.75, 0.25), 2.0)(BINARY, MASK), theirs)


def one_hot(target: torch.Tensor = TARGET) -> torch.Tensor:
    return F.one_hot(target, C).movedim(-1, 1).float()


def test_label_smoothing_is_a_soft_target():
    """1 - s of the true class, and s / C of every class."""
    smooth = 0.9 * one_hot() + 0.1 / C
    for theirs in (
        torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        smp.SoftCrossEntropyLoss(smooth_factor=0.1),
    ):
        torch.testing.assert_close(CrossEntropyLoss()(LOGITS, smooth), theirs(LOGITS, TARGET))
    ignored = torch.where(TARGET == 3, -100, TARGET)
    theirs = F.cross_entropy(LOGITS, ignored, label_smoothing=0.1)
    ours = CrossEntropyLoss()(LOGITS, smooth, mask=ignored != -100)
    torch.testing.assert_close(ours, theirs)


def test_alpha_with_softmax_weighs_the_background_by_the_rest():
    """A number alpha with softmax is 1 - alpha of class 0, and alpha of all others."""
    ours = FocalLoss((0.75, 0.25, 0.25, 0.25), 2.0)(LOGITS, TARGET) / C
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=0.25)
    torch.testing.assert_close(ours, theirs(LOGITS, TARGET.unsqueeze(1)))
    theirs = kornia.FocalLoss(alpha=0.25, reduction="mean")
    torch.testing.assert_close(ours, theirs(LOGITS, TARGET))
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=WEIGHT.tolist())
    torch.testing.assert_close(
        FocalLoss(WEIGHT, 2.0)(LOGITS, TARGET) / C, theirs(LOGITS, TARGET.unsqueeze(1))
    )
    theirs = kornia.FocalLoss(alpha=None, weight=WEIGHT, reduction="mean")
    torch.testing.assert_close(FocalLoss(WEIGHT, 2.0)(LOGITS, TARGET) / C, theirs(LOGITS, TARGET))


@needs(*SMP_FOCAL)
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_smp_class_weights_are_pixel_weights_of_the_channels(mode):
    theirs = smp.FocalLoss(mode, gamma=2.0, class_weights=WEIGHT.tolist())
    expected = theirs(LOGITS, TARGET if mode == "multiclass" else one_hot())
    weight = WEIGHT.view(1, C, 1, 1).expand(LOGITS.shape).flatten(0, 1)
    channels, target = LOGITS.flatten(0, 1).unsqueeze(1), one_hot().flatten(0, 1)
    ours = FocalLoss(gamma=2.0)(channels, target, pixel_weight=weight)
    torch.testing.assert_close(ours, expected)


def test_kornia_averages_over_ignored_pixels():
    holes = torch.where(TARGET == 3, 255, TARGET)
    share_used = (holes != 255).float().mean()
    theirs = kornia.FocalLoss(alpha=None, reduction="mean", ignore_index=255)
    ours = FocalLoss(gamma=2.0, ignore_index=255)(LOGITS, holes)
    torch.testing.assert_close(ours * share_used / C, theirs(LOGITS, holes))
    holes = torch.where(torch.rand(MASK.shape, generator=RNG) < 0.3, 255.0, MASK)
    theirs = kornia.BinaryFocalLossWithLogits(alpha=0.25, reduction="mean", ignore_index=255)
    ours = FocalLoss((0.75, 0.25), 2.0, ignore_index=255)(BINARY, holes)
    torch.testing.assert_close(ours * (holes != 255).float().mean(), theirs(BINARY, holes))


@needs(*MONAI_IGNORES)
def test_monai_does_not_divide_by_the_classes_with_ignored_pixels():
    """Its mean is over the pixels left, where without `ignore_index` it is over channels, too."""
    holes = torch.where(TARGET == 3, 255, TARGET)
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, ignore_index=255)
    ours = FocalLoss(gamma=2.0, ignore_index=255)
    torch.testing.assert_close(ours(LOGITS, holes), theirs(LOGITS, holes.unsqueeze(1)))
    holes = torch.where(torch.rand(MASK.shape, generator=RNG) < 0.3, 255.0, MASK)
    theirs = monai.FocalLoss(gamma=2.0, ignore_index=255)
    torch.testing.assert_close(ours(BINARY, holes), theirs(BINARY, holes))


def test_inverse_frequency_weights_are_a_balance():
    """Weights 1 / n_c of the batch, divided by their sum, are the mean of the class means."""
    count = torch.bincount(TARGET.flatten(), minlength=C)
    expected = F.cross_entropy(LOGITS, TARGET, 1 / count)
    torch.testing.assert_close(cross_entropy_loss(LOGITS, TARGET, balance=Balance()), expected)


def test_nnunet_top_k_is_the_hardest_share():
    theirs = pytest.importorskip("nnunetv2.training.loss.robust_ce_loss").TopKLoss(k=10)
    ours = CrossEntropyLoss(spread=Hardest(0.1))
    torch.testing.assert_close(ours(LOGITS, TARGET), theirs(LOGITS, TARGET))


def test_region_losses_add():
    dice = monai.DiceLoss(to_onehot_y=True, softmax=True)
    logits = LOGITS.clone().requires_grad_()
    target = TARGET.unsqueeze(1)
    (dice(logits, target) + HardMiningLoss(balance=Balance())(logits, target)).backward()
    assert logits.grad.isfinite().all()
