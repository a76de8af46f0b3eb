"""Balance: the loss of a blank answer, and the weight of the hits of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from style import BLUE, GREEN, RED, soften
from torch import Tensor

from dense_imb.losses import Balance, balanced_mean

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 4.4)
N_PIXELS = 10_000
BALANCES = {  # name, colour and dashes
    "plain mean": (Balance(count_power=1), "#000000", "-"),
    "count_power=0.5": (Balance(count_power=0.5), GREEN, "--"),
    "balanced": (Balance(), BLUE, "-."),
}
SCOPES = {
    "plain mean": (Balance(count_power=1), "#000000"),
    'scope="batch"': (Balance(), BLUE),
    'scope="image"': (Balance(scope="image"), RED),
}
N_HITS = (1, 10, 100)  # of three images


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw the loss of blank frames by share of hits, and bars of three images."""
    left, right = figure.subplots(1, 2)
    shares = np.geomspace(1, N_PIXELS / 2, 30).astype(int) / N_PIXELS
    for name, (balance, colour, dashes) in BALANCES.items():
        # a blank answer is wrong at the hits only
        losses = [
            balanced_mean(one, one.int(), 2, balance=balance).item() for one in map(frame, shares)
        ]
        left.loglog(100 * shares, losses, color=colour, linestyle=dashes, label=name)
    left.set(xlabel="share of the pixels that are hits (%)", title="loss of a blank answer")
    left.set_xticks((0.01, 0.1, 1, 10), ("0.01", "0.1", "1", "10"))
    left.set_yticks((1e-4, 1e-3, 0.01, 0.1, 1), ("0.0001", "0.001", "0.01", "0.1", "1"))
    left.minorticks_off()
    left.legend(loc="lower right")
    soften(left)

    batch = torch.cat([frame(n / N_PIXELS) for n in N_HITS])
    for k, (name, (balance, colour)) in enumerate(SCOPES.items()):
        weight = 100 * balanced_mean(batch, batch.int(), 2, balance=balance, reduction="none").sum(
            1
        )
        place = np.arange(len(N_HITS)) + 0.27 * (k - 1)
        right.bar(place, weight, 0.25, color=colour, label=name)
        for x, y in zip(place, weight.tolist(), strict=True):
            right.text(
                x, y + 0.6, f"{y:.2g}" if y >= 0.1 else f"{y:.1g}", ha="center", fontsize="small"
            )
    right.set_xticks(range(len(N_HITS)), [f"{n} hit{'s' * (n > 1)}" for n in N_HITS])
    right.set(xlabel="image of the batch", title="weight of the hits of an image (%)")
    right.legend(loc="upper left")


def frame(share: float) -> Tensor:
    """Return an image (1, N_PIXELS) that is 1 at its hits."""
    return (torch.arange(N_PIXELS) < round(share * N_PIXELS)).double()[None]
