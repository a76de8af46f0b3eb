"""Streaming class statistics of a data set: class counts, and class weights from them."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_at_least,
    check_choice,
    check_has_values,
    check_label_range,
    is_other,
)
from dense_imb.base.files import write_whole
from dense_imb.base.progress import tqdm
from dense_imb.base.tabular import Rows, TabularBars
from dense_imb.losses import ValueBins, class_weights
from dense_imb.losses.core.class_weights import EFFECTIVE_BETA, scale_to_mean_one
from dense_imb.losses.core.counts import class_counts_of

_FORMAT = "dense-imb-class-statistics"
_VERSION = 1
_SMALLEST = 1e-30  # above 0, also in float32
# edges of the value histogram: 8 bins per factor of 2, from a millionth to a million
VALUE_EDGES: tuple[float, ...] = (0.0, *(2.0 ** (i / 8) for i in range(-160, 161)))


def _target_of(batch: Any, key: str | int | None) -> Any:
    """Return the target in a batch of a DataLoader."""
    if key is None and not isinstance(batch, (dict, list, tuple)):
        return batch
    if key is None:
        raise TypeError(
            f"Expected batches that are tensors, got {type(batch).__name__}; pass the place of "
            f"the target as `key`, one of {_keys(batch)}."
        )
    try:
        return batch[key]
    except (KeyError, IndexError) as problem:
        raise ValueError(f"Expected `key` to be one of {_keys(batch)}, got {key!r}.") from problem


def _keys(batch: Any) -> list[Any]:
    return list(batch if isinstance(batch, dict) else range(len(batch)))


class ClassStatistics(TabularBars):
    """Class counts of a data set; losses accept it in place of `class_counts`.

    Args:
        n_classes: number of classes, default 2.
        partition: "labels" for targets of class indices (B, *spatial) or (B, 1, *spatial), or
            one-hot (B, n_classes, *spatial). "hits" for frames of values, in which 0 is class 0
            and any other value is class 1.
        ignore_index: label of pixels to leave out; None leaves out none.

    Example:
        >>> statistics = ClassStatistics(2)
        >>> statistics.update(torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]]))
        >>> statistics.class_counts
        (7, 1)
        >>> statistics.image_presence
        (2, 1)
        >>> statistics.weights("inverse")
        (0.25, 1.75)
    """

    def __init__(
        self, n_classes: int = 2, *, partition: str = "labels", ignore_index: int | None = None
    ) -> None:
        check_at_least("n_classes", n_classes, 1)
        check_choice("partition", partition, ("labels", "hits"))
        if partition == "hits" and n_classes != 2:
            raise ValueError(f'Expected `n_classes` of 2 with partition "hits", got {n_classes}.')
        self.n_classes = n_classes
        self.partition = partition
        self.ignore_index = ignore_index
        self.n_images = 0
        self._pixels = torch.zeros(n_classes, dtype=torch.int64)
        self._images = torch.zeros(n_classes, dtype=torch.int64)
        self._pixels_of_images = torch.zeros(n_classes, dtype=torch.int64)
        self._values = torch.zeros(len(VALUE_EDGES) + 1, dtype=torch.int64)

    @classmethod
    def from_targets(
        cls,
        targets: Iterable[Any],
        n_classes: int = 2,
        *,
        partition: str = "labels",
        ignore_index: int | None = None,
        key: str | int | None = None,
        show_progress: bool = True,
    ) -> ClassStatistics:
        """Return the statistics of batches of targets.

        Args:
            targets: target tensors, or batches of a DataLoader with the target at `key`.
            n_classes, partition, ignore_index: see `ClassStatistics`.
            key: place of the target in a batch, such as "label" in a dictionary or 1 in a pair;
                None for batches that are tensors.
            show_progress: draw a progress bar.
        """
        counted = cls(n_classes, partition=partition, ignore_index=ignore_index)
        for batch in tqdm(targets, "class statistics", unit="batch", disable=not show_progress):
            counted.update(_target_of(batch, key))
        return counted

    @classmethod
    def from_counts(
        cls,
        class_counts: Sequence[int],
        image_presence: Sequence[int],
        pixels_of_images: Sequence[int],
        n_images: int,
    ) -> ClassStatistics:
        """Return the statistics of counts from elsewhere.

        Args:
            class_counts: number of pixels of each class.
            image_presence: number of images that contain each class.
            pixels_of_images: number of pixels, of any class, in the images that contain each
                class.
            n_images: number of images.

        Example:
            >>> statistics = ClassStatistics.from_counts((7, 1), (2, 1), (8, 4), n_images=2)
            >>> statistics.weights("median-frequency") == (
            ...     ClassStatistics.from_targets(
            ...         [torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])], show_progress=False
            ...     ).weights("median-frequency")
            ... )
            True
        """
        given = cls(len(class_counts))
        given.n_images = int(n_images)
        for name, tensor, counts in (
            ("class_counts", given._pixels, class_counts),
            ("image_presence", given._images, image_presence),
            ("pixels_of_images", given._pixels_of_images, pixels_of_images),
        ):
            if len(counts) != given.n_classes or min(counts) < 0:
                raise ValueError(
                    f"Expected `{name}` with a count for each of the {given.n_classes} classes, "
                    f"got {list(counts)}."
                )
            tensor.copy_(torch.tensor([int(count) for count in counts]))
        return given

    def update(self, target: Tensor, *, mask: Tensor | None = None) -> None:
        """Count the pixels of a batch of targets.

        Args:
            target: class indices, one-hot labels or values, see `ClassStatistics`.
            mask: False for pixels to leave out, in the shape of the class indices.
        """
        check_has_values(target=target, mask=mask)
        target, mask = bare(target).detach(), bare(mask)
        if target.dim() == 0:
            raise ValueError("Expected `target` with images in its first dimension, got a scalar.")
        is_hits = self.partition == "hits"
        if not is_hits and self._is_one_hot(target):
            target = target.argmax(1)
        flat = target.reshape(target.shape[0], math.prod(target.shape[1:])).cpu()
        valid = torch.ones(flat.shape, dtype=torch.bool)
        if mask is not None:
            if mask.numel() != flat.numel():
                raise ValueError(
                    f"Expected `mask` with one value for each of the {flat.numel()} pixels of "
                    f"`target`, got {mask.numel()}."
                )
            valid = mask.reshape(flat.shape).cpu().bool()
        if self.ignore_index is not None:
            valid = valid & is_other(flat, self.ignore_index)
        if flat.is_floating_point() and bool(flat[valid].isnan().any()):
            raise ValueError("Expected `target` without NaN, got one; mask it or fix the data.")
        label = flat.bool().long() if is_hits else self._labels(flat, valid)
        row = torch.arange(flat.shape[0]).unsqueeze(1).expand(flat.shape)
        index = (row * self.n_classes + label)[valid]
        count = torch.bincount(index, minlength=flat.shape[0] * self.n_classes)
        count = count.view(flat.shape[0], self.n_classes)
        is_present = count > 0
        self.n_images += flat.shape[0]
        self._pixels += count.sum(0)
        self._images += is_present.sum(0)
        self._pixels_of_images += (count.sum(1, keepdim=True) * is_present).sum(0)
        if is_hits:
            edges = torch.tensor(VALUE_EDGES, dtype=torch.float64)
            bins = torch.bucketize(flat[valid].double(), edges)
            self._values += torch.bincount(bins, minlength=len(VALUE_EDGES) + 1)

    def _is_one_hot(self, target: Tensor) -> bool:
        """Whether a target has one channel per class, with sum 1 at every pixel."""
        if target.dim() < 2 or target.shape[1] != self.n_classes or self.n_classes == 1:
            return False
        return bool(((target.double().sum(1) - 1).abs() <= 1e-2).all())

    def _labels(self, flat: Tensor, valid: Tensor) -> Tensor:
        if flat.is_floating_point():
            broken = valid & (flat != flat.round())
            if bool(broken.any()):
                raise ValueError(
                    f"Expected `target` to hold class indices, got {float(flat[broken][0])}; "
                    'for frames of values use ClassStatistics(partition="hits").'
                )
        label = torch.where(valid, flat.long(), 0)
        check_label_range("target", label, self.n_classes, valid)
        return label

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Add the counts of another part of the data, such as a worker's, and return `self`."""
        for name in ("n_classes", "partition", "ignore_index"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"Expected `other` with {name}={mine!r}, got {theirs!r}.")
        self.n_images += other.n_images
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine += theirs
        return self

    def reduce_over_processes(self) -> ClassStatistics:
        """Sum over all processes of the default group, if there is one, and return `self`."""
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            packed = torch.cat([torch.tensor([self.n_images]), *self._tensors()]).to(device)
            dist.all_reduce(packed)
            packed = packed.cpu()
            self.n_images = int(packed[0])
            start = 1
            for tensor in self._tensors():
                tensor.copy_(packed[start : start + len(tensor)])
                start += len(tensor)
        return self

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._pixels, self._images, self._pixels_of_images, self._values

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of pixels of each class."""
        return tuple(self._pixels.tolist())

    @property
    def image_presence(self) -> tuple[int, ...]:
        """Number of images that contain each class."""
        return tuple(self._images.tolist())

    @property
    def pixels_of_images(self) -> tuple[int, ...]:
        """Number of pixels, of any class, in the images that contain each class."""
        return tuple(self._pixels_of_images.tolist())

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the pixels in each class."""
        total = max(sum(self.class_counts), 1)
        return tuple(count / total for count in self.class_counts)

    @property
    def value_histogram(self) -> tuple[int, ...]:
        """Number of pixels below 0, at 0, and in each bin above 0, with partition "hits".

        A bin is (VALUE_EDGES[i], VALUE_EDGES[i + 1]]; the last bin has no upper edge.
        """
        n_zero = self.class_counts[0] if self.partition == "hits" else 0
        return (int(self._values[0]) - n_zero, n_zero, *self._values[1:].tolist())

    def weights(
        self, method: str = "inverse", *, beta: float = EFFECTIVE_BETA
    ) -> tuple[float, ...]:
        """Return one weight per class, with mean 1.

            w_k ~ 1 / n_k                     "inverse", n_k pixels of class k
            w_k ~ 1 / sqrt(n_k)               "sqrt"
            w_k ~ (1 - beta) / (1 - beta^n_k) "effective", effective number of samples
            w_k ~ median(f) / f_k             "median-frequency", f_k = n_k / pixels in the images
                                              that contain class k

        Args:
            method: one of the names above.
            beta: beta of "effective".
        """
        if method != "median-frequency":
            check_choice("method", method, ("inverse", "sqrt", "effective", "median-frequency"))
            return class_weights(self, method, beta=beta)
        pixels = class_counts_of(self)
        totals = [max(n, 1) for n in self._pixels_of_images.tolist()]
        frequency = [n / total for n, total in zip(pixels, totals, strict=True)]
        known = [f for f, count in zip(frequency, self.class_counts, strict=True) if count > 0]
        median = statistics.median(known)
        return scale_to_mean_one([median / f for f in frequency])

    def log_prior(self) -> tuple[float, ...]:
        """Return the logarithm of each class's fraction; finite also for absent classes."""
        counts = class_counts_of(self)
        return tuple(math.log(count / math.fsum(counts)) for count in counts)

    def value_bins(self, n_bins: int) -> ValueBins:
        """Return bins with about equally many hits each, with partition "hits".

        Args:
            n_bins: number of bins, at least 2; the first one holds the zeros.
        """
        check_at_least("n_bins", n_bins, 2)
        above = self._values[1:].double()  # above[i] lies between edges i and i + 1
        if self.partition != "hits" or above.sum() == 0:
            raise ValueError('Expected positive values with partition "hits", got none counted.')
        share = above.cumsum(0) / above.sum()
        quantile = torch.arange(1, n_bins - 1, dtype=torch.float64) / (n_bins - 1)
        first = int((above > 0).nonzero()[0])
        upper = torch.searchsorted(share, quantile).clamp(max=len(VALUE_EDGES) - 2) + 1
        lowest = VALUE_EDGES[first] if first > 0 else _SMALLEST
        return ValueBins(sorted({lowest, *(VALUE_EDGES[i] for i in upper.tolist())}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, to a temporary name that is then moved into place."""
        text = json.dumps(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "n_classes": self.n_classes,
                "partition": self.partition,
                "ignore_index": self.ignore_index,
                "n_images": self.n_images,
                "pixels": self._pixels.tolist(),
                "images": self._images.tolist(),
                "pixels_of_images": self._pixels_of_images.tolist(),
                "values": self._values.tolist(),
            }
        )
        write_whole(path, lambda to: to.write_text(text))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ClassStatistics:
        """Read the statistics that `save` wrote."""
        try:
            stored = json.loads(Path(path).read_text())
            if stored["format"] != _FORMAT or stored["version"] != _VERSION:
                raise KeyError("format")
            if len(stored["pixels"]) != stored["n_classes"]:  # before it takes memory
                raise KeyError("pixels")
            loaded = cls(
                stored["n_classes"],
                partition=stored["partition"],
                ignore_index=stored["ignore_index"],
            )
            loaded.n_images = int(stored["n_images"])
            names = ("pixels", "images", "pixels_of_images", "values")
            for tensor, name in zip(loaded._tensors(), names, strict=True):
                tensor.copy_(torch.tensor(stored[name], dtype=torch.int64))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RuntimeError) as why:
            raise ValueError(
                f"Expected class statistics, JSON of version {_VERSION}, in {os.fspath(path)}, "
                "got something else; write them again with ClassStatistics.save."
            ) from why
        return loaded

    def table_rows(self) -> Rows:
        """Return a row for each class: its pixels, their share, and the images that hold any."""
        columns = zip(self.class_counts, self.shares, self.image_presence, strict=True)
        return [
            {"class": str(k), "pixels": float(n), "share": share, "images": float(n_images)}
            for k, (n, share, n_images) in enumerate(columns)
        ]

    def text_notes(self) -> list[str]:
        """Return the number of images, and how rare the rarest class is."""
        known = [n for n in self.class_counts if n]
        notes = [f"{self.n_images:,} image{'s' * (self.n_images != 1)}, {sum(known):,} pixels."]
        if len(known) > 1:
            notes.append(f"The largest class has {max(known) / min(known):,.4g} times the pixels "
                         "of the smallest one.")  # fmt: skip
        return notes

    def bar_column(self) -> str:
        """Return the share of the pixels."""
        return "share"

    def __repr__(self) -> str:
        shares: Sequence[str] = [f"{share:.3g}" for share in self.shares]
        return (
            f"ClassStatistics(n_images={self.n_images}, class_counts={self.class_counts}, "
            f"shares=({', '.join(shares)}))"
        )
