"""What a classification of whole images is worth, when some classes are rare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_n_entries
from dense_imb.metrics._counts import StreamingCounts, share
from dense_imb.metrics.segmentation import SegmentationScores

# a class of more training images is of the head, one of fewer of the tail (Liu et al., 2019)
MANY, FEW = 100.0, 20.0
GROUPS = ("head", "middle", "tail")


def class_groups(
    train_counts: Sequence[float], many: float = MANY, few: float = FEW
) -> dict[str, tuple[int, ...]]:
    """The classes of the head, the middle and the tail, by their number of training images.

        head   n_k > many,      tail   n_k < few,      middle   few <= n_k <= many

    Example:
        >>> class_groups([5000, 101, 100, 20, 19])
        {'head': (0, 1), 'middle': (2, 3), 'tail': (4,)}
    """
    if not few <= many:
        raise ValueError(f"Expected `few` up to `many`, got {few:g} and {many:g}.")
    place = [0 if n > many else 2 if n < few else 1 for n in train_counts]
    return {name: tuple(k for k, g in enumerate(place) if g == i) for i, name in enumerate(GROUPS)}


class ClassificationScores(StreamingCounts):
    """Accuracy, and what it hides, over a whole data set of images with one label each.

        recall_k           = called k and rightly so / images of class k
        accuracy           = rightly called / all images
        balanced accuracy  = mean recall_k over the classes that there are
        head, middle, tail = mean recall_k over the classes with many, some and few training images
        macro F1           = mean F1_k over the classes that are true or called somewhere
        quadratic kappa    = 1 - sum w O / sum w E,  w_jk = (j - k)^2, O counts, E those of chance
        Matthews           = correlation of truth and call, of any number of classes (Gorodkin)
        AUC                = mean over the classes, each against the rest
        calibration error  = sum_b n_b / n |accuracy_b - mean confidence_b|, of the likeliest class

    Of what there was nothing to measure, a tail of no classes say, the score is NaN. A network
    that calls everything one class has a kappa and a Matthews correlation of 0. The quadratic
    kappa means something for classes with an order only, grades of a disease say.

    Args:
        n_classes: of the labels, at least 2.
        train_counts: training images of each class, for head, middle and tail; None has none.
        many, few: see `class_groups`.
        n_bins: of the histograms behind the AUC, see `ScoreHistogram`.
        calibration_bins: of equal width in the confidence.

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
        self.of_classes = SegmentationScores(n_classes, n_bins=n_bins)  # an image is one pixel
        # images, rightly called ones and the sum of their confidences
        self._calibration = torch.zeros(3, calibration_bins, dtype=torch.float64)

    def _settings(self) -> dict[str, Any]:
        return {
            "n_classes": self.n_classes,
            "train_counts": None if self.train_counts is None else list(self.train_counts),
            "many": self.many,
            "few": self.few,
            "n_bins": self.of_classes.histograms[0].n_bins,
            "calibration_bins": self._calibration.shape[1],
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.of_classes._tensors(), self._calibration)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (B, n_classes).
            label: (B,) classes.
        """
        if logits.dim() != 2 or label.shape != logits.shape[:1]:
            raise ValueError(
                "Expected `logits` (B, n_classes) and `label` (B,), got "
                f"{tuple(logits.shape)} and {tuple(label.shape)}."
            )
        self.of_classes.update(logits, label)
        probability = logits.detach().cpu().double().softmax(1)
        confidence, called = probability.max(1)
        is_right = (called == label.cpu()).double()
        n_bins = self._calibration.shape[1]
        place = (confidence * n_bins).ceil().long().sub(1).clamp(0, n_bins - 1)  # edges go down
        counted = torch.stack([torch.ones_like(confidence), is_right, confidence])
        self._calibration.index_add_(1, place, counted)

    @property
    def confusion(self) -> Tensor:
        """Images of each true class (row) called each class (column)."""
        return self.of_classes.confusion

    @property
    def n_images(self) -> int:
        """Images seen."""
        return int(self.confusion.sum())

    def accuracy(self) -> float:
        """Return the share of rightly called images."""
        return share(self.confusion.diagonal().sum(), self.confusion.sum())

    def recall(self) -> tuple[float, ...]:
        """Return the accuracy of each class."""
        return self.of_classes.recall()

    def balanced_accuracy(self) -> float:
        """Return the mean accuracy of the classes."""
        return _mean(self.recall())

    def group_accuracy(self) -> dict[str, float]:
        """Return the mean accuracy of the classes of the head, the middle and the tail."""
        recall = self.recall()
        return {name: _mean([recall[k] for k in members]) for name, members in self.groups.items()}

    def macro_f1(self) -> float:
        """Return the mean F1 of the classes."""
        return _mean(self.of_classes.dice())

    def auc(self) -> float:
        """Return the mean area under the ROC of the classes, one against the rest."""
        return _mean([histogram.auc() for histogram in self.of_classes.histograms])

    def quadratic_kappa(self) -> float:
        """Return Cohen's kappa with the square of the difference of the classes as weight."""
        found = self.confusion.double()
        order = torch.arange(self.n_classes, dtype=torch.float64)
        weight = (order[:, None] - order).square()
        chance = found.sum(1)[:, None] * found.sum(0) / found.sum()
        expected = (weight * chance).sum()
        return 1 - share((weight * found).sum(), expected)

    def matthews(self) -> float:
        """Return the correlation of truth and call; 0 where only one class is called."""
        found = self.confusion.double()
        true, called, total = found.sum(1), found.sum(0), found.sum()
        spread = total**2 - true.square().sum()
        if not spread > 0:  # one true class or no image: nothing to correlate with
            return math.nan
        covariance = found.diagonal().sum() * total - (true * called).sum()
        spread_called = total**2 - called.square().sum()
        return float(covariance / (spread * spread_called).sqrt()) if spread_called > 0 else 0.0

    def calibration_error(self) -> float:
        """Return the expected calibration error of the likeliest class's probability."""
        n_images, n_right, confidence = self._calibration
        return share((n_right - confidence).abs().sum(), n_images.sum())

    def most_called(self) -> float:
        """Return the largest share of the images that is called one class: 1 is a collapse."""
        called = self.confusion.sum(0)
        return share(called.max(), called.sum())

    def scores(self) -> dict[str, float]:
        """Return the scores by name."""
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


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return share(math.fsum(known), len(known))
