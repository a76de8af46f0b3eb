"""What a segmentation is worth: by pixel and class, and by object."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_same_shape, check_tensor
from dense_imb.losses.core.target import pixel_target
from dense_imb.metrics._counts import StreamingCounts, share
from dense_imb.metrics.histogram import ScoreHistogram
from dense_imb.metrics.score_table import mean_of_known


class SegmentationScores(StreamingCounts):
    """IoU, Dice, precision, recall and more of each class over a whole data set.

        IoU_k = TP / (TP + FP + FN),   Dice_k = 2 TP / (2 TP + FP + FN)
        precision_k = TP / (TP + FP),  recall_k = TP / (TP + FN)

    summed over all images first. A class that is neither in the truth nor in the prediction has
    NaN. Average precision, the best F1 and the calibration error look at the logit of p_k, one
    class against the rest; of binary logits, `histograms[1]` has every threshold's scores.

    Args:
        n_classes: number of classes; 2 for logits with one channel.
        ignore_index: label of the pixels that are left out.
        n_bins: of `histograms`, one `ScoreHistogram` a class.

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
        """Count a batch, in the shapes that every classification loss takes.

        Args:
            logits: (B, C, *spatial), C = 1 meaning binary.
            target: class indices, (B, *spatial) or (B, 1, *spatial), or one-hot.
            mask: (B, *spatial), False for pixels that are left out.
        """
        pixels = pixel_target(
            logits.detach(), target, ignore_index=self.ignore_index, mask=mask,
            soft_for="SegmentationScores",
        )  # fmt: skip
        if pixels.n_classes != self.n_classes:
            raise ValueError(
                f"Expected `logits` of {self.n_classes} classes, got {pixels.n_classes}."
            )
        # the losses let an accelerator pass what only reading its values could refuse
        if bool((pixels.slot > self.n_classes).any()):
            raise ValueError(
                f"Expected `target` between 0 and {self.n_classes - 1}, or one-hot; pass "
                "`ignore_index` or `mask` for pixels that belong to no class."
            )
        scores = pixels.logits.movedim(1, -1)  # (B, *spatial, C)
        label = pixels.label
        if pixels.valid is not None:
            scores, label = scores[pixels.valid], label[pixels.valid]
        others = [
            torch.cat([scores[..., :k], scores[..., k + 1 :]], -1) for k in range(self.n_classes)
        ]
        # logit of p_k of the softmax
        rank = scores - torch.stack([other.logsumexp(-1) for other in others], -1)
        if bool(rank.isnan().any()):
            raise ValueError(
                "Expected `logits` without NaN, and infinite for one class at most, got others; "
                "the network is broken."
            )
        pair = label * self.n_classes + scores.argmax(-1)
        count = torch.bincount(pair.reshape(-1), minlength=self.n_classes**2)
        for k, histogram in enumerate(self.histograms):
            histogram.update(rank[..., k], label == k)
        self._confusion += count.view(self.n_classes, self.n_classes).cpu()

    @property
    def confusion(self) -> Tensor:
        """Pixels of each true class (row) called each class (column)."""
        return self._confusion.clone()

    def iou(self) -> tuple[float, ...]:
        """Return the intersection over union of each class."""
        return self._overlap(1)

    def dice(self) -> tuple[float, ...]:
        """Return the Dice coefficient of each class, its F1."""
        return self._overlap(2)

    def precision(self) -> tuple[float, ...]:
        """Return the share of right pixels among those called each class."""
        return self._right_of(self._confusion.sum(0))

    def recall(self) -> tuple[float, ...]:
        """Return the share of each class's pixels that are called so."""
        return self._right_of(self._confusion.sum(1))

    def _right_of(self, whole: Tensor) -> tuple[float, ...]:
        return tuple(map(share, self._confusion.diagonal(), whole))

    def _overlap(self, weight: int) -> tuple[float, ...]:
        hit = self._confusion.diagonal()
        wrong = self._confusion.sum(0) + self._confusion.sum(1) - 2 * hit
        both = zip((weight * hit).tolist(), wrong.tolist(), strict=True)
        return tuple(share(h, h + w) for h, w in both)

    def average_precision(self) -> tuple[float, ...]:
        """Return the average precision of each class against the rest."""
        return tuple(histogram.average_precision() for histogram in self.histograms)

    def best_f1(self) -> tuple[tuple[float, float], ...]:
        """Return F1 and the threshold of each class's best: a logit of p_k, see `histograms`."""
        return tuple(histogram.best_f1() for histogram in self.histograms)

    def recall_at_precision(self, precision: float) -> tuple[float, ...]:
        """Return the largest recall of each class at which its precision is at least that."""
        return tuple(histogram.recall_at_precision(precision) for histogram in self.histograms)

    def calibration_error(self, n_bins: int = 15) -> tuple[float, ...]:
        """Return the expected calibration error of each p_k, the class-wise one.

        Not that of the most likely class alone, which says of a blank frame that 98 % sure is
        98 % right, and nothing about the rare classes.
        """
        return tuple(histogram.calibration_error(n_bins) for histogram in self.histograms)

    def scores(self) -> dict[str, float]:
        """Return every score by name: of class k, `iou_k`, and two means over classes.

        `mean_iou` is over the classes that have a score, `foreground_iou` over those but class 0.
        """
        found: dict[str, float] = {}
        for name, values in (
            ("iou", self.iou()),
            ("dice", self.dice()),
            ("precision", self.precision()),
            ("recall", self.recall()),
            ("ap", self.average_precision()),
            ("best_f1", tuple(f1 for f1, _ in self.best_f1())),
            ("ece", self.calibration_error()),
        ):
            found |= {f"{name}_{k}": value for k, value in enumerate(values)}
            found[f"mean_{name}"] = mean_of_known(values)
            found[f"foreground_{name}"] = mean_of_known(values[1:])
        return found


class ObjectScores(StreamingCounts):
    """Objects found and false alarms: connected components, touching corners included.

    A true object is detected where the prediction covers at least `min_cover` of it, by default a
    single pixel. A predicted object that meets no true pixel is a false alarm. Needs SciPy.

    Args:
        min_cover: share of a true object's pixels; 0 for one pixel.

    Example:
        >>> scores = ObjectScores()
        >>> truth = torch.tensor([[[1, 1, 0, 0, 0, 1]]]).bool()
        >>> scores.update(torch.tensor([[[0, 1, 0, 1, 0, 0]]]).bool(), truth)
        >>> found = scores.scores()
        >>> found["detection"], round(found["false_alarms_per_million_pixels"])
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
        """Count bool images (B, *spatial); pixels where `mask` is False are no one's."""
        check_tensor("is_predicted", is_predicted)
        check_same_shape("is_true", is_true, "is_predicted", is_predicted)
        valid = torch.ones_like(is_predicted) if mask is None else mask
        check_same_shape("mask", valid, "is_predicted", is_predicted)
        valid = valid.bool().cpu()
        predicted, true = is_predicted.bool().cpu() & valid, is_true.bool().cpu() & valid
        true_object, n_true = _components(true)
        predicted_object, n_predicted = _components(predicted)
        size = torch.bincount(true_object[true], minlength=n_true + 1)[1:]
        covered = torch.bincount(true_object[true & predicted], minlength=n_true + 1)[1:]
        met = torch.bincount(predicted_object[true & predicted], minlength=n_predicted + 1)[1:]
        is_detected = (covered > 0) & (covered >= self.min_cover * size)
        counts = (n_true, int(is_detected.sum()), n_predicted, int((met == 0).sum()))
        self._counts += torch.tensor([*counts, int(valid.sum())])

    def scores(self) -> dict[str, float]:
        """Return the scores by name; NaN where there was nothing to measure."""
        n_true, n_detected, n_predicted, n_false, n_pixels = self._counts.tolist()
        return {
            "n_objects": float(n_true),
            "detection": share(n_detected, n_true),
            "false_alarm_share": share(n_false, n_predicted),
            "false_alarms_per_million_pixels": share(1e6 * n_false, n_pixels),
        }


def _components(is_object: Tensor) -> tuple[Tensor, int]:
    """Number the connected pixels of each image, 1 .. n over the batch; 0 is background."""
    try:
        ndimage = importlib.import_module("scipy.ndimage")
    except ImportError as why:
        raise ImportError("ObjectScores needs SciPy, which is missing: pip install scipy.") from why
    structure = torch.ones((3,) * is_object.dim(), dtype=torch.bool)
    structure[::2] = False  # never from image to image
    number, n_objects = ndimage.label(is_object.numpy(), structure.numpy())
    return torch.from_numpy(number).long(), int(n_objects)
