"""F1 of thin objects, a crack say: a pixel is right if the truth lies within a few pixels of it."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape
from dense_imb.metrics._counts import StreamingCounts, share
from dense_imb.metrics.histogram import ScoreHistogram, kept_at_each_edge, last_largest
from dense_imb.metrics.operating_point import checked_score


class TolerantCurve(NamedTuple):
    """What each threshold does, from predicting all pixels to none."""

    threshold: Tensor  # (n_bins + 1,), rising; as all of them float64
    precision: Tensor  # NaN where nothing is predicted
    recall: Tensor
    f1: Tensor


class TolerantPoint(NamedTuple):
    """One threshold for a whole data set, and what it does there."""

    threshold: float
    precision: float
    recall: float
    f1: float


class TolerantF1(StreamingCounts):
    """Precision, recall and F1 with a tolerance in pixels, for every threshold of the score.

        precision = predicted pixels with a true one within the tolerance / predicted pixels
        recall    = true pixels with a predicted one within the tolerance / true pixels
        F1        = 2 precision recall / (precision + recall)

    where predicted means score >= threshold, distance is Euclidean, and pixels are summed over
    all images first. One pixel may excuse several. `best` takes one threshold for the data set
    (the literature's ODS), `f1_per_image` each image's own (OIS).

    All thresholds come from one pass: a true pixel is found at t if the largest score within the
    tolerance of it is at least t, and a predicted one is right if it lies in the widened truth,
    whatever t. Both are histograms, so thresholds are `ScoreHistogram`'s edges, and exact.

    Args:
        tolerance: largest distance in pixels; 0 gives the plain F1.
        scale: "probability" for scores in [0, 1], "logit" for any real ones.
        n_bins: of the histograms, at least 3.

    Example:
        >>> scores = TolerantF1(tolerance=1)
        >>> probability = torch.tensor([[[0.1, 0.9, 0.2, 0.1, 0.6]]])
        >>> scores.update(probability, torch.tensor([[[1, 0, 0, 0, 0]]]).bool())
        >>> best = scores.best()
        >>> round(best.threshold, 1), best.precision, best.recall, best.f1
        (0.9, 1.0, 1.0, 1.0)
        >>> scores.at(0.5).precision
        0.5
    """

    def __init__(
        self, tolerance: float = 2.0, *, scale: str = "probability", n_bins: int = 1000
    ) -> None:
        check_at_least("tolerance", tolerance, 0.0)
        if tolerance == math.inf:
            raise ValueError("Expected `tolerance` to be finite, got inf.")
        self.tolerance = tolerance
        self.scale = scale
        self._predicted = ScoreHistogram(n_bins, scale=scale)  # signal: near a true pixel
        self._found = ScoreHistogram(n_bins, scale=scale)  # of true pixels, the best score near
        self._per_image = torch.zeros(2, dtype=torch.float64)  # best F1 summed, images with truth

    def _settings(self) -> dict[str, Any]:
        return {
            "tolerance": self.tolerance, "scale": self.scale, "n_bins": self._predicted.n_bins,
        }  # fmt: skip

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._predicted._counts, self._found._counts, self._per_image)

    def update(self, score: Tensor, is_true: Tensor, *, mask: Tensor | None = None) -> None:
        """Count images.

        Args:
            score: (B, *spatial), probabilities or logits of the object.
            is_true: bool, same shape.
            mask: same shape, False for pixels that are no one's: neither predicted nor true, and
                near to nothing.
        """
        values = checked_score(score, self.scale)
        check_same_shape("is_true", is_true, "score", score)
        if is_true.dtype != torch.bool:
            raise TypeError(f"Expected `is_true` to be bool, got {is_true.dtype}; pass label > 0.")
        if values.dim() < 2:
            raise ValueError(
                f"Expected `score` in the shape (B, *spatial), got {tuple(values.shape)}; "
                "unsqueeze(0) an image."
            )
        valid = torch.ones_like(is_true) if mask is None else mask
        check_same_shape("mask", valid, "score", score)
        valid = valid.bool().to(values.device)
        is_true = is_true.to(values.device) & valid
        for image, truth, part in zip(values, is_true, valid, strict=True):
            before = [counts.clone() for counts in self._tensors()[:2]]
            best_near, is_near = self._around(image, truth, part)
            self._predicted.update(image[part], is_near[part])
            self._found.update(best_near, torch.ones_like(best_near, dtype=torch.bool))
            if len(best_near):
                of_image = map(torch.sub, self._tensors()[:2], before)
                f1 = float(self._curve(*of_image).f1.max())
                self._per_image += torch.tensor([f1, 1.0], dtype=torch.float64)

    def _around(self, score: Tensor, is_true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The best score near each true pixel, (n_true,), and whether a true pixel is near each."""
        reach = int(self.tolerance)
        pad = (reach,) * (2 * score.dim())
        # a margin around the image, so that no step from a pixel ends in the next row
        margin = torch.nn.functional.pad(
            score.masked_fill(~valid, -torch.inf), pad, value=-torch.inf
        ).contiguous()
        true_pixel = torch.nn.functional.pad(is_true, pad).flatten().nonzero()[:, 0]
        flat, is_near = margin.flatten(), torch.zeros_like(margin, dtype=torch.bool).flatten()
        best = flat[true_pixel]
        for step in product(range(-reach, reach + 1), repeat=score.dim()):
            if math.hypot(*step) <= self.tolerance:
                neighbour = true_pixel + sum(
                    n * stride for n, stride in zip(step, margin.stride(), strict=True)
                )
                torch.maximum(best, flat[neighbour], out=best)
                is_near[neighbour] = True
        inside = tuple(slice(reach, reach + size) for size in score.shape)
        return best, is_near.view_as(margin)[inside]

    def _curve(self, predicted: Tensor, found: Tensor) -> TolerantCurve:
        wrong, right = kept_at_each_edge(predicted).double()
        n_found = kept_at_each_edge(found)[1].double()
        precision, recall = right / (right + wrong), n_found / n_found[0]
        f1 = 2 * precision * recall / (precision + recall)
        f1 = torch.where((right == 0) & (n_found[0] > 0), 0.0, f1)  # nothing right is no 0 / 0
        return TolerantCurve(self._predicted._thresholds.clone(), precision, recall, f1)

    def curve(self) -> TolerantCurve:
        """Return precision, recall and F1 at every threshold there is."""
        return self._curve(self._predicted._counts, self._found._counts)

    def best(self) -> TolerantPoint:
        """Return the threshold of the largest F1, of equal ones the highest; NaN without truth."""
        curve = self.curve()
        if self._found.n_signal == 0:
            return TolerantPoint(*[math.nan] * 4)
        return _point(curve, last_largest(curve.f1))

    def at(self, threshold: float) -> TolerantPoint:
        """Return what the highest edge not above `threshold` does; its own threshold says which."""
        return _point(self.curve(), self._predicted.edge_below(threshold))

    def f1_per_image(self) -> float:
        """Return the mean of each image's best F1, over the images with true pixels."""
        return share(*self._per_image)

    def scores(self) -> dict[str, float]:
        """Return the best point by name, and the mean over images."""
        return {**self.best()._asdict(), "f1_per_image": self.f1_per_image()}


def _point(curve: TolerantCurve, index: int) -> TolerantPoint:
    return TolerantPoint(*(float(values[index]) for values in curve))
