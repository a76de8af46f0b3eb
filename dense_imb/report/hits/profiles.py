"""Scores of signal and noise along the time and along a side of the detector."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Events, Geometry

Values = NDArray[np.float64]
_BINS = 24  # along an axis
_FEWEST = 10  # hits of a bin whose quantiles are known
_LOGITS = np.linspace(-20.5, 20.5, 165)


@dataclass
class ScoreProfile:
    """Counts of the scores of signal and noise hits along an axis.

    Args:
        label: name and unit of the axis.
        edges: edges of the bins; hits outside count in the first or the last one.

    Example:
        >>> profile = ScoreProfile("time (steps)", np.array([0.0, 5.0, 10.0]))
        >>> profile.update(np.full(20, 7.0), np.full(20, 0.5), np.ones(20, bool))
        >>> profile.quantile(0.5, is_signal=True).round(1)
        array([nan, 0.1])
    """

    label: str
    edges: Values
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((2, len(self.edges) - 1, len(_LOGITS) - 1), np.int64)

    def update(self, value: Values, score: Values, is_signal: NDArray[np.bool_]) -> None:
        """Count more hits: their values on the axis, their scores and classes."""
        score = np.asarray(score, np.float64)
        with np.errstate(divide="ignore"):
            logit = np.log(score) - np.log1p(-score)
        place = [is_signal.astype(np.int64)]
        for given, edges in ((value, self.edges), (logit, _LOGITS)):
            place.append(np.searchsorted(edges[1:-1], given, side="right"))
        flat = np.ravel_multi_index(tuple(place), self.counts.shape)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def quantile(self, share: float, *, is_signal: bool) -> Values:
        """Return a quantile of the logit of the score in each bin; NaN where hits are few."""
        counts = self.counts[int(is_signal)]
        below = counts.cumsum(1)
        total = below[:, -1]
        place = (below >= share * total[:, None]).argmax(1)
        middle = 0.5 * (_LOGITS[1:] + _LOGITS[:-1])
        return np.where(total >= _FEWEST, middle[place], np.nan)


def profiles_of(events: Events) -> list[ScoreProfile]:
    """Return empty profiles along the time and the last side, such as the depth.

    Args:
        events: some events; those of a table of sensors set the range of times.
    """
    geometry = events.geometry
    if isinstance(geometry, Geometry):
        return [
            ScoreProfile(label, np.linspace(low, low + size, min(_BINS, size) + 1))
            for label, low, size in (
                ("time (steps)", 0.5, geometry.time_steps),
                ("y (pixels)", -0.5, geometry.height),
            )
        ]
    time, last = np.asarray(events.t, np.float64), geometry.position[:, -1].astype(np.float64)
    low, high = (float(time.min()), float(time.max())) if len(time) else (0.0, 1.0)
    times = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    side = f"{'xyz'[geometry.n_axes - 1]} (m)"
    return [ScoreProfile("time (ns)", times), ScoreProfile(side, _edges_between(last))]


def _edges_between(place: Values) -> Values:
    """Return edges of bins that hold a floor of sensors each, or equal ones without floors.

    Example:
        >>> _edges_between(np.array([0.0, 10.0, 10.1, 20.0])).round(2)
        array([-5.  ,  5.  , 15.05, 25.  ])
    """
    place = np.unique(place)
    gap = np.flatnonzero(np.diff(place) > np.ptp(place) / 200)
    if not 1 <= len(gap) < 2 * _BINS:
        return np.linspace(place[0], place[-1] if len(place) > 1 else place[0] + 1, _BINS + 1)
    middle = 0.5 * (place[gap] + place[gap + 1])
    half = 0.5 * float(np.ptp(place)) / len(gap)
    return np.concatenate([[place[0] - half], middle, [place[-1] + half]])


def values_along(events: Events) -> list[Values]:
    """Return the values of hits for `profiles_of`: times, and the last coordinate."""
    position = np.asarray(events.position())
    return [np.asarray(events.t, np.float64), position[:, -1].astype(np.float64)]
