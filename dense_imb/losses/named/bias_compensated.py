"""Bias-compensated cross-entropy of pixels, with its schedule back to plain cross-entropy."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, values_are_readable
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import CrossEntropy, Penalty, check_penalty
from dense_imb.losses.core.pixel_loss import ClassificationLoss, mean_of_pixels, penalty_of
from dense_imb.losses.core.target import PixelTarget
from dense_imb.losses.named.balanced_softmax import LogPrior


@shows_options(PixelOptions)
def bias_compensated_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: Any,
    test_counts: Any = None,
    progress: float = 0.0,
    penalty: Penalty | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy of bias-compensated logits, which fades into plain cross-entropy.

        loss = mean_i (1 - a) CE(z + log prior - log test prior) + a CE(z),   a = progress^2

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options.
        class_counts: pixels of each class in the training data, or a `ClassStatistics`.
        test_counts: class counts of the data to predict; equal classes by default.
        progress: fraction of the training that is done, epoch / max_epochs, from 0 to 1.

    Example:
        >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
        >>> bias_compensated_loss(logits, target, class_counts=[3, 1])  # log 4
        tensor(1.3863)
        >>> bias_compensated_loss(logits, target, class_counts=[3, 1], progress=1.0)  # log 2
        tensor(0.6931)
    """
    check_progress(progress)
    compensation = _compensation(class_counts, test_counts)
    check_penalty(penalty)

    def error(pixels: PixelTarget) -> Tensor:
        return _mixture(penalty, compensation, progress, pixels)

    return mean_of_pixels(error, logits, target, **options)


def check_progress(progress: float) -> None:
    """Refuse a progress outside 0 .. 1."""
    check_at_least("progress", progress, 0)
    if progress > 1:
        raise ValueError(f"Expected `progress` between 0 and 1, got {progress}.")


def _compensation(class_counts: Any, test_counts: Any) -> LogPrior:
    compensation = LogPrior(class_counts)
    n_classes = len(compensation.class_counts)
    return LogPrior(class_counts, 1.0, [1.0] * n_classes if test_counts is None else test_counts)


def _mixture(
    penalty: Penalty | None, compensation: LogPrior, progress: float | Tensor, pixels: PixelTarget
) -> Tensor:
    is_known = isinstance(progress, (int, float))  # then a term of weight 0 is skipped
    if is_known and progress == 1:
        return penalty_of(penalty, None, pixels)
    compensated = penalty_of(penalty, compensation, pixels)
    if is_known and progress == 0:
        return compensated
    share = progress**2
    return (1 - share) * compensated + share * penalty_of(penalty, None, pixels)


class BiasCompensatedLoss(ClassificationLoss):
    """Cross-entropy of bias-compensated logits, which fades into plain cross-entropy.

        loss = mean_i (1 - a) CE(z + log prior - log test prior) + a CE(z),   a = progress^2

    The training loop sets the progress, `loss.set_progress(epoch / max_epochs)`; the state dict
    holds it. See `bias_compensated_loss` and `pixel_loss` for the arguments. At call time:
    `mask`, `pixel_weight`, `class_count`, `instance`, `return_parts`.

    Args:
        class_counts: pixels of each class in the training data, or a `ClassStatistics`.
        test_counts: class counts of the data to predict; equal classes by default.

    Example:
        >>> loss = BiasCompensatedLoss([3, 1])
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(1.3863)
        >>> loss.set_progress(1.0)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.6931)
    """

    shown = ("compensation", "penalty", *ClassificationLoss.shown)
    progress: Tensor

    @shows_options(MeanOptions)
    def __init__(
        self,
        class_counts: Any,
        test_counts: Any = None,
        *,
        penalty: Penalty | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(**options)
        self.compensation = _compensation(class_counts, test_counts)
        check_penalty(penalty)
        self.penalty = penalty or CrossEntropy()
        self.register_buffer("progress", torch.zeros((), dtype=torch.float32))

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, 0 to 1."""
        check_progress(progress)
        self.progress.fill_(progress)

    def natural(self, n_classes: int, class_share: Any = None) -> Natural:
        """Return the map to natural logits at the current progress."""
        plain = float(self.progress) ** 2
        if 0 < plain < 1 and not isinstance(self.penalty, CrossEntropy):
            raise self.refuse_probability(
                "between the ends of its schedule only cross-entropy has an inverse; set the "
                "progress to 1"
            )
        adjustment = None if plain == 1 else self.compensation
        return self._natural(n_classes, class_share, self.penalty, adjustment, plain)

    def error(self, pixels: PixelTarget) -> Tensor:
        progress: float | Tensor
        if values_are_readable(self.progress):
            progress = float(self.progress)
        else:  # copied to a GPU, a number on the CPU would make the host wait
            progress = self.progress.to(pixels.logits.device)
        return _mixture(self.penalty, self.compensation, progress, pixels)
