"""Scores of the classification of whole images with rare classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_n_entries, readable
from dense_imb.base.tabular import Rows, TabularBars, cells_of_rows
from dense_imb.metrics._checks import refuse_class_numbers
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.metrics.segmentation import SegmentationScores

# limits of the head and the tail in training images per class (Liu et al., 2019)
MANY, FEW = 100.0, 20.0
GROUPS = ("head", "middle", "tail")


def class_groups(
    train_counts: Sequence[float], many: float = MANY, few: float = FEW
) -> dict[str, tuple[int, ...]]:
    """Split classes into head, middle and tail by their number of training images n_k.

        head   n_k > many,      tail   n_k < few,      middle   few <= n_k <= many

    Args:
        train_counts: n_k, training images of each class.
        many: classes with more training images are in the head, default 100.
        few: classes with fewer training images are in the tail, default 20.

    Example:
        >>> class_groups([5000, 101, 100, 20, 19])
        {'head': (0, 1), 'middle': (2, 3), 'tail': (4,)}
    """
    if not few <= many:
        raise ValueError(f"Expected `few` up to `many`, got {few:g} and {many:g}.")
    group = [0 if n > many else 2 if n < few else 1 for n in train_counts]
    return {name: tuple(k for k, g in enumerate(group) if g == i) for i, name in enumerate(GROUPS)}


class ClassificationScores(StreamingCounts, TabularBars):
    """Overall and per-class accuracy of a data set of images with one label each.

    O_jk is the number of images of class j that are predicted as class k. Further, n = sum O is
    the number of images, t_k = sum_j O_kj those of class k, p_k = sum_j O_jk those predicted as k:

        recall_k           = O_kk / t_k,  the per-class accuracy
        accuracy           = sum_k O_kk / n
        balanced accuracy  = mean recall_k over classes with t_k > 0
        head, middle, tail = mean recall_k over the classes of `class_groups`
        macro F1           = mean 2 O_kk / (t_k + p_k) over classes with t_k + p_k > 0
        quadratic kappa    = 1 - sum w O / sum w E,  w_jk = (j - k)^2,  E_jk = t_j p_k / n
        Matthews           = (n sum_k O_kk - sum_k t_k p_k)
                             / sqrt((n^2 - sum_k t_k^2) (n^2 - sum_k p_k^2))   (Gorodkin, 2004)
        AUC                = mean over classes k of the AUC of k against the rest
        calibration error  = sum_b n_b / n |accuracy_b - mean confidence_b|
        most called        = max_k p_k / n

    The confidence is the probability of the predicted class; its bins b have equal width. A score
    without data, such as that of an empty tail, is NaN. A network that predicts one class only
    has a kappa and a Matthews correlation of 0. The quadratic kappa is for ordered classes, such
    as grades of a disease.

    Args:
        n_classes: number of classes, at least 2.
        train_counts: training images of each class, for head, middle and tail; None omits them.
        many, few: see `class_groups`.
        n_bins: number of bins of the `ScoreHistogram` of each class.
        calibration_bins: number of bins b of the confidence.

    Example:
        >>> scores = ClassificationScores(3, train_counts=[500, 50, 5])
        >>> logits = torch.tensor([[4.0, 0, 0], [4.0, 0, 0], [0, 4.0, 0], [4.0, 0, 0]])
        >>> scores.update(logits, torch.tensor([0, 0, 1, 2]))
        >>> scores.accuracy(), round(scores.balanced_accuracy(), 4)
        (0.75, 0.6667)
        >>> scores.group_accuracy()
        {'head': 1.0, 'middle': 1.0, 'tail': 0.0}
    """

    def __init__(
        self,
        n_classes: int,
        *,
        train_counts: Sequence[float] | None = None,
        many: float = MANY,
        few: float = FEW,
        n_bins: int = 1000,
        calibration_bins: int = 15,
    ) -> None:
        check_at_least("calibration_bins", calibration_bins, 1)
        self.n_classes, self.many, self.few = n_classes, many, few
        self.train_counts = None if train_counts is None else tuple(map(float, train_counts))
        if self.train_counts is not None:
            check_n_entries("train_counts", self.train_counts, n_classes)
        self.groups = class_groups(self.train_counts or (), many, few)
        self.by_class = SegmentationScores(n_classes, n_bins=n_bins)  # an image is one pixel
        # number of images, of correct predictions, and sum of confidences, per bin
        self._calibration = torch.zeros(3, calibration_bins, dtype=torch.float64)

    def _settings(self) -> dict[str, Any]:
        return {
            "n_classes": self.n_classes,
            "train_counts": None if self.train_counts is None else list(self.train_counts),
            "many": self.many,
            "few": self.few,
            "n_bins": self.by_class.histograms[0].n_bins,
            "calibration_bins": self._calibration.shape[1],
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.by_class._tensors(), self._calibration)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (B, n_classes) output of the network.
            label: (B,) class of each image.
        """
        logits, label = readable(logits=logits, label=label)
        refuse_class_numbers("logits", logits, "label", label)
        if logits.dim() != 2 or label.shape != logits.shape[:1]:
            raise ValueError(
                "Expected `logits` (B, n_classes) and `label` (B,), got "
                f"{tuple(logits.shape)} and {tuple(label.shape)}."
            )
        self.by_class.update(logits, label)
        probability = logits.detach().cpu().double().softmax(1)
        confidence, predicted = probability.max(1)
        is_correct = (predicted == label.cpu().double()).double()
        n_bins = self._calibration.shape[1]
        # an edge belongs to the bin below
        bins = (confidence * n_bins).ceil().long().sub(1).clamp(0, n_bins - 1)
        counted = torch.stack([torch.ones_like(confidence), is_correct, confidence])
        self._calibration.index_add_(1, bins, counted)

    @property
    def confusion(self) -> Tensor:
        """Number of images by true class (row) and predicted class (column)."""
        return self.by_class.confusion

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    def accuracy(self) -> float:
        """Return the fraction of images with the correct class."""
        return ratio(self.confusion.diagonal().sum(), self.confusion.sum())

    def recall(self) -> tuple[float, ...]:
        """Return the per-class accuracy."""
        return self.by_class.recall()

    def balanced_accuracy(self) -> float:
        """Return the mean per-class accuracy."""
        return mean_of_known(self.recall())

    def group_accuracy(self) -> dict[str, float]:
        """Return the mean per-class accuracy in the head, the middle and the tail."""
        recall = self.recall()
        return {
            name: mean_of_known([recall[k] for k in members])
            for name, members in self.groups.items()
        }

    def macro_f1(self) -> float:
        """Return the mean F1 over classes."""
        return mean_of_known(self.by_class.dice())

    def auc(self) -> float:
        """Return the mean area under the ROC curve over classes, one against the rest."""
        return mean_of_known([histogram.auc() for histogram in self.by_class.histograms])

    def quadratic_kappa(self) -> float:
        """Return Cohen's kappa with quadratic weights."""
        count = self.confusion.double()
        order = torch.arange(self.n_classes, dtype=torch.float64)
        weight = (order[:, None] - order).square()
        chance = count.sum(1)[:, None] * count.sum(0) / count.sum()
        return 1 - ratio((weight * count).sum(), (weight * chance).sum())

    def matthews(self) -> float:
        """Return the Matthews correlation; 0 if one class only is predicted."""
        count = self.confusion.double()
        true, predicted, total = count.sum(1), count.sum(0), count.sum()
        spread_true = total**2 - true.square().sum()
        if not spread_true > 0:  # a single true class, or no image
            return math.nan
        covariance = count.diagonal().sum() * total - (true * predicted).sum()
        spread = total**2 - predicted.square().sum()
        return float(covariance / (spread_true * spread).sqrt()) if spread > 0 else 0.0

    def calibration_error(self) -> float:
        """Return the expected calibration error of the predicted class."""
        n_images, n_correct, confidence = self._calibration
        return ratio((n_correct - confidence).abs().sum(), n_images.sum())

    def most_called(self) -> float:
        """Return the fraction of images predicted as the most frequent prediction.

        A value of 1 means that the network has collapsed to one class.
        """
        predicted = self.confusion.sum(0)
        return ratio(predicted.max(), predicted.sum())

    def scores(self) -> dict[str, float]:
        """Return every score by name."""
        groups = self.group_accuracy() if self.train_counts is not None else {}
        return {
            "accuracy": self.accuracy(),
            "balanced_accuracy": self.balanced_accuracy(),
            **{f"{name}_accuracy": value for name, value in groups.items()},
            "macro_f1": self.macro_f1(),
            "quadratic_kappa": self.quadratic_kappa(),
            "matthews": self.matthews(),
            "auc": self.auc(),
            "calibration_error": self.calibration_error(),
            "most_called": self.most_called(),
        }

    def table_rows(self) -> Rows:
        """Return a row for each class: its images, and its scores against the rest."""
        columns = {
            "images": tuple(map(float, self.confusion.sum(1).tolist())),
            "recall": self.recall(),
            "precision": self.by_class.precision(),
            "f1": self.by_class.dice(),
            "auc": tuple(histogram.auc() for histogram in self.by_class.histograms),
        }
        return [
            {"class": str(k), **{name: values[k] for name, values in columns.items()}}
            for k in range(self.n_classes)
        ]

    def text_tables(self) -> list[list[list[str]]]:
        """Return the tables of the scores over all classes, and of the classes, as texts."""
        scores: list[dict[str, str | float]] = [
            {"score": name.replace("_", " "), "value": value}
            for name, value in self.scores().items()
        ]
        return [cells_of_rows(scores), cells_of_rows(self.table_rows())]

    def bar_column(self) -> str:
        """Return the recall, which is the per-class accuracy."""
        return "recall"

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        accuracy = {"accuracy": self.accuracy(), "balanced accuracy": self.balanced_accuracy()}
        return {"images": self.n_images, "classes": self.n_classes}, accuracy
