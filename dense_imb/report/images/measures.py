"""Measurements of a network on images with masks, beside a blank answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.images.labelled import IGNORED, LabelledImages
from dense_imb.hits.masking import Progress
from dense_imb.metrics import ScoreHistogram, SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.report.blocks import (
    block_side,
    classes_by_rarity,
    first_of_blocks,
    largest_of_blocks,
    mean_of_blocks,
)
from dense_imb.tasks.images.evaluate import (
    Blank,
    ImagesTable,
    evaluate_images,
    logit_of_class,
)
from dense_imb.tasks.images.segment import decided
from dense_imb.tasks.images.trained import TrainedImages

VERDICTS = ("background", "found", "false alarm", "missed", "wrong class", "ignored")
_FIRST = (3, 4, 2, 1, 5)  # verdicts that a block shows before others
Row = dict[str, Any]


@dataclass(frozen=True)
class ImageSample:
    """An image, or the slice of a volume with most foreground, with the network's verdicts.

    Of a large image a block of pixels is one: `sample_of` makes them.

    Args:
        title: reason for showing this image.
        name: name of the image.
        part: name of the slice; "" for a whole image.
        row: scores of the image, a row of `ImageMeasures.images`.
        image: (H, W, C) pixels in the type of the file.
        truth: (H, W) classes, IGNORED where there is no label.
        probability: (H, W) probability of all foreground classes together.
        verdict: (H, W) indices into `VERDICTS`.
        n_pixels: number of pixels of each of `VERDICTS` in the whole image or slice.
        block: side of the blocks of pixels that are one pixel here.
    """

    title: str
    name: str
    part: str
    row: Row
    image: NDArray[Any]
    truth: NDArray[np.uint8]
    probability: NDArray[np.float32]
    verdict: NDArray[np.uint8]
    n_pixels: tuple[int, ...]
    block: int = 1


@dataclass
class ImageMeasures:
    """Scores of a network and of a blank answer.

    Args:
        table: table of scores.
        scores: scores of the network.
        thresholds: logit threshold of each class, chosen on the validation images.
        images: a row of scores for each image.
        samples: a typical image, the worst and the best.
    """

    table: ImagesTable
    scores: SegmentationScores
    thresholds: tuple[float, ...]
    images: list[Row] = field(default_factory=list)
    samples: list[ImageSample] = field(default_factory=list)


def measure_images(
    network: TrainedImages,
    images: LabelledImages,
    thresholds: tuple[float, ...],
    progress: Callable[[int], Progress],
) -> ImageMeasures:
    """Measure a network and a blank answer; the samples pass through the network twice."""
    blank = Blank(images.n_classes)
    if network.name == blank.name:
        network.name += " (run)"
    is_natural = network.reading.natural is not None
    rows: list[Row] = []
    recorded: list[SegmentationScores] = []

    def watch(name: str, scores: SegmentationScores, i: int, logits: Tensor) -> None:
        if name == network.name:
            recorded[:] = [scores]
            label = images.label(i)
            row = image_scores(logits, label, thresholds, by_thresholds=is_natural)
            rows.append({"image": images.names[i], **row})

    table = evaluate_images(
        [network, blank],
        images,
        thresholds=[thresholds, (0.0,) * images.n_classes],
        progress=progress(2 * len(images)),
        watch=watch,
    )
    samples = [
        _sample(network, images, i, thresholds, title, rows[i])
        for i, title in chosen_images(rows).items()
    ]
    return ImageMeasures(table, recorded[0], thresholds, rows, samples)


def image_scores(
    logits: Tensor,
    label: NDArray[np.uint8],
    thresholds: tuple[float, ...],
    *,
    by_thresholds: bool = False,
) -> Row:
    """Return the scores of one image, means over the foreground classes; NaN if undefined.

    More than two classes are decided by their thresholds if `by_thresholds`, else the likeliest
    class is taken, as `segment_images` does.

        f1, precision, recall  scores of the predicted classes
        average_precision      score of the ranking of the pixels
        share                  fraction of foreground among the labelled pixels
        found, false_alarms, missed, wrong_class  numbers of pixels

    Example:
        >>> logits = torch.tensor([[[2.0, 1.0, -1.0, -3.0]]])
        >>> row = image_scores(logits, np.array([1, 0, 0, 1], np.uint8), (0.0, 0.0))
        >>> row["f1"], row["share"], row["false_alarms"]
        (0.5, 0.5, 1)
    """
    own = thresholds if by_thresholds else ()
    called, is_labelled = decided(logits, thresholds[1], thresholds=own), label != IGNORED
    scores: dict[str, list[float]] = {
        name: [] for name in ("f1", "precision", "recall", "average_precision")
    }
    for k in range(1, len(thresholds)):
        is_called, is_true = (called == k) & is_labelled, label == k
        n_found = int((is_called & is_true).sum())
        n_called, n_true = int(is_called.sum()), int(is_true.sum())
        for name, part, whole in (
            ("f1", 2 * n_found, n_called + n_true),
            ("precision", n_found, n_called),
            ("recall", n_found, n_true),
        ):
            scores[name].append(part / whole if whole else math.nan)
        histogram = ScoreHistogram(scale="logit")
        chosen = torch.from_numpy(is_labelled)
        histogram.update(logit_of_class(logits, k)[0][chosen], torch.from_numpy(is_true)[chosen])
        scores["average_precision"].append(histogram.average_precision())
    verdict = verdicts(called, label)
    n_labelled = int(is_labelled.sum())
    n_true = int((is_labelled & (label > 0)).sum())
    return {
        **{name: mean_of_known(values) for name, values in scores.items()},
        "share": n_true / n_labelled if n_labelled else math.nan,
        "found": int((verdict == 1).sum()),
        "false_alarms": int((verdict == 2).sum()),
        "missed": int((verdict == 3).sum()),
        "wrong_class": int((verdict == 4).sum()),
    }


def verdicts(called: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the verdict on each pixel as an index into `VERDICTS`.

    Example:
        >>> verdicts(np.array([0, 1, 1, 0, 2, 1]), np.array([0, 1, 0, 1, 1, 255])).tolist()
        [0, 1, 2, 3, 4, 5]
    """
    is_called, is_true = called > 0, label > 0
    verdict = np.zeros(label.shape, np.uint8)
    verdict[is_called] = 2
    verdict[is_true] = 3
    verdict[is_true & is_called] = 4
    verdict[is_true & (called == label)] = 1
    verdict[label == IGNORED] = 5
    return verdict


def chosen_images(rows: list[Row]) -> dict[int, str]:
    """Return the images to show and their titles: the median by F1, the worst and the best."""
    # among images with an F1 of 0 the one with most wrong pixels is the worst
    order = sorted(
        (row["f1"], -row["false_alarms"] - row["missed"], i)
        for i, row in enumerate(rows)
        if not math.isnan(row["f1"])
    )
    places = [i for *_, i in order]
    if not places:
        return {}
    chosen = {places[len(places) // 2]: "A typical image"}
    for i, title in ((places[0], "The worst image"), (places[-1], "The best image")):
        chosen.setdefault(i, title)
    return chosen


def _sample(
    network: TrainedImages,
    images: LabelledImages,
    i: int,
    thresholds: tuple[float, ...],
    title: str,
    row: Row,
) -> ImageSample:
    image, label = images.image(i), images.label(i)
    own = thresholds if network.reading.natural is not None else ()
    logits = network.logits(image)
    probability = logits[0, 0].sigmoid() if logits.shape[1] == 1 else 1 - logits[0].softmax(0)[0]
    planes: list[NDArray[Any]] = [
        np.moveaxis(image, 0, -1),
        label,
        probability.numpy(),
        verdicts(decided(logits, thresholds[1], thresholds=own), label),
    ]
    part = ""
    if label.ndim == 3:
        axis, place = fullest_slice(label)
        planes = [plane.take(place, axis) for plane in planes]
        part = f"slice {place + 1} of {label.shape[axis]} along axis {axis + 1}"
    return sample_of(title, images.names[i], part, row, *planes)


def sample_of(
    title: str,
    name: str,
    part: str,
    row: Row,
    image: NDArray[Any],
    truth: NDArray[np.uint8],
    probability: NDArray[np.float32],
    verdict: NDArray[np.uint8],
) -> ImageSample:
    """Return an `ImageSample` of these pixels, a large one in blocks.

    A block has the mean of its pixels, its rarest class, its highest probability, and an error if
    it holds any.
    """
    n_pixels = tuple(int(np.count_nonzero(verdict == k)) for k in range(len(VERDICTS)))
    side = block_side(truth.shape)
    return ImageSample(
        title,
        name,
        part,
        row,
        mean_of_blocks(image, side),
        first_of_blocks(truth, side, classes_by_rarity(truth, last=[IGNORED])),
        largest_of_blocks(probability, side),
        first_of_blocks(verdict, side, _FIRST),
        n_pixels,
        side,
    )


def fullest_slice(label: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the shortest axis of a volume, and the index on it with most foreground."""
    axis = int(np.argmin(label.shape))
    is_foreground = (label > 0) & (label != IGNORED)
    others = tuple(k for k in range(3) if k != axis)
    return axis, int(is_foreground.sum(others).argmax())
