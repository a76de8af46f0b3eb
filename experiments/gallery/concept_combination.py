"""Combination: what each class adds to the loss, and what each pixel weighs in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from style import BLUE, GREY, ORANGE, hide_ticks
from torch import Tensor

from dense_imb.losses import Balance, BalancedRegressionLoss, Hardest, WorstNeighbour, balanced_mean

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (10.0, 5.8)
SIZES, MEANS = (900, 90, 10), (0.05, 0.3, 0.8)  # pixels and mean error of three classes
NAMES = ("900 pixels, mean error 0.05", "90 pixels, 0.3", "10 pixels, 0.8")
BALANCES = {
    "Balance(count_power=1)": Balance(count_power=1),
    "Balance(count_power=0.5)": Balance(count_power=0.5),
    "Balance()": Balance(),
    "Balance(power=2)": Balance(power=2),
    "Balance(power=math.inf)": Balance(power=math.inf),
}
LOSSES = {
    "plain mean": BalancedRegressionLoss("l1", balance=Balance(count_power=1)),
    "balanced": BalancedRegressionLoss("l1"),
    "Hardest(0.2)": BalancedRegressionLoss("l1", spread=Hardest(0.2)),
    "WorstNeighbour(3)": BalancedRegressionLoss("l1", spread=WorstNeighbour(3)),
}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw bars of five balances over maps of four reductions."""
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    bars(above.add_subplot())
    target, prediction = crossing()
    panels = below.subplots(1, 5)
    panels[0].imshow((prediction - target).abs(), cmap="Greys", vmin=0, vmax=1)
    panels[0].set_title("error")
    for axes, (title, loss) in zip(panels[1:], LOSSES.items(), strict=True):
        guess = prediction.clone().requires_grad_()
        loss(guess[None, None], target[None, None]).backward()
        weight = guess.grad.abs()
        axes.imshow(weight.sqrt(), cmap="Blues", vmin=0)  # the root shows the small ones too
        axes.set_title(title)
    for axes in panels:
        hide_ticks(axes)


def bars(axes: Axes) -> None:
    """Draw the contributions of the classes, whose sum is the loss."""
    label = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    error = torch.tensor(MEANS, dtype=torch.float64)[label]
    for place, balance in enumerate(BALANCES.values()):
        part = balanced_mean(error, label, 3, balance=balance, reduction="none")
        left = 0.0
        for k, colour in enumerate((GREY, ORANGE, BLUE)):
            width = part[label == k].sum().item()
            axes.barh(place, width, 0.6, left, color=colour, label=None if place else NAMES[k])
            left += width
        axes.text(left + 0.01, place, f"{left:.2f}", va="center")
    axes.set_yticks(range(len(BALANCES)), BALANCES, family="monospace")
    axes.set_ylim(len(BALANCES) - 0.5, -0.5)
    axes.set(xlim=(0, 0.9), xlabel="loss")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2)


def crossing() -> tuple[Tensor, Tensor]:
    """Return a thin cross, and a prediction with a gap, faint parts and a noisy ground."""
    rng = np.random.default_rng(0)
    target, error = np.zeros((24, 24)), np.abs(rng.normal(0, 0.08, (24, 24)))
    target[12], target[:, 8] = 1, 1
    prediction = np.where(target > 0, 0.8 - error, error)
    prediction[12, 15:18] = 0.1
    prediction[3:5, 16:19] = 0.7
    return torch.from_numpy(target), torch.from_numpy(prediction)
