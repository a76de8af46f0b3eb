"""Evaluation of scorers: thresholds chosen on validation events, scores on test events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dense_imb.hits.baselines import Scorer
from dense_imb.hits.degrade import Degradation, Range, degrade
from dense_imb.hits.evaluator import Evaluator, Measured, Source, Watch, event_batches
from dense_imb.hits.events import Events
from dense_imb.hits.masking import Progress, score_events
from dense_imb.hits.noise import MeasuredNoise, Profile, Uniform
from dense_imb.hits.table import Evaluation
from dense_imb.metrics import OperatingPoint, ScoreHistogram
from dense_imb.metrics.hits import RETENTIONS
from dense_imb.metrics.operating_point import Aim


def evaluate(
    scorers: Sequence[Scorer],
    validation: Source | None,
    test: Source,
    *,
    retentions: Sequence[float] = RETENTIONS,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    stored: Mapping[str, ScoreHistogram] | None = None,
    batch_size: int = 256,
    n_events: int | None = None,
    progress: Progress | None = None,
    over_processes: bool = False,
    watch: Watch | None = None,
) -> Evaluation:
    """Choose thresholds of scorers on validation events, and measure scores on test events.

    Events are streamed; memory holds one batch at a time. A scorer sees all hits of an event, as
    in `mask_file`, and scores count them all, hits behind others in their pixel included.

    The table holds three operating points: at a retention, at a number of fakes and at a purity.
    The one asked for is that of its main columns; the other two have their default values.

    Args:
        scorers: baselines and trained models with different names.
        validation: labelled events for the thresholds. None uses every fifth event of `test` for
            thresholds and the others for scores; the table says so.
        test: labelled events: an open file, a batch, or an iterable of batches.
        retentions: retentions of the further thresholds, for `removal_at_...`.
        retention: retention (signal efficiency) of the operating point. Default 0.97, if neither
            `fakes` nor `purity` is given.
        fakes: number of noise hits kept per noise-only event at the operating point.
        purity: purity of the operating point.
        stored: histograms of validation scores by name of the scorer. These scorers get their
            thresholds from them, and do not score `validation`.
        batch_size: events scored together; it changes the speed only.
        n_events: maximum number of events read from each source; None reads all.
        progress: called with the number of events that one scorer has processed since its last
            call.
        over_processes: share the batches among the processes of the default group. All of them
            must call, and all get the table of one process.
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
    aim = Aim.of(retention, fakes, purity)
    evaluator = Evaluator(
        scorers, retentions, aim, batch_size, n_events, progress, over_processes, watch,
        stored or {},
    )  # fmt: skip
    return evaluator.table([evaluator.measure(validation, test)])


def choose_point(
    scorer: Scorer,
    source: Source,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
    over_processes: bool = False,
) -> OperatingPoint:
    """Choose the operating point of a scorer on labelled events.

    Args:
        scorer: baseline or trained model.
        source: labelled events, see `evaluate`.
        retention: retention (signal efficiency) of the operating point. Default 0.97, if neither
            `fakes` nor `purity` is given.
        fakes: number of noise hits kept per noise-only event.
        purity: purity of the operating point.
        batch_size: events scored together.
        progress: called with the number of events processed since the last call.
        over_processes: see `evaluate`.

    Example:
        >>> from dense_imb.hits import Degradation, HitDensity, choose_point, degrade, simulate
        >>> noisy = degrade(simulate("arc", 10, seed=1), Degradation(signal=30, noise=100), seed=1)
        >>> point = choose_point(HitDensity(), noisy, retention=0.9)
        >>> point.retention >= 0.9, point.n_signal, point.n_noise
        (True, 300, 1000)
    """
    aim = Aim.of(retention, fakes, purity)
    evaluator = Evaluator([scorer], (), aim, batch_size, None, progress, over_processes)
    (histogram,), _ = evaluator.histograms([scorer], evaluator.events(source))
    return histogram.point_at(aim)


def promised_threshold(
    scorer: Scorer,
    source: Source,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
    over_processes: bool = False,
) -> float:
    """Return the score with the best F1 that the scores of events promise; no label is read.

    Scores must be natural probabilities of signal, see `dense_imb.metrics.best_f1_threshold`.

    Args:
        scorer: trained model.
        source: events, see `evaluate`.
        batch_size, progress, over_processes: see `choose_point`.

    Example:
        >>> import torch
        >>> from dense_imb.hits import promised_threshold, simulate
        >>> class Sure:
        ...     name = "sure"
        ...     def score(self, events):  # 9 of 10 hits with this score are signal
        ...         return torch.full((events.n_hits,), 0.9)
        >>> round(promised_threshold(Sure(), simulate("arc", 2, seed=1)), 2)
        0.9
    """
    rank, n_processes = (dist.get_rank(), dist.get_world_size()) if over_processes else (0, 1)
    histogram = ScoreHistogram()
    for k, (n_events, read) in enumerate(event_batches(source, batch_size)):
        if k % n_processes == rank:
            score = score_events(scorer, read().torch())
            histogram.update(score, torch.zeros_like(score, dtype=torch.bool))
            if progress is not None:
                progress(n_events)
    if over_processes:
        histogram.reduce_over_processes()
    if histogram.n_noise == 0:
        raise ValueError("Expected hits to choose the threshold from, got none.")
    return histogram.expected_best_f1()[1]


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
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    batch_size: int = 256,
    n_events: int | None = None,
    progress: Progress | None = None,
    over_processes: bool = False,
) -> Evaluation:
    """Evaluate scorers on clean events with increasing amounts of added noise.

    Each level has its own thresholds. Random numbers depend on the seed and the index of an
    event, so the table does not depend on the batch size.

    Args:
        scorers, retentions, batch_size, n_events, progress, over_processes: see `evaluate`.
        retention, fakes, purity: wanted operating point, see `evaluate`.
        clean: events without noise: all labels above 0, or no labels.
        levels: numbers of noise hits to add to each event.
        signal: signal hits to keep per event, see `Degradation`.
        seed: random seed of the degradation.
        profiles: profiles of the noise, see `Degradation`.
        validation: clean events for the thresholds, see `evaluate`.

    Example:
        >>> from dense_imb.hits import BlurredHits, noise_sweep, simulate
        >>> clean = simulate("arc", 10, seed=1, n_photons=40)
        >>> table = noise_sweep([BlurredHits()], clean, [20, 200], signal=30)
        >>> [row["noise"] for row in table.rows]
        [20, 200]
        >>> table.rows[0]["purity"] > table.rows[1]["purity"]
        True
    """
    aim = Aim.of(retention, fakes, purity)
    evaluator = Evaluator(scorers, retentions, aim, batch_size, n_events, progress, over_processes)
    measured: list[Measured] = []
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

        rows, chosen_on, notes = evaluator.measure(validation, clean, noisy)
        rows = tuple({"noise": level, **row} for row in rows)
        notes = tuple(f"{level} noise hits: {note}" for note in notes)
        measured.append(Measured(rows, chosen_on, notes))
    return evaluator.table(measured)


def _check_clean(events: Events) -> None:
    if events.label is not None and bool((events.label == 0).any()):
        raise ValueError(
            "Expected clean events for a noise sweep, got hits labelled as noise; evaluate these "
            "events without a sweep, or make clean ones with `dense-imb simulate`."
        )
