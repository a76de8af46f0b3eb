"""Measurements of a classifier on whole images, beside the commonest class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.hits.masking import Progress
from dense_imb.metrics import class_groups
from dense_imb.tasks.labels.evaluate import LabelsTable, evaluate_labels
from dense_imb.tasks.labels.trained import Commonest, TrainedLabels

MOST_WORST = 12  # wrongly classified images to show


@dataclass(frozen=True)
class WrongImage:
    """A wrongly classified image.

    Args:
        name: name of the image.
        pixels: (3, height, width) uint8.
        truth, predicted: names of the classes.
        probability: probability of the predicted class.
    """

    name: str
    pixels: NDArray[np.uint8]
    truth: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class LabelMeasures:
    """Scores of a classifier and of the commonest class.

    Args:
        name: name of the classifier in the table.
        table: table of scores.
        train_counts: training images of each class.
        groups: classes of the head, the middle and the tail.
        worst: wrongly classified images, the most confident ones first.
    """

    name: str
    table: LabelsTable
    train_counts: tuple[int, ...]
    groups: dict[str, tuple[int, ...]]
    worst: list[WrongImage]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(n_classes, n_classes) images of each true class (row) and predicted class (column)."""
        return np.array(self.table.confusion[self.name], np.int64)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(n_classes,) accuracy of each class; NaN without images."""
        counts = self.confusion
        n_images = counts.sum(1)
        shares = np.full(len(n_images), np.nan)
        np.divide(np.diagonal(counts), n_images, out=shares, where=n_images > 0)
        return shares


def measure_labels(
    network: TrainedLabels, images: ClassifiedImages, progress: Callable[[int], Progress]
) -> LabelMeasures:
    """Measure a classifier and the commonest class."""
    reading = network.reading
    rule = Commonest(reading.train_counts)
    if network.name == rule.name:
        network.name += " (run)"
    recorder = _Recorder(network)
    table = evaluate_labels([recorder, rule], images, reading, progress=progress(2 * len(images)))
    probability = torch.cat(recorder.logits_of_batches).double().softmax(1).numpy()
    names = reading.class_names
    worst = []
    for i in confident_errors(probability, images.labels).tolist():
        predicted = int(probability[i].argmax())
        worst.append(
            WrongImage(
                images.source.name(images.numbers[i]),
                images.image(i),
                names[images.labels[i]],
                names[predicted],
                float(probability[i, predicted]),
            )
        )
    groups = class_groups(reading.train_counts, reading.many, reading.few)
    return LabelMeasures(network.name, table, reading.train_counts, groups, worst)


def confident_errors(
    probability: NDArray[np.float64], truth: NDArray[np.int64], most: int = MOST_WORST
) -> NDArray[np.int64]:
    """Return the indices of wrongly classified images, the most confident ones first.

    Example:
        >>> confident_errors(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([1, 1])).tolist()
        [0, 1]
    """
    predicted = probability.argmax(1)
    wrong = np.flatnonzero(predicted != truth)
    order = np.argsort(-probability[wrong, predicted[wrong]], kind="stable")
    return wrong[order[:most]]


class _Recorder:
    """A classifier that records its logits."""

    def __init__(self, network: TrainedLabels) -> None:
        self.network, self.name = network, network.name
        self.logits_of_batches: list[Tensor] = []

    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """(B, n_classes) logits of images (B, 3, height, width)."""
        self.logits_of_batches.append(self.network.logits(images))
        return self.logits_of_batches[-1]
