"""Focal loss (Lin et al., 2017, arXiv 1708.02002) of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, class_numbers
from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.gradient import with_gradient
from dense_imb.losses.core.natural import focal_log_slope
from dense_imb.losses.core.options import MeanOptions, PixelOptions, refuse_mode, shows_options
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@dataclass(frozen=True)
class Focal(Penalty):
    """phi = -alpha (1 - p)^gamma lp, finite for every gamma >= 0 at every logit.

    Args:
        gamma: strength with which easy pixels are turned down; 0 is cross-entropy.
        alpha: a factor, or one for each class.

    Example:
        >>> import torch
        >>> from dense_imb.losses import Focal
        >>> p = torch.tensor([0.5, 0.9])
        >>> Focal(gamma=2.0)(p.log()) / -p.log()  # (1 - p)^2: an easy pixel counts a hundredth
        tensor([0.2500, 0.0100])
    """

    gamma: float = 2.0
    alpha: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        check_at_least("gamma", self.gamma, 0)
        if isinstance(self.alpha, (int, float)):
            check_at_least("alpha", self.alpha, 0)
        else:
            object.__setattr__(self, "alpha", class_numbers("alpha", self.alpha))

    @property
    def factor_of_class(self) -> tuple[float, ...] | None:
        return self.alpha if isinstance(self.alpha, tuple) else None

    def __call__(self, lp: Tensor) -> Tensor:
        return with_gradient(lp, lambda lp: self.value_and_slope(lp)[0], self.value_and_slope)

    def value_and_slope(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        """Return phi and dphi/dlp."""
        # q = 1 - p stays above 0, where a power of gamma < 1 has an infinite slope
        q = (-torch.expm1(lp)).clamp(min=torch.finfo(lp.dtype).tiny)
        modulation = q**self.gamma  # alpha (1 - p)^gamma
        if isinstance(self.alpha, (int, float)) and self.alpha != 1:
            modulation = self.alpha * modulation
        return -modulation * lp, self.gamma * (modulation / q * (1 - q) * lp) - modulation

    def log_slope(self, lp: Tensor, rest: Tensor) -> Tensor:
        return focal_log_slope(lp, rest, self.gamma)


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
    """Cross-entropy in which easy pixels count less.

        loss = mean_i -alpha (1 - p_i)^gamma log p_i,   p_i = softmax(z)_{y_i}

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options.
        alpha: a factor, or one for each class; [background, foreground] for binary logits.
        gamma: strength with which easy pixels are turned down; 0 is cross-entropy.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)
        tensor(0.3466)
    """
    return pixel_loss(logits, target, penalty=Focal(gamma, alpha), adjustment=adjustment, **options)


class FocalLoss(PixelLoss):
    """Cross-entropy in which easy pixels count less.

        loss = mean_i -alpha (1 - p_i)^gamma log p_i,   p_i = softmax(z)_{y_i}

    See `focal_loss` and `pixel_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `instance`, `return_parts`.

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
        refuse_mode(type(self).__name__, alpha)
        super().__init__(Focal(gamma, alpha), adjustment, **options)
