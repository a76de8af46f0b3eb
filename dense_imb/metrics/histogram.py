"""The histogram of a score, for signal and for noise: every threshold's scores from one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice, check_same_shape
from dense_imb.metrics._counts import StreamingCounts, share
from dense_imb.metrics.operating_point import SCALES, OperatingPoint, checked_score

LIMIT = 20.0  # of the logit; beyond lie the two outermost bins. float32 probabilities end at 16.6


class Curve(NamedTuple):
    """What each threshold does, from keeping all to nothing: a ROC is (1 - removal, retention)."""

    threshold: Tensor  # (n_bins + 1,), rising; as all of them float64
    retention: Tensor
    removal: Tensor
    purity: Tensor  # NaN where nothing is kept


class ScoreHistogram(StreamingCounts):
    """Two count vectors over the logit of the score: what ranks well, and where to cut.

    What scores at least the threshold is kept, and ties are kept or rejected together:

        retention = kept signal / signal
        removal   = rejected noise / noise
        purity    = kept signal / kept

    A threshold is always the lower edge of a bin, so what is said about it is exact, on raw scores
    too. Only its choice is as coarse as a bin (0.04 in the logit): all scores in one bin are ties.
    AUC is then within half the chance that a signal and a noise score share a bin.

    Args:
        n_bins: at least 3; an even number puts an edge at the logit 0.
        scale: "probability" for scores in [0, 1], "logit" for any real ones. Logits beyond +-20
            are ties.

    Example:
        >>> histogram = ScoreHistogram()
        >>> is_signal = torch.tensor([False, False, True, False, True])
        >>> histogram.update(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9]), is_signal)
        >>> round(histogram.auc(), 4), round(histogram.average_precision(), 4)
        (0.8333, 0.8333)
        >>> point = histogram.operating_point(retention=0.97)
        >>> round(point.threshold, 1), point.retention, round(point.removal, 4), point.purity
        (0.3, 1.0, 0.6667, 0.6666666666666666)
    """

    def __init__(self, n_bins: int = 1000, *, scale: str = "probability") -> None:
        check_at_least("n_bins", n_bins, 3)
        check_choice("scale", scale, SCALES)
        self.n_bins = n_bins
        self.scale = scale
        self._counts = torch.zeros(2, n_bins, dtype=torch.int64)  # noise, signal
        # from the middle, so that the logit 0 is met exactly
        steps = torch.arange(n_bins - 1, dtype=torch.float64) - (n_bins - 2) / 2
        edges = steps * (2 * LIMIT / (n_bins - 2))
        is_logit = scale == "logit"
        self._edges = edges if is_logit else edges.sigmoid()
        ends = torch.tensor([-torch.inf if is_logit else 0.0, torch.inf], dtype=torch.float64)
        self._thresholds = torch.cat([ends[:1], self._edges, ends[1:]])  # (n_bins + 1,)

    def _settings(self) -> dict[str, Any]:
        return {"n_bins": self.n_bins, "scale": self.scale}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts,)

    def update(self, score: Tensor, is_signal: Tensor) -> None:
        """Count a batch: scores of any shape, and a bool for each."""
        values = checked_score(score, self.scale)
        check_same_shape("is_signal", is_signal, "score", score)
        if is_signal.dtype != torch.bool:
            raise TypeError(
                f"Expected `is_signal` to be bool, got {is_signal.dtype}; pass label > 0."
            )
        is_signal = is_signal.to(values.device)
        bins = torch.bucketize(values.contiguous(), self._edges.to(values.device), right=True)
        counted = torch.bincount(
            (bins + self.n_bins * is_signal).reshape(-1), minlength=2 * self.n_bins
        )
        self._counts += counted.view(2, self.n_bins).cpu()

    @property
    def n_noise(self) -> int:
        """Number of noise scores."""
        return int(self._counts[0].sum())

    @property
    def n_signal(self) -> int:
        """Number of signal scores."""
        return int(self._counts[1].sum())

    def _kept(self) -> Tensor:
        """Noise and signal at or above each threshold, (2, n_bins + 1) int64."""
        return kept_at_each_edge(self._counts)

    def curve(self) -> Curve:
        """Return retention, removal and purity at every threshold there is."""
        noise, signal = self._kept().double()
        return Curve(
            self._thresholds.clone(),
            signal / signal[0],
            (noise[0] - noise) / noise[0],
            signal / (signal + noise),
        )

    def auc(self) -> float:
        """Return the chance that signal scores above noise, ties half: the area under the ROC."""
        noise, signal = self._counts.double()
        above = self._kept()[1, 1:].double()
        return share((noise * (above + signal / 2)).sum(), noise.sum() * signal.sum())

    def average_precision(self) -> float:
        """Return the mean, over the signal, of the purity at each one's own score."""
        noise, signal = self._kept()[:, :-1].double()
        purity = signal / (signal + noise).clamp(min=1)
        return share((self._counts[1] * purity).sum(), self.n_signal)

    def best_f1(self) -> tuple[float, float]:
        """Return the largest F1 and the highest threshold that has it; NaN without signal.

            F1 = 2 kept signal / (kept + signal),    the Dice coefficient at that threshold

        `at(threshold)` has its precision (purity) and recall (retention).

        Example:
            >>> histogram = ScoreHistogram(scale="logit")
            >>> score = torch.tensor([-3.0, -2.0, -1.0, 2.0])
            >>> histogram.update(score, torch.tensor([False, True, False, True]))
            >>> f1, threshold = histogram.best_f1()
            >>> round(f1, 4), round(threshold, 2), round(histogram.at(threshold).purity, 4)
            (0.8, -2.0, 0.6667)
        """
        if self.n_signal == 0:
            return float("nan"), float("nan")
        noise, signal = self._kept().double()
        f1 = 2 * signal / (signal + noise + self.n_signal)
        best = last_largest(f1)
        return float(f1[best]), float(self._thresholds[best])

    def recall_at_precision(self, precision: float) -> float:
        """Return the largest retention of a threshold whose purity is at least `precision`.

        0 where no threshold is that pure, NaN without signal. Never more than with thresholds
        inside the bins.
        """
        if not 0 < precision <= 1:
            raise ValueError(f"Expected `precision` above 0 and up to 1, got {precision}.")
        if self.n_signal == 0:
            return float("nan")
        noise, signal = self._kept().double()
        reaches = signal / (signal + noise) >= precision  # False where nothing is kept
        return share((signal * reaches).max(), self.n_signal)

    def calibration_error(self, n_bins: int = 15) -> float:
        """Return the expected calibration error of the score as the probability of signal.

            sum_b  n_b / n  |mean probability in b - share of signal in b|

        over `n_bins` bins of equal width in the probability, which is the score or, of logits,
        its sigmoid. Their edges lie on the nearest of the histogram's, and each score counts as
        the middle of its bin there: for 1000 bins that moves the error by 0.005 at most, half the
        widest bin. Most pixels of a rare class lie in the first bin: compare the error with the
        share of signal, not with 1.
        """
        check_at_least("n_bins", n_bins, 1)
        edges = self._edges if self.scale == "probability" else self._edges.sigmoid()
        ends = edges.new_tensor([0.0, 1.0])
        middle = torch.cat([ends[:1], edges]).add(torch.cat([edges, ends[1:]])) / 2
        noise, signal = self._counts.double()
        # what each bin has too much of probability, or too little
        excess = (noise + signal) * middle - signal
        wide = excess.new_zeros(n_bins).index_add_(0, (middle * n_bins).long(), excess)
        return share(wide.abs().sum(), self.n_signal + self.n_noise)

    def operating_point(self, retention: float = 0.97) -> OperatingPoint:
        """Return the highest threshold that keeps at least this share of the signal."""
        _check_retention(retention)
        if self.n_signal == 0:
            raise ValueError(
                "Expected signal to choose a threshold from, got none; "
                "choose it on validation data that has some."
            )
        # a correctly rounded quotient meets a decimal such as 0.97 exactly
        reaches = self._kept()[1].double() / self.n_signal >= retention
        return self._point(int(reaches.sum()) - 1)

    def at(self, threshold: float) -> OperatingPoint:
        """Return what the highest edge not above `threshold` does; its own threshold says which."""
        return self._point(self.edge_below(threshold))

    def edge_below(self, threshold: float) -> int:
        """Return the place, among the curve's thresholds, of the highest not above this one."""
        if threshold != threshold:
            raise ValueError("Expected `threshold` to be a number, got nan.")
        return max(int((self._thresholds <= threshold).sum()) - 1, 0)

    def removal_at(self, retention: float) -> float:
        """Return the share of the noise rejected by the threshold `operating_point` chooses.

        Never more than with the exact threshold; less by no more than the noise in one bin.
        """
        _check_retention(retention)
        return self.operating_point(retention).removal if self.n_signal else float("nan")

    def _point(self, index: int) -> OperatingPoint:
        noise, signal = self._kept()[:, index].tolist()
        return OperatingPoint(
            threshold=float(self._thresholds[index]),
            scale=self.scale,
            retention=share(signal, self.n_signal),
            removal=share(self.n_noise - noise, self.n_noise),
            purity=share(signal, signal + noise),
            n_signal=self.n_signal,
            n_noise=self.n_noise,
        )


def kept_at_each_edge(counts: Tensor) -> Tensor:
    """(2, n_bins) counts added up from the top, (2, n_bins + 1): all of them first, then none."""
    kept = counts.flip(1).cumsum(1).flip(1)
    return torch.cat([kept, kept.new_zeros(2, 1)], 1)


def last_largest(values: Tensor) -> int:
    """Place of the largest value, of equal ones the last."""
    return len(values) - 1 - int(values.flip(0).argmax())


def _check_retention(retention: float) -> None:
    if not 0 < retention <= 1:
        raise ValueError(f"Expected `retention` above 0 and up to 1, got {retention}.")
