"""Figures of a report on whole images with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_imb.metrics.classification import GROUPS
from dense_imb.report.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    Panel,
    Rows,
    Values,
    column,
    draw_panels,
    loss_panel,
    plain_label,
    plain_log_ticks,
    rate_panel,
    score_axis,
    share_axis,
)
from dense_imb.report.labels.measures import MOST_WORST, LabelMeasures, WrongImage

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

MOST_NAMED = 20  # classes with a name on the axis
MOST_COUNTED = 12  # classes whose confusion is written as numbers
_MOST_CURVES = 8
_COLUMNS = 4  # wrongly classified images in a row
_COLOURS = {"head": BLUE, "middle": SKY, "tail": ORANGE}


def draw_label_training(
    history: Rows,
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    figure: Figure,
    second: float | None = None,
) -> None:
    """Draw the validation scores against the step.

    Args:
        history: rows of the history.
        names: names of the classes.
        groups: classes of the head, the middle and the tail.
        figure: figure to draw on.
        second: see `draw_panels`.
    """
    panels = [
        loss_panel(history),
        Panel(
            "Accuracy",
            {
                "mean of the classes": column(history, "balanced_accuracy"),
                "of all images": column(history, "accuracy"),
            },
            share_axis,
        ),
        Panel(
            "Accuracy of head, middle and tail classes",
            {name: column(history, f"{name}_accuracy") for name in GROUPS},
            share_axis,
        ),
        Panel("Share of the loss's gradient", _gradient_shares(history, names, groups), score_axis),
        Panel(
            "Largest share predicted as one class: 1 is a collapse",
            {"largest share": column(history, "most_called")},
            share_axis,
        ),
        rate_panel(history),
    ]
    draw_panels(column(history, "step"), panels, figure, second)


def _gradient_shares(
    history: Rows, names: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> dict[str, Values]:
    """Return the curves of each class; of many classes those of head, middle and tail."""
    known = {name for row in history for name in row}
    by_class = {
        k: column(history, f"gradient_share_class_{k}")
        for k in range(len(names))
        if f"gradient_share_class_{k}" in known
    }
    if not by_class:
        return {name: column(history, f"gradient_share_{name}") for name in GROUPS}
    if len(by_class) <= _MOST_CURVES or not groups:
        first = [*by_class][:_MOST_CURVES]
        return {plain_label(names[k]): by_class[k] for k in first}
    totals = {}
    for name, members in groups.items():
        if members:
            values = np.array([by_class[k] for k in members])  # NaN: no image of it in the batch
            totals[name] = np.where(np.isnan(values).all(0), np.nan, np.nansum(values, 0))
    return totals


def draw_class_accuracy(measured: LabelMeasures, figure: Figure) -> None:
    """Draw the accuracy of each class above its training images, the commonest class first."""
    accuracies, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    counts = np.array(measured.train_counts)
    order = np.argsort(-counts, kind="stable")
    place = {int(k): x for x, k in enumerate(order)}
    group_of = {k: name for name, members in measured.groups.items() for k in members}
    colours = [_COLOURS[group_of[int(k)]] for k in order]
    accuracy = measured.accuracy
    accuracies.bar(range(len(order)), accuracy[order], color=colours, width=0.8)
    for name, members in measured.groups.items():
        known = [k for k in members if np.isfinite(accuracy[k])]
        if not known:
            continue
        mean = float(accuracy[known].mean())
        places = [place[k] for k in members]
        accuracies.hlines(
            mean, min(places) - 0.5, max(places) + 0.5, color="#000000", linewidth=1.4
        )
        noun = "class" if len(members) == 1 else "classes"
        accuracies.plot(
            [], [], color=_COLOURS[name], marker="s", linestyle="none", markersize=8,
            label=f"{name}: {len(members)} {noun}, mean {mean:.2f}",
        )  # fmt: skip
    if len(order) <= MOST_NAMED:
        for x, k in enumerate(order):
            text = "no images" if np.isnan(accuracy[k]) else f"{accuracy[k]:.2f}"
            height = 0.0 if np.isnan(accuracy[k]) else accuracy[k]
            accuracies.text(x, height + 0.01, text, ha="center", va="bottom", fontsize=8.5)
    chance = 1 / len(order)
    accuracies.axhline(
        chance, color="#777777", linestyle="--", linewidth=1, label="always the commonest class"
    )
    accuracies.set(ylim=(0, 1.1), ylabel="accuracy", title="Accuracy of each class")
    images.bar(range(len(order)), counts[order], color=colours, width=0.8)
    images.set(yscale="log", ylabel="training\nimages")
    plain_log_ticks(images, "y", np.maximum(counts, 1).astype(np.float64))
    _name_classes(images.xaxis, [measured.table.class_names[k] for k in order], rotation=45)
    if len(order) > MOST_NAMED:
        images.set_xlabel("classes, from the commonest to the rarest")
    figure.legend(loc="outside lower center", ncols=4)


def draw_confusion(measured: LabelMeasures, figure: Figure) -> None:
    """Draw the share of each predicted class among the images of each true class."""
    axes = figure.add_subplot()
    counts = measured.confusion
    n_images = counts.sum(1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, n_images, out=shares, where=n_images > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the images of a true class")
    if len(counts) <= MOST_COUNTED:
        for row, column_ in np.ndindex(counts.shape):
            colour = "#FFFFFF" if shares[row, column_] > 0.6 else "#000000"
            axes.text(
                column_, row, str(counts[row, column_]), ha="center", va="center", color=colour
            )
    names = measured.table.class_names
    _name_classes(axes.xaxis, names, rotation=45)
    _name_classes(axes.yaxis, names)
    numbered = " (number)" if len(names) > MOST_NAMED else ""
    axes.set(xlabel=f"predicted class{numbered}", ylabel=f"true class{numbered}")
    axes.spines[:].set_visible(False)


def draw_worst(worst: Sequence[WrongImage], figure: Figure) -> None:
    """Draw images with their true and their predicted class; right ones have a green title."""
    rows, columns, _ = worst_layout(len(worst))
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, one in zip(places, worst[:MOST_WORST], strict=False):
        axes.imshow(np.moveaxis(one.pixels, 0, -1), interpolation="nearest")
        predicted = f"predicted: {_short(one.predicted)} {one.probability:.2f}"
        colour = GREEN if one.truth == one.predicted else "#000000"
        axes.set_title(f"true: {_short(one.truth)}\n{predicted}", fontsize=8.5, color=colour)


def worst_layout(n_images: int) -> tuple[int, int, tuple[float, float]]:
    """Return rows, columns and the figure's size for wrongly classified images."""
    columns = _COLUMNS
    rows = -(-min(max(n_images, 1), MOST_WORST) // columns)
    return rows, columns, (9.5, 2.8 * rows)


def _short(name: str) -> str:
    return plain_label(name if len(name) <= 18 else f"{name[:17]}…")


def _name_classes(axis: Any, names: Sequence[str], rotation: float = 0) -> None:
    """Name the classes on an axis, where there is room for the names."""
    if len(names) > MOST_NAMED:
        return
    axis.set_ticks(range(len(names)), [plain_label(name) for name in names])
    if rotation and max(map(len, names)) * len(names) > 80:
        for label in axis.get_ticklabels():
            label.set(rotation=rotation, ha="right", rotation_mode="anchor")
