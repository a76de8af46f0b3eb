"""nnU-Net's trainer with losses of dense_imb; all else is nnU-Net's own.

    class nnUNetTrainerMine(WithLoss, nnUNetTrainer):
        def make_loss(self, scope, ignore_index):
            return FocalLoss(ignore_index=ignore_index)

nnU-Net finds a trainer of your own if its file is in a folder of `nnUNet_extTrainer`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from dense_imb.base.refusals import Refused
from dense_imb.integrations.nnunet import check_nnunet
from dense_imb.integrations.nnunet.losses import Instances, LabelsLoss, RegionsLoss
from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss, HardMiningLoss
from dense_imb.losses.core.balance import Scope

try:
    check_nnunet()
except Refused as why:
    raise ImportError(str(why)) from None
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

__all__ = [
    "WithLoss",
    "nnUNetTrainerBlobLoss",
    "nnUNetTrainerCCLoss",
    "nnUNetTrainerDiceBalancedCELoss",
    "nnUNetTrainerDiceHardMiningLoss",
]


class WithLoss:
    """Mixin of nnU-Net's trainers that puts a loss of dense_imb where the cross-entropy was.

    Deep supervision and its weights, the Dice (batch Dice, several GPUs), ignored labels and
    regions are as in nnU-Net.

    Attributes:
        keeps_dice: keep nnU-Net's Dice beside the loss.
        instances: map for a loss with per="instance", see `LabelsLoss`.
    """

    keeps_dice = True
    instances: Instances | None = None
    is_ddp: bool  # nnU-Net's own
    label_manager: Any
    print_to_log_file: Any

    def make_loss(self, scope: Scope, ignore_index: int | None) -> nn.Module:
        """Return the loss of logits and labels; of each region in a training on regions.

        Args:
            scope: pixels that are balanced together: those of all processes, or of the batch.
            ignore_index: label of ignored pixels; none for regions, whose loss gets a mask.
        """
        raise NotImplementedError

    def _build_loss(self) -> nn.Module:
        theirs: nn.Module = super()._build_loss()  # type: ignore[misc]
        is_deep = isinstance(theirs, DeepSupervisionWrapper)
        replaced = theirs.loss if is_deep else theirs
        if not isinstance(replaced, DC_and_CE_loss | DC_and_BCE_loss):
            raise TypeError(
                "Expected a trainer of nnU-Net with Dice and cross-entropy, of which dense_imb "
                f"replaces the second, got {type(replaced).__name__}; the trainers are made for "
                "nnunetv2 2.8."
            )
        ours = self._loss_like(replaced)
        self.print_to_log_file(f"Loss of dense_imb: {ours.loss}")
        if not is_deep:
            return ours
        theirs.loss = ours
        return theirs

    def _loss_like(self, theirs: Any) -> LabelsLoss | RegionsLoss:
        """Return the loss of one output in place of nnU-Net's, with its Dice."""
        scope: Scope = "global" if self.is_ddp else "batch"
        dice = theirs.dc if self.keeps_dice else None
        ignore_label = self.label_manager.ignore_label
        if isinstance(theirs, DC_and_BCE_loss):
            loss, is_last_ignored = self.make_loss(scope, None), ignore_label is not None
            return RegionsLoss(
                loss, dice, instances=self.instances, is_last_ignored=is_last_ignored
            )
        loss = self.make_loss(scope, ignore_label)
        return LabelsLoss(loss, dice, instances=self.instances, ignore_label=ignore_label)


class nnUNetTrainerDiceBalancedCELoss(WithLoss, nnUNetTrainer):  # type: ignore[misc]
    """Dice + cross-entropy in which each class counts the same, however few pixels it has."""

    def make_loss(self, scope: Scope, ignore_index: int | None) -> nn.Module:
        return CrossEntropyLoss(balance=Balance(scope=scope), ignore_index=ignore_index)


class nnUNetTrainerDiceHardMiningLoss(WithLoss, nnUNetTrainer):  # type: ignore[misc]
    """Dice + hard mining, in which easy pixels count less, and each class counts the same."""

    def make_loss(self, scope: Scope, ignore_index: int | None) -> nn.Module:
        return HardMiningLoss(balance=Balance(scope=scope), ignore_index=ignore_index)


class nnUNetTrainerBlobLoss(WithLoss, nnUNetTrainer):  # type: ignore[misc]
    """Dice + cross-entropy + Dice of each connected component: blob loss as published."""

    instances: Instances | None = "components"

    def make_loss(self, scope: Scope, ignore_index: int | None) -> nn.Module:
        by_object = DiceLoss(
            per="instance", balance=Balance(scope=scope), ignore_index=ignore_index
        )
        return CompoundLoss(by_object, CrossEntropyLoss(ignore_index=ignore_index))


class nnUNetTrainerCCLoss(nnUNetTrainerBlobLoss):
    """Cross-entropy + Dice of each connected component in the pixels nearest to it: CC loss."""

    instances: Instances | None = "nearest"
    keeps_dice = False
