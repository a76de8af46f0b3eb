"""Common parts of all figures: colours, axes, and the panels of training curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dense_imb.metrics import ScoreHistogram

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# colours of Okabe and Ito; lines differ in their dashes, hits in their markers, too
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
class Panel:
    """A panel of curves against the step.

    Args:
        title: title of the panel.
        curves: values by name.
        scale: function that sets the y axis for the curves.
    """

    title: str
    curves: Mapping[str, Values]
    scale: Callable[[Axes, Sequence[Values]], None] | None = None


def line_style(k: int) -> dict[str, Any]:
    """Return colour, dashes and marker of curve k."""
    return {
        "color": _ORDER[k % len(_ORDER)],
        "linestyle": _DASHES[k % len(_DASHES)],
        "marker": _MARKS[k % len(_MARKS)],
    }


def draw_panels(
    step: Values, panels: Sequence[Panel], figure: Figure, second: float | None = None
) -> None:
    """Draw validation scores against the step, two panels in a row.

    Args:
        step: step of each validation.
        panels: an even number of panels.
        figure: figure to draw on.
        second: step at which a second stage begins; None without one.
    """
    from matplotlib.ticker import MaxNLocator

    places = figure.subplots(len(panels) // 2, 2, sharex=True).ravel()
    # a legend hides the line of the second stage
    ground: dict[str, Any] = {"frameon": True, "framealpha": 1, "edgecolor": "none"}
    ground = {} if second is None else ground
    for axes, panel in zip(places, panels, strict=True):
        axes.set_title(panel.title)
        for k, (name, values) in enumerate(panel.curves.items()):
            axes.plot(step, values, label=name, markersize=3.5, **line_style(k))
        if second is not None:
            axes.axvline(second, color="#777777", linewidth=0.9, zorder=0)
        if panel.scale is not None:
            panel.scale(axes, [*panel.curves.values()])
        n_curves = len(panel.curves)
        if panel.scale in (share_axis, score_axis) and n_curves > 1:  # curves may lie anywhere
            n_columns = 3 if n_curves > 4 else 2
            top = axes.get_ylim()[1]
            ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= top]
            axes.set_ylim(top=top * (1 + 0.13 * math.ceil(n_curves / n_columns)))
            axes.set_yticks(ticks)
            axes.legend(ncols=n_columns, loc="upper center", borderaxespad=0, **ground)
        elif n_curves > 1:  # below the axes, and below the ticks and the label of the last row
            below = -0.22 if axes in places[-2:] else -0.03
            axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, below), **ground)
        if not any(np.isfinite(values).any() for values in panel.curves.values()):
            write_message(axes, "not recorded")
    for axes in places[-2:]:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def loss_panel(rows: Rows) -> Panel:
    """Return the panel of the training loss."""
    title = "Loss, mean since the last validation"
    return Panel(title, {"loss": column(rows, "loss")}, loss_axis)


def rate_panel(rows: Rows) -> Panel:
    """Return the panel of the learning rate."""
    return Panel("Learning rate", {"learning rate": column(rows, "learning_rate")}, zero_axis)


def zero_axis(axes: Axes, curves: Sequence[Values]) -> None:
    """Start the y axis at 0, for values that are never negative."""
    axes.set_ylim(bottom=0)


def share_axis(axes: Axes, curves: Sequence[Values]) -> None:
    """Set the y axis to 0 to 1, for fractions of a whole."""
    axes.set_ylim(-0.03, 1.03)


def score_axis(axes: Axes, curves: Sequence[Values]) -> None:
    """Set the y axis from 0 to the best score: scores end at 1, and may all be small."""
    best = float(np.nanmax([0.0, *np.concatenate(curves)]))
    top = min(1.03, 1.1 * best) if best > 0 else 1.03
    axes.set_ylim(-0.03 * top, top)


def loss_axis(axes: Axes, curves: Sequence[Values]) -> None:
    """Make the y axis logarithmic if the losses are positive and differ by a factor of 20."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 20:
        axes.set_yscale("log")


def draw_png(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    """Return a figure as the content of a PNG file.

    Args:
        draw: function that draws on an empty figure.
        size: width and height in inches.
    """
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
    """Return a column of the history, NaN where a row has no value."""
    return np.array([row.get(name, math.nan) for row in rows], np.float64)


def logit(probability: float) -> float:
    """Return the logit of a probability; 0 and 1 lie half a unit beyond all other bins."""
    if probability <= 0:
        return -20.5
    return math.log(probability / (1 - probability)) if probability < 1 else 20.5


def bin_counts(histogram: ScoreHistogram) -> tuple[Values, Values, Values]:
    """Return bin edges in the logit of the score, and the counts of signal and noise."""
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
    """Return places and labels of the ticks of a probability between two logits."""
    ticks = [p for p in PROBABILITIES if low <= logit(p) <= high]
    return [logit(p) for p in ticks], [f"{p:.7g}" for p in ticks]


def plain_log_ticks(axes: Axes, name: Literal["x", "y"], values: Values) -> None:
    """Fit a logarithmic axis to positive values, and label it with plain numbers such as 0.5."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = float(values.min()) / 1.3, float(values.max()) * 1.3
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [m * 10.0**d for d in range(-6, 7) for m in steps]
    axes.set(**{f"{name}lim": (low, high)})
    axis: Axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def plain_label(name: str) -> str:
    """Return a name from the data as a label that matplotlib neither typesets nor hides.

    Example:
        >>> plain_label("5 $"), plain_label("_arc")
        ('5 \\\\$', ' _arc')
    """
    plain = name.replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def write_message(axes: Axes, sentence: str) -> None:
    """Write a sentence in place of curves."""
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
