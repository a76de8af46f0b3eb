"""Measurements of a report on maps of values: errors, and predictions by target, of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.values.pairs import ValueImages
from dense_imb.hits.masking import Progress
from dense_imb.report.blocks import block_side, largest_of_blocks, mean_of_blocks
from dense_imb.tasks.values.evaluate import Predicts, ValuesTable, evaluate_values
from dense_imb.tasks.values.scores import counted_pixels
from dense_imb.tasks.values.task import ValuesReading
from dense_imb.tasks.values.trained import TrainedValues

N_BINS = 60  # of target and prediction, in their joint histogram
MOST_CHANNELS = 4  # of a sample
_SAMPLES = 3
_AT_ONCE = 1 << 22  # values


@dataclass(frozen=True)
class ValueSample:
    """An image with its map and what the network predicts; of a volume, its fullest slice.

    Of a map of several channels, the first ones with lit pixels are shown. Of a large image a block
    of pixels is one.

    Args:
        name: name of the image.
        title: reason why it is shown.
        part: slice that is shown; "" for flat images.
        image: (H, W) or (H, W, channels).
        channels: name of each channel that is shown; "" for maps of one channel.
        target, prediction: (n_shown, H, W); the prediction is NaN where a pixel does not count.
        difference: prediction - target, likewise.
        error: mean absolute error of the pixels that count in the whole image.
        block: side of the blocks of pixels that are one pixel here.
    """

    name: str
    title: str
    part: str
    image: NDArray[Any]
    channels: tuple[str, ...]
    target: NDArray[np.float32]
    prediction: NDArray[np.float32]
    difference: NDArray[np.float32]
    error: float
    block: int


@dataclass(frozen=True)
class ValueMeasures:
    """Measurements of a run on values.

    Args:
        table: errors of the network, with its read-out and as trained, beside the baselines.
        joint: values by target (rows) and prediction (columns), (N_BINS, N_BINS), by the network's
            name in the table.
        edges: edges of the bins of both.
        images: name and mean absolute error of each image.
        samples: images to show.
    """

    table: ValuesTable
    joint: dict[str, NDArray[np.int64]]
    edges: NDArray[np.float64]
    images: list[dict[str, Any]]
    samples: list[ValueSample]


def measure_values(
    network: TrainedValues, images: ValueImages, progress: Callable[[int], Progress]
) -> ValueMeasures:
    """Measure a network on images with maps of values.

    Args:
        network: trained network.
        images: images with maps.
        progress: takes the number of images to come, and returns a function that takes the number
            of images just done.
    """
    rows = [Predicts(network.name, network, False)]
    if network.reading.read_out is not None:
        rows.append(Predicts(f"{network.name} as trained", network, True))
    low = min(0.0, *(float(images.target(i).min()) for i in range(len(images))))
    high = max(network.reading.level, *(float(images.target(i).max()) for i in range(len(images))))
    edges = np.linspace(low, high, N_BINS + 1)
    joint = {row.name: np.zeros((N_BINS, N_BINS), np.int64) for row in rows}
    errors = np.zeros(len(images))

    def watch(name: str, i: int, prediction: Tensor) -> None:
        target, values = images.target(i), prediction.numpy()
        if (counted := _counted(network, images, i)) is not None:
            target, values = target[:, counted], values[:, counted]
        target, values = target.ravel(), values.ravel()
        for start in range(0, len(target), _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            cut = np.clip(values[block], low, high)
            joint[name] += np.histogram2d(target[block], cut, (edges, edges))[0].astype(np.int64)
        if name == network.name and len(target):
            errors[i] = np.abs(values - target).mean()

    update = progress(len(rows) * len(images))
    table = evaluate_values(rows, images, progress=update, watch=watch)
    listed = [{"name": n, "mae": float(e)} for n, e in zip(images.names, errors, strict=True)]
    return ValueMeasures(table, joint, edges, listed, _samples(network, images, errors))


def _samples(
    network: TrainedValues, images: ValueImages, errors: NDArray[np.float64]
) -> list[ValueSample]:
    """Return the images of largest, median and smallest error."""
    order = np.argsort(-errors, kind="stable")
    places = {int(order[0]): "Largest error", int(order[len(order) // 2]): "Median error"}
    places.setdefault(int(order[-1]), "Smallest error")
    samples = []
    for i, title in [*places.items()][:_SAMPLES]:
        image, target = images.image(i), images.target(i)
        prediction = network.predict(image).numpy()
        if (counted := _counted(network, images, i)) is not None:
            prediction = np.where(counted, prediction, np.nan)
        sample = sample_of(
            network.reading, images.names[i], image, target, prediction, float(errors[i]), title
        )
        samples.append(sample)
    return samples


def sample_of(
    reading: ValuesReading,
    name: str,
    image: NDArray[Any],
    target: NDArray[np.float32],
    prediction: NDArray[np.float32],
    error: float,
    title: str = "",
) -> ValueSample:
    """Return an image with its map as a sample: its first lit channels, a volume's fullest slice.

    A block of a large image has the mean of its pixels, and its largest value in each map, also in
    that of the differences.

    Args:
        reading: reading of the network.
        name: name of the image.
        image: (channels, *spatial).
        target, prediction: (K, *spatial).
        error: mean absolute error of the image.
        title: reason why it is shown.
    """
    shown = lit_channels(target, reading.level)
    names = reading.names or [f"channel {k}" for k in range(len(target))]
    is_named = len(target) > 1 or reading.names is not None
    plane, part = fullest_plane(target[shown])
    side = block_side(target[0][plane].shape)
    maps = [(target[k][plane], prediction[k][plane]) for k in shown]
    of_target, of_prediction, of_difference = (
        np.stack([largest_of_blocks(one, side) for one in ones])
        for ones in zip(*((t, p, p - t) for t, p in maps), strict=True)
    )
    return ValueSample(
        name,
        title,
        part,
        mean_of_blocks(np.moveaxis(image, 0, -1)[plane], side),
        tuple(names[k] if is_named else "" for k in shown),
        of_target,
        of_prediction,
        of_difference,
        error,
        side,
    )


def _counted(network: TrainedValues, images: ValueImages, i: int) -> NDArray[np.bool_] | None:
    """Return the pixels of an image that count in its scores, (*spatial); None for all."""
    counted = counted_pixels(network.reading, images.cell_map(i), images.counted(i))
    return None if counted is None else np.asarray(counted[0])


def lit_channels(target: NDArray[np.float32], level: float) -> list[int]:
    """Return the first channels with lit pixels, at most `MOST_CHANNELS`; channel 0 without any.

    Args:
        target: (K, *spatial).
        level: value above which a pixel is lit.
    """
    lit = [k for k, one in enumerate(target) if (one > level).any()]
    return lit[:MOST_CHANNELS] or [0]


def fullest_plane(target: NDArray[np.float32]) -> tuple[tuple[Any, ...], str]:
    """Return the index of the slice of a volume with the largest values, and its description.

    Of a flat map, the index takes all, and the description is "".

    Args:
        target: (K, *spatial).
    """
    size = target.shape[1:]
    plane: list[Any] = [slice(None)] * len(size)
    if len(size) == 2:
        return tuple(plane), ""
    axis = int(np.argmin(size))
    mass = np.abs(target).sum(tuple(d for d in range(target.ndim) if d != 1 + axis))
    k = int(mass.argmax())
    plane[axis] = k
    return tuple(plane), f"slice {k + 1} of {size[axis]}"
