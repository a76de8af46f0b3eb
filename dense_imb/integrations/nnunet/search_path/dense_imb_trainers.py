"""Names that nnU-Net finds through `nnUNet_extTrainer`; it imports this file outside a package."""

from dense_imb.integrations.nnunet.trainers import (
    nnUNetTrainerBlobLoss,
    nnUNetTrainerCCLoss,
    nnUNetTrainerDiceBalancedCELoss,
    nnUNetTrainerDiceHardMiningLoss,
)

__all__ = [
    "nnUNetTrainerBlobLoss",
    "nnUNetTrainerCCLoss",
    "nnUNetTrainerDiceBalancedCELoss",
    "nnUNetTrainerDiceHardMiningLoss",
]
