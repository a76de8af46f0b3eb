"""The figure of a comparison: a dot for each run, a row for each loss, the best on top."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dense_imb.base.files import write_whole
from dense_imb.compare.table import ComparisonTable, header

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#777777"
_N_SHOWN = 4  # scores


def draw(table: ComparisonTable, figure: Figure) -> None:
    """Draw one panel for each score, and in it one row for each loss."""
    scores = table.scores[:_N_SHOWN]
    panels: Any = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    names = [str(row["loss"]) for row in table.rows]
    for score, axes in zip(scores, panels, strict=True):
        for place, row in enumerate(table.rows):
            values = [run[score] for run in table.runs if run["loss"] == row["loss"]]
            colour = _RED if row["loss"] == table.plain else _BLUE
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=5)
            axes.plot([row[score]], [place], "|", color=colour, markersize=14, markeredgewidth=2.2)
        plain = next((row for row in table.rows if row["loss"] == table.plain), None)
        if plain is not None:
            axes.axvline(float(plain[score]), color=_RED, linewidth=0.9, linestyle=":", zorder=0)
        axes.set_title(header(score), loc="left", fontsize=10)
        axes.grid(axis="y", color="#E8E8E8", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(
        f"dots: single runs of {table.steps} steps, {table.describe_seeds()}; "
        f"bars: means{'' if table.plain is None else f'; dotted: {table.plain}'}",
        fontsize=9,
        color=_GREY,
    )


def save_figure(table: ComparisonTable, path: str | os.PathLike[str]) -> None:
    """Write the figure as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    size = (3.0 + 2.3 * min(len(table.scores), _N_SHOWN), 1.6 + 0.32 * len(table.rows))
    figure = NewFigure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(table, figure)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=150))
