"""Cross-entropy of pixels."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import CrossEntropy
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@shows_options(PixelOptions)
def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    *,
    adjustment: Adjustment | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy, optionally with a balance.

        loss = mean_i -log softmax(z)_{y_i}

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options.

    Example:
        >>> cross_entropy_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
        tensor(1.3863)
    """
    return pixel_loss(logits, target, penalty=CrossEntropy(), adjustment=adjustment, **options)


class CrossEntropyLoss(PixelLoss):
    """Cross-entropy, optionally with a balance.

        loss = mean_i -log softmax(z)_{y_i}

    See `pixel_loss` for the options. At call time: `mask`, `pixel_weight`, `class_count`,
    `instance`, `return_parts`.

    Example:
        >>> loss = CrossEntropyLoss(balance=Balance())
        >>> loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
        tensor(1.3863)
    """

    @shows_options(MeanOptions)
    def __init__(
        self, *, adjustment: Adjustment | None = None, **options: Unpack[MeanOptions]
    ) -> None:
        super().__init__(CrossEntropy(), adjustment, **options)
