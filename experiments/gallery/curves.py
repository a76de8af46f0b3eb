"""Loss-response curves: losses of values as a signal grows, and of one pixel by its probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from dense_imb.curves import Probability, SignalSize, sweep
from dense_imb.curves import draw as draw_table
from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    CrossEntropyLoss,
    FocalLoss,
    HardMiningLoss,
)

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (8.4, 6.4)
OF_VALUES = {
    "MSE": nn.MSELoss(),
    "MAE": nn.L1Loss(),
    "ACB-MSE": ACBMSELoss(),
    "power 1/2": BalancedRegressionLoss(balance=Balance(count_power=0.5)),
}
OF_LOGITS = {
    "cross-entropy": CrossEntropyLoss(),
    "focal, gamma 2": FocalLoss(gamma=2),
    "hard mining": HardMiningLoss(gamma=0.5),
}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw two scenarios; no numbers are stored, the losses are computed here."""
    above, below = figure.subplots(2, 1)
    draw_table(sweep(SignalSize(), OF_VALUES), above)
    draw_table(sweep(Probability(), OF_LOGITS), below)
