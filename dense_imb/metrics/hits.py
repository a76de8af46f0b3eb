"""Scores of a hit denoiser at an operating point that was chosen on other events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from dense_imb.base.checks import check_choice, check_integral, check_same_shape, readable
from dense_imb.metrics._checks import refuse_class_numbers
from dense_imb.metrics._counts import StreamingCounts, in_float64, ratio
from dense_imb.metrics.histogram import ScoreHistogram
from dense_imb.metrics.operating_point import OperatingPoint

RETENTIONS = (0.90, 0.95, 0.97, 0.99)
_MOST_EVENTS = 10**8  # in one call without `n_events`; counts of more fill the memory
_STEPS = 1000  # bins of a fraction per event; quantiles are exact within half a bin, 0.0005
_SUMS = (
    "events", "signal", "occluded_signal", "kept_signal", "kept_noise",
    "occluded_noise", "occluded_kept_signal", "occluded_kept_noise",
    "noise_only_events", "noise_only_kept", "noise_only_alarms",
    "timed_signal", "recovered", "residuals", "residual", "residual_abs", "residual_square",
    "frames", "lit", "ghosts",
)  # fmt: skip


class HitScores(StreamingCounts):
    """Retention, removal, purity, times and false alarms of hits, pooled and per event.

    A hit is kept if its score is at least the threshold of the operating point. An occluded hit
    lies behind another one in its pixel and has the score of the pixel. It counts as every other
    hit; the scores of visible hits alone are `visible_retention` and `visible_removal`.

        retention            = kept signal / signal         (signal efficiency)
        removal              = rejected noise / noise       (background rejection)
        visible_retention, visible_removal    the same over visible hits; equal to them if no hit
                               is occluded
        purity               = kept signal / kept
        false_alarm_hits_per_event = kept noise / events, over events with noise and no signal
        false_alarm_event_share    = events with kept noise / events, over the same events
        time_residual        = output time - true time, over kept visible signal
        ghost_rate           = lit pixels of the output without a measured hit / lit pixels
        occluded_share       = occluded signal / signal
        time_recovery        = kept visible signal with exactly the true time / signal
        time_recovery_ceiling = visible_retention (1 - occluded_share)

    Args:
        operating_point: operating point, chosen on validation events.
        n_bins: number of bins of `histogram`, the `ScoreHistogram` of all hits.

    Example:
        >>> point = OperatingPoint(0.5, "probability", 1.0, 0.5, 0.5, n_signal=1, n_noise=2)
        >>> scores = HitScores(point)
        >>> scores.update(
        ...     score=torch.tensor([0.9, 0.6, 0.1, 0.2, 0.7]),
        ...     label=torch.tensor([1, 0, 0, 1, 0]),
        ...     event=torch.tensor([0, 0, 0, 0, 1]),
        ... )
        >>> values = scores.scores()
        >>> values["retention"], values["purity"], values["false_alarm_hits_per_event"]
        (0.5, 0.3333333333333333, 1.0)
        >>> scores.event_quantile("removal", 0.5)
        0.0
    """

    def __init__(self, operating_point: OperatingPoint, *, n_bins: int = 1000) -> None:
        self.operating_point = operating_point
        self.histogram = ScoreHistogram(n_bins, scale=operating_point.scale)
        self._events = torch.zeros(2, _STEPS + 1, dtype=torch.int64)  # retention, removal
        self._sums = {name: torch.zeros((), dtype=torch.float64) for name in _SUMS}

    def _settings(self) -> dict[str, Any]:
        return {
            "operating_point": self.operating_point.as_json(),
            "n_bins": self.histogram.n_bins,
        }

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> Self:
        point = OperatingPoint.from_json(settings["operating_point"])
        return cls(point, n_bins=settings["n_bins"])

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.histogram._tensors(), self._events, *self._sums.values())

    def update(
        self,
        score: Tensor,
        label: Tensor,
        event: Tensor,
        *,
        n_events: int | None = None,
        time: Tensor | None = None,
        true_time: Tensor | None = None,
        is_visible: Tensor | None = None,
    ) -> None:
        """Count the hits of whole events; all hits of an event must come in one call.

        Args:
            score: (N,) score of each hit.
            label: (N,) label, 0 for noise, 1.. for signal.
            event: (N,) index of the event in this call, 0 .. n_events - 1.
            n_events: number of events in this call, empty ones included; by default
                max(event) + 1.
            time: (N,) time of each hit in the output; only kept visible signal counts.
            true_time: (N,) true time of each hit. Pass both times in every call, or in none.
            is_visible: (N,) bool, False for occluded hits; all visible by default.
        """
        score, label, event, time, true_time, is_visible = readable(
            score=score, label=label, event=event, time=time, true_time=true_time,
            is_visible=is_visible,
        )  # fmt: skip
        refuse_class_numbers("score", score, "label", label)
        check_integral("label", label)
        check_integral("event", event)
        for name, value in (("label", label), ("event", event), ("is_visible", is_visible),
                            ("time", time), ("true_time", true_time)):  # fmt: skip
            if value is not None:
                check_same_shape(name, value, "score", score)
        if (time is None) != (true_time is None):
            raise ValueError("Expected `time` and `true_time` together, got one of them.")
        label, event = label.long(), event.long()  # narrow types have no minimum, or no bincount
        # hit lists are short: one transfer costs less than a wait for each count
        score, label, event = score.detach().cpu(), label.cpu(), event.cpu()
        n_events = _checked_n_events(event, n_events)
        if label.numel() and int(label.min()) < 0:
            raise ValueError(f"Expected `label` of at least 0, got {int(label.min())}.")

        is_signal = label > 0
        visible = torch.ones_like(is_signal) if is_visible is None else is_visible.bool().cpu()
        is_kept = self.operating_point.keep(score)
        residual, is_exact = _residual(time, true_time, visible & is_signal & is_kept)

        self.histogram.update(score, is_signal, event=event)
        signal, noise, kept_signal, kept_noise = (
            torch.bincount(event[chosen], minlength=n_events)
            for chosen in (is_signal, ~is_signal, is_signal & is_kept, ~is_signal & is_kept)
        )
        is_noise_only = (signal == 0) & (noise > 0)  # an event without any hit is neither
        self._events[0] += _histogram_of_shares(kept_signal, signal)
        self._events[1] += _histogram_of_shares(noise - kept_noise, noise)
        for name, value in {
            "events": torch.tensor(n_events),
            "signal": is_signal.sum(),
            "occluded_signal": (is_signal & ~visible).sum(),
            "occluded_noise": (~is_signal & ~visible).sum(),
            "occluded_kept_signal": (is_signal & is_kept & ~visible).sum(),
            "occluded_kept_noise": (~is_signal & is_kept & ~visible).sum(),
            "kept_signal": kept_signal.sum(),
            "kept_noise": kept_noise.sum(),
            "noise_only_events": is_noise_only.sum(),
            "noise_only_kept": kept_noise[is_noise_only].sum(),
            "noise_only_alarms": (kept_noise[is_noise_only] > 0).sum(),
            "timed_signal": is_signal.sum() * (time is not None),
            "recovered": is_exact.sum(),
            "residuals": torch.tensor(residual.numel()),
            "residual": residual.sum(),
            "residual_abs": residual.abs().sum(),
            "residual_square": residual.square().sum(),
        }.items():
            self._sums[name] += value

    def update_output(self, is_lit: Tensor, is_hit: Tensor) -> None:
        """Count ghosts: lit pixels of an output frame without a hit in the measured frame.

        Outputs that only mask the measured hits have no ghosts.

        Args:
            is_lit: bool, frames (B, *spatial); where the output has a hit.
            is_hit: bool, same shape; where the measured frame has a hit.
        """
        is_lit, is_hit = readable(is_lit=is_lit, is_hit=is_hit)
        check_same_shape("is_hit", is_hit, "is_lit", is_lit)
        is_lit, is_hit = is_lit.bool(), is_hit.bool()
        self._sums["frames"] += len(is_lit)
        self._sums["lit"] += is_lit.sum().cpu()
        self._sums["ghosts"] += (is_lit & ~is_hit).sum().cpu()

    def event_quantile(self, name: str, q: float) -> float:
        """Return a quantile over events, exact within 0.0005; NaN without events.

        Args:
            name: "retention" (over events with signal) or "removal" (over events with noise).
            q: fraction of the events at or below the quantile, 0 to 1.
        """
        check_choice("name", name, ("retention", "removal"))
        if not 0 <= q <= 1:
            raise ValueError(f"Expected `q` between 0 and 1, got {q}.")
        counts = self._events[0 if name == "retention" else 1]
        total = int(counts.sum())
        if total == 0:
            return math.nan
        reached = counts.cumsum(0).double() / total
        return int((reached < max(q, 1 / total)).sum()) / _STEPS

    def scores(self) -> dict[str, float]:
        """Return every score by name; NaN without data."""
        n = {name: float(total) for name, total in self._sums.items()}
        n_noise = self.histogram.n_noise
        retention = ratio(n["kept_signal"], self.histogram.n_signal)
        occluded = ratio(n["occluded_signal"], n["signal"])
        visible_retention = ratio(
            n["kept_signal"] - n["occluded_kept_signal"], n["signal"] - n["occluded_signal"]
        )
        visible_noise = n_noise - n["occluded_noise"]
        visible_kept_noise = n["kept_noise"] - n["occluded_kept_noise"]
        mean_square = ratio(n["residual_square"], n["residuals"])
        quantiles = {
            f"event_{name}_q{round(100 * q):02d}": self.event_quantile(name, q)
            for name in ("retention", "removal")
            for q in (0.05, 0.25, 0.5, 0.75, 0.95)
        }
        return {
            "n_events": n["events"],
            "n_signal": float(self.histogram.n_signal),
            "n_noise": float(n_noise),
            "retention": retention,
            "removal": ratio(n_noise - n["kept_noise"], n_noise),
            "visible_retention": visible_retention,
            "visible_removal": ratio(visible_noise - visible_kept_noise, visible_noise),
            "purity": ratio(n["kept_signal"], n["kept_signal"] + n["kept_noise"]),
            "auc": self.histogram.auc(),
            "average_precision": self.histogram.average_precision(),
            **{f"removal_at_{100 * r:.0f}": self.histogram.removal_at(r) for r in RETENTIONS},
            **quantiles,
            "false_alarm_hits_per_event": ratio(n["noise_only_kept"], n["noise_only_events"]),
            "false_alarm_event_share": ratio(n["noise_only_alarms"], n["noise_only_events"]),
            "occluded_share": occluded,
            "time_recovery": ratio(n["recovered"], n["timed_signal"]),
            "time_recovery_ceiling": visible_retention * (1 - occluded),
            "time_residual_mean": ratio(n["residual"], n["residuals"]),
            "time_residual_mean_absolute": ratio(n["residual_abs"], n["residuals"]),
            "time_residual_rms": math.sqrt(mean_square),
            "ghost_rate": ratio(n["ghosts"], n["lit"]),
            "ghosts_per_frame": ratio(n["ghosts"], n["frames"]),
        }

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        values = self.scores()
        counts = {name: int(values[f"n_{name}"]) for name in ("events", "signal", "noise")}
        names = {"retention": "retention", "removal": "removal", "purity": "purity", "AUC": "auc"}
        return counts, {name: values[key] for name, key in names.items()}


def _checked_n_events(event: Tensor, n_events: int | None) -> int:
    low, high = (int(event.min()), int(event.max())) if event.numel() else (0, -1)
    if low < 0 or (n_events is not None and high >= n_events):
        wanted = "at least 0" if n_events is None else f"between 0 and {n_events - 1}"
        raise ValueError(f"Expected `event` {wanted}, got {low if low < 0 else high}.")
    if n_events is None and high >= _MOST_EVENTS:
        raise ValueError(
            f"Expected `event` to number the events of one call from 0, got {high}; renumber them: "
            "torch.unique(event, return_inverse=True)[1]."
        )
    return high + 1 if n_events is None else n_events


def _residual(
    time: Tensor | None, true_time: Tensor | None, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Return output time - true time of the chosen hits, and whether it is exactly 0."""
    if time is None or true_time is None:
        nothing = torch.zeros(0, dtype=torch.float64)
        return nothing, nothing.bool()
    output, true = (in_float64(times.cpu()[chosen]) for times in (time, true_time))
    residual = output - true
    if not bool(residual.isfinite().all()):
        raise ValueError(
            "Expected `time` and `true_time` of kept signal without NaN or infinity, got one."
        )
    return residual, residual == 0


def _histogram_of_shares(part: Tensor, whole: Tensor) -> Tensor:
    """Return the histogram of part / whole over events with whole > 0, in bins of 1/1000."""
    some = whole > 0
    steps = (_STEPS * part[some].double() / whole[some]).round().long()
    return torch.bincount(steps, minlength=_STEPS + 1)
