"""Scores of trained classifiers on labelled images, beside a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.metrics import ClassificationScores
from dense_imb.metrics.score_table import Row, ScoreTable, aligned, score_cell
from dense_imb.tasks.labels.task import LabelsReading
from dense_imb.tasks.labels.trained import Commonest

ALL = "all"
_FORMAT, _VERSION = "dense-imb-classification", 1
_AT_ONCE = 128  # images
_SHOWN = 12  # classes whose confusion is printed
_COLUMNS = (
    ("accuracy", "accuracy"),
    ("balanced", "balanced_accuracy"),
    ("head", "head_accuracy"),
    ("middle", "middle_accuracy"),
    ("tail", "tail_accuracy"),
    ("macro F1", "macro_f1"),
    ("AUC", "auc"),
    ("kappa", "quadratic_kappa"),
    ("Matthews", "matthews"),
    ("calibration error", "calibration_error"),
)


class Classifies(Protocol):
    """A classifier: a trained network, or a baseline."""

    name: str

    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the logits (B, n_classes) of images (B, 3, height, width)."""


@dataclass(frozen=True, repr=False)
class LabelsTable(ScoreTable):
    """Scores of classifiers: a row for each, and for each of its classes; NaN without a value.

        scorer, class           "all", or the name of a class
        n_images, n_trained_on  of the class, here and in training
        accuracy ...            see `ClassificationScores`; of a class its recall
        precision, f1, auc      of a class against the rest

    Args:
        rows: rows, in the order of the scorers.
        confusion: confusion of each scorer by name: images by true (row) and predicted class.
        class_names: class names.
        many, few: training images of head and tail classes.
    """

    rows: tuple[Row, ...]
    confusion: dict[str, list[list[int]]]
    class_names: tuple[str, ...]
    many: float
    few: float

    def __getitem__(self, scorer: str) -> Row:
        """Return the row of a scorer over all classes."""
        return self._row_of(scorer, **{"class": ALL})

    def as_json(self) -> dict[str, Any]:
        """Return strict JSON: NaN becomes null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "classes": list(self.class_names),
            "many": self.many,
            "few": self.few,
            "rows": self.finite_rows(),
            "confusion": self.confusion,
        }

    def text(self) -> str:
        """Format the table, and the confusion of each scorer if the classes are few."""
        table, *confusions = map(aligned, self.text_tables())
        blocks = [[*table, *self.text_notes()], *confusions]
        return "\n\n".join("\n".join(lines) for lines in blocks)

    def text_notes(self) -> list[str]:
        """Return the explanation of the columns."""
        n_images = float(self.bar_rows()[0]["n_images"])
        return [
            f"{n_images:.0f} images of {len(self.class_names)} classes; head: "
            f"more than {self.many:g} training images, tail: fewer than {self.few:g}; balanced, "
            "head, middle and tail: mean of the classes"
        ]

    def bar_rows(self) -> list[Row]:
        """Return the row of each scorer over all classes."""
        return [
            {name: value for name, value in row.items() if name != "class"}
            for row in self.rows
            if row["class"] == ALL
        ]

    def bar_column(self) -> str:
        """Return the balanced accuracy."""
        return "balanced_accuracy"

    def text_tables(self) -> list[list[list[str]]]:
        """Return the table as texts, and the confusion of each scorer if the classes are few."""
        table = [["", *(header for header, _ in _COLUMNS)]]
        rows = self.bar_rows()
        for row in rows:
            table.append([str(row["scorer"]), *(score_cell(row[name]) for _, name in _COLUMNS)])
        tables = [table]
        if len(self.class_names) <= _SHOWN:
            for row in (row for row in rows if row["scorer"] != Commonest.name):
                matrix = self.confusion[str(row["scorer"])]
                cells = [
                    [name, *map(str, counts)]
                    for name, counts in zip(self.class_names, matrix, strict=True)
                ]
                head = [f"{row['scorer']}: true, called", *self.class_names]
                tables.append([head, *cells])
        return tables


def evaluate_labels(
    classifiers: Sequence[Classifies],
    images: ClassifiedImages,
    reading: LabelsReading,
    *,
    progress: Callable[[int], object] | None = None,
) -> LabelsTable:
    """Score classifiers on labelled images.

    Args:
        classifiers: trained networks, and `Commonest` for comparison.
        images: labelled images.
        reading: reading of the first run, with its classes, head and tail.
        progress: called with the number of images done.
    """
    if images.class_names != reading.class_names:
        raise ValueError(
            f"Expected images of the classes {', '.join(reading.class_names[:5])} ..., got "
            f"{', '.join(images.class_names[:5])} ..."
        )
    every = [reading.no_scores() for _ in classifiers]
    for start in range(0, len(images), _AT_ONCE):
        places = range(start, min(start + _AT_ONCE, len(images)))
        pixels = images.images(places)  # decoded once for all
        label = torch.from_numpy(images.labels[places.start : places.stop])
        for classifier, scores in zip(classifiers, every, strict=True):
            scores.update(classifier.logits(pixels), label)
            if progress is not None:
                progress(len(places))
    rows: list[Row] = []
    confusion = {}
    for classifier, scores in zip(classifiers, every, strict=True):
        rows += _rows(classifier.name, scores, reading)
        confusion[classifier.name] = scores.confusion.tolist()
    return LabelsTable(tuple(rows), confusion, reading.class_names, reading.many, reading.few)


def _rows(name: str, scores: ClassificationScores, reading: LabelsReading) -> list[Row]:
    by_class = scores.by_class
    n_images = scores.confusion.sum(1).tolist()
    columns = {
        "accuracy": scores.recall(),
        "precision": by_class.precision(),
        "f1": by_class.dice(),
        "auc": tuple(histogram.auc() for histogram in by_class.histograms),
    }
    whole: Row = {
        "scorer": name,
        "class": ALL,
        "n_images": float(scores.n_images),
        "n_trained_on": float(sum(reading.train_counts)),
        **scores.scores(),
    }
    rows: list[Row] = [
        {
            "scorer": name,
            "class": class_name,
            "n_images": float(n_images[k]),
            "n_trained_on": float(reading.train_counts[k]),
            **{column: float(values[k]) for column, values in columns.items()},
        }
        for k, class_name in enumerate(reading.class_names)
    ]
    return [whole, *rows]
