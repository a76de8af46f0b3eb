"""What the figures of all reports share: colours, scales, and the panels of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.metrics import ScoreHistogram

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours; lines differ in their dashes, and hits in their marks, too
BLUE, RED, GREEN, PINK, SKY, ORANGE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00",
)  # fmt: skip
_ORDER = (BLUE, RED, "#000000", GREEN, PINK, ORANGE, SKY)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 2, 1.5, 2, 1.5, 2)))
_MARKS = "osv^DP"
RC: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
PROBABILITIES = (
    1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1 - 1e-4, 1 - 1e-6,
)  # fmt: skip
Rows = Sequence[Mapping[str, float]]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn.

    Args:
        name: of its file, without .png.
        section: the heading it stands under.
        draw: on a figure of its own.
        size: in inches.
        alt: what it shows, for who can't see it.
        caption: how to read it.
    """

    name: str
    section: str
    draw: Callable[[Figure], None]
    size: tuple[float, float]
    alt: str
    caption: str


@dataclass(frozen=True)
class Panel:
    """Curves against the step.

    Args:
        title: of the panel.
        curves: by name.
        scale: sets the y axis for the curves.
    """

    title: str
    curves: Mapping[str, Values]
    scale: Callable[[Axes, Sequence[Values]], None] | None = None


def line_style(k: int) -> dict[str, Any]:
    """Colour, dashes and mark of curve k."""
    return {
        "color": _ORDER[k % len(_ORDER)],
        "linestyle": _DASHES[k % len(_DASHES)],
        "marker": _MARKS[k % len(_MARKS)],
    }


def draw_panels(
    step: Values, contents: Sequence[Panel], figure: Figure, second: float | None = None
) -> None:
    """What each validation found, against the step, two panels in a row.

    Args:
        step: of each validation.
        contents: of the panels.
        figure: to draw on.
        second: step at which a second stage begins; None where there is none.
    """
    panels = figure.subplots(len(contents) // 2, 2, sharex=True).ravel()
    # a legend hides the line of the second stage
    ground: dict[str, Any] = {"frameon": True, "framealpha": 1, "edgecolor": "none"}
    ground = {} if second is None else ground
    for axes, content in zip(panels, contents, strict=True):
        axes.set_title(content.title)
        for k, (name, values) in enumerate(content.curves.items()):
            axes.plot(step, values, label=name, markersize=3.5, **line_style(k))
        if second is not None:
            axes.axvline(second, color="#777777", linewidth=0.9, zorder=0)
        if content.scale is not None:
            content.scale(axes, [*content.curves.values()])
        n_curves = len(content.curves)
        if content.scale in (of_shares, of_scores) and n_curves > 1:  # may lie anywhere below
            n_columns = 3 if n_curves > 4 else 2
            top = axes.get_ylim()[1]
            ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= top]
            axes.set_ylim(top=top * (1 + 0.13 * math.ceil(n_curves / n_columns)))
            axes.set_yticks(ticks)
            axes.legend(ncols=n_columns, loc="upper center", borderaxespad=0, **ground)
        elif n_curves > 1:
            axes.legend(ncols=2 if n_curves > 3 else 1, **ground)
        if not any(np.isfinite(values).any() for values in content.curves.values()):
            say(axes, "not recorded")
    for axes in panels[-2:]:
        axes.set_xlabel("step")


def from_zero(axes: Axes, curves: Sequence[Values]) -> None:
    """The y axis of what is never negative."""
    axes.set_ylim(bottom=0)


def of_shares(axes: Axes, curves: Sequence[Values]) -> None:
    """The y axis of shares of a whole."""
    axes.set_ylim(-0.03, 1.03)


def of_scores(axes: Axes, curves: Sequence[Values]) -> None:
    """The y axis of scores up to 1, most of which may be small: from 0 to the best."""
    best = float(np.nanmax([0.0, *np.concatenate(curves)]))
    top = min(1.03, 1.1 * best) if best > 0 else 1.03
    axes.set_ylim(-0.03 * top, top)


def of_losses(axes: Axes, curves: Sequence[Values]) -> None:
    """A logarithmic y axis where it takes one."""
    seen = np.concatenate(curves)
    seen = seen[np.isfinite(seen)]
    if len(seen) and seen.min() > 0 and seen.max() / seen.min() > 20:
        axes.set_yscale("log")


def picture(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    """What `draw` draws, as PNG."""
    import io

    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def column(rows: Rows, name: str) -> Values:
    """A column of the history, NaN where it has no value."""
    return np.array([row.get(name, math.nan) for row in rows], np.float64)


def logit(probability: float) -> float:
    """Ends of the histogram's outermost bins, half a unit beyond all others."""
    if probability <= 0:
        return -20.5
    return math.log(probability / (1 - probability)) if probability < 1 else 20.5


def bin_counts(histogram: ScoreHistogram) -> tuple[Values, Values, Values]:
    """Edges of all bins in the logit of the score, and signal and noise between them."""
    curve = histogram.curve()
    if histogram.scale == "logit":
        edges = curve.threshold.clamp(-20.5, 20.5).numpy()
    else:
        edges = np.array([logit(p) for p in curve.threshold.tolist()])
    signal, noise = (
        np.zeros(len(edges) - 1) if n == 0 else np.round(-np.diff(kept.numpy()) * n)
        for kept, n in (
            (curve.retention, histogram.n_signal),
            (1 - curve.removal, histogram.n_noise),
        )
    )
    return edges, signal, noise


def probability_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Places and names of the ticks of a probability between two logits."""
    shown = [p for p in PROBABILITIES if low <= logit(p) <= high]
    return [logit(p) for p in shown], [f"{p:.7g}" for p in shown]


def shown_name(name: str) -> str:
    """A name of the data's as a label: no formula, and not hidden.

    Example:
        >>> shown_name("5 $"), shown_name("_arc")
        ('5 \\\\$', ' _arc')
    """
    plain = name.replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def say(axes: Axes, sentence: str) -> None:
    """A sentence in place of curves."""
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
