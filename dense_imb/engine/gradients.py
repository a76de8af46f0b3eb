"""Gradient of a loss at the output of a network, by class of pixel."""

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
    """Return the share of the sum of |d loss / d output| that each class of pixels has.

    A class without pixels has NaN; all have NaN if the sum is 0.

    Args:
        network: network; called once, and left without gradients.
        shown: input of the network.
        loss: loss; its state is restored, as this is no training step.
        cost: function that returns the loss of an output.
        kinds: pixels of each class by name, bool (B, *spatial).
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
