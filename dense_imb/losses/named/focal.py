"""Focal loss (Lin et al., 2017, arXiv 1708.02002) of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import Focal
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@shows_options(PixelOptions)
def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float | Sequence[float] = 1.0,
    gamma: float = 2.0,
    adjustment: Adjustment | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy that turns the easy pixels down.

        loss = mean_i -alpha (1 - p_i)^gamma log p_i,   p_i = softmax(z)_{y_i}

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options.
        alpha: a factor, or one for each class; binary, [background, foreground].
        gamma: 0 or more; 0 is cross-entropy.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)
        tensor(0.3466)
    """
    return pixel_loss(logits, target, penalty=Focal(gamma, alpha), adjustment=adjustment, **options)


class FocalLoss(PixelLoss):
    """Cross-entropy that turns the easy pixels down.

        loss = mean_i -alpha (1 - p_i)^gamma log p_i,   p_i = softmax(z)_{y_i}

    See `focal_loss` and `pixel_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `return_parts`.

    Example:
        >>> FocalLoss(gamma=1.0)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.3466)
    """

    @shows_options(MeanOptions)
    def __init__(
        self,
        alpha: float | Sequence[float] = 1.0,
        gamma: float = 2.0,
        *,
        adjustment: Adjustment | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(Focal(gamma, alpha), adjustment, **options)
