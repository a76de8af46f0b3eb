"""Balanced softmax (Ren et al., 2020, arXiv 2007.10740), or logit adjustment, of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor

from dense_imb.base.checks import check_finite, check_n_entries
from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.counts import class_counts_of
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import CrossEntropy, Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@dataclass(frozen=True)
class LogPrior(Adjustment):
    """z_k + tau (log prior_k - log test prior_k), prior_k = n_k / sum n.

    Args:
        class_counts: n_k of the training data.
        tau: strength.
        test_counts: class counts of the data to predict; equal classes by default.

    Example:
        >>> import torch
        >>> from dense_imb.losses import LogPrior
        >>> shifted = LogPrior((9000, 1000))(torch.zeros(1, 2), torch.tensor([1]))
        >>> shifted.exp()  # a blank network starts at the class frequencies
        tensor([[0.9000, 0.1000]])
    """

    tau: float = 1.0
    test_counts: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("tau", self.tau)
        if self.test_counts is not None:
            counts = class_counts_of(self.test_counts, "test_counts")
            check_n_entries("test_counts", counts, len(self.class_counts))
            object.__setattr__(self, "test_counts", counts)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return logits + self.per_class(self._shift(), logits)

    def _shift(self) -> list[float]:
        shift = _log_prior(self.class_counts)
        if self.test_counts is not None:
            test = _log_prior(self.test_counts)
            shift = [train - test for train, test in zip(shift, test, strict=True)]
        return [self.tau * s for s in shift]

    def per_class_terms(self) -> dict[str, tuple[float, ...]]:
        return {"shift": tuple(self._shift())}


def _log_prior(counts: Sequence[float]) -> list[float]:
    total = math.fsum(counts)
    return [math.log(count / total) for count in counts]


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
    """Cross-entropy of logits shifted by the log-frequency of each class.

        loss = mean_i -log softmax(z + tau log prior)_{y_i},   prior_k = n_k / sum n

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options.
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        tau: strength; 1 as in the paper. Other values are logit adjustment (Menon et al., 2021).

    Example:
        >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
        >>> balanced_softmax_loss(logits, target, class_counts=[990, 10])
        tensor(4.6052)
    """
    return pixel_loss(
        logits, target, penalty=penalty, adjustment=LogPrior(class_counts, tau), **options
    )


class BalancedSoftmaxLoss(PixelLoss):
    """Cross-entropy of logits shifted by the log-frequency of each class.

        loss = mean_i -log softmax(z + tau log prior)_{y_i},   prior_k = n_k / sum n

    On new data softmax(z) is the answer for classes of equal frequency. The method `probability`
    adds the prior again: natural probabilities.

    See `balanced_softmax_loss` and `pixel_loss` for the arguments. At call time: `mask`,
    `pixel_weight`, `class_count`, `instance`, `return_parts`.

    Args:
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        tau: strength; 1 as in the paper.

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
        super().__init__(penalty or CrossEntropy(), LogPrior(class_counts, tau), **options)
