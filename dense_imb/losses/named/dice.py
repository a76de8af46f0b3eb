"""Dice loss (Milletari et al., 2016, arXiv 1606.04797)."""

from __future__ import annotations

from typing import Unpack

from dense_imb.losses.core.options import refuse_mode, shows_options
from dense_imb.losses.core.overlap import Dice
from dense_imb.losses.core.region import REGION_DEFAULTS, RegionLoss, RegionOptions


class DiceLoss(RegionLoss):
    """1 - Dice of each foreground class, from sums of probabilities over the batch.

        loss = 1/K sum_k  1 - (2 tp_k + s) / (2 tp_k + fp_k + fn_k + s)

    By default the balance is Balance(scope="batch", absent="rate"): the classes of the whole batch
    count the same, and a class without pixels adds its mean probability. See
    `docs/region_losses.md` for the choices.

    Dice alone hardly punishes a class that an image lacks: add `CrossEntropyLoss`, with which it
    shares one softmax in a `CompoundLoss`. See `region_loss` for the arguments. At call time:
    `mask`, `pixel_weight`, `instance`, `window`, `return_parts`.

    Args:
        smooth: s, added above and below.

    Example:
        >>> DiceLoss()(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.6667)
    """

    @shows_options(RegionOptions, REGION_DEFAULTS)
    def __init__(self, smooth: float = 0.0, **options: Unpack[RegionOptions]) -> None:
        refuse_mode(type(self).__name__, smooth)
        super().__init__(Dice(smooth), **options)
