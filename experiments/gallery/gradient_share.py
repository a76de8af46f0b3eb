"""Share of the gradient that a rare class receives, against its frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dense_imb.curves import GradientShare, sweep
from dense_imb.curves import draw as draw_table
from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss, FocalLoss

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (8.4, 4.0)
LOSSES = {
    "cross-entropy": CrossEntropyLoss(),
    "focal, gamma 2": FocalLoss(gamma=2),
    "cross-entropy, power 1/2": CrossEntropyLoss(balance=Balance(count_power=0.5)),
    "balanced cross-entropy": CrossEntropyLoss(balance=Balance()),
    "Dice": DiceLoss(),
    "Dice + cross-entropy": CompoundLoss(DiceLoss(), CrossEntropyLoss()),
}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw the shares; no numbers are stored, the gradients are computed here."""
    draw_table(sweep(GradientShare(feeds="logits"), LOSSES), figure.add_subplot())
