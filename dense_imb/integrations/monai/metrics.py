"""Scores as MONAI metrics, for `IgniteMetricHandler` or your own loop."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from monai.metrics.metric import CumulativeIterationMetric, IterationMetric
from torch import Tensor

from dense_imb.base.checks import check_floating
from dense_imb.metrics import SegmentationScores


class _PooledMetric(CumulativeIterationMetric):
    """A score of each class over all pixels of all images, and its mean over the classes."""

    def __init__(
        self,
        n_classes: int = 2,
        *,
        include_background: bool = False,
        ignore_index: int | None = None,
        is_probability: bool = False,
    ) -> None:
        self.include_background = include_background
        self.is_probability = is_probability
        self._empty = SegmentationScores(n_classes, ignore_index=ignore_index)
        super().__init__()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()  # type: ignore[no-untyped-call]
        self.scores = copy.deepcopy(self._empty)
        self._total: SegmentationScores | None = None  # over all processes
        self._low, self._high, self._is_between = math.inf, -math.inf, False
        self._is_graded = False  # whether a value other than 0 and 1 was met

    def __call__(self, y_pred: Any, y: Any = None, **options: Any) -> Any:
        """Count a batch, (B, C, *spatial), or a list of (C, *spatial)."""
        # the one of Cumulative would keep every image
        return IterationMetric.__call__(self, y_pred, y, **options)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **options: Any) -> Tensor:
        if y is None:
            raise ValueError("Expected a target `y` to score `y_pred` against, got none.")
        self.scores.update(self._logits(y_pred), y, mask=options.get("mask"))
        self._total = None
        return y_pred.new_empty((len(y_pred), 0))  # a pooled score has no part for each image

    def _logits(self, y_pred: Tensor) -> Tensor:
        self._check_scores(y_pred)
        low, high = (float(bound) for bound in torch.aminmax(y_pred))
        self._is_graded |= not bool(((y_pred == 0) | (y_pred == 1)).all())
        if not self.is_probability:
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._is_between |= bool(((y_pred > 0) & (y_pred < 1)).any())
            return y_pred
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"Expected `y_pred` between 0 and 1 with is_probability=True, got {low:g} to "
                f"{high:g}; leave it out for logits."
            )
        # 0 and 1 become infinite, and rank last and first
        wide = y_pred.double()
        return torch.logit(wide) if y_pred.shape[1] == 1 else wide.log()

    def _check_scores(self, y_pred: Tensor) -> None:
        """Refuse labels in place of logits, as argmax or swapped arguments leave them."""
        wanted = "probabilities" if self.is_probability else "logits"
        n_classes, n_channels = self._empty.n_classes, y_pred.shape[1] if y_pred.dim() > 1 else 0
        is_complete = n_channels == n_classes or (n_channels == 1 and n_classes == 2)
        if y_pred.is_floating_point() and is_complete:
            return
        if y_pred.is_complex():
            check_floating("y_pred", y_pred)
        got = str(y_pred.dtype) if not y_pred.is_floating_point() else f"{n_channels} channels"
        raise ValueError(
            f"Expected `y_pred` to hold {wanted}, one channel for each of {n_classes} classes, got "
            f"{got} of the shape {tuple(y_pred.shape)}; pass them before any argmax or threshold, "
            "and `y_pred` before `y`."
        )

    def aggregate(self) -> Tensor:
        """Return the mean over the classes that have a score, over all processes."""
        known = [value for value in self._counted() if not math.isnan(value)]
        mean = math.fsum(known) / len(known) if known else math.nan
        return torch.tensor(mean, dtype=torch.float64)

    def get_buffer(self) -> Tensor:
        """Return the score of each class that counts, (1, n): MONAI's metric details."""
        return torch.tensor([self._counted()], dtype=torch.float64)

    def _counted(self) -> tuple[float, ...]:
        if self._total is None:
            if self._is_between and self._low >= 0 and self._high <= 1:
                warnings.warn(
                    "Every number of `y_pred` lies between 0 and 1: if they are probabilities, "
                    f"{type(self).__name__}(is_probability=True) is right; logits were expected.",
                    stacklevel=3,
                )
            self._total = copy.deepcopy(self.scores).reduce_over_processes()
        values = self._per_class(self._total)
        return values if self.include_background else values[1:]

    def _per_class(self, scores: SegmentationScores) -> tuple[float, ...]:
        raise NotImplementedError


class PixelAveragePrecision(_PooledMetric):
    """Mean over the classes of the average precision over all pixels of all images.

    Predictions are logits (B, C, *spatial), C = 1 if binary, or a list of (C, *spatial). Targets
    are class indices or one-hot. Only counts are kept, in constant memory.

    Args:
        n_classes: number of classes; 2 for logits with one channel.
        include_background: whether class 0 enters the mean.
        ignore_index: label of ignored pixels.
        is_probability: whether `y_pred` comes from a softmax or sigmoid.

    Example:
        >>> metric = PixelAveragePrecision()
        >>> _ = metric(torch.tensor([[[2.0, 1.0, -1.0, -3.0]]]), torch.tensor([[[1, 0, 1, 0]]]))
        >>> round(metric.aggregate().item(), 4)
        0.8333
    """

    def _per_class(self, scores: SegmentationScores) -> tuple[float, ...]:
        if not self._is_graded and int(scores.confusion.sum()) > 0:
            warnings.warn(
                "Every number of `y_pred` is 0 or 1, as after an argmax or a threshold: average "
                "precision ranks pixels, pass the logits or probabilities.",
                stacklevel=4,
            )
        return scores.average_precision()


class PixelIoU(_PooledMetric):
    """Mean over the classes of TP / (TP + FP + FN), summed over all images first.

    See `PixelAveragePrecision` for the arguments.

    Example:
        >>> metric = PixelIoU()
        >>> _ = metric(torch.tensor([[[2.0, 1.0, -1.0, -3.0]]]), torch.tensor([[[1, 0, 1, 0]]]))
        >>> round(metric.aggregate().item(), 4)
        0.3333
    """

    def _per_class(self, scores: SegmentationScores) -> tuple[float, ...]:
        return scores.iou()


class PixelDice(_PooledMetric):
    """Mean over the classes of 2 TP / (2 TP + FP + FN), summed over all images first.

    See `PixelAveragePrecision` for the arguments.

    Example:
        >>> metric = PixelDice()
        >>> _ = metric(torch.tensor([[[2.0, 1.0, -1.0, -3.0]]]), torch.tensor([[[1, 0, 1, 0]]]))
        >>> metric.aggregate().item()
        0.5
    """

    def _per_class(self, scores: SegmentationScores) -> tuple[float, ...]:
        return scores.dice()
