"""Evaluation of scorers: thresholds chosen on validation events, scores on test events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.degrade import Degradation, Range, degrade
from dense_imb.hits.events import Events
from dense_imb.hits.frames import visible
from dense_imb.hits.masking import Progress, count_hits, score_events
from dense_imb.hits.noise import MeasuredNoise, Profile, Uniform
from dense_imb.hits.reader import HitsFile, HitsFiles
from dense_imb.hits.table import Evaluation
from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram
from dense_imb.metrics.hits import RETENTIONS
from dense_imb.metrics.score_table import Row

Change = Callable[[Events, NDArray[np.int64], int], Events]  # events, their indices, the epoch
Source = HitsFile | HitsFiles | Events | Iterable[Events]
# name of the scorer, its `HitScores` so far, batch, scores and visibility of its hits
Watch = Callable[[str, HitScores, Events, Tensor, Tensor], object]
_CHOOSE_EVERY = 5  # without validation events, every fifth test event is used for thresholds
_VALIDATION_EPOCH = 1  # so that events of equal index in two files get different noise
# scores of outputs with new frames or times; masks have neither
_OUTPUT_SCORES = ("ghost", "time_residual")


def evaluate(
    scorers: Sequence[Scorer],
    validation: Source | None,
    test: Source,
    *,
    retentions: Sequence[float] = RETENTIONS,
    retention: float = 0.97,
    batch_size: int = 256,
    n_events: int | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Choose thresholds of scorers on validation events, and measure scores on test events.

    Events are streamed; memory holds one batch at a time. A scorer sees all hits of an event, as
    in `mask_file`; scores do not count hits behind others in their pixel.

    Args:
        scorers: baselines and trained models with different names.
        validation: labelled events for the thresholds. None uses every fifth event of `test` for
            thresholds and the others for scores; the table says so.
        test: labelled events: an open file, a batch, or an iterable of batches.
        retentions: retentions of the further thresholds, for `removal_at_...`.
        retention: retention of the operating point, default 0.97.
        batch_size: events scored together; it changes the speed only.
        n_events: maximum number of events read from each source; None reads all.
        progress: called with the number of events that one scorer has processed since its last
            call.
        watch: called with each batch of test events after counting. Its arguments are the name
            of the scorer, its `HitScores` so far, the batch, and the score and visibility of
            each hit.
    Example:
        >>> from dense_imb.hits import simulate
        >>> from dense_imb.hits.baselines import KeepNothing, HitDensity
        >>> noisy = degrade(simulate("arc", 50, seed=1), Degradation(signal=30, noise=50), seed=1)
        >>> table = evaluate([KeepNothing(), HitDensity()], None, noisy)
        >>> table["blank"]["removal"], table["hit density"]["removal"] > 0.5
        (0.0, True)
        >>> table.chosen_on
        'thresholds chosen on every 5th event (10), scores on the 40 others'
    """
    retentions = sorted({*retentions, retention})
    evaluator = _Evaluator(scorers, retentions, retention, batch_size, n_events, progress, watch)
    rows, chosen_on = evaluator.measure(validation, test)
    return Evaluation(rows, retention, tuple(retentions), chosen_on)


def choose_point(
    scorer: Scorer,
    source: Source,
    *,
    retention: float = 0.97,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> OperatingPoint:
    """Choose the operating point of a scorer on labelled events.

    Args:
        scorer: baseline or trained model.
        source: labelled events, see `evaluate`.
        retention: retention of the operating point, default 0.97.
        batch_size: events scored together.
        progress: called with the number of events processed since the last call.
    """
    evaluator = _Evaluator([scorer], (), retention, batch_size, None, progress)
    (histogram,), _ = evaluator.histograms(evaluator.events(source))
    return histogram.operating_point(retention)


def noise_sweep(
    scorers: Sequence[Scorer],
    clean: Source,
    levels: Sequence[int],
    *,
    signal: Range | None = 30,
    seed: int = 0,
    profiles: Sequence[Profile | MeasuredNoise] = (Uniform(),),
    validation: Source | None = None,
    retentions: Sequence[float] = RETENTIONS,
    retention: float = 0.97,
    batch_size: int = 256,
    n_events: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate scorers on clean events with increasing amounts of added noise.

    Each level has its own thresholds. Random numbers depend on the seed and the index of an
    event, so the table does not depend on the batch size.

    Args:
        scorers, retentions, retention, batch_size, n_events, progress: see `evaluate`.
        clean: events without noise: all labels above 0, or no labels.
        levels: numbers of noise hits to add to each event.
        signal: signal hits to keep per event, see `Degradation`.
        seed: random seed of the degradation.
        profiles: profiles of the noise, see `Degradation`.
        validation: clean events for the thresholds, see `evaluate`.
    """
    retentions = sorted({*retentions, retention})
    evaluator = _Evaluator(scorers, retentions, retention, batch_size, n_events, progress)
    rows: list[Row] = []
    chosen_on = ""
    if not levels:
        raise ValueError("Expected `levels` with at least one number of noise hits, got none.")
    for level in levels:
        degradation = Degradation(signal=signal, noise=level, profiles=profiles)

        def noisy(
            events: Events,
            number: NDArray[np.int64],
            epoch: int,
            how: Degradation = degradation,
        ) -> Events:
            _check_clean(events)
            return degrade(events, how, seed=seed, epoch=epoch, event_index=number)

        level_rows, chosen_on = evaluator.measure(validation, clean, noisy)
        rows += [{"noise": level, **row} for row in level_rows]
    return Evaluation(tuple(rows), retention, tuple(retentions), chosen_on)


@dataclass(frozen=True)
class _Evaluator:
    """Scorers of a table and settings of their evaluation, see `evaluate`."""

    scorers: Sequence[Scorer]
    retentions: Sequence[float]
    retention: float
    batch_size: int
    n_events: int | None
    progress: Progress | None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        check_at_least("batch_size", self.batch_size, 1)
        if self.n_events is not None:
            check_at_least("n_events", self.n_events, 1)
        names = [scorer.name for scorer in self.scorers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            got = f"{twice[0]!r} twice" if twice else "none"
            raise ValueError(f"Expected `scorers` of different names, at least one, got {got}.")
        for wanted in (self.retention, *self.retentions):
            if not 0 < wanted <= 1:
                raise ValueError(f"Expected a retention above 0 and up to 1, got {wanted}.")

    def measure(
        self,
        validation: Source | None,
        test: Source,
        change: Change | None = None,
    ) -> tuple[tuple[Row, ...], str]:
        """Return a row for each scorer, and a description of the events used for thresholds."""
        if validation is None and isinstance(test, Iterator):
            raise TypeError(
                "Expected validation events with a generator of test events, which can't be read "
                "twice, got none; pass validation events, or a list of batches as `test`."
            )
        is_split = validation is None
        source, epoch = (test, 0) if validation is None else (validation, _VALIDATION_EPOCH)
        chosen, n_chosen_on = self.histograms(
            self.events(source, change, epoch, True if is_split else None)
        )
        scores = [HitScores(histogram.operating_point(self.retention)) for histogram in chosen]
        seconds = np.zeros(len(scores))
        n_tested = 0
        for events in self.events(test, change, 0, False if is_split else None):
            n_tested += len(events)
            shown = visible(events)
            for k, (score, spent) in enumerate(self._scored(events)):
                seconds[k] += spent
                count_hits(scores[k], events, score, shown)
                if self.watch is not None:
                    self.watch(self.scorers[k].name, scores[k], events, score, shown)
        if n_tested == 0:
            raise ValueError("Expected events to test on, got none.")
        rows = tuple(
            self._row(scorer.name, measured, histogram, n_tested / max(spent, 1e-9))
            for scorer, measured, histogram, spent in zip(
                self.scorers, scores, chosen, seconds.tolist(), strict=True
            )
        )
        chosen_on = f"{n_chosen_on:,} validation events, scores on {n_tested:,} test events"
        if is_split:
            chosen_on = f"every {_CHOOSE_EVERY}th event ({n_chosen_on:,}), scores on "
            chosen_on += f"the {n_tested:,} others"
        return rows, f"thresholds chosen on {chosen_on}"

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
        first = 0
        for batch in _batches(source, self.batch_size):
            events = batch if self.n_events is None else batch[: self.n_events - first]
            number = np.arange(first, first + len(events))
            first += len(events)
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
            if self.n_events is not None and first >= self.n_events:
                return

    def histograms(self, batches: Iterable[Events]) -> tuple[list[ScoreHistogram], int]:
        """Return the histogram of visible hits of each scorer, and the number of events."""
        histograms, n_events = [ScoreHistogram() for _ in self.scorers], 0
        for events in batches:
            n_events += len(events)
            shown = visible(events)
            is_signal = events.label[shown] > 0  # type: ignore[index]
            for histogram, (score, _) in zip(histograms, self._scored(events), strict=True):
                histogram.update(score[shown], is_signal)
        return histograms, n_events

    def _scored(self, events: Events) -> Iterator[tuple[Tensor, float]]:
        """Yield the scores of each scorer, and the seconds spent on them."""
        for scorer in self.scorers:
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
        for wanted in self.retentions:
            point = scores.histogram.at(chosen.operating_point(wanted).threshold)
            row[f"removal_at_{100 * wanted:g}"] = point.removal
            row[f"retention_at_{100 * wanted:g}"] = point.retention
        half = scores.histogram.at(0.5)
        row |= {"removal_at_half": half.removal, "retention_at_half": half.retention}
        row["threshold_tie"] = _tie(chosen, scores.operating_point)
        return {**row, "events_per_second": events_per_second}


def _tie(chosen: ScoreHistogram, point: OperatingPoint) -> float:
    """Return the fraction of the signal in `chosen` whose scores tie with the threshold."""
    curve = chosen.curve()
    above = curve.retention[curve.threshold > point.threshold]
    return point.retention - float(above.max()) if len(above) else 0.0


def _batches(source: Source, size: int) -> Iterator[Events]:
    """Yield batches of at most `size` events."""
    if isinstance(source, (HitsFile, HitsFiles)):
        yield from source.batches(size)
        return
    for batch in [source] if isinstance(source, Events) else source:
        for start in range(0, len(batch), size):
            yield batch[start : start + size]


def _check_clean(events: Events) -> None:
    if events.label is not None and bool((events.label == 0).any()):
        raise ValueError(
            "Expected clean events for a noise sweep, got hits labelled as noise; evaluate these "
            "events without a sweep, or make clean ones with `dense-imb simulate`."
        )
