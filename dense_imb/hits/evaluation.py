"""What scorers are worth: thresholds from some events, scores on others, beside the baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.degrade import Degradation, Range, degrade
from dense_imb.hits.events import Events
from dense_imb.hits.frames import visible
from dense_imb.hits.masking import Progress, count, score_events
from dense_imb.hits.noise import MeasuredNoise, Profile, Uniform
from dense_imb.hits.reader import HitsFile, HitsFiles
from dense_imb.hits.table import Evaluation
from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram
from dense_imb.metrics.score_table import Row

Change = Callable[[Events, NDArray[np.int64], int], Events]  # events, their numbers, the epoch
Source = HitsFile | HitsFiles | Events | Iterable[Events]
# of test events: the scorer, what it scored so far, a batch, its scores, which hits a frame shows
Watch = Callable[[str, HitScores, Events, Tensor, Tensor], object]
RETENTIONS = (0.90, 0.95, 0.97, 0.99)
_CHOOSE_EVERY = 5  # without validation events, every fifth one is for choosing
_VALIDATION_EPOCH = 1  # so that equal event numbers of two files draw different noise
# of outputs that draw frames or times of their own, which no mask does
_NOT_OF_MASKS = ("ghost", "time_residual")


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
    """Choose each scorer's thresholds on validation events, and measure it on test events.

    Events are streamed, one batch at a time is in memory. A scorer is given all hits of an event,
    as `mask_file` gives them; hits that others hide in their pixel are not counted.

    Args:
        scorers: baselines and trained models; names differ.
        validation: labelled events for the thresholds. None takes every fifth event of `test`
            for them, and the others for the scores, and the table says so.
        test: labelled events: an open file, a batch, or batches.
        retentions: wanted of further thresholds, for `removal_at_...`.
        retention: wanted of the operating point.
        batch_size: events scored together; changes nothing but the speed.
        n_events: at most so many of the first events of each source.
        progress: called with the number of events that one more scorer has done.
        watch: called with each batch of test events once it is counted, for figures: the scorer's
            name, its `HitScores` so far, the batch, the scores, and which hits a frame shows.
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
    """The operating point of a scorer for a wanted retention, chosen on labelled events."""
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
    """Degrade clean events with more and more noise, and evaluate the scorers at each level.

    Thresholds are chosen anew at each level. The random numbers belong to the seed and to an
    event's number, so the table does not depend on the batch size.

    Args:
        scorers, retentions, retention, batch_size, n_events, progress: as of `evaluate`.
        clean: events without noise: all labels above 0, or none given.
        levels: noise hits to add to each event.
        signal: signal hits to keep of each event, as of `Degradation`.
        seed: of the degradation.
        profiles: where the noise lies, as of `Degradation`.
        validation: clean events for the thresholds, as of `evaluate`.
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

        found, chosen_on = evaluator.measure(validation, clean, noisy)
        rows += [{"noise": level, **row} for row in found]
    return Evaluation(tuple(rows), retention, tuple(retentions), chosen_on)


@dataclass(frozen=True)
class _Evaluator:
    """The scorers of a table, and how they are looked at; `measure` does the work."""

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
        """A row for each scorer, and in words where the thresholds are from."""
        if validation is None and isinstance(test, Iterator):
            raise TypeError(
                "Expected validation events beside a generator of test events, which can't be read "
                "twice, got none; pass some, or a list of batches."
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
                count(scores[k], events, score, shown)
                if self.watch is not None:
                    self.watch(self.scorers[k].name, scores[k], events, score, shown)
        if n_tested == 0:
            raise ValueError("Expected events to test on, got none.")
        rows = tuple(
            self._row(scorer.name, found, histogram, n_tested / max(spent, 1e-9))
            for scorer, found, histogram, spent in zip(
                self.scorers, scores, chosen, seconds.tolist(), strict=True
            )
        )
        from_where = f"{n_chosen_on:,} validation events, scores on {n_tested:,} test events"
        if is_split:
            from_where = f"every {_CHOOSE_EVERY}th event ({n_chosen_on:,}), scores on "
            from_where += f"the {n_tested:,} others"
        return rows, f"thresholds chosen on {from_where}"

    def events(
        self,
        source: Source,
        change: Change | None = None,
        epoch: int = 0,
        is_for_choosing: bool | None = None,
    ) -> Iterator[Events]:
        """Labelled batches of tensors, changed; of a source that serves two purposes, one's."""
        first = 0
        for batch in _batches(source, self.batch_size):
            events = batch if self.n_events is None else batch[: self.n_events - first]
            number = np.arange(first, first + len(events))
            first += len(events)
            if is_for_choosing is not None:
                is_chosen = (number % _CHOOSE_EVERY == 0) == is_for_choosing
                events, number = _pick(events, is_chosen), number[is_chosen]
            if change is not None:
                events = change(events, number, epoch)
            if events.label is None:
                raise ValueError(
                    "Expected labelled hits to measure with, 0 for noise and 1.. for signal, got "
                    "none; `dense-imb simulate` makes some."
                )
            yield events.torch()
            if self.n_events is not None and first >= self.n_events:
                return

    def histograms(self, batches: Iterable[Events]) -> tuple[list[ScoreHistogram], int]:
        """The histogram of each scorer over the hits that a frame shows, and how many events."""
        found, n_events = [ScoreHistogram() for _ in self.scorers], 0
        for events in batches:
            n_events += len(events)
            shown = visible(events)
            is_signal = events.label[shown] > 0  # type: ignore[index]
            for histogram, (score, _) in zip(found, self._scored(events), strict=True):
                histogram.update(score[shown], is_signal)
        return found, n_events

    def _scored(self, events: Events) -> Iterator[tuple[Tensor, float]]:
        """The scores of each scorer in turn, and the seconds they took."""
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
        """Everything at thresholds that were `chosen` on other events."""
        row: Row = {"scorer": scorer, "threshold": scores.operating_point.threshold}
        for name, value in scores.scores().items():
            if not name.startswith(("removal_at_", *_NOT_OF_MASKS)):
                row[name] = value
        for wanted in self.retentions:
            point = scores.histogram.at(chosen.operating_point(wanted).threshold)
            row[f"removal_at_{100 * wanted:g}"] = point.removal
            row[f"retention_at_{100 * wanted:g}"] = point.retention
        natural = scores.histogram.at(0.5)
        row |= {"removal_at_half": natural.removal, "retention_at_half": natural.retention}
        row["threshold_tie"] = _tie(chosen, scores.operating_point)
        return {**row, "events_per_second": events_per_second}


def _tie(chosen: ScoreHistogram, point: OperatingPoint) -> float:
    """The share of the signal that it was chosen on whose scores tie with the threshold."""
    curve = chosen.curve()
    above = curve.retention[curve.threshold > point.threshold]
    return point.retention - float(above.max()) if len(above) else 0.0


def _batches(source: Source, size: int) -> Iterator[Events]:
    """At most `size` events at a time; files are read so."""
    if isinstance(source, (HitsFile, HitsFiles)):
        yield from source.batches(size)
        return
    for batch in [source] if isinstance(source, Events) else source:
        for start in range(0, len(batch), size):
            yield batch[start : start + size]


def _pick(events: Events, is_chosen: NDArray[np.bool_]) -> Events:
    """Some of the events."""
    events = events.numpy()
    size = np.diff(events.offset)
    is_of_chosen = np.repeat(is_chosen, size)
    offset = np.concatenate([[0], np.cumsum(size[is_chosen])]).astype(np.int64)
    columns = {name: column[is_of_chosen] for name, column in events.hit_columns().items()}
    picked = replace(events, event={}).with_hits(offset, columns)
    return replace(picked, event={name: c[is_chosen] for name, c in events.event.items()})


def _check_clean(events: Events) -> None:
    if events.label is not None and bool((events.label == 0).any()):
        raise ValueError(
            "Expected clean events to add noise to, all hits labelled as signal, got some labelled "
            "as noise; evaluate them without a sweep, or make clean ones with `dense-imb simulate`."
        )
