"""Which pixels a loss pulls at, measured at the output of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def gradient_shares(
    network: nn.Module,
    shown: Tensor,
    loss: nn.Module,
    cost: Callable[[Tensor], Tensor],
    kinds: Mapping[str, Tensor],
) -> dict[str, float]:
    """Share of the sum of |d loss / d output| that each kind of pixels has.

    NaN for a kind without a pixel, and for all where the sum is 0.

    Args:
        network: asked once, and left without gradients.
        shown: its input.
        loss: with state perhaps, which is put back: looking on is no training step.
        cost: of an output.
        kinds: bool, (B, *spatial), by name.
    """
    with torch.no_grad():
        output = network(shown).float()
    output.requires_grad_(True)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(cost(output), output)
    loss.load_state_dict(before)
    size = gradient.abs().sum(1).double()
    total = float(size.sum())
    return {
        f"gradient_share_{name}": float(size[chosen].sum()) / total
        if total and bool(chosen.any())
        else math.nan
        for name, chosen in kinds.items()
    }
