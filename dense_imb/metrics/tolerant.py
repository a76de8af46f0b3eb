"""F1 with a tolerance in pixels, for thin objects such as cracks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape, readable
from dense_imb.metrics._checks import checked_score
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.histogram import ScoreHistogram, kept_at_each_edge, last_argmax


class TolerantCurve(NamedTuple):
    """Precision, recall and F1 at every threshold, (n_bins + 1,) float64 each.

    Example:
        >>> import torch
        >>> from dense_imb.metrics import TolerantF1
        >>> scores = TolerantF1(tolerance=2, n_bins=4)
        >>> probability, truth = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.bool)
        >>> probability[0, 4], truth[0, 5] = 0.8, True  # a crack, and one drawn a pixel below
        >>> scores.update(probability, truth)
        >>> scores.curve().recall  # of a TolerantCurve: complete up to a threshold of 3/4
        tensor([1., 1., 1., 0., 0.], dtype=torch.float64)
    """

    threshold: Tensor  # rising: from all pixels predicted to none
    precision: Tensor  # NaN where nothing is predicted
    recall: Tensor
    f1: Tensor

    def __repr__(self) -> str:
        return f"TolerantCurve({len(self.threshold)} thresholds)"


class TolerantPoint(NamedTuple):
    """Precision, recall and F1 of a data set at one threshold.

    Example:
        >>> import torch
        >>> from dense_imb.metrics import TolerantF1
        >>> scores = TolerantF1(tolerance=2)
        >>> probability, truth = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.bool)
        >>> probability[0, 4], truth[0, 5] = 0.75, True  # a crack, and one drawn a pixel below
        >>> scores.update(probability, truth)
        >>> point = scores.best()  # a TolerantPoint
        >>> point.precision, point.recall, point.f1
        (1.0, 1.0, 1.0)
    """

    threshold: float
    precision: float
    recall: float
    f1: float


class TolerantF1(StreamingCounts):
    """Precision, recall and F1 with a tolerance in pixels, for every threshold of the score.

        precision = predicted pixels with a true pixel within the tolerance / predicted pixels
        recall    = true pixels with a predicted pixel within the tolerance / true pixels
        F1        = 2 precision recall / (precision + recall)

    A pixel is predicted if score >= threshold. Distances are Euclidean, and pixels are summed
    over all images. One true pixel can match several predicted pixels, and the reverse. `best`
    uses one threshold for the data set (ODS in the literature), `f1_per_image` the best threshold
    of each image (OIS).

    One pass gives all thresholds. A true pixel is detected at threshold t if the largest score
    within the tolerance is at least t. A predicted pixel is correct if it lies in the dilated
    truth, for any t. Thresholds are the edges of a `ScoreHistogram`, so the scores are exact.

    Args:
        tolerance: largest distance in pixels; 0 gives the usual F1.
        scale: "probability" for scores in [0, 1], "logit" for any real scores.
        n_bins: number of bins of the histograms, at least 3.

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
        # score of every pixel; signal are the pixels near a true pixel
        self._predicted = ScoreHistogram(n_bins, scale=scale)
        # largest score near each true pixel
        self._detected = ScoreHistogram(n_bins, scale=scale)
        # sum of the best F1 of images, number of images with true pixels
        self._per_image = torch.zeros(2, dtype=torch.float64)

    def _settings(self) -> dict[str, Any]:
        return {
            "tolerance": self.tolerance, "scale": self.scale, "n_bins": self._predicted.n_bins,
        }  # fmt: skip

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._predicted._counts, self._detected._counts, self._per_image)

    def update(self, score: Tensor, is_true: Tensor, *, mask: Tensor | None = None) -> None:
        """Count a batch of images.

        Args:
            score: (B, *spatial), probability or logit of the object.
            is_true: bool, same shape.
            mask: bool, same shape, False for pixels to leave out: neither predicted nor true.
        """
        score, is_true, mask = readable(score=score, is_true=is_true, mask=mask)
        values = checked_score(score, self.scale, "is_true", is_true)
        check_same_shape("is_true", is_true, "score", score)
        if is_true.dtype != torch.bool:
            raise TypeError(f"Expected `is_true` to be bool, got {is_true.dtype}; pass label > 0.")
        if values.dim() < 2:
            raise ValueError(
                f"Expected `score` in the shape (B, *spatial), got {tuple(values.shape)}; "
                "call .unsqueeze(0) on a single image."
            )
        valid = torch.ones_like(is_true) if mask is None else mask
        check_same_shape("mask", valid, "score", score)
        valid = valid.bool().to(values.device)
        is_true = is_true.to(values.device) & valid
        for image, truth, part in zip(values, is_true, valid, strict=True):
            before = [counts.clone() for counts in self._tensors()[:2]]
            best_near, is_near = self._around(image, truth, part)
            self._predicted.update(image[part], is_near[part])
            self._detected.update(best_near, torch.ones_like(best_near, dtype=torch.bool))
            if len(best_near):
                image_counts = map(torch.sub, self._tensors()[:2], before)
                f1 = float(self._curve(*image_counts).f1.max())
                self._per_image += torch.tensor([f1, 1.0], dtype=torch.float64)

    def _around(self, score: Tensor, is_true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best score near each true pixel, and whether pixels are near a true one.

        Returns:
            (n_true,) scores, and bool in the shape of `score`.
        """
        reach = int(self.tolerance)
        pad = (reach,) * (2 * score.dim())
        # with a margin around the image, no step from a pixel ends in the next row
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

    def _curve(self, predicted: Tensor, detected: Tensor) -> TolerantCurve:
        wrong, right = kept_at_each_edge(predicted).double()
        n_detected = kept_at_each_edge(detected)[1].double()
        precision, recall = right / (right + wrong), n_detected / n_detected[0]
        f1 = 2 * precision * recall / (precision + recall)
        # without a correct pixel the F1 is 0, not 0 / 0
        f1 = torch.where((right == 0) & (n_detected[0] > 0), 0.0, f1)
        return TolerantCurve(self._predicted._thresholds.clone(), precision, recall, f1)

    def curve(self) -> TolerantCurve:
        """Return precision, recall and F1 at every threshold."""
        return self._curve(self._predicted._counts, self._detected._counts)

    def best(self) -> TolerantPoint:
        """Return the point of the largest F1, at its highest threshold; NaN without truth."""
        curve = self.curve()
        if self._detected.n_signal == 0:
            return TolerantPoint(*[math.nan] * 4)
        return _point(curve, last_argmax(curve.f1))

    def at(self, threshold: float) -> TolerantPoint:
        """Return the point of the highest bin edge that is not above `threshold`."""
        return _point(self.curve(), self._predicted.edge_below(threshold))

    def f1_per_image(self) -> float:
        """Return the mean over images with true pixels of the best F1 of each image."""
        return ratio(*self._per_image)

    def scores(self) -> dict[str, float]:
        """Return the numbers of `best` and `f1_per_image` by name."""
        return {**self.best()._asdict(), "f1_per_image": self.f1_per_image()}

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        best = self.best()
        return {"true pixels": self._detected.n_signal}, {
            "best F1": best.f1,
            "threshold": best.threshold,
            "tolerance": self.tolerance,
        }


def _point(curve: TolerantCurve, index: int) -> TolerantPoint:
    return TolerantPoint(*(float(values[index]) for values in curve))
