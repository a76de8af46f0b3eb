"""Recall of objects against the number of false objects, at a list of thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape, check_tensor
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.histogram import ScoreHistogram
from dense_imb.metrics.segmentation import _components

N_THRESHOLDS = 32  # each costs one search for connected components in each image
MIN_PURITY = 0.1
_KEPT = (1e-6, 0.5)  # kept fractions of the pixels at the highest and the lowest threshold


class ObjectPoint(NamedTuple):
    """Recall and false objects at one threshold."""

    threshold: float
    recall: float
    false_objects: float  # mean number an image


class ObjectCurve(StreamingCounts):
    """Recall of objects and false objects an image, at each of a list of thresholds.

        recall        = found true objects / true objects
        false objects = false predicted objects / images

    Objects are connected components of the pixels with score >= threshold, with pixels that touch
    at a corner connected. A predicted object is false if less than `min_purity` of its pixels are
    true: otherwise an answer that calls every pixel true would find all objects at no false one. A
    true object is found if a predicted object that is not false covers at least one of its pixels.
    Needs SciPy.

    Args:
        thresholds: thresholds of the score, see `object_thresholds`.
        min_purity: smallest fraction of true pixels in a predicted object that is not false.

    Example:
        >>> curve = ObjectCurve([0.0, 2.0])
        >>> score = torch.tensor([[[3.0, 3.0, -9.0, 1.0, -9.0, 1.0]]])
        >>> curve.update(score, torch.tensor([[[1, 1, 0, 0, 0, 1]]]).bool())
        >>> curve.at(0.0), curve.at(2.0).recall
        (ObjectPoint(threshold=0.0, recall=1.0, false_objects=1.0), 0.5)
    """

    def __init__(self, thresholds: Sequence[float], *, min_purity: float = MIN_PURITY) -> None:
        check_at_least("min_purity", min_purity, 0.0)
        if not thresholds or any(math.isnan(one) for one in thresholds):
            raise ValueError(f"Expected `thresholds` of numbers, got {list(thresholds)}.")
        self.thresholds = tuple(sorted(map(float, thresholds)))
        self.min_purity = min_purity
        # found true objects and false predicted objects at each threshold
        self._counts = torch.zeros(len(self.thresholds), 2, dtype=torch.int64)
        self._totals = torch.zeros(2, dtype=torch.int64)  # true objects, images

    def _settings(self) -> dict[str, Any]:
        return {"thresholds": list(self.thresholds), "min_purity": self.min_purity}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts, self._totals)

    def update(self, score: Tensor, is_true: Tensor, *, mask: Tensor | None = None) -> None:
        """Count a batch of images.

        Args:
            score: (B, *spatial), larger for pixels of objects.
            is_true: bool, same shape.
            mask: bool, same shape, False for pixels to leave out.
        """
        check_tensor("score", score)
        check_same_shape("is_true", is_true, "score", score)
        valid = torch.ones_like(is_true, dtype=torch.bool) if mask is None else mask.bool()
        check_same_shape("mask", valid, "score", score)
        score, valid = score.detach().cpu(), valid.cpu()
        is_true = is_true.bool().cpu() & valid
        true_object, n_true = _components(is_true)
        self._totals += torch.tensor([n_true, len(score)])
        n_before, row = -1, torch.zeros(2, dtype=torch.int64)
        for k, threshold in enumerate(self.thresholds):
            is_called = (score >= threshold) & valid
            n_called = int(is_called.sum())
            if n_called != n_before:  # thresholds rise: the same number is the same pixels
                row = self._count(is_called, is_true, true_object, n_true)
                n_before = n_called
            self._counts[k] += row

    def _count(
        self, is_called: Tensor, is_true: Tensor, true_object: Tensor, n_true: int
    ) -> Tensor:
        """Return the numbers of found true objects and of false predicted objects."""
        called, n_called = _components(is_called)
        size = torch.bincount(called[is_called], minlength=n_called + 1)
        both = is_called & is_true
        overlap = torch.bincount(called[both], minlength=n_called + 1)
        is_real = (overlap > 0) & (overlap >= self.min_purity * size)
        covered = true_object[both & is_real[called]]
        n_found = int(torch.bincount(covered, minlength=n_true + 1)[1:].bool().sum())
        return torch.tensor([n_found, n_called - int(is_real[1:].sum())])

    @property
    def n_objects(self) -> int:
        """Number of true objects."""
        return int(self._totals[0])

    def points(self) -> tuple[ObjectPoint, ...]:
        """Return the point of each threshold, the lowest first; NaN without true objects."""
        n_true, n_images = self._totals.tolist()
        return tuple(
            ObjectPoint(threshold, ratio(n_found, n_true), ratio(n_false, n_images))
            for threshold, (n_found, n_false) in zip(
                self.thresholds, self._counts.tolist(), strict=True
            )
        )

    def at(self, threshold: float) -> ObjectPoint:
        """Return the point of one of the thresholds; nothing is predicted at infinity."""
        if threshold == math.inf:
            return ObjectPoint(threshold, ratio(0, self.n_objects), ratio(0, self._totals[1]))
        return self.points()[self.thresholds.index(threshold)]

    def threshold_at(self, false_objects: float) -> float:
        """Return the lowest threshold from which on no more false objects an image are made.

        All higher thresholds of the list keep to the number too. Infinity if the highest does not.
        """
        chosen = math.inf
        for point in reversed(self.points()):
            if point.false_objects > false_objects:
                break
            chosen = point.threshold
        return chosen

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        counts = {"objects": self.n_objects, "images": int(self._totals[1])}
        return counts, {"thresholds": len(self.thresholds)}


def object_thresholds(histogram: ScoreHistogram, n: int = N_THRESHOLDS) -> tuple[float, ...]:
    """Return thresholds that keep fractions of the pixels from one half down to a millionth.

    The fractions have equal ratios. Scores beyond the histogram's range share its last edge.

    Args:
        histogram: scores of the pixels.
        n: number of thresholds; some are equal where the scores lie in few bins.
    """
    check_at_least("n", n, 2)
    curve = histogram.curve()
    n_signal, n_noise = histogram.n_signal, histogram.n_noise
    removed = curve.removal.nan_to_num(1.0) * n_noise
    kept = curve.retention.nan_to_num(0.0) * n_signal + n_noise - removed
    kept = kept / max(n_signal + n_noise, 1)  # falls from 1 as the threshold rises
    wanted = torch.logspace(math.log10(_KEPT[1]), math.log10(_KEPT[0]), n, dtype=kept.dtype)
    place = [int((kept > share).sum()) for share in wanted]
    last = len(curve.threshold) - 1
    return tuple(float(curve.threshold[min(one, last)]) for one in place)
