"""Balanced softmax (Ren et al., 2020, arXiv 2007.10740), or logit adjustment, of pixels."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from dense_imb.losses.core.adjustment import LogPrior
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@shows_options(PixelOptions)
def balanced_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: Any,
    tau: float = 1.0,
    penalty: Penalty | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy of logits that are told how frequent each class is.

        loss = mean_i -log softmax(z + tau log prior)_{y_i},   prior_k = n_k / sum n

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options.
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        tau: strength; 1 is the paper's, other values are logit adjustment (Menon et al., 2021).

    Example:
        >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
        >>> balanced_softmax_loss(logits, target, class_counts=[990, 10])
        tensor(4.6052)
    """
    return pixel_loss(
        logits, target, penalty=penalty, adjustment=LogPrior(class_counts, tau), **options
    )


class BalancedSoftmaxLoss(PixelLoss):
    """Cross-entropy of logits that are told how frequent each class is.

        loss = mean_i -log softmax(z + tau log prior)_{y_i},   prior_k = n_k / sum n

    See `balanced_softmax_loss` and `pixel_loss` for the arguments. At call time: `mask`,
    `pixel_weight`, `class_count`, `return_parts`.

    Example:
        >>> BalancedSoftmaxLoss([990, 10])(torch.zeros(1, 2), torch.tensor([1]))
        tensor(4.6052)
    """

    @shows_options(MeanOptions)
    def __init__(
        self,
        class_counts: Any,
        tau: float = 1.0,
        *,
        penalty: Penalty | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(penalty, LogPrior(class_counts, tau), **options)
