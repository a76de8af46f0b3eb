"""Read-out: outputs of balanced losses by natural probability, and the map that takes them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from style import BLUE, GREEN, GREY, ORANGE, RED, soften

from dense_imb.losses import Balance, CrossEntropyLoss, FocalLoss
from dense_imb.metrics import ReadOut

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 4.9)
SHARE = 0.01
LOSSES = {  # loss, colour and dashes
    "cross-entropy": (CrossEntropyLoss(), "#000000", "-"),
    "focal, gamma 2": (FocalLoss(gamma=2), ORANGE, ":"),
    "weights of 1/sqrt(share)": (CrossEntropyLoss(class_weight=[1, 10]), GREEN, "--"),
    "balanced": (CrossEntropyLoss(balance=Balance()), BLUE, "-."),
}
SHARES = {0.1: (GREEN, "--"), 0.01: (BLUE, "-."), 0.001: (RED, ":")}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw both directions: the output of the best network, and the read-out that takes it back."""
    left, right = figure.subplots(1, 2)
    z = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    logits = torch.stack([-z / 2, z / 2], 1)
    for name, (loss, colour, dashes) in LOSSES.items():
        natural = loss.probability(logits, class_share=[1 - SHARE, SHARE])[:, 1]
        left.plot(natural, logits.softmax(1)[:, 1], color=colour, linestyle=dashes, label=name)
    left.set(xlabel="natural probability of a rare class (1 %)", title="output of the best network")
    left.legend(loc="lower right")

    prediction = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for share, (colour, dashes) in SHARES.items():
        read = ReadOut.from_acb_mse(share).apply(prediction[None, None])[0, 0]
        right.plot(
            prediction, read, color=colour, linestyle=dashes, label=f"{100 * share:g} % hits"
        )
    right.set(xlabel="output under ACB-MSE", title="after the read-out: mean target")
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.axhline(0.5, color=GREY, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        soften(axes)
