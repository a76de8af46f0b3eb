"""The figure of a comparison: a dot for each run, a row for each loss, the best on top."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_imb.base.files import write_whole
from dense_imb.compare.headings import UNORDERED, header
from dense_imb.compare.objects import Curve, recall_at
from dense_imb.compare.table import ComparisonTable
from dense_imb.metrics.score_table import Row
from dense_imb.report.drawing import line_style, plain_label

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#777777"
_N_SHOWN = 4  # scores
_LEAST = 0.02  # range of an axis


def draw(table: ComparisonTable, figure: Figure) -> None:
    """Draw one panel for each score, and in it one row for each loss."""
    scores = _shown_scores(table)
    panels: Any = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for score, axes in zip(scores, panels, strict=True):
        draw_score(table, score, axes)
    name_rows(table, panels[0])
    figure.supxlabel(
        f"dots: single runs of {table.steps} steps, {table.describe_seeds()}; "
        f"bars: means{'' if table.plain is None else f'; dotted: {table.plain}'}",
        fontsize=9,
        color=_GREY,
    )


def draw_score(table: ComparisonTable, score: str, axes: Axes) -> None:
    """Draw a dot for each run and a bar for each mean, one loss below the other."""
    from matplotlib.ticker import MaxNLocator

    rows = _rows(table)
    for place, row in enumerate(rows):
        values = [float(run[score]) for run in table.runs if run["loss"] == row["loss"]]
        colour, mean = _RED if row["loss"] == table.plain else _BLUE, float(row[score])
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=5)
        axes.plot([mean], [place], "|", color=colour, markersize=14, markeredgewidth=2.2)
    plain = next((row for row in rows if row["loss"] == table.plain), None)
    if plain is not None:
        axes.axvline(float(plain[score]), color=_RED, linewidth=0.9, linestyle=":", zorder=0)
    known = [float(run[score]) for run in table.runs if not math.isnan(float(run[score]))]
    axes.set_xlim(*_limits(known))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.set_title(header(score), loc="left", fontsize=10)
    axes.grid(axis="y", color="#E8E8E8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def name_rows(table: ComparisonTable, axes: Axes) -> None:
    """Write the name of each loss beside its row, the first on top."""
    names = [plain_label(str(row["loss"])) for row in _rows(table)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _rows(table: ComparisonTable) -> list[Row]:
    """Return the rows of the losses that were trained."""
    return [row for row in table.rows if float(row["n_seeds"]) > 0]


def _shown_scores(table: ComparisonTable) -> list[str]:
    """Return the first scores of which more is better."""
    return [name for name in table.known_scores if name not in UNORDERED][:_N_SHOWN]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis: never below 0 for values that are not, nor very narrow.

    Example:
        >>> _limits([0.0, 0.0]), [round(x, 3) for x in _limits([0.1, 0.3])]
        ((-0.03, 1.03), [0.09, 0.31])
    """
    low, high = min(values), max(values)
    if low == high == 0:
        return -0.03, 1.03
    span = max(high - low, _LEAST)
    start, margin = (low + high - span) / 2, 0.05 * span
    if low >= 0:
        start = max(start, 0.0)
    return start - margin, start + span + margin


def size_of(table: ComparisonTable) -> tuple[float, float]:
    """Return width and height of the figure in inches."""
    return (
        3.0 + 2.3 * len(_shown_scores(table)),
        1.6 + 0.32 * len(table.rows),
    )


def draw_objects(
    curves: Mapping[str, Sequence[Curve]],
    chosen: float,
    figure: Figure,
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Draw the recall of objects against the number of false objects an image.

    Args:
        curves: curves of the seeds of each loss, by its name.
        chosen: number of false objects at which losses are compared.
        figure: empty figure.
        points: false objects an image and recall of each loss at its own threshold.
    """
    axes = figure.add_subplot()
    low, high = max(chosen, 0.3) / 30, 30 * max(chosen, 0.3)
    numbers = np.geomspace(low, high, 120)
    for k, (name, of_seeds) in enumerate(curves.items()):
        recalls = [[recall_at(curve, n) for n in numbers] for curve in of_seeds]
        style = line_style(k)
        del style["marker"]
        axes.plot(numbers, np.mean(recalls, 0), label=plain_label(name), linewidth=1.8, **style)
        if len(recalls) > 1:
            spread = np.min(recalls, 0), np.max(recalls, 0)
            axes.fill_between(numbers, *spread, color=style["color"], alpha=0.1, linewidth=0)
        if points is not None and name in points:
            x, y = points[name]
            axes.plot([float(np.clip(x, low, high))], [y], "o", color=style["color"], clip_on=False)
    axes.axvline(max(chosen, low), color=_GREY, linewidth=0.9, linestyle=":", zorder=0)
    axes.set(xscale="log", xlim=(low, high), ylim=(0, 1.02))
    axes.set(xlabel="false objects an image", ylabel="fraction of the objects found")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#E8E8E8", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3)


def save_figure(table: ComparisonTable, path: str | os.PathLike[str]) -> None:
    """Write the figure as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=size_of(table), layout="constrained")
    FigureCanvasAgg(figure)
    draw(table, figure)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=150))
