"""Measurements of a network on hits, beside the baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.refusals import Refused
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.hits import Evaluation, Events, available_baselines, evaluate, open_hits
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.masking import Progress
from dense_imb.metrics import HitScores, ScoreHistogram
from dense_imb.report.hits.profiles import ScoreProfile, profiles_of, values_along
from dense_imb.runs import Run
from dense_imb.runs.write import SCORES
from dense_imb.tasks.hits.recipe import HitsRecipe
from dense_imb.tasks.hits.trained import TrainedHits

TEST_EPOCH = VALIDATION_EPOCH - 1  # else test events get the noise of validation events
VERDICTS = ("signal kept", "signal lost", "noise removed", "noise kept")
_AT_ONCE = 128
_CANDIDATES = 100  # first test events, among which the samples are chosen
_MOST_EVENTS = 100_000  # events whose counts are kept in memory
_GROUPS = 8  # groups of events, by number of hits


@dataclass(frozen=True)
class EventSample:
    """A test event and the verdict on each of its hits.

    Args:
        title: reason for showing this event.
        number: index among the measured events.
        events: the event, as a batch of one.
        verdict: (n_hits,) index into `VERDICTS`.
        n_hidden: number of hits hidden by others in their pixel.
    """

    title: str
    number: int
    events: Events
    verdict: NDArray[np.int64]
    n_hidden: int = 0

    def counts(self) -> dict[str, int]:
        """Return the number of hits with each verdict."""
        return {name: int((self.verdict == k).sum()) for k, name in enumerate(VERDICTS)}


@dataclass
class HitMeasures:
    """Scores of a network and the baselines on test events.

    Args:
        evaluation: table of scores.
        scores: scores of the test events, by scorer.
        events: (n_events, 5) hits of each event, with the network's verdicts: all, signal, kept
            signal, noise, kept noise.
        samples: a typical event and the worst one.
        profiles: the network's scores along the time and a side of the detector.
    """

    evaluation: Evaluation
    scores: dict[str, HitScores]
    events: NDArray[np.int64]
    samples: list[EventSample] = field(default_factory=list)
    profiles: list[ScoreProfile] = field(default_factory=list)


def validation_events(run: Run) -> VirtualEvents:
    """Open the validation events of a run, with the noise of its validations."""
    assert isinstance(run.recipe, HitsRecipe)
    return run.recipe.open_validation()


def stored_scores(run: Run) -> ScoreHistogram | None:
    """Return the validation scores that a run has stored; None if there are none."""
    if not (run.folder / SCORES).is_file():
        return None
    scores: ScoreHistogram = run.scores()
    return scores


def test_events(run: Run, paths: str | Sequence[str], n_events: int) -> tuple[VirtualEvents, bool]:
    """Open labelled events to measure on; clean ones get the degradation of the run.

    Returns:
        The events, and whether noise was added.
    """
    source = open_hits(paths)
    plain = VirtualEvents(source, None, run.config.seed, count=n_events)
    if len(plain) == 0:
        raise ValueError(f"Expected test events in {paths}, got none.")
    _, has_noise = plain.kinds()
    if has_noise:
        return plain, False
    assert isinstance(run.recipe, HitsRecipe)
    degradation = run.recipe.degradation
    if degradation is None or degradation.noise in (0, (0, 0)):
        raise ValueError(
            f"Expected test events with hits labelled as noise (0) in {paths}, got none; the run "
            "adds no noise either."
        )
    return replace(plain, degradation=degradation), True


def measure_hits(
    network: TrainedHits,
    validation: VirtualEvents | None,
    test: VirtualEvents | None,
    *,
    retention: float,
    n_events: int,
    stored: ScoreHistogram | None = None,
    progress: Callable[[int], Progress] | None = None,
) -> HitMeasures:
    """Measure a network and the baselines in one pass over the events.

    Args:
        network: network of the run.
        validation: events to choose thresholds on; None takes every fifth test event.
        test: events to measure on; None takes every second validation event.
        retention: fraction of the signal that the thresholds keep.
        n_events: largest number of events to choose on, and to measure on.
        stored: validation scores that the run has stored, for the threshold of the network on
            `test`; None scores the validation events again.
        progress: takes the number of events to come, over all scorers, and returns a function
            that takes the number of events just done.
    """
    events = validation if test is None else test
    assert events is not None  # the caller has one of the two
    baselines, missing = available_baselines(events.geometry)
    if network.name in {scorer.name for scorer in baselines}:
        network.name += " (run)"
    recorder = _Recorder(network.name)
    chooses, measures, chosen_on = _sources(validation, test, n_events)
    scorers: list[Scorer] = [network, *baselines]
    known = {network.name: stored} if stored is not None and test is not None else {}
    n_coming = (len(scorers) - len(known)) * chooses[0] + len(scorers) * measures[0]
    table = evaluate(
        scorers,
        chooses[1],
        measures[1],
        retention=retention,
        stored=known,
        progress=None if progress is None else progress(n_coming),
        watch=recorder,
    )
    table = replace(table, chosen_on=chosen_on or table.chosen_on)
    table = replace(table, notes=(*table.notes, *missing))
    counts = np.concatenate([np.zeros((0, 5), np.int64), *recorder.counts])
    return HitMeasures(table, recorder.scores, counts, recorder.samples(), recorder.profiles)


def _sources(
    validation: VirtualEvents | None, test: VirtualEvents | None, n_events: int
) -> tuple[tuple[int, Any], tuple[int, Any], str]:
    """Return the events to choose on and to measure on, and their description."""
    if test is not None:
        numbers = np.arange(min(n_events, len(test)))
        measured = len(numbers), Batches(test, numbers, TEST_EPOCH)
        if validation is None:
            return (0, None), measured, ""
        numbers = np.arange(min(n_events, len(validation)))
        return (len(numbers), Batches(validation, numbers, VALIDATION_EPOCH)), measured, ""
    assert validation is not None  # the caller has one of the two
    numbers = np.arange(min(2 * n_events, len(validation)))
    halves = numbers[::2], numbers[1::2]
    if len(numbers) < 2:
        raise Refused("at least two validation events", "one", "name a test file with {test}")
    words = (
        f"thresholds chosen on every other validation event ({len(halves[0]):,}), scores on the "
        f"{len(halves[1]):,} between them, which also served to choose the best weights"
    )
    chooses, measures = (
        (len(half), Batches(validation, half, VALIDATION_EPOCH)) for half in halves
    )
    return chooses, measures, words


class Batches:
    """Degraded events in batches; can be iterated several times.

    Args:
        events: events to degrade.
        numbers: numbers of the events.
        epoch: epoch of the degradation.
    """

    def __init__(self, events: VirtualEvents, numbers: NDArray[np.int64], epoch: int) -> None:
        self.events, self.numbers, self.epoch = events, numbers, epoch

    def __iter__(self) -> Iterator[Events]:
        for start in range(0, len(self.numbers), _AT_ONCE):
            yield self.events.degraded(self.numbers[start : start + _AT_ONCE], self.epoch)


class _Recorder:
    """Records verdicts and sample events during the evaluation."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.scores: dict[str, HitScores] = {}
        self.counts: list[NDArray[np.int64]] = []
        self.profiles: list[ScoreProfile] = []
        self._examples: list[tuple[Events, NDArray[np.int64], int]] = []
        self._n_events = 0

    def __call__(
        self, name: str, scores: HitScores, events: Events, score: Tensor, shown: Tensor
    ) -> None:
        self.scores[name] = scores
        if name != self.network or self._n_events >= _MOST_EVENTS:
            return
        self._count_scores(events.numpy(), score)
        verdict = verdicts(events.label, scores.operating_point.keep(score))
        place, n = events.event_index(), len(events)
        per_verdict = [
            torch.bincount(place[torch.from_numpy(verdict == k)], minlength=n) for k in range(4)
        ]
        kept, lost, removed, left = (count.numpy() for count in per_verdict)
        total = kept + lost + removed + left
        self.counts.append(np.stack([total, kept + lost, kept, removed + left, left], 1))
        self._n_events += n
        for i in range(min(n, _CANDIDATES - len(self._examples))):
            first, last = int(events.offset[i]), int(events.offset[i + 1])
            n_hidden = int((~shown[first:last]).sum())
            self._examples.append((events[i].numpy(), verdict[first:last], n_hidden))

    def _count_scores(self, events: Events, score: Tensor) -> None:
        self.profiles = self.profiles or profiles_of(events)
        is_signal = np.asarray(events.label) > 0
        for profile, value in zip(self.profiles, values_along(events), strict=True):
            profile.update(value, score.double().numpy(), is_signal)

    def samples(self) -> list[EventSample]:
        """Return the event with the median number of errors, and the one with most."""
        errors = [int(((verdict == 1) | (verdict == 3)).sum()) for _, verdict, _ in self._examples]
        order = sorted((n, i) for i, n in enumerate(errors) if self._examples[i][0].n_hits)
        if not order:
            return []
        among = f"of the first {len(self._examples)} test events"
        chosen = {order[len(order) // 2][1]: f"A typical event {among}"}
        if len(order) > 1 and order[-1][1] not in chosen:
            chosen[order[-1][1]] = f"The event with most errors {among}"
        return [EventSample(title, i, *self._examples[i]) for i, title in chosen.items()]


def verdicts(label: Any, is_kept: Tensor) -> NDArray[np.int64]:
    """Return the verdict on each hit as an index into `VERDICTS`.

    Example:
        >>> verdicts(torch.tensor([1, 2, 0, 0]), torch.tensor([1, 0, 0, 1]) > 0).tolist()
        [0, 1, 2, 3]
    """
    is_signal = torch.as_tensor(label) > 0
    place = torch.where(is_signal, (~is_kept).long(), 2 + is_kept.long())
    verdict: NDArray[np.int64] = place.numpy()
    return verdict


def by_number_of_hits(events: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return retention and removal of events, grouped by their number of hits.

    Example:
        >>> groups = by_number_of_hits(np.array([[3, 1, 1, 2, 0], [9, 2, 1, 7, 7]]))
        >>> [(g["hits"], g["retention"], g["removal"]) for g in groups]
        [(3.0, 1.0, 1.0), (9.0, 0.5, 0.0)]
    """
    hits = events[:, 0]
    if len(hits) == 0:
        return []
    edges = np.unique(np.quantile(hits, np.linspace(0, 1, _GROUPS + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, hits)
    rows = []
    for k in np.unique(group):
        part = events[group == k]
        _, signal, kept, noise, left = (int(total) for total in part.sum(0))
        rows.append(
            {
                "hits": float(part[:, 0].mean()),
                "n_events": float(len(part)),
                "retention": kept / signal if signal else math.nan,
                "removal": 1 - left / noise if noise else math.nan,
            }
        )
    return rows
