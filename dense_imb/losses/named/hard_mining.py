"""Hard mining loss (Foahom Gouabou et al., GRETSI 2022) extended to pixels."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import HardMining
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@shows_options(PixelOptions)
def hard_mining_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    delta: float = 1e7,
    adjustment: Adjustment | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy that turns down the easy pixels, and the hopeless ones.

        loss = mean_i -alpha h_i^gamma log p_i,   p_i = softmax(z)_{y_i}
        h = max(sin(pi p) / (pi p) - exp(-delta p) sin(pi delta p) / (pi delta p), 0)

    h is taken at p clipped to 1e-7, as published; the logarithm is not clipped, so that a
    confidently wrong pixel keeps its gradient.

    The published PyTorch form is alpha=10, delta=1e10.

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options.
        alpha: a factor.
        gamma: power of the modulation h; 0 is cross-entropy.
        delta: pixels with p well below 1 / delta are outliers; at least 1.

    Example:
        >>> p = torch.tensor([[0.8, 0.1, 0.1], [0.9, 0.1, 0.0], [0.1, 0.1, 0.8], [0.1, 0.2, 0.7]])
        >>> hard_mining_loss(p.log().clamp(min=-80), torch.tensor([0, 0, 1, 2]), alpha=0.75)
        tensor(0.4612)
    """
    return pixel_loss(
        logits, target, penalty=HardMining(alpha, gamma, delta), adjustment=adjustment, **options
    )


class HardMiningLoss(PixelLoss):
    """Cross-entropy that turns down the easy pixels, and the hopeless ones.

        loss = mean_i -alpha h_i^gamma log p_i,   p_i = softmax(z)_{y_i}
        h = max(sin(pi p) / (pi p) - exp(-delta p) sin(pi delta p) / (pi delta p), 0)

    The published PyTorch form is alpha=10, delta=1e10. See `hard_mining_loss` and `pixel_loss` for
    the arguments. At call time: `mask`, `pixel_weight`, `class_count`, `return_parts`.

    Example:
        >>> HardMiningLoss(alpha=0.5)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.2206)
    """

    @shows_options(MeanOptions)
    def __init__(
        self,
        alpha: float = 1.0,
        gamma: float = 1.0,
        delta: float = 1e7,
        *,
        adjustment: Adjustment | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(HardMining(alpha, gamma, delta), adjustment, **options)
