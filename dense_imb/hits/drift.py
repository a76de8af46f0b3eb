"""Comparison of events that are denoised with the validation events of a network.

A network scores events of another kind without complaint. The profile of the validation events is
stored with the run, and `describe_drift` says in a sentence where other events are far from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_imb.hits.events import Events
from dense_imb.metrics import StreamingCounts

VALIDATION_EVENTS = "validation_events.json"  # profile in the folder of a run
FEWEST = 8  # events that are compared; fewer say nothing about their kind
FURTHEST = 0.02  # stability index of score distributions that are called alike
_CHANCE = 10.0  # times the index that events of one kind have by chance
_DENSER = 1.25  # times the bounds of nearly all validation events
_NEARLY_ALL = (0.05, 0.95)  # quantiles of the hits of an event
_KEPT = 1.25  # ratio of kept fractions that a sentence names
_STEPS, _OCTAVES = 32, 30  # bins of the hits of an event: 32 an octave, up to 2^30 hits
_FINE = torch.linspace(-8, 8, 161, dtype=torch.float64)  # edges of score bins, in the logit
_COARSE = torch.tensor([-6.0, -4, -2, 0, 2, 4, 6], dtype=torch.float64)  # edges of classes
_CLASS = torch.bucketize(torch.cat([_FINE[:1] - 1, _FINE]), _COARSE, right=True)  # of each bin
_SMALLEST = 1e-4  # fraction that an empty class counts as


class DriftWarning(UserWarning):
    """Events that are denoised look unlike the validation events of the network."""


class EventProfile(StreamingCounts):
    """Profile of events: hits per event, and the distribution of their scores.

    All hits count, those behind others in their pixel too. Labels are not needed.

    Example:
        >>> from dense_imb.hits import Degradation, HitDensity, degrade, simulate
        >>> noisy = degrade(simulate("arc", 9, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> profile = EventProfile()
        >>> profile.update(noisy, HitDensity().score(noisy))
        >>> round(profile.hits_quantile(0.5), -1), round(profile.kept_fraction(0.0), 2)
        (230.0, 1.0)
    """

    def __init__(self) -> None:
        self._sizes = torch.zeros(_STEPS * _OCTAVES + 1, dtype=torch.int64)
        self._fine = torch.zeros(len(_FINE) + 1, dtype=torch.int64)
        # sum and sum of squares, over events with hits, of the fraction of hits in each class
        self._shares = torch.zeros(2, len(_COARSE) + 1, dtype=torch.float64)

    def _settings(self) -> dict[str, Any]:
        return {}

    def _tensors(self) -> tuple[Tensor, ...]:
        return self._sizes, self._fine, self._shares

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        return {"events": self.n_events}, {"hits per event": self.hits_quantile(0.5)}

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self._sizes.sum())

    def update(self, events: Events, score: Tensor) -> None:
        """Count events.

        Args:
            events: events with all their hits.
            score: (n_hits,) score of each hit in [0, 1].
        """
        offset = torch.as_tensor(events.offset).cpu().to(torch.int64)
        count = offset[1:] - offset[:-1]
        step = (_STEPS * (count.double() + 1).log2()).round().long()
        self._sizes += torch.bincount(
            step.clamp(max=len(self._sizes) - 1), minlength=len(self._sizes)
        )
        logit = torch.logit(score.detach().cpu().double())
        fine = torch.bucketize(logit, _FINE, right=True)
        self._fine += torch.bincount(fine, minlength=len(self._fine))
        event = torch.repeat_interleave(torch.arange(len(count)), count)
        n_classes = self._shares.shape[1]
        cells = torch.bincount(event * n_classes + _CLASS[fine], minlength=len(count) * n_classes)
        share = cells.reshape(-1, n_classes)[count > 0] / count[count > 0][:, None].double()
        self._shares += torch.stack([share.sum(0), share.square().sum(0)])

    def hits_quantile(self, q: float) -> float:
        """Return a quantile of the hits per event, within 2 %; NaN without events."""
        total = self.n_events
        if total == 0:
            return math.nan
        reached = self._sizes.cumsum(0).double() / total
        step = int((reached < max(q, 1 / total)).sum())
        return float(2.0 ** (step / _STEPS) - 1)

    def kept_fraction(self, threshold: float) -> float:
        """Return the fraction of hits at or above a threshold, to a bin; NaN without hits."""
        edge = torch.logit(torch.tensor(threshold, dtype=torch.float64))
        first = int(torch.bucketize(edge, _FINE, right=True))
        return float(self._fine[first:].sum() / self._fine.sum())

    def shares(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance, over events, of the fraction of hits in each score class."""
        total = self._filled()
        mean = self._shares[0] / total
        return mean, (self._shares[1] / total - mean.square()).clamp(min=0)

    def _filled(self) -> int:
        return self.n_events - int(self._sizes[0])


def describe_drift(
    given: EventProfile, validation: EventProfile, threshold: float, name: str
) -> str:
    """Return a sentence if events look unlike the validation events; "" if they look alike.

    Args:
        given: profile of the events.
        validation: profile of the validation events of the network.
        threshold: smallest score that is kept.
        name: name of the events for the sentence, such as a path.
    """
    if min(given.n_events, validation.n_events) < FEWEST:
        return ""
    reasons = [_density(given, validation), _scores(given, validation, threshold)]
    reasons = [reason for reason in reasons if reason]
    if not reasons:
        return ""
    return (
        f"{name} looks unlike the validation events: {', and '.join(reasons)}; was it recorded "
        "under other conditions? Evaluate on labelled events before you trust it."
    )


def _density(given: EventProfile, validation: EventProfile) -> str:
    """Return how far the hits per event are from those in validation; "" if they are alike."""
    low, high = (validation.hits_quantile(q) for q in _NEARLY_ALL)
    median = given.hits_quantile(0.5)
    if low / _DENSER <= median <= high * _DENSER:
        return ""
    return (
        f"an event has about {_two_digits(median)} hits (median), "
        f"{_two_digits(validation.hits_quantile(0.5))} in validation"
    )


def stability_index(given: EventProfile, validation: EventProfile) -> tuple[Tensor, float]:
    """Return the population stability index of each score class, and its sum expected by chance.

        index = sum_c (p_c - q_c) ln(p_c / q_c)    p, q: mean fractions of an event's hits

    By chance it is about sum_c var_c (1/n + 1/m) / q_c for n and m events of one kind.
    """
    (p, _), (q, variance) = (one.shares() for one in (given, validation))
    p, q = p.clamp(min=_SMALLEST), q.clamp(min=_SMALLEST)
    n_times = 1 / given.n_events + 1 / validation.n_events
    return (p - q) * (p / q).log(), float((variance / q).sum() * n_times)


def _scores(given: EventProfile, validation: EventProfile, threshold: float) -> str:
    """Return how far the scores are from those in validation; "" if they are alike."""
    index, chance = stability_index(given, validation)
    if not float(index.sum()) > FURTHEST + _CHANCE * chance:  # also for NaN, without hits
        return ""
    kept, before = (one.kept_fraction(threshold) for one in (given, validation))
    if max(kept, before) > _KEPT * min(kept, before):
        return f"{_percent(kept)} of the hits are kept, {_percent(before)} in validation"
    worst = int(index.argmax())
    edges = [0.0, *_COARSE.sigmoid().tolist(), 1.0]
    shares = [_percent(float(one.shares()[0][worst])) for one in (given, validation)]
    return (
        f"{shares[0]} of the hits have scores from {edges[worst]:.2g} to {edges[worst + 1]:.2g}, "
        f"{shares[1]} in validation"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _two_digits(value: float) -> str:
    """Return a number of hits to two digits."""
    if value < 10:
        return f"{value:.0f}"
    unit = 10 ** (int(math.log10(value)) - 1)
    return f"{round(value / unit) * unit:,}"


def load_profile(folder: Path) -> EventProfile | None:
    """Load the profile of the validation events of a run; None if its folder has none."""
    path = folder / VALIDATION_EVENTS
    return EventProfile.load(path) if path.is_file() else None
