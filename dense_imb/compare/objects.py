"""Scores of images at equal operating points: objects, and the likeliest class."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.files import write_whole
from dense_imb.data.images.labelled import IGNORED
from dense_imb.metrics.objects import KeptFractions, ObjectCurve, ObjectPoint
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.tasks.images.evaluate import logit_of_class

CURVE = "objects.json"  # curve of objects in the folder of a run
HAS_SCIPY = importlib.util.find_spec("scipy") is not None
Curve = list[tuple[float, float]]


Thresholds = Sequence[Sequence[float]]


class Scores:
    """Scores of the pixels for each foreground class, for the thresholds of objects.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        self.fractions = [KeptFractions() for _ in range(1, n_classes)]

    def update(self, logits: Tensor, label: NDArray[np.uint8]) -> None:
        """Count an image; see `Objects.update`."""
        known = torch.from_numpy(label != IGNORED)[None]
        for k, one in enumerate(self.fractions, 1):
            one.update(logit_of_class(logits, k), mask=known)

    def thresholds(self) -> Thresholds:
        """Return the thresholds of each class."""
        return [one.thresholds() for one in self.fractions]


class Objects:
    """Curves of objects of each foreground class.

    Args:
        thresholds: thresholds of each class.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self.curves = [ObjectCurve(one) for one in thresholds]

    def update(self, logits: Tensor, label: NDArray[np.uint8]) -> None:
        """Count an image.

        Args:
            logits: (1, 1 or C, *spatial).
            label: (*spatial) classes, IGNORED where there is no label.
        """
        target = torch.from_numpy(label.astype(np.int64))[None]
        for k, curve in enumerate(self.curves, 1):
            curve.update(logit_of_class(logits, k), target == k, mask=target != IGNORED)

    def thresholds_at(self, false_objects: float) -> tuple[float, ...]:
        """Return the threshold of each class, see `ObjectCurve.threshold_at`."""
        return tuple(curve.threshold_at(false_objects) for curve in self.curves)

    def at(self, thresholds: Sequence[float]) -> tuple[ObjectPoint, ...]:
        """Return the point of each class at its threshold."""
        return tuple(c.at(t) for c, t in zip(self.curves, thresholds, strict=True))

    def points(self) -> Curve:
        """Return false objects an image and recall, means over the classes with objects."""
        curves = [curve.points() for curve in self.curves if curve.n_objects]
        return [
            (
                mean_of_known([point.false_objects for point in points]),
                mean_of_known([point.recall for point in points]),
            )
            for points in zip(*curves, strict=True)
        ]


class HalfScores:
    """F1 of the likeliest class of each pixel, which is a probability of 1/2 for two classes.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        # true positives, predicted and true pixels of each class
        self._counts = torch.zeros(3, n_classes, dtype=torch.int64)

    def update(self, logits: Tensor, label: NDArray[np.uint8]) -> None:
        """Count an image; see `Objects.update`."""
        likeliest = (logits[:, 0] >= 0).long() if logits.shape[1] == 1 else logits.argmax(1)
        target = torch.from_numpy(label.astype(np.int64))[None]
        called, true = likeliest[target != IGNORED], target[target != IGNORED]
        for row, classes in enumerate((true[called == true], called, true)):
            self._counts[row] += torch.bincount(classes, minlength=self._counts.shape[1])

    def f1(self) -> float:
        """Return the mean F1 of the foreground classes; NaN without any of their pixels."""
        right, called, true = self._counts[:, 1:].double()
        return mean_of_known((2 * right / (called + true)).tolist())


def recall_at(curve: Curve, false_objects: float) -> float:
    """Return the recall at the lowest threshold that keeps to a number of false objects.

    Args:
        curve: false objects and recall at each threshold, the lowest first.
        false_objects: largest number an image, also at all higher thresholds.

    Example:
        >>> recall_at([(0.0, 1.0), (3.0, 0.8), (1.0, 0.5)], 2.0)
        0.5
    """
    chosen = 0.0
    for false, recall in reversed(curve):
        if false > false_objects:
            break
        chosen = recall
    return chosen


def write_curve(path: Path, objects: Objects) -> None:
    """Write the curve of objects of a run."""
    points = [point for point in objects.points() if point[0] == point[0]]
    text = json.dumps(points)
    write_whole(path, lambda to: to.write_text(text))


def read_curve(path: Path) -> Curve:
    """Read the curve of objects of a run; empty without one."""
    return [(x, y) for x, y in json.loads(path.read_text())] if path.exists() else []
