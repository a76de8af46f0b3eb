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
from dense_imb.tasks.values.evaluate import Predicts, ValuesTable, evaluate_values
from dense_imb.tasks.values.trained import TrainedValues

N_BINS = 60  # of target and prediction, in their joint histogram
_SAMPLES = 3


@dataclass(frozen=True)
class ValueSample:
    """An image with its map and what the network predicts; of a volume, its fullest slice.

    Args:
        name: name of the image.
        title: reason why it is shown.
        part: slice that is shown; "" for flat images.
        image: (H, W) or (H, W, channels).
        target, prediction: (H, W), first channel.
        error: mean absolute error of the whole image.
    """

    name: str
    title: str
    part: str
    image: NDArray[Any]
    target: NDArray[np.float32]
    prediction: NDArray[np.float32]
    error: float


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
        cut = np.clip(values.ravel(), low, high)
        joint[name] += np.histogram2d(target.ravel(), cut, (edges, edges))[0].astype(np.int64)
        if name == network.name:
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
        image, target = images.image(i), images.target(i)[0]
        prediction = network.predict(image)[0].numpy()
        part = ""
        if target.ndim == 3:
            axis = int(np.argmin(target.shape))
            mass = np.abs(target).sum(tuple(d for d in range(3) if d != axis))
            k = int(mass.argmax())
            part = f"slice {k + 1} of {target.shape[axis]}"
            image = image.take(k, 1 + axis)
            target, prediction = target.take(k, axis), prediction.take(k, axis)
        shown = np.moveaxis(image, 0, -1)
        samples.append(
            ValueSample(images.names[i], title, part, shown, target, prediction, float(errors[i]))
        )
    return samples
