"""Figures of the report on maps of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dense_imb.inspection.figure import displayed
from dense_imb.report.drawing import (
    BLUE,
    ORANGE,
    RED,
    Panel,
    Rows,
    column,
    draw_panels,
    loss_panel,
    plain_label,
    rate_panel,
    score_axis,
    share_axis,
    zero_axis,
)
from dense_imb.report.values.measures import ValueMeasures, ValueSample

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_UNCOUNTED = "#BDBDBD"  # colour of pixels that do not count
MOST_PARTS = 16  # cells or bins in a figure


def draw_values_training(history: Rows, figure: Figure, second: float | None = None) -> None:
    """Draw the validation scores against the step; for `second` see `draw_panels`."""
    panels = [
        loss_panel(history),
        Panel("Skill: 1 is perfect, 0 as bad as blank", {"skill": column(history, "skill")}),
        Panel(
            "Errors",
            {
                "balanced MAE": column(history, "balanced_mae"),
                "MAE": column(history, "mae"),
                "RMSE": column(history, "rmse"),
            },
            zero_axis,
        ),
        Panel(
            "Share of the loss's gradient",
            {
                "empty pixels": column(history, "gradient_share_empty"),
                "lit pixels": column(history, "gradient_share_lit"),
            },
            share_axis,
        ),
        Panel(
            "Lit pixels",
            {
                "F1": column(history, "f1"),
                "lit targets that are lit": column(history, "recall_at_half"),
            },
            score_axis,
        ),
        rate_panel(history),
    ]
    draw_panels(column(history, "step"), panels, figure, second)


def draw_by_value(measured: ValueMeasures, figure: Figure) -> None:
    """Draw the predictions at each target, of the network with its read-out and as trained."""
    from matplotlib.colors import LogNorm

    edges = measured.edges
    places = figure.subplots(1, len(measured.joint), squeeze=False)[0]
    middle = (edges[1:] + edges[:-1]) / 2
    for axes, (name, joint) in zip(places, measured.joint.items(), strict=True):
        axes.set_title(plain_label(name))
        shown = np.where(joint > 0, joint, np.nan).T
        mesh = axes.pcolormesh(edges, edges, shown, norm=LogNorm(), cmap="Greys")
        axes.plot(edges[[0, -1]], edges[[0, -1]], color="#777777", linewidth=0.9)
        n = joint.sum(1)
        mean = np.divide(joint @ middle, n, out=np.full(len(n), np.nan), where=n > 0)
        # bins without a target break the line
        axes.plot(middle, mean, ".-", color=RED, linewidth=2, label="mean prediction")
        axes.set(xlabel="target", ylabel="prediction")
        figure.colorbar(mesh, ax=axes, label="values")
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center")


def draw_parts(rows: Sequence[Mapping[str, str | float]], own: str, figure: Figure) -> None:
    """Draw the mean absolute error of each cell or value bin, of each scorer.

    Args:
        rows: rows of a `ValuesTable` of one kind.
        own: name of the network.
        figure: figure to draw on.
    """
    axes = figure.add_subplot()
    parts = [*dict.fromkeys(str(row["part"]) for row in rows)][:MOST_PARTS]
    scorers = [*dict.fromkeys(str(row["scorer"]) for row in rows)]
    errors = {(row["scorer"], row["part"]): float(row["mae"]) for row in rows}
    height = 0.8 / len(scorers)
    colours = dict(zip(scorers, _colours(scorers, own), strict=True))
    for k, scorer in enumerate(scorers):
        places = np.arange(len(parts)) + (k - (len(scorers) - 1) / 2) * height
        values = [errors.get((scorer, part), np.nan) for part in parts]
        axes.barh(places, values, height, color=colours[scorer], label=plain_label(scorer))
    axes.set_yticks(range(len(parts)), [plain_label(part) for part in parts])
    axes.invert_yaxis()
    axes.set(xlabel="mean absolute error")
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3)


def _colours(scorers: Sequence[str], own: str) -> list[str]:
    greys = iter(["#555555", "#9A9A9A", "#CFCFCF", "#E8E8E8"])
    known = {own: BLUE, f"{own} as trained": ORANGE}
    return [known.get(scorer) or next(greys, "#F2F2F2") for scorer in scorers]


def draw_value_sample(sample: ValueSample, figure: Figure) -> None:
    """Draw an image, and a row of map, prediction and difference for each channel that is shown."""
    n = len(sample.target)
    panels = figure.subplots(2, 2).reshape(1, 4) if n == 1 else figure.subplots(n, 4)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    panels[0, 0].set_title("Image")
    panels[0, 0].imshow(displayed(sample.image), cmap="gray", vmin=0, vmax=1)
    for k, (row, name) in enumerate(zip(panels, sample.channels, strict=True)):
        suffix = plain_label(f": {name}") if name else ""
        for axes, title in zip(
            row[1:], ("Target", "Prediction", "Prediction - target"), strict=True
        ):
            axes.set_title(f"{title}{suffix}")
        maps = (sample.target[k], sample.prediction[k], sample.difference[k])
        _draw_maps(row[1:], *maps, figure)


def _draw_maps(
    panels: Sequence[Axes],
    target: NDArray[np.float32],
    prediction: NDArray[np.float32],
    difference: NDArray[np.float32],
    figure: Figure,
) -> None:
    """Draw a map, its prediction in the same colours, and their difference."""
    low = float(min(target.min(), 0))
    high = float(max(target.max(), low + 1e-12))
    for axes in panels:
        axes.set_facecolor(_UNCOUNTED)
    for axes, values in zip(panels, (target, prediction), strict=False):
        shown = axes.imshow(values, cmap="viridis", vmin=low, vmax=high)
        _draw_bar(shown, axes, figure)
    most = float(np.nanmax(np.abs(difference), initial=0)) or 1.0
    shown = panels[2].imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most)
    _draw_bar(shown, panels[2], figure)


def _draw_bar(shown: AxesImage, axes: Axes, figure: Figure) -> None:
    """Draw the bar of colours of a map, as tall as the map."""
    figure.colorbar(shown, cax=axes.inset_axes((1.03, 0, 0.04, 1)))


def size_of_sample(sample: ValueSample) -> tuple[float, float]:
    """Return width and height of the figure of a sample in inches."""
    n, (height, width) = len(sample.target), sample.target.shape[1:]
    whole, n_rows, n_columns = (9.5, 2, 2) if n == 1 else (13.0, n, 4)
    panel = whole / n_columns - 0.75  # beside a bar with its numbers
    return whole, float(np.clip(n_rows * (panel * height / width + 0.35), 2.5, 8.0 * n_rows))
