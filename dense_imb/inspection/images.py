"""Inspection of images and their masks, in folders or in one HDF5 file."""

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

from dense_imb.base.checks import check_at_least
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, option, refusal
from dense_imb.data.images.labelled import (
    IGNORED,
    LabelMap,
    Threshold,
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
from dense_imb.losses.foreign.recommended import recommended_for_pixels
from dense_imb.metrics import ObjectScores

_N_LABELS = 256
_MANY_CLASSES = 50
_BRIGHT, _BRIGHT_SHARE = 192, 0.1  # share of grey levels from 192 to 254, at least
_SAMPLES = 2


def inspect_images(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    n_images: int | None = None,
    labels: Sequence[int] | None = None,
    above: float | None = None,
    ignore_index: int | None = None,
    names: Sequence[str] | None = None,
    spatial_dims: int | None = None,
    show_progress: bool = True,
) -> Inspection:
    """Measure the class imbalance of masks, and the scores of a blank mask.

    In masks of 0 and 255 only, these are the classes 0 and 1. Other values are class numbers,
    unless `labels` or `above` is given.

    Args:
        images, masks: two folders, or one HDF5 file; see `open_labelled`.
        n_images: number of images to inspect, evenly spaced by name; all by default.
        labels: mask values of class 0, class 1 and so on.
        above: threshold of grey masks: larger values are class 1, all others class 0.
        ignore_index: mask value of pixels to ignore.
        names: names of class 0, class 1 and so on; by default those in an HDF5 file.
        spatial_dims: 2 or 3; by default the dimensions of the first mask.
        show_progress: show a progress bar.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb.inspection import inspect_images
        >>> path, mask = tempfile.mkdtemp() + "/lines.h5", np.eye(10, dtype=np.uint8)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["mask"] = np.stack([[mask * 200]] * 4), np.stack([mask] * 4)
        >>> numbers = inspect_images(path, show_progress=False).numbers
        >>> numbers["accuracy"]["blank"], numbers["recommended_loss"]["reason"]
        (0.9, 'a foreground of 10 %')
    """
    if above is not None and labels is not None:
        raise refusal("`above` takes the place of `labels`; drop {labels} or {above}.")
    check_names(names, 2 if above is not None else None if labels is None else len(labels))
    masks_of = _Masks(find_source(images, masks, spatial_dims), labels, above, ignore_index)
    source = masks_of.source
    n_files = len(source.names)
    chosen = range(n_files)
    if n_images is not None:
        check_at_least("events", n_images, 1)
        spaced = np.linspace(0, n_files - 1, min(n_images, n_files)).round()
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
        # 2-D sizes begin with the width, 3-D ones are in the order of the file
        sizes[" x ".join(map(str, mask.shape[:: -1 if mask.ndim == 2 else 1]))] += 1
        kinds[f"{len(image)} channel{'s' if len(image) > 1 else ''} of {image.dtype}"] += 1
        counts[row] = np.bincount(mask.ravel(), minlength=_N_LABELS)
        if can_count_objects:
            is_object = torch.from_numpy((mask > 0) & (mask != masks_of.ignored))[None]
            scores = ObjectScores()
            scores.update(torch.zeros_like(is_object), is_object)
            objects.add(np.array([int(scores.scores()["n_objects"])]))
    masks_of.is_binary = (
        labels is None
        and above is None
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
        raise Refused(
            f"masks of {len(names)} classes, as many as `names`",
            f"the values {list_values(present)}",
            "name the mask value of each class with "
            + option("labels", " ".join(map(str, present))),
        )
    has_free_values = labels is None and above is None and names is None
    n_grey = len(present) if has_free_values and _are_grey(present) else None
    counts = counts[:, : max(2, last + 1, len(names or ()))]
    share = _foreground(counts)
    values = [0, 255] if masks_of.is_binary else labels
    n_classes = counts.shape[1]
    if names is None and above is None:
        names = names_of_classes(source.value_names, values or range(n_classes))
    partition = Partition(tuple(names or numbered_classes(n_classes)), statistics_of(counts))
    # a number without a pixel may be no class, only a gap between the values of classes
    has_gaps = has_free_values and len(present) < last + 1
    has_objects = bool(objects.arrays()[1].sum())
    numbers: dict[str, Any] = {
        "kind": "images",
        "images": str(images),
        "masks": None if masks is None else str(masks),
        "spatial_dims": source.spatial_dims,
        "files": n_files,
        "inspected_images": len(chosen),
        "sizes": dict(sizes.most_common()),
        "pixels": dict(kinds.most_common()),
        "mask_values": masks_of.values_in_words(),
        "labels": None if values is None else [int(value) for value in values],
        "above": above,
        "grey_values": n_grey,
        "present": present if has_gaps else None,
        "ignore_index": ignore_index,
        "foreground_share": _quantiles(share),
        "images_without_foreground": int((share == 0).sum()),
        "objects_per_image": objects.summary() if has_objects else None,
        "accuracy": {"blank": partition.statistics.shares[0]},
        "partitions": {
            "frame": {
                "classes": partition.shares(),
                "imbalance": partition.imbalance,
                "never_seen": partition.absent(),
                **({} if has_gaps or n_grey else proposals(partition)),
            }
        },
        "recommended_loss": recommended_for_pixels(partition.statistics.class_counts)._asdict(),
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
    """Masks whose pixels are numbers from 0 to 255, and the meaning of these."""

    def __init__(
        self,
        source: ImageSource,
        labels: Sequence[int] | None,
        above: float | None,
        ignore_index: int | None,
    ) -> None:
        self.source, self.labels, self.above = source, labels, above
        self._map: LabelMap | Threshold | None = None
        if above is not None:
            self._map = Threshold(above, ignore_index)
        elif labels is not None:
            self._map = LabelMap.of(labels, ignore_index)
        self.ignored = -1  # value of ignored pixels in the masks that are read
        if ignore_index is not None:
            self.ignored = ignore_index if labels is None and above is None else IGNORED
        self.is_binary = False  # not known before all masks are read

    def read(self, number: int) -> NDArray[np.uint8]:
        """Return a mask as numbers from 0 to 255."""
        if self._map is not None:
            return self._map.read(self.source, number)
        mask, place = self.source.mask(number), self.source.place(number)
        if not (mask.min() >= 0 and mask.max() < _N_LABELS):
            raise no_labels(mask, place, f"whole numbers from 0 to {_N_LABELS - 1}")
        return mask.astype(np.uint8)

    def classes(self, number: int) -> NDArray[np.int64]:
        """Return the class of each pixel; ignored pixels are background."""
        mask = self.read(number).astype(np.int64)
        mask[mask == self.ignored] = 0
        return (mask > 0).astype(np.int64) if self.is_binary else mask

    def values_in_words(self) -> str:
        """Describe the mask values."""
        if self.above is not None:
            return f"grey values, class 1 above {self.above:g}"
        if self.labels is not None:
            return f"{list_values(self.labels)}, in this order classes 0 to {len(self.labels) - 1}"
        return "0 and 255, read as classes 0 and 1" if self.is_binary else "labels"


def _foreground(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of foreground pixels of each image."""
    share: NDArray[np.float64] = counts[:, 1:].sum(1) / np.maximum(counts.sum(1), 1)
    return share


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(["mean", *QUANTILES], math.nan)
    quantiles = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {"mean": float(values.mean()), **quantiles}


def _samples(masks: _Masks, chosen: list[int], share: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the images of median and of largest foreground share; one slice of a volume."""
    order = np.argsort(share, kind="stable")
    samples = []
    for row in dict.fromkeys([int(order[len(order) // 2]), int(order[-1])]):
        number = chosen[row]
        label: NDArray[Any] = masks.classes(number)
        image, name = masks.source.image(number, label.shape), masks.source.names[number]
        if label.ndim == 3:
            axis, k = _fullest_slice(label)
            name += f", slice {k + 1} of {label.shape[axis]}"
            image, label = image.take(k, 1 + axis), label.take(k, axis)
        samples.append({"name": name, "image": np.moveaxis(image, 0, -1), "mask": label})
    return samples[:_SAMPLES]


def _fullest_slice(label: NDArray[np.int64]) -> tuple[int, int]:
    """Return the axis with fewest slices, and the slice with most foreground.

    Among equal slices, the one next to the middle is taken.
    """
    axis = int(np.argmin(label.shape))
    lit = (label > 0).sum(tuple(d for d in range(3) if d != axis))
    best: list[int] = np.flatnonzero(lit == lit.max()).tolist()
    middle = (label.shape[axis] - 1) / 2
    return axis, min(best, key=lambda k: abs(k - middle))


def _are_grey(present: Sequence[int]) -> bool:
    """Whether mask values are grey levels, rather than classes.

    Grey levels are many, and have gaps or lie near 255, too; class numbers seldom do.
    """
    n_bright = sum(_BRIGHT <= value < _N_LABELS - 1 for value in present)
    numbers = [value for value in present if value < _N_LABELS - 1]  # 255 is often ignored
    has_gaps = len(numbers) <= max(numbers, default=-1)
    is_bright = n_bright >= _BRIGHT_SHARE * len(present)
    return len(present) > FEW_CLASSES and (has_gaps or is_bright)


def _warnings(numbers: dict[str, Any], partition: Partition) -> list[str]:
    lines = []
    counts = partition.statistics.class_counts
    present = [value for value, count in enumerate(counts) if count]
    n_classes = len(present)
    if numbers["grey_values"]:
        lines.append(
            f"the masks hold {n_classes} values from {present[0]} to {present[-1]}, grey ones as "
            "smooth edges and JPEG make them: classes need a threshold"
        )
    elif n_classes > _MANY_CLASSES:
        lines.append(
            f"the masks hold {n_classes} values: are they images? Labels are 0, 1, 2 and so on"
        )
    elif len(counts) == _N_LABELS and n_classes > 1:
        lines.append(
            "the masks hold 255 beside other labels, which often marks pixels to ignore: "
            "--ignore-index 255"
        )
    absent = partition.absent()
    if absent and n_classes <= _MANY_CLASSES and not numbers["grey_values"]:
        named = ", ".join(absent[:5]) + (", .." if len(absent) > 5 else "")
        cure = ""
        if numbers["mask_values"] == "labels" and 1 < n_classes <= FEW_CLASSES:
            cure = (
                f"; if the values present are the classes: --labels {' '.join(map(str, present))}"
            )
        lines.append(f"no pixel of {named}{cure}")
    if len(numbers["sizes"]) > 1:
        lines.append(f"images of {len(numbers['sizes'])} sizes: crop or pad them for batches")
    without = numbers["images_without_foreground"]
    if without:
        lines.append(f"{without} of {numbers['inspected_images']} images have no foreground")
    return lines
