"""Example images of a comparison on maps of values: the maps that losses predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.compare.examples import shown_losses
from dense_imb.compare.table import ComparisonTable
from dense_imb.inspection.figure import displayed
from dense_imb.report.drawing import plain_label
from dense_imb.report.values.measures import fullest_plane
from dense_imb.runs import open_run
from dense_imb.tasks.values.recipe import open_test_images

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

_MOST_IMAGES = 40  # of the test images, among which the examples are chosen


@dataclass(frozen=True)
class MapExample:
    """A test image with its map and what several losses predict; of a volume, a slice.

    Args:
        title: reason for showing it, and its name.
        image: (H, W, C) pixels.
        target: (H, W), the channel with most lit pixels.
        prediction: (H, W) by name of the loss.
    """

    title: str
    image: NDArray[Any]
    target: NDArray[np.float32]
    prediction: dict[str, NDArray[np.float32]]


def make_map_examples(table: ComparisonTable) -> list[MapExample]:
    """Return the images of largest, median and smallest error of the first loss, with others.

    Networks are those of seed 0, with their read-outs.
    """
    names = shown_losses(table)
    runs = {name: open_run(table.run_folder(name, 0)) for name in names}
    trained = {name: run.trained() for name, run in runs.items()}
    first = names[0]
    level = trained[first].reading.level
    images = open_test_images(runs[first].config.values)
    lit = [i for i in range(len(images)) if images.pixels_above(i, level)][:_MOST_IMAGES]
    errors = {}
    for i in lit:
        own = images.only_counted(trained[first].predict(images.image(i)), i)
        errors[i] = float(np.abs(own - images.counted_values(i)).mean())
    order = sorted(lit, key=lambda i: -errors[i])
    chosen = {}
    if order:
        chosen = {order[0]: "Largest error", order[len(order) // 2]: "Median error"}
        chosen.setdefault(order[-1], "Smallest error")
    examples = []
    for i, title in chosen.items():
        image, target = images.image(i), images.target(i)
        channel = int((target > level).reshape(len(target), -1).sum(1).argmax())
        plane, part = fullest_plane(target[channel : channel + 1])
        maps = {name: one.predict(image).numpy()[channel][plane] for name, one in trained.items()}
        title = f"{title}: {images.names[i]}{part and f', {part}'}"
        shown = np.moveaxis(image, 0, -1)[plane]
        examples.append(MapExample(title, shown, target[channel][plane], maps))
    return examples


def size_of_map_examples(examples: list[MapExample]) -> tuple[float, float]:
    """Return width and height of the figure in inches."""
    height = sum(
        min(2.4 * one.target.shape[0] / one.target.shape[1], 4.0) + 0.35 for one in examples
    )
    return 2.6 * (2 + len(examples[0].prediction)), height


def draw_map_examples(examples: list[MapExample], figure: Figure) -> None:
    """Draw a row for each image: its pixels, its map, and the map of each loss."""
    n_columns = 2 + len(examples[0].prediction)
    rows: Any = figure.subplots(len(examples), n_columns, squeeze=False)
    for example, panels in zip(examples, rows, strict=True):
        maps = {"target": example.target, **example.prediction}
        low, high = float(min(example.target.min(), 0)), float(example.target.max())
        panels[0].imshow(displayed(example.image), cmap="gray", vmin=0, vmax=1)
        panels[0].set_title(plain_label(example.title), fontsize=9)
        for axes, (name, values) in zip(panels[1:], maps.items(), strict=True):
            shown = axes.imshow(values, cmap="viridis", vmin=low, vmax=high)
            axes.set_title(plain_label(name), fontsize=9)
        for axes in panels:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        figure.colorbar(shown, ax=panels[-1])
