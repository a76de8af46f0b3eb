"""Tversky loss (Salehi et al., 2017, arXiv 1706.05721) and its focal form (arXiv 1810.07842)."""

from __future__ import annotations

from typing import Unpack

from dense_imb.losses.core.options import refuse_mode, shows_options
from dense_imb.losses.core.overlap import Tversky
from dense_imb.losses.core.region import REGION_DEFAULTS, RegionLoss, RegionOptions


class TverskyLoss(RegionLoss):
    """1 - Tversky index of each foreground class, from sums of probabilities over the batch.

        loss = 1/K sum_k  (1 - (tp_k + s) / (tp_k + alpha fp_k + beta fn_k + s))^gamma

    See `region_loss` for the other arguments. At call time: `mask`, `pixel_weight`, `instance`,
    `window`, `return_parts`.

    Args:
        alpha: cost of a false positive.
        beta: cost of a false negative.
        smooth: s, added above and below.
        gamma: 1, or 3/4 for the focal Tversky loss.

    Example:
        >>> TverskyLoss(0.3, 0.7)(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.6154)
    """

    @shows_options(RegionOptions, REGION_DEFAULTS)
    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 0.0,
        **options: Unpack[RegionOptions],
    ) -> None:
        refuse_mode(type(self).__name__, alpha)
        super().__init__(Tversky(alpha, beta, smooth), **options)
