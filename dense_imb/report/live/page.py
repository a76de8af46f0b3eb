"""The live page as HTML: small curves of the history, the latest scores, and the examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from dense_imb import __version__
from dense_imb.base.axes import BLUE, GREY
from dense_imb.base.svg_text import SvgAxis, SvgMarks, svg_plot
from dense_imb.engine.score_lines import score_title

_TEMPLATE = "live.html.jinja"
_SIZE = (172, 104)  # of the frame of a curve, in pixels
_MOST_ROWS = 12
_MOST_CURVES = 8
_MOST_POINTS = 400  # of a curve
_LOG = 20.0  # ratio of losses above which their axis is logarithmic
Rows = Sequence[Mapping[str, float]]


class Figure(NamedTuple):
    """A figure of the page.

    Args:
        png: content of the PNG file in base 64.
        alt: description for readers who can't see it.
        caption: explanation below the figure.
    """

    png: str
    alt: str
    caption: str


class ScoreRow(NamedTuple):
    """A row of the table of validation scores, and whether it is that of the best network."""

    cells: list[str]
    is_best: bool


def curves_of(earlier: Rows, history: Rows, names: Sequence[str]) -> list[str]:
    """Return a small plot against the step for each score of the history, as SVG.

    Args:
        earlier: history of a first stage; a line marks its end.
        history: history of the stage.
        names: names of the scores; those without two values are left out.
    """
    start = float(earlier[-1]["step"]) if earlier else 0.0
    rows = [*earlier, *({**row, "step": row["step"] + start} for row in history)]
    known = dict.fromkeys(name for name in names if any(name in row for row in rows))
    plots = [_curve(rows, name, start) for name in known]
    return [plot for plot in plots if plot][:_MOST_CURVES]


def _curve(rows: Rows, name: str, start: float) -> str:
    points = [(row["step"], row.get(name, math.nan)) for row in rows]
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) < 2:
        return ""
    points = points[:: -(-len(points) // _MOST_POINTS)] + points[-1:]
    step, value = (list(one) for one in zip(*points, strict=True))
    title = score_title(name)
    if name == "loss" and min(value) > 0 and max(value) > _LOG * min(value):
        title, value = "loss, logarithm to base 10", [math.log10(one) for one in value]
    low, high = min(value), max(value)
    marks = [SvgMarks([start, start], [low, high], GREY, is_line=True)] if start else []
    marks += [SvgMarks(step, value, BLUE, is_line=True), SvgMarks(step, value, BLUE, radius=2)]
    axes = SvgAxis("step", step[0], step[-1]), SvgAxis("", low, high)
    return svg_plot(marks, *axes, title=title, size=_SIZE)


def score_rows(
    history: Rows, names: Sequence[str], best_step: int
) -> tuple[list[str], list[ScoreRow]]:
    """Return header and rows of the latest validations, the newest first.

    Args:
        history: history of the stage.
        names: names of the scores; unknown ones are left out.
        best_step: step of the best network.
    """
    known = [name for name in dict.fromkeys(names) if any(name in row for row in history)]
    rows = [
        ScoreRow([_cell(name, row.get(name, math.nan)) for name in known], row["step"] == best_step)
        for row in history[: -_MOST_ROWS - 1 : -1]
    ]
    return [score_title(name) for name in known], rows


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if name == "step" else f"{value:.4g}"


def percent_done(step: int, n_steps: int) -> str:
    """Return the fraction of the steps that are done, as text.

    Example:
        >>> percent_done(30, 40)
        '75 %'
    """
    return f"{math.floor(100 * step / n_steps)} %"


def render_live(**content: Any) -> str:
    """Render the page; `content` has a value for each variable of the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    title = f"{percent_done(content['step'], content['n_steps'])} {content['name']} - dense-imb"
    return environment.get_template(_TEMPLATE).render(version=__version__, title=title, **content)
