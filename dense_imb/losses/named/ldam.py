"""LDAM, label-distribution-aware margins (Cao et al., 2019, arXiv 1906.07413), of pixels."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from dense_imb.losses.core.adjustment import Margin
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@shows_options(PixelOptions)
def ldam_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: Any,
    max_margin: float = 0.5,
    scale: float = 30.0,
    penalty: Penalty | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy that asks rare classes for a wide margin.

        loss = mean_i -log softmax(s (z - m onehot(y_i)))_{y_i},   m_k = max_margin (n_min / n_k)^(1/4)

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options. The paper's logits
            are cosines, of a normalised last layer. Soft targets have no margin, and are refused.
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        max_margin: margin of the rarest class.
        scale: s.

    Example:
        >>> logits, target = torch.tensor([[0.5, 0.5]]), torch.tensor([1])
        >>> ldam_loss(logits, target, class_counts=[16, 1], scale=1.0)  # log(1 + exp(0.5))
        tensor(0.9741)
    """  # noqa: E501
    adjustment = Margin(class_counts, max_margin, scale)
    return pixel_loss(logits, target, penalty=penalty, adjustment=adjustment, **options)


class LDAMLoss(PixelLoss):
    """Cross-entropy that asks rare classes for a wide margin.

        loss = mean_i -log softmax(s (z - m onehot(y_i)))_{y_i},   m_k = max_margin (n_min / n_k)^(1/4)

    See `ldam_loss` and `pixel_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `return_parts`.

    Example:
        >>> LDAMLoss([16, 1], scale=1.0)(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
        tensor(0.8259)
    """  # noqa: E501

    @shows_options(MeanOptions)
    def __init__(
        self,
        class_counts: Any,
        max_margin: float = 0.5,
        scale: float = 30.0,
        *,
        penalty: Penalty | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(penalty, Margin(class_counts, max_margin, scale), **options)
