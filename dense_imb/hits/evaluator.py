"""Evaluator of scorers: thresholds of validation events, scores of test events, batch by batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused
from dense_imb.hits.baselines import BASELINES, Scorer
from dense_imb.hits.events import Events
from dense_imb.hits.frames import visible
from dense_imb.hits.masking import Progress, count_hits, score_events
from dense_imb.hits.reader import HitsFile, HitsFiles
from dense_imb.hits.table import Evaluation
from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram
from dense_imb.metrics.operating_point import Aim
from dense_imb.metrics.score_table import Row

Change = Callable[[Events, NDArray[np.int64], int], Events]  # events, their indices, the epoch
Source = HitsFile | HitsFiles | Events | Iterable[Events]
# name of the scorer, its `HitScores` so far, batch, scores and visibility of its hits
Watch = Callable[[str, HitScores, Events, Tensor, Tensor], object]
_CHOOSE_EVERY = 5  # without validation events, every fifth test event is used for thresholds
_VALIDATION_EPOCH = 1  # so that events of equal index in two files get different noise
# scores of outputs with new frames or times; masks have neither
_OUTPUT_SCORES = ("ghost", "time_residual")


class Measured(NamedTuple):
    """Rows of all scorers, description of the events used for thresholds, and notes."""

    rows: tuple[Row, ...]
    chosen_on: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluator:
    """Scorers of a table and settings of their evaluation, see `evaluate`."""

    scorers: Sequence[Scorer]
    retentions: Sequence[float]
    aim: Aim
    batch_size: int
    n_events: int | None
    progress: Progress | None
    over_processes: bool = False
    watch: Watch | None = None
    stored: Mapping[str, ScoreHistogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least("batch_size", self.batch_size, 1)
        if self.n_events is not None:
            check_at_least("n_events", self.n_events, 1)
        names = [scorer.name for scorer in self.scorers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            got = f"{twice[0]!r} twice" if twice else "none"
            raise ValueError(f"Expected `scorers` of different names, at least one, got {got}.")
        for wanted in self.retentions:
            if not 0 < wanted <= 1:
                raise ValueError(f"Expected a retention above 0 and up to 1, got {wanted}.")

    @property
    def aims(self) -> dict[str, float]:
        """Values of the three operating points, by the name of their aim."""
        return {**Aim.DEFAULTS, self.aim.name: self.aim.value}

    def all_retentions(self) -> tuple[float, ...]:
        """Return the retentions of `removal_at_...`, rising."""
        own = {self.aim.value} if self.aim.name == "retention" else set()
        return tuple(sorted({*self.retentions, *own}))

    def table(self, measured: Sequence[Measured]) -> Evaluation:
        """Return the table of measurements, one after the other."""
        return Evaluation(
            tuple(row for one in measured for row in one.rows),
            self.aim,
            self.all_retentions(),
            measured[-1].chosen_on,
            tuple(note for one in measured for note in one.notes),
            points=self.aims,
            rules=tuple(scorer.name for scorer in self.scorers if _is_rule(scorer)),
        )

    def measure(
        self,
        validation: Source | None,
        test: Source,
        change: Change | None = None,
    ) -> Measured:
        """Choose the thresholds of all scorers, and measure them."""
        is_split = validation is None and len(self._choosing()) > 0
        if is_split and isinstance(test, Iterator):
            raise TypeError(
                "Expected validation events with a generator of test events, which can't be read "
                "twice, got none; pass validation events, or a list of batches as `test`."
            )
        source, epoch = (test, 0) if validation is None else (validation, _VALIDATION_EPOCH)
        chosen, n_chosen_on = self._chosen(
            self.events(source, change, epoch, True if is_split else None)
        )
        scores = [HitScores(self._point(histogram)) for histogram in chosen]
        seconds = [0.0] * len(scores)
        n_tested = 0
        for events in self.events(test, change, 0, False if is_split else None):
            n_tested += len(events)
            shown = visible(events)
            for k, (values, spent) in enumerate(self._scored(self.scorers, events)):
                seconds[k] += spent
                count_hits(scores[k], events, values, shown)
                if self.watch is not None:
                    self.watch(self.scorers[k].name, scores[k], events, values, shown)
        if self.over_processes:
            n_all, *seconds = _summed(n_tested, *seconds)
            n_tested = int(n_all)
            for score in scores:
                score.reduce_over_processes()
        if n_tested == 0:
            raise ValueError("Expected events to test on, got none.")
        rows = tuple(
            self._row(scorer.name, measured, histogram, n_tested / max(spent, 1e-9))
            for scorer, measured, histogram, spent in zip(
                self.scorers, scores, chosen, seconds, strict=True
            )
        )
        notes = tuple(
            f"{scorer.name} keeps nothing: its purity on the validation events is at most "
            f"{100 * histogram.best_purity():.4g} %."
            for scorer, histogram, measured in zip(self.scorers, chosen, scores, strict=True)
            if measured.operating_point.threshold == math.inf and self.aim.name == "purity"
        )
        few = next(filter(None, (one.operating_point.few() for one in scores)), None)
        notes += () if few is None else (few,)
        return Measured(rows, self._chosen_on(n_chosen_on, n_tested, is_split), notes)

    def _choosing(self) -> list[Scorer]:
        """Return the scorers without stored validation scores."""
        return [scorer for scorer in self.scorers if scorer.name not in self.stored]

    def _chosen(self, batches: Iterable[Events]) -> tuple[list[ScoreHistogram], int]:
        """Return the histogram that each scorer's threshold comes from, and the events read."""
        choosing = self._choosing()
        new, n_events = self.histograms(choosing, batches) if choosing else ([], 0)
        names = [scorer.name for scorer in choosing]
        by_name = {**self.stored, **dict(zip(names, new, strict=True))}
        return [by_name[scorer.name] for scorer in self.scorers], n_events

    def _chosen_on(self, n_chosen_on: int, n_tested: int, is_split: bool) -> str:
        """Describe the events used for thresholds and for scores."""
        own = [scorer.name for scorer in self.scorers if scorer.name in self.stored]
        others = f"{n_chosen_on:,} validation events, scores on {n_tested:,} test events"
        if is_split:
            others = f"every {_CHOOSE_EVERY}th event ({n_chosen_on:,}), scores on "
            others += f"the {n_tested:,} others"
        if not own:
            return f"thresholds chosen on {others}"
        names = ", ".join(own)
        if len(own) == len(self.scorers):
            return (
                f"thresholds of {names} from the validation scores stored in training, scores on "
                f"{n_tested:,} test events"
            )
        return (
            f"thresholds of {names} from the validation scores stored in training, of the others "
            f"chosen on {others}"
        )

    def _point(self, histogram: ScoreHistogram) -> OperatingPoint:
        """Return the operating point of a scorer; it keeps nothing if no purity is enough."""
        if self.aim.name == "purity" and histogram.best_purity() < self.aim.value:
            return histogram.at(math.inf)
        return histogram.point_at(self.aim)

    def events(
        self,
        source: Source,
        change: Change | None = None,
        epoch: int = 0,
        is_for_choosing: bool | None = None,
    ) -> Iterator[Events]:
        """Yield labelled batches of tensors.

        Args:
            source: events to read.
            change: function applied to each batch, such as adding noise.
            epoch: epoch passed to `change`.
            is_for_choosing: for a source that is split, True yields the events for thresholds
                and False the events for scores; None yields all.
        """
        first, rank, n_processes = 0, 0, 1
        if self.over_processes:
            rank, n_processes = dist.get_rank(), dist.get_world_size()
        for k, (n_events, read) in enumerate(event_batches(source, self.batch_size)):
            if self.n_events is not None:
                n_events = min(n_events, self.n_events - first)
                if n_events <= 0:
                    return
            number = np.arange(first, first + n_events)
            first += n_events
            if k % n_processes != rank:
                continue
            events = read()[:n_events]
            if is_for_choosing is not None:
                is_chosen = (number % _CHOOSE_EVERY == 0) == is_for_choosing
                events, number = events.take(np.flatnonzero(is_chosen)), number[is_chosen]
            if change is not None:
                events = change(events, number, epoch)
            if events.label is None:
                raise ValueError(
                    "Expected labelled hits, 0 for noise and 1.. for signal, got hits without "
                    "labels; `dense-imb simulate` makes labelled events."
                )
            yield events.torch()

    def histograms(
        self, scorers: Sequence[Scorer], batches: Iterable[Events]
    ) -> tuple[list[ScoreHistogram], int]:
        """Return the histogram of the hits of each scorer, and the number of events."""
        histograms, n_events = [ScoreHistogram() for _ in scorers], 0
        for events in batches:
            n_events += len(events)
            is_signal: Tensor = events.label > 0  # type: ignore[operator, assignment]
            event = events.event_index()
            scored = self._scored(scorers, events)
            for histogram, (score, _) in zip(histograms, scored, strict=True):
                histogram.update(score, is_signal, event=event)
        if self.over_processes:
            n_events = int(_summed(n_events)[0])
            for histogram in histograms:
                histogram.reduce_over_processes()
        return histograms, n_events

    def _scored(self, scorers: Sequence[Scorer], events: Events) -> Iterator[tuple[Tensor, float]]:
        """Yield the scores of each scorer, and the seconds spent on them."""
        for scorer in scorers:
            start = time.perf_counter()
            score = score_events(scorer, events)
            spent = time.perf_counter() - start
            if self.progress is not None:
                self.progress(len(events))
            yield score, spent

    def _row(
        self, scorer: str, scores: HitScores, chosen: ScoreHistogram, events_per_second: float
    ) -> Row:
        """Return the row of a scorer at the thresholds of the histogram `chosen`."""
        row: Row = {"scorer": scorer, "threshold": scores.operating_point.threshold}
        for name, value in scores.scores().items():
            if not name.startswith(("removal_at_", *_OUTPUT_SCORES)):
                row[name] = value
        for wanted in self.all_retentions():
            point = scores.histogram.at(chosen.operating_point(wanted).threshold)
            row[f"removal_at_{100 * wanted:g}"] = point.removal
            row[f"retention_at_{100 * wanted:g}"] = point.retention
        row["best_purity"] = chosen.best_purity()
        for name, value in self.aims.items():
            row |= _measured_point(chosen, scores.histogram, Aim(name, value))
        half = scores.histogram.at(0.5)
        row |= {"removal_at_half": half.removal, "retention_at_half": half.retention}
        row["threshold_tie"] = _tie(chosen, scores.operating_point)
        return {**row, "events_per_second": events_per_second}


def _measured_point(chosen: ScoreHistogram, test: ScoreHistogram, aim: Aim) -> Row:
    """Return an operating point of `chosen`, measured on `test`; NaN where there is none."""
    names = ("threshold", "retention", "removal", "purity", "fakes")
    try:
        measured = test.at(chosen.point_at(aim).threshold)
    except Refused:  # no noise-only events, or the purity is out of reach
        return {f"{name}_at_{aim.name}": math.nan for name in names}
    return {f"{name}_at_{aim.name}": getattr(measured, name) for name in names}


def _is_rule(scorer: Scorer) -> bool:
    """Return whether a scorer is one of the baselines, renamed or not."""
    return type(getattr(scorer, "scorer", scorer)) in BASELINES.values()


def _tie(chosen: ScoreHistogram, point: OperatingPoint) -> float:
    """Return the fraction of the signal in `chosen` whose scores tie with the threshold."""
    curve = chosen.curve()
    above = curve.retention[curve.threshold > point.threshold]
    return point.retention - float(above.max()) if len(above) else 0.0


def event_batches(source: Source, size: int) -> Iterator[tuple[int, Callable[[], Events]]]:
    """Yield the number of events of each batch, at most `size`, and a function that reads it."""
    for batch in [source] if isinstance(source, (HitsFile, HitsFiles, Events)) else source:
        for start in range(0, len(batch), size):
            part = slice(start, min(start + size, len(batch)))
            yield part.stop - start, partial(batch.__getitem__, part)


def _summed(*numbers: float) -> list[float]:
    """Return the sums of numbers over all processes."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(value) for value in sums.tolist()]
