"""A run as notebooks show it: a card with its scores, and its history as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_imb.base.axes import (
    BLUE,
    BRIGHT_BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    choose_axes,
    plain_label,
)
from dense_imb.base.html_text import html_card, html_table
from dense_imb.base.refusals import suggest
from dense_imb.base.svg_text import SvgAxis, SvgMarks, svg_plot
from dense_imb.base.tabular import column_names, number_cell

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

    from dense_imb.runs.read import Run

_STYLES = (
    (BLUE, "-"), (RED, "--"), (GREEN, "-."), (PINK, ":"), (ORANGE, "-"), (GREY, "--"),
)  # fmt: skip
_MOST_SCORES = 12
_SIZE = (260, 136)  # of the frame of the small plot, in pixels
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OSError)


def plot_history(
    run: Run, ax: Axes | None = None, columns: str | Sequence[str] | None = None
) -> Axes:
    """Draw columns of the history against the step: `Run.plot`."""
    rows = run.history
    if not rows:
        raise ValueError(f"Expected a validation in {run.folder / 'history.csv'}, got none yet.")
    known = [name for name in column_names(rows) if name != "step"]
    monitor = _monitor(run.metrics, known)
    names = [columns] if isinstance(columns, str) else [*(columns or [monitor])]
    for name in names:
        if name not in known:
            raise ValueError(
                f"Expected `columns` among {', '.join(known)}, got {name!r}.{suggest(name, known)}"
            )
    axes = choose_axes(ax)
    step = np.array([row.get("step", math.nan) for row in rows])
    for k, name in enumerate(names):
        colour, dashes = _STYLES[k % len(_STYLES)]
        values = np.array([row.get(name, math.nan) for row in rows])
        label = plain_label(name.replace("_", " "))
        axes.plot(step, values, color=colour, linestyle=dashes, marker=".", label=label)
        if name == monitor and np.isfinite(values).any():
            best = int(np.nanargmax(values))
            axes.plot(step[best], values[best], "o", color=colour, fillstyle="none", markersize=11)
    axes.set(xlabel="step", title=plain_label(run.name))
    if len(names) == 1:
        axes.set_ylabel(plain_label(names[0].replace("_", " ")))
    else:
        axes.legend()
    return axes


def card_of_run(run: Run) -> str:
    """Return a run as HTML: its facts, its best scores, and the score that chose them.

    Records that are missing or damaged leave out their part: a card raises nothing.
    """
    config = run.config
    facts = [
        ["folder", str(run.folder)],
        ["data", run.kind.description],
        ["network", config.model.name],
        ["loss", str(config.loss)],
    ]
    parts, notes = [], []
    try:
        metrics, history = run.metrics, run.history
        facts += _facts(metrics)
        scores = _score_cells(metrics)
        curve = _small_plot(metrics, history)
    except _UNREADABLE as problem:
        metrics, scores, curve = {}, [], ""
        notes.append(f"The records of the run can't be read: {problem}")
    parts = [html_table(facts, has_header=False, n_left=2)]
    parts += [html_table(scores)] if scores else []
    parts += [curve] if curve else []
    if not scores and not notes:
        notes.append("No validation yet.")
    if metrics.get("stopped"):
        notes.append(f"Ended early: {metrics['stopped']}")
    elif metrics.get("is_finished") is False:
        notes.append(f"Not finished: {metrics.get('steps')} of {config.steps} steps.")
    return html_card(f"Run {run.folder.name}", parts, notes)


def card_of_pretrained(run: Run) -> str:
    """Return a network of the package as HTML: its facts, and its validation scores."""
    facts = [
        ["data", run.kind.description],
        ["trained on", run.geometry().size_text()],
        ["network", run.config.model.name],
    ]
    tables = [html_table(facts, has_header=False, n_left=2)]
    tables += [html_table(cells) for cells in run.scores().text_tables()]
    note = "card() says what it was trained on, and what it is not for."
    return html_card(f"Pretrained network {run.name}", tables, [note])


def _facts(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return steps, time, size and samples, as far as they are known."""
    facts = []
    if "steps" in metrics:
        seconds = metrics.get("seconds")
        time = f" in {float(seconds):,.0f} s" if seconds is not None else ""
        facts.append(["steps", f"{number_cell(metrics['steps'])}{time}"])
    if "parameters" in metrics:
        facts.append(["parameters", number_cell(metrics["parameters"])])
    for name, n in dict(metrics.get("samples") or {}).items():
        facts.append([f"{name} samples", number_cell(n)])
    return facts


def _score_cells(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return the best validation scores as texts, that which chose them first."""
    best = dict(metrics.get("best") or {})
    if not best:
        return []
    monitor = str(metrics.get("monitor"))
    first = {monitor: best[monitor]} if monitor in best else {}
    rest = {n: v for n, v in best.items() if n not in ("step", "epoch", "learning_rate", monitor)}
    known = {name: value for name, value in {**first, **rest}.items() if value is not None}
    header = ["validation score", f"at step {number_cell(best.get('step'))}"]
    cells = [[name.replace("_", " "), number_cell(value)] for name, value in known.items()]
    return [header, *cells[:_MOST_SCORES]]


def _small_plot(metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    """Return the monitored score against the step as SVG; "" with fewer than two points."""
    monitor = _monitor(metrics, column_names(history))
    points = [(row.get("step", math.nan), row.get(monitor, math.nan)) for row in history]
    points = [point for point in points if all(map(math.isfinite, point))]
    if len(points) < 2:
        return ""
    step, score = zip(*points, strict=True)
    marks = [
        SvgMarks(step, score, BRIGHT_BLUE, is_line=True),
        SvgMarks(step, score, BRIGHT_BLUE, radius=2.2),
    ]
    return svg_plot(
        marks,
        SvgAxis("step", min(step), max(step)),
        SvgAxis("", min(score), max(score)),
        title=monitor.replace("_", " "),
        size=_SIZE,
    )


def _monitor(metrics: Mapping[str, Any], known: Sequence[str]) -> str:
    """Return the score that chooses the best network; the loss where it is not recorded."""
    monitor = str(metrics.get("monitor"))
    return monitor if monitor in known else "loss"
