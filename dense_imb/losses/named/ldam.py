"""LDAM, label-distribution-aware margins (Cao et al., 2019, arXiv 1906.07413), of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from torch import Tensor

from dense_imb.base.checks import check_at_least, trains_eagerly
from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import CrossEntropy, Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@dataclass(frozen=True)
class Margin(Adjustment):
    """s (z_k - [k = y] m_y), m_k = max_margin (n_min / n_k)^(1/4): rare classes get wide margins.

    Args:
        class_counts: n_k of the training data.
        max_margin: the margin of the rarest class.
        scale: s.

    Example:
        >>> import torch
        >>> from dense_imb.losses import Margin
        >>> margin = Margin((160_000, 10_000), max_margin=0.5, scale=1.0)
        >>> margin(torch.zeros(2, 2), torch.tensor([0, 1]))  # the rare class must win by 0.5
        tensor([[-0.2500,  0.0000],
                [ 0.0000, -0.5000]])
    """

    max_margin: float = 0.5
    scale: float = 30.0

    takes_soft_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("max_margin", self.max_margin, 0)
        check_at_least("scale", self.scale, 0)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        table = self.per_class(self._margins(), logits).flatten()
        margin = table.index_select(0, label.reshape(-1)).view_as(label).unsqueeze(1)
        scaled = self.scale * logits
        # subtracted from the logit, not from the log-probability: near p = 1 that has no digits
        if trains_eagerly(logits):
            return scaled.scatter_add_(1, label.unsqueeze(1), -margin)
        return scaled.scatter_add(1, label.unsqueeze(1), -margin)

    def _margins(self) -> list[float]:
        least = min(self.class_counts)
        return [self.scale * self.max_margin * (least / n) ** 0.25 for n in self.class_counts]

    def per_class_terms(self) -> dict[str, tuple[float, ...]]:
        return {"scale": (self.scale,) * len(self.class_counts), "margin": tuple(self._margins())}


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
    """Cross-entropy with a margin for the true class, the wider the rarer the class.

        loss = mean_i -log softmax(s (z - m onehot(y_i)))_{y_i},   m_k = max_margin (n_min / n_k)^(1/4)

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options. The paper's logits
            are cosines, from a normalised last layer. Soft targets are refused: they have no margin.
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
    """Cross-entropy with a margin for the true class, the wider the rarer the class.

        loss = mean_i -log softmax(s (z - m onehot(y_i)))_{y_i},   m_k = max_margin (n_min / n_k)^(1/4)

    See `ldam_loss` and `pixel_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `instance`, `return_parts`.

    Args:
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        max_margin: margin of the rarest class.
        scale: s.

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
        adjustment = Margin(class_counts, max_margin, scale)
        super().__init__(penalty or CrossEntropy(), adjustment, **options)
