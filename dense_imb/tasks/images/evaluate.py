"""Scores of trained segmenters on labelled images, beside a blank baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.images.labelled import IGNORED, LabelledImages
from dense_imb.metrics import SegmentationScores, TolerantF1
from dense_imb.metrics.score_table import Row, ScoreTable, aligned, mean_of_known, score_cell

FEW_PIXELS = 20  # of a class; the average precision of fewer is luck
MEAN = "mean"  # over the foreground classes
_FORMAT, _VERSION = "dense-imb-segmentation", 1
_COLUMNS = (
    ("AP", "average_precision"),
    ("F1", "f1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("IoU", "iou"),
    ("F1 best", "best_f1"),
    ("F1 auto", "auto_f1"),
    ("F1 within {tolerance:g} px", "tolerant_f1"),
    ("recall at precision {precision:g}", "recall_at_precision"),
    ("calibration error", "calibration_error"),
    ("IoU likeliest", "likeliest_iou"),
)


def few_pixels(name: str, n_pixels: float | str, n_images: float | str) -> str:
    """Return a clause on a class with too few pixels to score; "" for other classes.

    A class without pixels has no score, and no part in a mean.

    Example:
        >>> few_pixels("scratch", 12, 1), few_pixels("dent", 800, 3)
        ('scratch has 12 pixels in 1 image', '')
    """
    pixels, images = int(n_pixels), int(n_images)
    if pixels >= FEW_PIXELS or pixels == 0:
        return ""
    return f"{name} has {pixels} pixel{'s' * (pixels != 1)} in {images} image{'s' * (images != 1)}"


class Segments(Protocol):
    """A segmenter: a trained network, or a baseline."""

    name: str

    @property
    def is_natural(self) -> bool:
        """Whether its logits are those of natural probabilities."""

    def logits(self, image: NDArray[Any]) -> Tensor:
        """Return the logits (1, 1 or C, *spatial) of an image (channels, *spatial)."""


class Blank:
    """Baseline: every pixel is background."""

    name = "blank"
    is_natural = False

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def logits(self, image: NDArray[Any]) -> Tensor:
        """Return logits of certain background."""
        if self.n_classes == 2:
            return torch.full((1, 1, *image.shape[1:]), -20.0)
        logits = torch.full((1, self.n_classes, *image.shape[1:]), -20.0)
        logits[:, 0] = 0.0
        return logits


@dataclass(frozen=True, repr=False)
class ImagesTable(ScoreTable):
    """Scores of segmenters: a row for each, and for each of its classes; NaN without a value.

        scorer, class          "mean" is over the foreground classes
        class_name             what the data call it
        share                  of the class in all labelled pixels
        n_pixels, n_with       pixels of the class, and images that hold any
        average_precision      of the ranking of pixels, whatever the threshold
        threshold              a logit, chosen on the run's own validation images
        f1, precision, recall, iou   at that threshold
        best_f1                F1 (Dice) at the best threshold of these very images
        auto_threshold         a logit, of the best F1 that the probabilities promise; no label is
                               used, see `best_f1_threshold`
        auto_f1                F1 at that threshold; both NaN without natural probabilities
        tolerant_f1            best F1 where a pixel is right within `tolerance` pixels
        recall_at_precision    at the precision `precision`
        calibration_error      of the probabilities
        likeliest_iou, .._precision, .._recall   where each pixel is called the likeliest class:
                               as trained, a balanced loss calls too much so; of natural
                               probabilities, those of rare classes seldom are the largest
        n_images               that were looked at

    Args:
        rows: rows, in the order of the scorers.
        tolerance: distance in pixels within which a pixel counts as right.
        precision: precision of `recall_at_precision`.
    """

    rows: tuple[Row, ...]
    tolerance: float
    precision: float

    def __getitem__(self, scorer: str) -> Row:
        """Return the mean row of a scorer."""
        return self._row_of(scorer, **{"class": MEAN})

    def as_json(self) -> dict[str, Any]:
        """Return strict JSON: NaN becomes null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "tolerance": self.tolerance,
            "precision": self.precision,
            "rows": self.finite_rows(),
        }

    def headers(self) -> list[tuple[str, str]]:
        """Return header and name of each column."""
        words = {"tolerance": self.tolerance, "precision": self.precision}
        return [(header.format(**words), name) for header, name in _COLUMNS]

    def text(self) -> str:
        """Format the table."""
        (table,) = self.text_tables()
        return "\n".join([*aligned(table), *self.text_notes()])

    def bar_rows(self) -> list[Row]:
        """Return the mean row of each scorer."""
        return [
            {name: value for name, value in row.items() if name not in ("class", "class_name")}
            for row in self.rows
            if row["class"] == MEAN
        ]

    def bar_column(self) -> str:
        """Return the average precision."""
        return "average_precision"

    def text_tables(self) -> list[list[list[str]]]:
        """Return the table as texts, the header first."""
        is_binary = not any(row["class"] not in (MEAN, "1") for row in self.rows)
        rows = [row for row in self.rows if not is_binary or row["class"] == MEAN]
        counted = [] if is_binary else ["class", "pixels", "images"]
        table = [["", *counted, *(h for h, _ in self.headers())]]
        for row in rows:
            cells = [str(row["scorer"])]
            if not is_binary:
                name = str(row.get("class_name", row["class"]))
                cells += [name, *(f"{float(row[n]):,.0f}" for n in ("n_pixels", "n_with"))]
            table.append([*cells, *(score_cell(row[name]) for _, name in self.headers())])
        return [table]

    def text_notes(self) -> list[str]:
        """Return the explanation of the columns, and a sentence for each rare class."""
        first = self.rows[0]
        share = 100 * float(first["share"])
        return [
            f"{float(first['n_images']):.0f} images, {share:.3g} % of their pixels are "
            "foreground. F1, precision, recall and IoU are at the threshold that the run's own "
            "validation images chose, F1 auto at that which the probabilities of these images "
            "choose without labels; likeliest: each pixel called its likeliest class.",
            *self.few(),
        ]

    def few(self) -> list[str]:
        """Return a sentence for each class with too few pixels, if the mean is over several."""
        scorer = self.rows[0]["scorer"]
        rows = [r for r in self.rows if r["scorer"] == scorer and r["class"] != MEAN]
        return [
            f"{sentence}: its scores are luck, and so is 1/{len(rows)} of the mean."
            for row in rows
            if len(rows) > 1
            and (sentence := few_pixels(str(row["class_name"]), row["n_pixels"], row["n_with"]))
        ]


def evaluate_images(
    segmenters: Sequence[Segments],
    images: LabelledImages,
    *,
    thresholds: Sequence[Sequence[float]] | None = None,
    tolerance: float = 2.0,
    precision: float = 0.5,
    progress: Callable[[int], object] | None = None,
    watch: Callable[[str, SegmentationScores, int, Tensor], object] | None = None,
) -> ImagesTable:
    """Score segmenters on labelled images.

    Args:
        segmenters: trained networks, and `Blank` for comparison.
        images: labelled images.
        thresholds: a logit for each class, for each segmenter; without them `f1` is NaN.
        tolerance: tolerance of the tolerant F1, in pixels.
        precision: report recall at this precision.
        progress: called with the number of images done.
        watch: called with the scorer, its scores so far, the index of an image and its logits.
    """
    rows: list[Row] = []
    n_with = [0] * images.n_classes  # images that hold each class; at 0 those with any but 0
    for place, segmenter in enumerate(segmenters):
        scores = SegmentationScores(images.n_classes, ignore_index=IGNORED)
        near = [TolerantF1(tolerance, scale="logit") for _ in range(images.n_classes)]
        for i in range(len(images)):
            logits, label = segmenter.logits(images.image(i)), images.label(i)
            target = torch.from_numpy(label.astype(np.int64))[None]
            scores.update(logits, target)
            if place == 0:
                present = {*np.unique(label).tolist()} - {0, IGNORED}
                for k in present | ({0} if present else set()):
                    n_with[k] += 1
            for k in range(1, images.n_classes):
                is_labelled = target != IGNORED
                near[k].update(logit_of_class(logits, k), target == k, mask=is_labelled)
            if watch is not None:
                watch(segmenter.name, scores, i, logits)
            if progress is not None:
                progress(1)
        chosen = None if thresholds is None else thresholds[place]
        rows += _rows(segmenter, images, scores, near, chosen, precision, n_with)
    return ImagesTable(tuple(rows), tolerance, precision)


def logit_of_class(logits: Tensor, k: int) -> Tensor:
    """Return log p_k / (1 - p_k), (B, *spatial), of logits (B, 1 or C, *spatial)."""
    if logits.shape[1] == 1:
        return logits[:, 0] if k == 1 else -logits[:, 0]
    others = torch.cat([logits[:, :k], logits[:, k + 1 :]], 1)
    return logits[:, k] - others.logsumexp(1)


def chosen_thresholds(scores: SegmentationScores) -> tuple[float, ...]:
    """Return the logit of each class's best F1 on validation images; 0 for an absent class."""
    return tuple(0.0 if math.isnan(t) else t for _, t in scores.best_f1())


def _rows(
    segmenter: Segments,
    images: LabelledImages,
    scores: SegmentationScores,
    near: Sequence[TolerantF1],
    thresholds: Sequence[float] | None,
    precision: float,
    n_with: Sequence[int],
) -> list[Row]:
    pixels = [histogram.n_signal for histogram in scores.histograms]
    auto, auto_f1 = [math.nan] * len(pixels), [math.nan] * len(pixels)
    if segmenter.is_natural:
        auto = [histogram.expected_best_f1()[1] for histogram in scores.histograms]
        auto_points = [h.at(t) for h, t in zip(scores.histograms, auto, strict=True)]
        auto_f1 = [_f1(point.purity, point.retention) for point in auto_points]
    columns: dict[str, Sequence[float]] = {
        "share": [count / max(sum(pixels), 1) for count in pixels],
        "n_pixels": pixels,
        "n_with": n_with,
        "average_precision": scores.average_precision(),
        "best_f1": [f1 for f1, _ in scores.best_f1()],
        "auto_threshold": auto,
        "auto_f1": auto_f1,
        "tolerant_f1": [one.best().f1 for one in near],
        "recall_at_precision": scores.recall_at_precision(precision),
        "calibration_error": scores.calibration_error(),
        "likeliest_iou": scores.iou(),
        "likeliest_precision": scores.precision(),
        "likeliest_recall": scores.recall(),
    }
    if thresholds is None:
        chosen = ("threshold", "f1", "precision", "recall", "iou")
        columns |= dict.fromkeys(chosen, [math.nan] * len(pixels))
    else:
        points = [h.at(t) for h, t in zip(scores.histograms, thresholds, strict=True)]
        f1 = [_f1(point.purity, point.retention) for point in points]
        columns |= {
            "threshold": [float(t) for t in thresholds],
            "f1": f1,
            "precision": [point.purity for point in points],
            "recall": [point.retention for point in points],
            "iou": [value / (2 - value) for value in f1],
        }
    foreground = range(1, len(pixels))
    rows: list[Row] = [
        {
            "scorer": segmenter.name,
            "class": str(k),
            "class_name": images.class_names[k],
            **{key: float(v[k]) for key, v in columns.items()},
        }
        for k in foreground
    ]
    mean = {key: mean_of_known([values[k] for k in foreground]) for key, values in columns.items()}
    for key in ("share", "n_pixels"):
        mean[key] = math.fsum(columns[key][k] for k in foreground)
    mean["n_with"] = float(n_with[0])
    whole: list[Row] = [
        {"scorer": segmenter.name, "class": MEAN, "class_name": MEAN, **mean},
        *rows,
    ]
    return [{**row, "n_images": float(len(images))} for row in whole]


def _f1(precision: float, recall: float) -> float:
    if math.isnan(recall):
        return math.nan
    return 2 * precision * recall / (precision + recall) if recall > 0 else 0.0
