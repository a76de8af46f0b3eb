"""Histograms of a score for signal and noise: one pass gives the results of every threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_choice,
    check_integral,
    check_same_shape,
    readable,
)
from dense_imb.base.refusals import Refused
from dense_imb.metrics._checks import checked_score
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.operating_point import SCALES, Aim, OperatingPoint
from dense_imb.metrics.unlabelled import expected_f1

FAKES_CURE = "add events without signal (dense-imb simulate FILE --signal 0 --noise 200 makes some)"
# the two outermost bins begin at logits of -20 and 20; float32 probabilities end at 16.6
LIMIT = 20.0


class Curve(NamedTuple):
    """Retention, removal and purity at every threshold, (n_bins + 1,) float64 each.

    The first threshold keeps everything and the last one nothing. The ROC curve is
    (1 - removal, retention), the precision-recall curve (retention, purity).

    Example:
        >>> import torch
        >>> from dense_imb.metrics import ScoreHistogram
        >>> histogram = ScoreHistogram()
        >>> histogram.update(torch.tensor([0.9, 0.6, 0.1]), torch.tensor([True, True, False]))
        >>> curve = histogram.curve()  # a Curve
        >>> curve.retention[[0, -1]].tolist(), curve.removal[[0, -1]].tolist()  # all kept, none
        ([1.0, 0.0], [0.0, 1.0])
    """

    threshold: Tensor  # rising
    retention: Tensor
    removal: Tensor
    purity: Tensor  # NaN where nothing is kept

    def __repr__(self) -> str:
        return f"Curve({len(self.threshold)} thresholds)"


class ScoreHistogram(StreamingCounts):
    """Counts of signal and noise over the logit of the score.

    Hits (or pixels) with score >= threshold are kept:

        retention = kept signal / signal        (recall, signal efficiency)
        removal   = rejected noise / noise      (specificity, background rejection)
        purity    = kept signal / kept          (precision)
        AUC       = P(s > n) + P(s = n) / 2     for a random signal score s and noise score n
        fakes     = kept noise / events         over events with noise and no signal

    Thresholds are lower edges of bins, so their retention, removal and purity are exact. Scores
    in one bin are ties: they are kept or rejected together. A bin is 0.04 wide in the logit. The
    error of the AUC is at most half the probability that s and n share a bin.

    Args:
        n_bins: number of bins, at least 3; an even number puts an edge at the logit 0.
        scale: "probability" for scores in [0, 1], "logit" for any real scores. Logits beyond
            +-20 are ties.

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
        self._fakes = torch.zeros(n_bins, dtype=torch.int64)  # noise of noise-only events
        self._n_noise_only = torch.zeros((), dtype=torch.int64)
        # counted from the middle, so that the logit 0 is an exact edge
        steps = torch.arange(n_bins - 1, dtype=torch.float64) - (n_bins - 2) / 2
        edges = steps * (2 * LIMIT / (n_bins - 2))
        is_logit = scale == "logit"
        self._edges = edges if is_logit else edges.sigmoid()
        ends = torch.tensor([-torch.inf if is_logit else 0.0, torch.inf], dtype=torch.float64)
        self._thresholds = torch.cat([ends[:1], self._edges, ends[1:]])  # (n_bins + 1,)

    _n_newer = 2

    def _settings(self) -> dict[str, Any]:
        return {"n_bins": self.n_bins, "scale": self.scale}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts, self._fakes, self._n_noise_only)

    def update(self, score: Tensor, is_signal: Tensor, *, event: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            score: scores of any shape.
            is_signal: bool, same shape.
            event: index of the event of each score, at least 0, same shape, to count the fakes;
                all scores of an event must come in one call. None counts no fakes.
        """
        score, is_signal, event = readable(score=score, is_signal=is_signal, event=event)
        values = checked_score(score, self.scale, "is_signal", is_signal)
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
        if event is not None:
            self._count_fakes(bins, is_signal, event)
        self._counts += counted.view(2, self.n_bins).cpu()

    def _count_fakes(self, bins: Tensor, is_signal: Tensor, event: Tensor) -> None:
        """Count the scores of events without signal; an event without scores counts nowhere."""
        check_same_shape("event", event, "is_signal", is_signal)
        check_integral("event", event)
        event = event.long()
        if event.numel() and int(event.min()) < 0:
            raise ValueError(f"Expected `event` of at least 0, got {int(event.min())}.")
        event, is_signal, bins = (t.to(bins.device).reshape(-1) for t in (event, is_signal, bins))
        if event.numel() and int(event.max()) >= event.numel():  # numbers of a whole data set
            event = torch.unique(event, return_inverse=True)[1]
        n_hits = torch.bincount(event)
        n_signal = torch.bincount(event[is_signal], minlength=len(n_hits))
        is_noise_only = (n_hits > 0) & (n_signal == 0)
        self._fakes += torch.bincount(bins[is_noise_only[event]], minlength=self.n_bins).cpu()
        self._n_noise_only += is_noise_only.sum().cpu()

    @property
    def counts(self) -> Tensor:
        """Number of noise and signal scores in each bin, (2, n_bins)."""
        return self._counts.clone()

    @property
    def n_noise(self) -> int:
        """Number of noise scores."""
        return int(self._counts[0].sum())

    @property
    def n_signal(self) -> int:
        """Number of signal scores."""
        return int(self._counts[1].sum())

    @property
    def n_noise_only(self) -> int:
        """Number of events with noise and no signal; 0 if `update` got no events."""
        return int(self._n_noise_only)

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        scores = {"AUC": self.auc(), "AP": self.average_precision()}
        return {"signal": self.n_signal, "noise": self.n_noise}, scores

    def _kept(self) -> Tensor:
        """Return the noise and the signal at or above each threshold, (2, n_bins + 1) int64."""
        return kept_at_each_edge(self._counts)

    def curve(self) -> Curve:
        """Return retention, removal and purity at every threshold."""
        noise, signal = self._kept().double()
        return Curve(
            self._thresholds.clone(),
            signal / signal[0],
            (noise[0] - noise) / noise[0],
            signal / (signal + noise),
        )

    def auc(self) -> float:
        """Return the area under the ROC curve."""
        noise, signal = self._counts.double()
        above = self._kept()[1, 1:].double()
        return ratio((noise * (above + signal / 2)).sum(), noise.sum() * signal.sum())

    def average_precision(self) -> float:
        """Return the average precision.

        AP = 1 / n_signal  sum over signal i of  purity(threshold = score_i)
        """
        noise, signal = self._kept()[:, :-1].double()
        purity = signal / (signal + noise).clamp(min=1)
        return ratio((self._counts[1] * purity).sum(), self.n_signal)

    def best_f1(self) -> tuple[float, float]:
        """Return the largest F1 and the highest threshold with it; NaN without signal.

            F1 = 2 kept signal / (kept + signal),    which is the Dice coefficient

        `at(threshold)` returns its purity (precision) and retention (recall).

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
        best = last_argmax(f1)
        return float(f1[best]), float(self._thresholds[best])

    def expected_best_f1(self) -> tuple[float, float]:
        """Return the largest F1 that the scores promise, and its threshold; no label is used.

        See `best_f1_threshold`. Scores must be calibrated probabilities, or their logits.
        """
        counts = self._counts.sum(0, keepdim=True)
        ends = self._edges if self.scale == "logit" else self._edges.logit()
        step = ends[1] - ends[0]
        middle = torch.cat([ends[:1] - step, ends]).add(step / 2).sigmoid()
        if int(counts.sum()) == 0:
            return math.nan, math.nan
        kept = kept_at_each_edge(counts)[0].double()
        f1 = expected_f1(kept, kept_at_each_edge(counts * middle)[0])
        best = last_argmax(f1)
        return float(f1[best]), float(self._thresholds[best])

    def recall_at_precision(self, precision: float) -> float:
        """Return the largest retention of all thresholds with purity >= `precision`.

        The result is 0 if there is no such threshold, and NaN without signal. Thresholds inside
        the bins could only give more.
        """
        if not 0 < precision <= 1:
            raise ValueError(f"Expected `precision` above 0 and up to 1, got {precision}.")
        if self.n_signal == 0:
            return float("nan")
        noise, signal = self._kept().double()
        reaches = signal / (signal + noise) >= precision  # False where nothing is kept
        return ratio((signal * reaches).max(), self.n_signal)

    def best_purity(self) -> float:
        """Return the largest purity of all thresholds; NaN without scores."""
        noise, signal = self._kept()[:, :-1].double()
        some = signal + noise > 0
        return float((signal / (signal + noise))[some].max()) if bool(some.any()) else math.nan

    def calibration_error(self, n_bins: int = 15) -> float:
        """Return the expected calibration error of the score as the probability of signal.

            ECE = sum_b  n_b / n  |mean probability in b - fraction of signal in b|

        The probability is the score, or its sigmoid if the scale is "logit". Each score counts as
        the middle of its bin in the histogram; with 1000 bins this changes the error by at most
        0.005. Most pixels of a rare class have a probability near 0, so compare the error with
        the fraction of signal, not with 1.

        Args:
            n_bins: number of bins b of equal width in the probability.
        """
        check_at_least("n_bins", n_bins, 1)
        edges = self._edges if self.scale == "probability" else self._edges.sigmoid()
        ends = edges.new_tensor([0.0, 1.0])
        middle = torch.cat([ends[:1], edges]).add(torch.cat([edges, ends[1:]])) / 2
        noise, signal = self._counts.double()
        # summed probability minus signal of each bin
        excess = (noise + signal) * middle - signal
        wide = excess.new_zeros(n_bins).index_add_(0, (middle * n_bins).long(), excess)
        return ratio(wide.abs().sum(), self.n_signal + self.n_noise)

    def operating_point(
        self,
        retention: float | None = None,
        *,
        fakes: float | None = None,
        purity: float | None = None,
    ) -> OperatingPoint:
        """Return the operating point with a wanted retention, number of fakes or purity.

        Args:
            retention: smallest retention (signal efficiency); the highest such threshold is
                taken. Default 0.97 if nothing else is given.
            fakes: largest number of noise hits kept per noise-only event; the lowest such
                threshold is taken.
            purity: smallest purity; the threshold with the largest retention is taken.

        Example:
            >>> histogram = ScoreHistogram()
            >>> score = torch.tensor([0.1, 0.6, 0.9, 0.3, 0.8])
            >>> is_signal = torch.tensor([False, True, True, False, False])
            >>> histogram.update(score, is_signal, event=torch.tensor([0, 0, 0, 1, 1]))
            >>> point = histogram.operating_point(fakes=0)
            >>> point.retention, point.fakes, histogram.operating_point(purity=0.6).retention
            (0.5, 0.0, 1.0)
        """
        return self.point_at(Aim.of(retention, fakes, purity))

    def point_at(self, aim: Aim) -> OperatingPoint:
        """Return the operating point with a wanted property, see `operating_point`."""
        if aim.name == "fakes":
            return self._point(self._index_with_fakes(aim.value))
        if self.n_signal == 0:
            raise Refused(
                "signal to choose a threshold from",
                "none",
                "choose it on validation data that contains signal",
            )
        if aim.name == "purity":
            return self._point(self._index_with_purity(aim.value))
        # a correctly rounded quotient meets a decimal such as 0.97 exactly
        reaches = self._kept()[1].double() / self.n_signal >= aim.value
        return self._point(int(reaches.sum()) - 1)

    def _index_with_fakes(self, fakes: float) -> int:
        if self.n_noise_only == 0:
            raise Refused(
                "noise-only events for {fakes}",
                "none",
                f"{FAKES_CURE}, or choose by {{retention}}",
            )
        return int((self._kept_fakes() / self.n_noise_only > fakes).sum())

    def _index_with_purity(self, purity: float) -> int:
        noise, signal = self._kept().double()
        reaches = signal / (signal + noise) >= purity  # False where nothing is kept
        if not bool(reaches.any()):
            best = self.best_purity()
            within = math.floor(1000 * best) / 1000
            raise Refused(
                f"a threshold with {{purity={purity:g}}}",
                f"a purity of at most {best:.4g} at any threshold",
                f"choose {{purity={within:g}}} or less" if within else "",
            )
        return last_argmax(torch.where(reaches, signal, -1.0))

    def _kept_fakes(self) -> Tensor:
        """Return the noise of noise-only events at or above each threshold, float64."""
        return kept_at_each_edge(self._fakes[None])[0].double()

    def at(self, threshold: float) -> OperatingPoint:
        """Return the operating point of the highest bin edge that is not above `threshold`."""
        return self._point(self.edge_below(threshold))

    def edge_below(self, threshold: float) -> int:
        """Return the index in `curve().threshold` of the highest edge not above `threshold`."""
        if threshold != threshold:
            raise ValueError("Expected `threshold` to be a number, got nan.")
        return max(int((self._thresholds <= threshold).sum()) - 1, 0)

    def removal_at(self, retention: float) -> float:
        """Return the removal of `operating_point(retention)`; NaN without signal.

        The exact threshold would reject more by at most the noise in one bin.
        """
        aim = Aim("retention", retention)
        return self.point_at(aim).removal if self.n_signal else float("nan")

    def _point(self, index: int) -> OperatingPoint:
        noise, signal = self._kept()[:, index].tolist()
        return OperatingPoint(
            threshold=float(self._thresholds[index]),
            scale=self.scale,
            retention=ratio(signal, self.n_signal),
            removal=ratio(self.n_noise - noise, self.n_noise),
            purity=ratio(signal, signal + noise),
            n_signal=self.n_signal,
            n_noise=self.n_noise,
            fakes=ratio(self._kept_fakes()[index], self.n_noise_only),
            n_noise_only=self.n_noise_only,
        )


def kept_at_each_edge(counts: Tensor) -> Tensor:
    """Return the counts at or above each edge, (n, n_bins + 1), from all counts down to 0.

    Args:
        counts: (n, n_bins).
    """
    kept = counts.flip(1).cumsum(1).flip(1)
    return torch.cat([kept, kept.new_zeros(len(kept), 1)], 1)


def last_argmax(values: Tensor) -> int:
    """Return the index of the largest value; of equal values, the last."""
    return len(values) - 1 - int(values.flip(0).argmax())
