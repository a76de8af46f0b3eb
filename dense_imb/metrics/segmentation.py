"""Scores of a segmentation: per class over pixels, and per object."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape, readable
from dense_imb.base.tabular import Rows, TabularBars
from dense_imb.losses.core.target import pixel_target
from dense_imb.metrics._checks import refuse_class_numbers
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.histogram import ScoreHistogram
from dense_imb.metrics.score_table import mean_of_known

_AT_ONCE = 1 << 22  # pixels whose classes are counted at a time


class SegmentationScores(StreamingCounts, TabularBars):
    """IoU, Dice, precision, recall, average precision and calibration of each class.

        IoU_k = TP / (TP + FP + FN),   Dice_k = 2 TP / (2 TP + FP + FN)
        precision_k = TP / (TP + FP),  recall_k = TP / (TP + FN)

    TP, FP and FN of class k are summed over all pixels of all images. A class that is neither in
    the truth nor in the prediction has NaN. Average precision, best F1 and calibration error use
    the score logit(p_k), with p = softmax(logits), for class k against the rest. `histograms[k]`
    has the results of every threshold of this score.

    Args:
        n_classes: number of classes; 2 for logits with one channel.
        ignore_index: label of pixels to leave out; None leaves out none.
        n_bins: number of bins of each `ScoreHistogram` in `histograms`.

    Example:
        >>> scores = SegmentationScores()
        >>> scores.update(torch.tensor([[[2.0, 1.0, -1.0, -3.0]]]), torch.tensor([[1, 0, 0, 1]]))
        >>> scores.iou()
        (0.3333333333333333, 0.3333333333333333)
        >>> scores.dice()
        (0.5, 0.5)
    """

    def __init__(
        self, n_classes: int = 2, *, ignore_index: int | None = None, n_bins: int = 1000
    ) -> None:
        check_at_least("n_classes", n_classes, 2)
        self.n_classes = n_classes
        self.ignore_index = ignore_index
        self.histograms = [ScoreHistogram(n_bins, scale="logit") for _ in range(n_classes)]
        self._confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)  # truth, prediction

    def _settings(self) -> dict[str, Any]:
        return {
            "n_classes": self.n_classes,
            "ignore_index": self.ignore_index,
            "n_bins": self.histograms[0].n_bins,
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._confusion, *(h._counts for h in self.histograms))

    def update(self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> None:
        """Count a batch, with the shapes of every classification loss.

        Args:
            logits: (B, C, *spatial); C = 1 means binary.
            target: class indices (B, *spatial) or (B, 1, *spatial), or one-hot (B, C, *spatial).
            mask: (B, *spatial), False for pixels to leave out; None leaves out none.
        """
        logits, target, mask = readable(logits=logits, target=target, mask=mask)
        refuse_class_numbers("logits", logits, "target", target)
        pixels = pixel_target(
            logits.detach(), target, ignore_index=self.ignore_index, mask=mask,
            soft_for="SegmentationScores",
        )  # fmt: skip
        if pixels.n_classes != self.n_classes:
            raise ValueError(
                f"Expected `logits` of {self.n_classes} classes, got {pixels.n_classes}."
            )
        # on an accelerator the losses skip this check, which has to read values
        if bool((pixels.slot > self.n_classes).any()):
            raise ValueError(
                f"Expected `target` between 0 and {self.n_classes - 1}, or one-hot, got another "
                "label; pass `ignore_index` or `mask` for pixels without a class."
            )
        scores = pixels.logits.movedim(1, -1)  # (B, *spatial, C)
        label = pixels.label
        if pixels.valid is not None:
            scores, label = scores[pixels.valid], label[pixels.valid]
        scores, label = scores.reshape(-1, self.n_classes), label.reshape(-1)
        ranks = [_rank(block) for block in torch.split(scores, _AT_ONCE)]
        if any(bool(rank.isnan().any()) for rank in ranks):
            raise ValueError(
                "Expected `logits` without NaN, and infinite for at most one class, got NaN or "
                "several infinities; look for them in the network."
            )
        for block, true, rank in zip(
            torch.split(scores, _AT_ONCE), torch.split(label, _AT_ONCE), ranks, strict=True
        ):
            pair = true * self.n_classes + block.argmax(-1)
            count = torch.bincount(pair, minlength=self.n_classes**2)
            for k, histogram in enumerate(self.histograms):
                histogram.update(rank[:, k], true == k)
            self._confusion += count.view(self.n_classes, self.n_classes).cpu()

    @property
    def confusion(self) -> Tensor:
        """Number of pixels by true class (row) and predicted class (column)."""
        return self._confusion.clone()

    def iou(self) -> tuple[float, ...]:
        """Return the intersection over union of each class."""
        return self._overlap(1)

    def dice(self) -> tuple[float, ...]:
        """Return the Dice coefficient, which is the F1, of each class."""
        return self._overlap(2)

    def precision(self) -> tuple[float, ...]:
        """Return the precision of each class."""
        return tuple(map(ratio, self._confusion.diagonal(), self._confusion.sum(0)))

    def recall(self) -> tuple[float, ...]:
        """Return the recall, which is the per-class accuracy, of each class."""
        return tuple(map(ratio, self._confusion.diagonal(), self._confusion.sum(1)))

    def _overlap(self, weight: int) -> tuple[float, ...]:
        """Return weight TP / (weight TP + FP + FN) of each class."""
        true_positive = self._confusion.diagonal()
        wrong = self._confusion.sum(0) + self._confusion.sum(1) - 2 * true_positive
        both = zip((weight * true_positive).tolist(), wrong.tolist(), strict=True)
        return tuple(ratio(right, right + other) for right, other in both)

    def average_precision(self) -> tuple[float, ...]:
        """Return the average precision of each class against the rest."""
        return tuple(histogram.average_precision() for histogram in self.histograms)

    def best_f1(self) -> tuple[tuple[float, float], ...]:
        """Return the best F1 of each class and its threshold of logit(p_k)."""
        return tuple(histogram.best_f1() for histogram in self.histograms)

    def recall_at_precision(self, precision: float) -> tuple[float, ...]:
        """Return the largest recall of each class with at least this precision."""
        return tuple(histogram.recall_at_precision(precision) for histogram in self.histograms)

    def calibration_error(self, n_bins: int = 15) -> tuple[float, ...]:
        """Return the class-wise expected calibration error, see `ScoreHistogram`.

        The usual error, of the most likely class, would hardly depend on rare classes.

        Args:
            n_bins: number of bins of p_k.
        """
        return tuple(histogram.calibration_error(n_bins) for histogram in self.histograms)

    def scores(self) -> dict[str, float]:
        """Return every score by name: `iou_k` for class k, `mean_iou` and `foreground_iou`.

        Means leave out NaN, and the foreground is all classes but 0.
        """
        scores: dict[str, float] = {}
        for name, values in (
            ("iou", self.iou()),
            ("dice", self.dice()),
            ("precision", self.precision()),
            ("recall", self.recall()),
            ("ap", self.average_precision()),
            ("best_f1", tuple(f1 for f1, _ in self.best_f1())),
            ("ece", self.calibration_error()),
        ):
            scores |= {f"{name}_{k}": value for k, value in enumerate(values)}
            scores[f"mean_{name}"] = mean_of_known(values)
            scores[f"foreground_{name}"] = mean_of_known(values[1:])
        return scores

    def table_rows(self) -> Rows:
        """Return a row for each class."""
        columns = {
            "pixels": tuple(map(float, self._confusion.sum(1).tolist())),
            "iou": self.iou(),
            "dice": self.dice(),
            "precision": self.precision(),
            "recall": self.recall(),
            "average_precision": self.average_precision(),
            "best_f1": tuple(f1 for f1, _ in self.best_f1()),
        }
        return [
            {"class": str(k), **{name: values[k] for name, values in columns.items()}}
            for k in range(self.n_classes)
        ]

    def bar_column(self) -> str:
        """Return the intersection over union."""
        return "iou"

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        counts = {"pixels": int(self._confusion.sum()), "classes": self.n_classes}
        iou = self.iou()
        return counts, {
            "mean IoU": mean_of_known(iou),
            "foreground IoU": mean_of_known(iou[1:]),
        }


class ObjectScores(StreamingCounts):
    """Detected objects and false alarms.

        detection         = detected true objects / true objects
        false_alarm_share = false alarms / predicted objects
        false_alarms_per_million_pixels = 10^6 false alarms / pixels

    Objects are connected components, with pixels that touch at a corner connected. A true object
    is detected if the prediction covers at least one of its pixels and the fraction `min_cover`
    of them. A predicted object without a true pixel is a false alarm. Needs SciPy.

    Args:
        min_cover: covered fraction of a detected object, default 0: one pixel is enough.

    Example:
        >>> scores = ObjectScores()
        >>> truth = torch.tensor([[[1, 1, 0, 0, 0, 1]]]).bool()
        >>> scores.update(torch.tensor([[[0, 1, 0, 1, 0, 0]]]).bool(), truth)
        >>> values = scores.scores()
        >>> values["detection"], round(values["false_alarms_per_million_pixels"])
        (0.5, 166667)
    """

    def __init__(self, *, min_cover: float = 0.0) -> None:
        check_at_least("min_cover", min_cover, 0.0)
        self.min_cover = min_cover
        # true objects, detected ones, predicted objects, false alarms, pixels
        self._counts = torch.zeros(5, dtype=torch.int64)

    def _settings(self) -> dict[str, Any]:
        return {"min_cover": self.min_cover}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts,)

    def update(self, is_predicted: Tensor, is_true: Tensor, *, mask: Tensor | None = None) -> None:
        """Count a batch of images.

        Args:
            is_predicted: bool, (B, *spatial).
            is_true: bool, same shape.
            mask: bool, same shape, False for pixels to leave out.
        """
        is_predicted, is_true, mask = readable(
            is_predicted=is_predicted, is_true=is_true, mask=mask
        )
        check_same_shape("is_true", is_true, "is_predicted", is_predicted)
        valid = torch.ones_like(is_predicted) if mask is None else mask
        check_same_shape("mask", valid, "is_predicted", is_predicted)
        valid = valid.bool().cpu()
        predicted, true = is_predicted.bool().cpu() & valid, is_true.bool().cpu() & valid
        true_object, n_true = _components(true)
        predicted_object, n_predicted = _components(predicted)
        size = torch.bincount(true_object[true], minlength=n_true + 1)[1:]
        both = true & predicted
        covered = torch.bincount(true_object[both], minlength=n_true + 1)[1:]
        overlap = torch.bincount(predicted_object[both], minlength=n_predicted + 1)[1:]
        is_detected = (covered > 0) & (covered >= self.min_cover * size)
        counts = (n_true, int(is_detected.sum()), n_predicted, int((overlap == 0).sum()))
        self._counts += torch.tensor([*counts, int(valid.sum())])

    def scores(self) -> dict[str, float]:
        """Return every score by name; NaN without data."""
        n_true, n_detected, n_predicted, n_false, n_pixels = self._counts.tolist()
        return {
            "n_objects": float(n_true),
            "detection": ratio(n_detected, n_true),
            "false_alarm_share": ratio(n_false, n_predicted),
            "false_alarms_per_million_pixels": ratio(1e6 * n_false, n_pixels),
        }

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        n_true, _, n_predicted, n_false, _ = self._counts.tolist()
        counts = {"objects": n_true, "predicted": n_predicted, "false alarms": n_false}
        return counts, {"detection": self.scores()["detection"]}


def _rank(scores: Tensor) -> Tensor:
    """Return logit(p_k) = z_k - log(sum of exp(z_j) over the other classes j); (n, C)."""
    others = [torch.cat([scores[:, :k], scores[:, k + 1 :]], -1) for k in range(scores.shape[1])]
    return scores - torch.stack([other.logsumexp(-1) for other in others], -1)


def _components(is_object: Tensor) -> tuple[Tensor, int]:
    """Number the connected components of a batch from 1; 0 is background."""
    try:
        ndimage = importlib.import_module("scipy.ndimage")
    except ImportError as why:
        raise ImportError("ObjectScores needs SciPy; install it: pip install scipy.") from why
    structure = torch.ones((3,) * is_object.dim(), dtype=torch.bool)
    structure[::2] = False  # pixels of different images are not connected
    number, n_objects = ndimage.label(is_object.numpy(), structure.numpy())
    return torch.from_numpy(number).long(), int(n_objects)
