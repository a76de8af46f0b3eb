"""Trainers for nnU-Net: Dice with a balanced cross-entropy, with hard mining, or for each object.

    export nnUNet_extTrainer=$(dense-imb nnunet-path)
    nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerDiceBalancedCELoss

nnU-Net searches the folder by itself. The trainers are in `dense_imb.integrations.nnunet.trainers`,
which imports nnunetv2; this module imports nothing heavy.

Example:
    >>> from dense_imb.integrations.nnunet import TRAINERS
    >>> TRAINERS["nnUNetTrainerDiceBalancedCELoss"]
    'Dice + cross-entropy in which each class counts the same'
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dense_imb.base.refusals import Refused

__all__ = ["TRAINERS", "check_nnunet", "trainers_folder"]

# loss of each trainer, by the name of the trainer
TRAINERS: dict[str, str] = {
    "nnUNetTrainerDiceBalancedCELoss": "Dice + cross-entropy in which each class counts the same",
    "nnUNetTrainerDiceHardMiningLoss": "Dice + hard mining in which each class counts the same",
    "nnUNetTrainerBlobLoss": "Dice + cross-entropy + Dice of each object (blob loss)",
    "nnUNetTrainerCCLoss": "cross-entropy + Dice of each object in its surroundings (CC loss)",
}
_OLDEST = (2, 8)  # the first that reads nnUNet_extTrainer


def trainers_folder() -> Path:
    """Return the folder for nnU-Net's variable `nnUNet_extTrainer`.

    Example:
        >>> trainers_folder().name
        'search_path'
    """
    # nnU-Net imports each file of the folder by its bare name, and forgets it afterwards
    return Path(__file__).parent / "search_path"


def check_nnunet() -> None:
    """Refuse an environment without nnU-Net, or with one that reads no `nnUNet_extTrainer`.

    Example:
        >>> from unittest import mock
        >>> from dense_imb.integrations.nnunet import check_nnunet
        >>> with mock.patch("dense_imb.integrations.nnunet.version", return_value="2.6.2"):
        ...     check_nnunet()
        Traceback (most recent call last):
        dense_imb.base.refusals.Refused: Expected nnunetv2 2.8 or newer in the environment of
        dense_imb, got 2.6.2; pip install "dense-imb[nnunet]".
    """
    wanted = ".".join(map(str, _OLDEST))
    try:
        installed = version("nnunetv2")
    except PackageNotFoundError:
        installed = ""
    release = re.match(r"(\d+)\.(\d+)", installed)
    if release is None or tuple(map(int, release.groups())) < _OLDEST:
        raise Refused(
            f"nnunetv2 {wanted} or newer in the environment of dense_imb",
            installed or "none",
            'pip install "dense-imb[nnunet]"',
        )
