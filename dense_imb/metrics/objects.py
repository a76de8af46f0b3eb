"""Recall of objects against the number of false objects, at a list of thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape, readable
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.segmentation import _components

N_THRESHOLDS = 32  # each costs one search for connected components in each image
MIN_PURITY = 0.1


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
        thresholds: thresholds of the score, see `KeptFractions.thresholds`.
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
        score, is_true, mask = readable(score=score, is_true=is_true, mask=mask)
        check_same_shape("is_true", is_true, "score", score)
        valid = torch.ones_like(is_true, dtype=torch.bool) if mask is None else mask.bool()
        check_same_shape("mask", valid, "score", score)
        score, valid = score.detach().cpu(), valid.cpu()
        _refuse_nan(score[valid])
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


def _refuse_nan(score: Tensor) -> None:
    if bool(score.isnan().any()):
        raise ValueError("Expected `score` without NaN, got one; look for it in the network.")


class KeptFractions(StreamingCounts):
    """Fractions of the pixels that thresholds keep, for scores of any range.

    Scores are counted by the first 16 of their 32 bits, so thresholds are exact to about 1 %.
    Losses of regions may drive logits far beyond the range of a `ScoreHistogram`.

    Example:
        >>> fractions = KeptFractions()
        >>> fractions.update(torch.tensor([-3.0, 0.5, 40.0, 80.0]))
        >>> fractions.thresholds(2, highest=0.25)
        (0.50390625, 40.25)
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(1 << 16, dtype=torch.int64)

    def _settings(self) -> dict[str, Any]:
        return {}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts,)

    def update(self, score: Tensor, *, mask: Tensor | None = None) -> None:
        """Count scores of any shape; `mask` is False for those to leave out."""
        score, mask = readable(score=score, mask=mask)
        score = score.detach().cpu().float()
        score = score.reshape(-1) if mask is None else score[mask.bool().cpu()]
        _refuse_nan(score)
        first = (score.view(torch.int32) >> 16) & 0xFFFF
        # negative numbers have the sign bit, and larger bits for smaller numbers
        place = torch.where(first < 0x8000, first + 0x8000, 0xFFFF - first)
        self._counts += torch.bincount(place.long(), minlength=1 << 16)

    def thresholds(
        self, n: int = N_THRESHOLDS, *, lowest: float = 0.5, highest: float = 1e-6
    ) -> tuple[float, ...]:
        """Return rising thresholds that keep at most certain fractions of the scores.

        Args:
            n: number of thresholds; some may be equal.
            lowest, highest: fractions that the lowest and the highest threshold keep; those in
                between have equal ratios.
        """
        check_at_least("n", n, 2)
        kept = self._counts.flip(0).cumsum(0).flip(0).double() / max(int(self._counts.sum()), 1)
        wanted = torch.logspace(math.log10(lowest), math.log10(highest), n, dtype=kept.dtype)
        return tuple(_lower_edge(int((kept > share + 1e-12).sum())) for share in wanted)

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        return {"scores": int(self._counts.sum())}, {}


def _lower_edge(place: int) -> float:
    """Return the smallest score that is counted at a place; infinity behind the last one."""
    first = place - 0x8000 if place >= 0x8000 else 0xFFFF - place
    if place > 0xFFFF or first & 0x7F80 == 0x7F80:  # exponents of infinity and NaN
        return math.inf if place >= 0x8000 else -math.inf
    bits = first << 16 if place >= 0x8000 else first << 16 | 0xFFFF
    return float(torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32))
