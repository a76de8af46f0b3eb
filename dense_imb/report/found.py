"""What there is to report of a run, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dense_imb.hits.masking import Progress
from dense_imb.report.measure import Measured, measure, test_events, validation_events
from dense_imb.training import Run, TrainedDenoiser


@dataclass
class Found:
    """What there is to report.

    Args:
        run: opened.
        test: the files that were asked for.
        retention, n_events: as of `write_report`.
        name: of the network in the table.
        measured: None where the network or the events are missing.
        adds_noise: to the test events.
        notes: what is missing, and what else a reader should know.
        history, metrics, environment: the run's own records.
    """

    run: Run
    test: tuple[str, ...]
    retention: float
    n_events: int
    name: str
    measured: Measured | None = None
    adds_noise: bool = False
    notes: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


def read_records(found: Found) -> None:
    """The run's own records; a missing or damaged one is told."""
    try:
        found.history = found.run.history()
    except (ValueError, TypeError, OSError) as problem:
        found.notes.append(f"No training curves: history.csv can't be read ({_said(problem)}).")
    try:
        found.metrics = found.run.metrics()
    except (ValueError, TypeError, OSError) as problem:
        found.notes.append(f"No validation scores: metrics.json can't be read ({_said(problem)}).")
    path = found.run.folder / "environment.json"
    try:
        found.environment = dict(json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as problem:
        found.notes.append(f"Versions unknown: environment.json can't be read ({_said(problem)}).")
    if found.metrics.get("stopped"):
        found.notes.append(f"The run was ended early: {found.metrics['stopped']}.")
    elif not found.metrics and not found.history:
        found.notes.append("The run has not come to its first validation yet.")
    elif found.metrics.get("is_finished") is False:
        found.notes.append(
            f"The run is not finished: {found.metrics['steps']} of {found.run.config.steps} steps."
        )


def measure_run(found: Found, progress: Callable[[int], Progress]) -> None:
    """The table, where there are a network and events."""
    test = None
    if found.test:
        # asked for by name: what is wrong with it ends the report
        test, found.adds_noise = test_events(found.run, [*found.test], found.n_events)
        if "/hit/label" not in test.source.columns:
            found.notes.append(
                "The hits of the test events have no labels: all of them are taken for signal."
            )
    network: TrainedDenoiser
    try:
        network = found.run.scorer()
    except (ValueError, OSError, KeyError) as problem:
        found.notes.append(f"No scores: the network can't be loaded ({_said(problem)}).")
        return
    validation = None
    try:
        validation = validation_events(found.run)
    except (ValueError, OSError) as problem:
        found.notes.append(
            f"The validation events can't be read ({_said(problem)})."
            + ("" if test else " Bring the files back, or give others with --test.")
        )
    if validation is None and test is None:
        return
    try:
        found.measured = measure(
            network,
            validation,
            test,
            retention=found.retention,
            n_events=found.n_events,
            progress=progress,
        )
    except ValueError as problem:
        if test is not None:
            raise
        found.notes.append(f"No scores: {_said(problem)}")
        return
    found.name = network.name
    found.notes += found.measured.evaluation.notes


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.filename and problem.strerror:
        return f"{problem.strerror}: {problem.filename}"
    return str(problem).rstrip(".")
