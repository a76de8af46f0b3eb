"""Example images of a comparison: what the losses find, miss and invent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.compare.table import ComparisonTable
from dense_imb.data.images.labelled import IGNORED
from dense_imb.inspection.figure import displayed
from dense_imb.report.drawing import plain_label
from dense_imb.report.images.figures import VERDICT_COLOURS, pale
from dense_imb.report.images.measures import (
    VERDICTS,
    chosen_images,
    fullest_slice,
    image_scores,
    verdicts,
)
from dense_imb.runs import open_run
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.images.segment import decided

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

_N_LOSSES = 3
_MOST_IMAGES = 40  # of the test images, among which the examples are chosen
_SIDE = 224  # largest side of an example, in pixels


@dataclass(frozen=True)
class Example:
    """A part of a test image, with the verdicts of several losses.

    Args:
        title: reason for showing it, and its name.
        image: (H, W, C) pixels.
        truth: (H, W) classes, IGNORED where there is no label.
        verdict: (H, W) indices into `VERDICTS` by name of the loss.
    """

    title: str
    image: NDArray[Any]
    truth: NDArray[np.uint8]
    verdict: dict[str, NDArray[np.uint8]]


def shown_losses(table: ComparisonTable) -> list[str]:
    """Return the first losses of a table, and plain cross-entropy if it competes."""
    names = [str(row["loss"]) for row in table.trained]
    first = [name for name in names if name != table.plain][: _N_LOSSES - 1]
    shown = {*first, table.plain} if table.plain in names else {*names[:_N_LOSSES]}
    return [name for name in names if name in shown]


def make_examples(table: ComparisonTable) -> list[Example]:
    """Return a typical, the worst and the best image of the first loss, with other losses.

    Networks are those of seed 0, thresholds those of the best F1 on their validation images.
    """
    names = shown_losses(table)
    runs = {name: open_run(table.run_folder(name, 0)) for name in names}
    trained = {name: run.trained() for name, run in runs.items()}
    cuts = {name: chosen_thresholds(run.scores()) for name, run in runs.items()}
    first = names[0]
    reading = trained[first].reading
    images = open_test_images(runs[first].config.images, reading.n_classes)
    rows = [
        image_scores(trained[first].logits(images.image(i)), images.label(i), cuts[first])
        for i in range(min(len(images), _MOST_IMAGES))
    ]
    examples = []
    for i, title in chosen_images(rows).items():
        image, label = images.image(i), images.label(i)
        called = {
            name: verdicts(decided(one.logits(image), cuts[name][1]), label)
            for name, one in trained.items()
        }
        plane = _plane(label)
        examples.append(
            Example(
                f"{title}: {images.names[i]}",
                np.moveaxis(image, 0, -1)[plane],
                label[plane],
                {name: verdict[plane] for name, verdict in called.items()},
            )
        )
    return examples


def _plane(label: NDArray[np.uint8]) -> tuple[Any, ...]:
    """Return the index of the part to show: of a volume a slice, of a large image a window."""
    place: list[Any] = [slice(None)] * label.ndim
    if label.ndim == 3:
        axis, number = fullest_slice(label)
        place[axis] = number
    is_true = (label[tuple(place)] > 0) & (label[tuple(place)] != IGNORED)
    windows = []
    for axis, side in enumerate(is_true.shape):
        at = np.flatnonzero(is_true.any(1 - axis))
        middle = int(np.median(at)) if len(at) else side // 2
        start = int(np.clip(middle - _SIDE // 2, 0, max(side - _SIDE, 0)))
        windows.append(slice(start, start + _SIDE))
    for axis, one in enumerate(place):
        if isinstance(one, slice):
            place[axis] = windows.pop(0)
    return tuple(place)


def size_of_examples(examples: list[Example]) -> tuple[float, float]:
    """Return width and height of the figure in inches."""
    n_columns = 1 + len(examples[0].verdict)
    width = 2.6 * n_columns
    height = sum(min(2.6 * one.truth.shape[0] / one.truth.shape[1], 4.0) + 0.35 for one in examples)
    return width, height + 0.5


def draw_examples(examples: list[Example], figure: Figure) -> None:
    """Draw a row for each image: its truth, and the verdict of each loss."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    colours = np.array([(0, 0, 0, 0) if c is None else to_rgba(c, 0.9) for c in VERDICT_COLOURS])
    n_columns = 1 + len(examples[0].verdict)
    rows: Any = figure.subplots(len(examples), n_columns, squeeze=False)
    for example, panels in zip(examples, rows, strict=True):
        grey = pale(displayed(example.image))
        truth = verdicts(np.where(example.truth == IGNORED, 0, example.truth), example.truth)
        planes = {plain_label(example.title): truth} | {
            plain_label(name): verdict for name, verdict in example.verdict.items()
        }
        for axes, (title, verdict) in zip(panels, planes.items(), strict=True):
            axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
            axes.imshow(colours[verdict], interpolation="nearest")
            axes.set_title(title, fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    shown = {int(k) for one in examples for v in one.verdict.values() for k in np.unique(v)}
    handles = [
        Patch(color=colour, label=name)
        for k, (name, colour) in enumerate(zip(VERDICTS, VERDICT_COLOURS, strict=True))
        if colour is not None and (k in shown or k < 4)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
