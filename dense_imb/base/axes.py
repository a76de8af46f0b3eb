"""Axes of matplotlib to draw on, without a display; colours, labels and bars of all plots."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

# colours of Okabe and Ito
BLUE, RED, GREEN, PINK, SKY, ORANGE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00",
)  # fmt: skip
GREY = "#8A8A8A"
BRIGHT_BLUE = "#2A93D5"  # in place of BLUE where the page may be dark
_MOST_LETTERS = 40  # of a name beside a bar, which would leave no room for the bar


def choose_axes(ax: Axes | None) -> Axes:
    """Return the axes to draw on.

    Args:
        ax: axes of the caller. None takes the current axes of pyplot, where pyplot is in use or
            the code runs in a notebook, and axes of a new figure elsewhere, such as in a script
            on a machine without a display.

    Example:
        >>> from matplotlib.figure import Figure
        >>> own = Figure().add_subplot()
        >>> choose_axes(own) is own
        True
    """
    from matplotlib.axes import Axes

    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise TypeError(
            f"Expected `ax` to be axes of matplotlib, got {type(ax).__name__}; pass one of "
            "`figure.subplots()`."
        )
    if "matplotlib.pyplot" in sys.modules or _is_notebook():
        from matplotlib import pyplot

        return pyplot.gca()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _is_notebook() -> bool:
    """Whether the code runs in IPython, whose notebooks show figures of pyplot only."""
    shell: Any = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


def draw_bars(axes: Axes, names: Sequence[str], values: Sequence[float], label: str) -> None:
    """Draw a bar for each name, the first on top, with its value at its end.

    Args:
        axes: axes; they are not cleared.
        names: names of the bars, which may come from files.
        values: length of each bar; NaN draws none, and a dash.
        label: label of the axis of the values.
    """
    lengths = [value if math.isfinite(value) else 0.0 for value in values]
    places = range(len(names))
    axes.barh(places, lengths, color=BLUE, height=0.6)
    low, high = min([0.0, *lengths]), max([0.0, *lengths])
    room = 0.18 * (high - low) or 1.0
    for place, value, length in zip(places, values, lengths, strict=True):
        text = f" {value:.3g} " if math.isfinite(value) else " - "
        axes.text(length, place, text, va="center", ha="left" if length >= 0 else "right")
    axes.set_xlim(low - (room if low < 0 else 0.0), high + (room if high > 0 or low == 0 else 0.0))
    axes.set_yticks(places, [plain_label(_shortened(name)) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(plain_label(label))
    axes.spines[["top", "right"]].set_visible(False)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 3]}..."


def plain_label(name: str) -> str:
    """Return a name from the data as a label that matplotlib neither typesets nor hides.

    Example:
        >>> plain_label("5 $"), plain_label("_arc")
        ('5 \\\\$', ' _arc')
    """
    plain = name.replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain
