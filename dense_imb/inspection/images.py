"""Inspect images and the masks that label their pixels: folders, or one HDF5 file."""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dense_imb.base.checks import check_at_least
from dense_imb.data.images.labelled import (
    IGNORED,
    LabelMap,
    check_names,
    list_values,
    names_of_classes,
    numbered_classes,
    statistics_of,
)
from dense_imb.data.images.sources import ImageSource, find_source, no_labels
from dense_imb.inspection.blank import rows_of_logits
from dense_imb.inspection.report import Inspection
from dense_imb.inspection.tally import QUANTILES, Tally
from dense_imb.inspection.text import FEW_CLASSES
from dense_imb.inspection.weights import Partition, proposals
from dense_imb.metrics import ObjectScores

_N_LABELS = 256
_MANY_CLASSES = 50
_SAMPLES = 2


def inspect_images(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    n_images: int | None = None,
    labels: Sequence[int] | None = None,
    ignore_index: int | None = None,
    names: Sequence[str] | None = None,
    spatial_dims: int | None = None,
    show_progress: bool = True,
) -> Inspection:
    """Learn how imbalanced the masks of images are, and what a blank mask would score.

    Masks that hold 0 and 255 only are binary, their classes 0 and 1; other values are labels,
    unless `labels` says more.

    Args:
        images, masks: two folders, or one HDF5 file; see `open_labelled`.
        n_images: look at so many, evenly spaced by name; all by default.
        labels: the mask values of class 0, class 1 and so on.
        ignore_index: mask value of the pixels that are left out.
        names: of class 0, class 1 and so on; by default those in an HDF5 file.
        spatial_dims: 2 or 3; by default the dimensions of the first mask.
        show_progress: draw a bar.
    """
    check_names(names, None if labels is None else len(labels))
    masks_of = _Masks(find_source(images, masks, spatial_dims), labels, ignore_index)
    source = masks_of.source
    n_found = len(source.names)
    chosen = range(n_found)
    if n_images is not None:
        check_at_least("events", n_images, 1)
        spaced = np.linspace(0, n_found - 1, min(n_images, n_found)).round()
        chosen = np.unique(spaced).astype(int).tolist()
    can_count_objects = importlib.util.find_spec("scipy") is not None
    counts = np.zeros((len(chosen), _N_LABELS), np.int64)  # 2 kB an image
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    objects = Tally()
    bar = tqdm(chosen, desc="inspect", unit="image", disable=not show_progress)
    for row, number in enumerate(bar):
        mask = masks_of.read(number)
        image = source.image(number, mask.shape)
        # in two dimensions width comes first, as everywhere; volumes are named as they are stored
        sizes[" x ".join(map(str, mask.shape[:: -1 if mask.ndim == 2 else 1]))] += 1
        kinds[f"{len(image)} channel{'s' if len(image) > 1 else ''} of {image.dtype}"] += 1
        counts[row] = np.bincount(mask.ravel(), minlength=_N_LABELS)
        if can_count_objects:
            is_object = torch.from_numpy((mask > 0) & (mask != masks_of.ignored))[None]
            found = ObjectScores()
            found.update(torch.zeros_like(is_object), is_object)
            objects.add(np.array([int(found.scores()["n_objects"])]))
    masks_of.is_binary = (
        labels is None
        and set(np.flatnonzero(counts.sum(0)).tolist()) <= {0, 255}
        and ignore_index != 255
    )
    if masks_of.is_binary:
        counts = counts[:, [0, 255]]
    elif 0 <= masks_of.ignored < _N_LABELS:
        counts[:, masks_of.ignored] = 0
    present = np.flatnonzero(counts.sum(0)).tolist()
    last = max(present, default=0) if labels is None else len(labels) - 1
    if names is not None and last >= len(names):
        raise ValueError(
            f"Expected masks of {len(names)} classes, as many as `names`, got the values "
            f"{list_values(present)}; say which value is which class (labels={present}, "
            f"--labels {' '.join(map(str, present))})."
        )
    counts = counts[:, : max(2, last + 1, len(names or ()))]
    share = _foreground(counts)
    values = [0, 255] if masks_of.is_binary else labels
    partition = Partition(
        tuple(
            names
            or names_of_classes(source.value_names, values or range(counts.shape[1]))
            or numbered_classes(counts.shape[1])
        ),
        statistics_of(counts),
    )
    # a class without a pixel may be none at all, only a gap between the values of others
    has_gaps = labels is None and names is None and len(present) < last + 1
    objects_seen = bool(objects.arrays()[1].sum())
    numbers: dict[str, Any] = {
        "kind": "images",
        "images": str(images),
        "masks": None if masks is None else str(masks),
        "spatial_dims": source.spatial_dims,
        "files": n_found,
        "inspected_images": len(chosen),
        "sizes": dict(sizes.most_common()),
        "pixels": dict(kinds.most_common()),
        "mask_values": masks_of.values_in_words(),
        "labels": None if values is None else [int(value) for value in values],
        "present": present if has_gaps else None,
        "ignore_index": ignore_index,
        "foreground_share": _quantiles(share),
        "images_without_foreground": int((share == 0).sum()),
        "objects_per_image": objects.summary() if objects_seen else None,
        "accuracy": {"blank": partition.statistics.shares[0]},
        "partitions": {
            "frame": {
                "classes": partition.shares(),
                "imbalance": partition.imbalance,
                "never_seen": partition.unseen(),
                **({} if has_gaps else proposals(partition)),
            }
        },
        "losses": {
            "logits_frame": [
                row.as_dict() for row in rows_of_logits(partition.statistics.class_counts)
            ]
        },
    }
    numbers["warnings"] = _warnings(numbers, partition)
    return Inspection(
        numbers,
        {"foreground_share": share, "samples": _samples(masks_of, list(chosen), share)},
    )


class _Masks:
    """Masks whose pixels are numbers from 0 to 255, and what these mean."""

    def __init__(
        self, source: ImageSource, labels: Sequence[int] | None, ignore_index: int | None
    ) -> None:
        self.source, self.labels = source, labels
        self._map = None if labels is None else LabelMap.of(labels, ignore_index)
        self.ignored = -1 if ignore_index is None else ignore_index if labels is None else IGNORED
        self.is_binary = False  # known once all are read

    def read(self, number: int) -> NDArray[np.uint8]:
        mask, place = self.source.mask(number), self.source.place(number)
        if self._map is not None:
            return self._map(mask, place)
        if not (mask.min() >= 0 and mask.max() < _N_LABELS):
            raise no_labels(mask, place, f"whole numbers from 0 to {_N_LABELS - 1}")
        return mask.astype(np.uint8)

    def classes(self, number: int) -> NDArray[np.int64]:
        """The class of each pixel, ignored ones as the background."""
        mask = self.read(number).astype(np.int64)
        mask[mask == self.ignored] = 0
        return (mask > 0).astype(np.int64) if self.is_binary else mask

    def values_in_words(self) -> str:
        if self.labels is not None:
            return f"{list_values(self.labels)}, in this order classes 0 to {len(self.labels) - 1}"
        return "0 and 255, read as classes 0 and 1" if self.is_binary else "labels"


def _foreground(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels of each image that are not of class 0."""
    share: NDArray[np.float64] = counts[:, 1:].sum(1) / np.maximum(counts.sum(1), 1)
    return share


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(["mean", *QUANTILES], math.nan)
    found = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {"mean": float(values.mean()), **found}


def _samples(masks: _Masks, chosen: list[int], share: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The images of median and of largest foreground share; of a volume one slice."""
    order = np.argsort(share, kind="stable")
    found = []
    for row in dict.fromkeys([int(order[len(order) // 2]), int(order[-1])]):
        number = chosen[row]
        label: NDArray[Any] = masks.classes(number)
        image, name = masks.source.image(number, label.shape), masks.source.names[number]
        if label.ndim == 3:
            axis, k = _telling_slice(label)
            name += f", slice {k + 1} of {label.shape[axis]}"
            image, label = image.take(k, 1 + axis), label.take(k, axis)
        found.append({"name": name, "image": np.moveaxis(image, 0, -1), "mask": label})
    return found[:_SAMPLES]


def _telling_slice(label: NDArray[np.int64]) -> tuple[int, int]:
    """The axis across which a volume has fewest slices, and the one with most foreground.

    Of slices with as much, the one next to the middle.
    """
    axis = int(np.argmin(label.shape))
    lit = (label > 0).sum(tuple(d for d in range(3) if d != axis))
    best: list[int] = np.flatnonzero(lit == lit.max()).tolist()
    middle = (label.shape[axis] - 1) / 2
    return axis, min(best, key=lambda k: abs(k - middle))


def _warnings(numbers: dict[str, Any], partition: Partition) -> list[str]:
    found = []
    counts = partition.statistics.class_counts
    n_classes = sum(count > 0 for count in counts)
    if n_classes > _MANY_CLASSES:
        found.append(
            f"the masks hold {n_classes} values: are they images? Labels are 0, 1, 2 and so on"
        )
    elif len(counts) == _N_LABELS and n_classes > 1:
        found.append(
            "the masks hold 255 beside other labels, which often marks pixels to leave out: "
            "--ignore-index 255"
        )
    unseen = partition.unseen()
    if unseen and n_classes <= _MANY_CLASSES:
        named = ", ".join(unseen[:5]) + (", .." if len(unseen) > 5 else "")
        cure = ""
        if numbers["mask_values"] == "labels" and 1 < n_classes <= FEW_CLASSES:
            present = " ".join(str(k) for k, count in enumerate(counts) if count)
            cure = f"; if the values found are the classes: --labels {present}"
        found.append(f"no pixel of {named}{cure}")
    if len(numbers["sizes"]) > 1:
        found.append(f"images of {len(numbers['sizes'])} sizes: crop or pad them for batches")
    without = numbers["images_without_foreground"]
    if without:
        found.append(f"{without} of {numbers['inspected_images']} images have no foreground")
    return found
