"""`dense-imb evaluate` for runs on hits, beside the classical rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused
from dense_imb.cli._aims import aims_of
from dense_imb.cli._device import chosen_device
from dense_imb.cli._parser import Namespace
from dense_imb.cli._scorers import baseline
from dense_imb.cli._script import folder_for_outputs
from dense_imb.cli.evaluating.overlap import warn_of_overlap
from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.engine.processes import Processes
from dense_imb.hits import (
    Evaluation,
    HitsFile,
    HitsFiles,
    Scorer,
    available_baselines,
    noise_sweep,
    open_hits,
)
from dense_imb.hits import evaluate as evaluate_hits
from dense_imb.hits.classes import HitClasses
from dense_imb.hits.scaling import scaling_note
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.score_table import Row
from dense_imb.report.hits.measures import Batches, stored_scores, validation_events
from dense_imb.report.source import as_clause
from dense_imb.runs import Run
from dense_imb.tasks.hits.trained import TrainedHits


def evaluate(
    options: Namespace,
    runs: list[Run],
    others: list[str],
    outputs: list[Path],
    processes: Processes,
) -> Evaluation:
    """Measure runs and classical rules on labelled hits.

    Args:
        options: options of the command.
        runs: runs to measure.
        others: paths that are no runs.
        outputs: files to write later; their folder is made before the work.
        processes: processes that share the events.
    """
    files = [path for path in others if not Path(path).is_dir()]
    folders = [path for path in others if Path(path).is_dir()]
    for typed in folders:
        if any(Path(typed).glob("*.h5")):
            raise ValueError(
                f"Expected RUN ... FILE, got the folder {typed}, which is no run; name its hits "
                f'files: "{Path(typed)}/*.h5".'
            )
    if folders:
        raise ValueError(
            f"Expected folders of runs before the files, got {folders[0]}, which is none; images "
            f"come behind their run: evaluate RUN {folders[0]} --masks MASKS."
        )
    if not files:
        raise ValueError(
            f"Expected a hits file behind the runs, got only {', '.join(options.paths)}."
        )
    if options.signal is not None and not options.noise:
        raise Refused("{noise} beside {signal}", "none", "{noise=200} degrades clean events")
    device = processes.device or chosen_device(options)
    networks: list[TrainedHits] = [one.trained(device=device) for one in runs]
    scorers: list[Scorer] = [*networks]
    if not (scorers or options.baselines or options.baseline):
        raise ValueError("Expected a RUN beside --no-baselines, got none.")
    test = open_hits(files)
    _refuse_unlabelled(test, options, files)
    if processes.is_main:
        warn_of_overlap(options, runs, test, options.events)
    notes: tuple[str, ...] = ()
    rules: list[Scorer] = []
    if options.baselines:
        rules, notes = available_baselines(test.geometry)
    for typed in options.baseline:
        rule = baseline(typed, test.geometry, option="--baseline")
        if rule.name not in [one.name for one in rules]:
            rules.append(rule)
    if note := scaling_note(test.geometry, [rule.name for rule in rules]):
        notes = (*notes, f"{note} --baseline 'NAME(OPTION=VALUE)' sets others.")
    scorers += rules
    if outputs:
        folder_for_outputs(outputs[0].parent)
    choice = _choice(options, runs, networks, has_rules=len(scorers) > len(networks))
    notes = (*choice.notes, *notes)
    total = _n_events(options, len(test)) * len(scorers)
    total += choice.n_events * (len(scorers) - len(choice.stored))
    total *= max(1, len(options.noise))
    total = -(-total // processes.n)
    is_quiet = options.quiet or not processes.is_main
    with tqdm(total=total, desc="evaluate", unit="event", disable=is_quiet) as bar:
        common: dict[str, Any] = {
            **aims_of(options),
            "batch_size": options.batch_size,
            "n_events": options.events,
            "progress": bar.update,
            "over_processes": processes.n > 1,
        }
        if options.noise:
            table = noise_sweep(
                scorers,
                test,
                options.noise,
                signal=options.signal,
                seed=options.seed,
                validation=choice.events,
                **common,
            )
        else:
            table = evaluate_hits(scorers, choice.events, test, stored=choice.stored, **common)
            classes = {
                network.name: _classes_of(network, test, options, processes)
                for network in networks
                if network.n_classes > 2
            }
            table = replace(table, classes=classes)
    return replace(table, notes=(*table.notes, *notes))


def _classes_of(
    network: TrainedHits, test: Any, options: Namespace, processes: Processes
) -> tuple[Row, ...]:
    """Return hits, recall and precision of each class on the test events."""
    classes, n_events = HitClasses(), _n_events(options, len(test))
    size = options.batch_size
    for first in range(size * processes.rank, n_events, size * processes.n):
        events = test[first : min(first + size, n_events)].torch()
        classes.update(events.label, network.columns(events)["class"])
    return classes.reduce_over_processes().rows()


class _Choice(NamedTuple):
    """Data to choose thresholds on.

    Args:
        events: labelled events; None splits the test events.
        n_events: number of these events.
        stored: validation scores of the networks that need no events.
        notes: what is missing.
    """

    events: Any
    n_events: int = 0
    stored: Mapping[str, ScoreHistogram] = {}
    notes: tuple[str, ...] = ()


def _choice(
    options: Namespace, runs: list[Run], networks: Sequence[Scorer], *, has_rules: bool
) -> _Choice:
    """Return what thresholds are chosen on: the file given, else what the runs validated on."""
    if options.validation:
        events = open_hits(options.validation)
        _refuse_unlabelled(events, options, [options.validation])
        return _Choice(events, _n_events(options, len(events)))
    if options.noise:  # each level has its own thresholds
        return _Choice(None)
    scores = {network.name: stored_scores(run) for network, run in zip(networks, runs, strict=True)}
    stored = {name: histogram for name, histogram in scores.items() if histogram is not None}
    if not stored or not (has_rules or len(stored) < len(networks)):
        return _Choice(None, stored=stored)
    try:
        held_out = validation_events(runs[0])
    except (ValueError, OSError) as problem:
        note = f"the validation events of {runs[0].folder} can't be read ({as_clause(problem)})."
        return _Choice(None, stored=stored, notes=(note,))
    numbers = np.arange(_n_events(options, len(held_out)))
    return _Choice(Batches(held_out, numbers, VALIDATION_EPOCH), len(numbers), stored)


def _refuse_unlabelled(hits: HitsFile | HitsFiles, options: Namespace, files: list[str]) -> None:
    """Refuse hits without labels, unless noise is added to them."""
    if not options.noise and len(hits) and "/hit/label" not in hits.columns:
        raise Refused(
            "hits with labels, 0 for noise and 1 and more for signal",
            f"{', '.join(map(str, files))} without labels",
            "convert them with their labels, dense-imb convert --columns label=NAME, or, if all "
            "of them are signal, add noise: {noise=200}",
        )


def _n_events(options: Namespace, n_events: int) -> int:
    return n_events if options.events is None else min(options.events, n_events)
