"""Inspect a folder of images and a folder of their masks."""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dense_imb.data.images import Pair, pair_images, read_image
from dense_imb.inspection.blank import rows_of_logits
from dense_imb.inspection.report import Inspection
from dense_imb.inspection.tally import QUANTILES, Tally
from dense_imb.inspection.weights import Partition, proposals
from dense_imb.losses._checks import check_at_least
from dense_imb.metrics import ObjectScores
from dense_imb.statistics import ClassStatistics

_N_LABELS = 256
_MANY_CLASSES = 50
_SAMPLES = 2


def inspect_images(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    n_images: int | None = None,
    ignore_index: int | None = None,
    show_progress: bool = True,
) -> Inspection:
    """Learn how imbalanced the masks of images are, and what a blank mask would score.

    Masks that hold 0 and 255 only are binary, their classes 0 and 1; other values are labels.

    Args:
        images, masks: folders; see `dense_imb.data.images.pair_images`.
        n_images: look at so many, evenly spaced by name; all by default.
        ignore_index: label of the pixels that are left out.
        show_progress: draw a bar.
    """
    pairs = pair_images(images, masks)
    n_pairs = len(pairs)
    if n_images is not None:
        check_at_least("events", n_images, 1)
        chosen = np.unique(np.linspace(0, n_pairs - 1, min(n_images, n_pairs)).round())
        pairs = [pairs[int(i)] for i in chosen]
    can_count_objects = importlib.util.find_spec("scipy") is not None
    counts = np.zeros((len(pairs), _N_LABELS), np.int64)  # 2 kB an image
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    objects = Tally()
    bar = tqdm(pairs, desc="inspect", unit="image", disable=not show_progress)
    for row, pair in enumerate(bar):
        image, mask = read_image(pair.image), _read_mask(pair)
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"Expected {pair.mask} of the size of {pair.image}, {image.shape[:2]}, got "
                f"{mask.shape}."
            )
        sizes[f"{image.shape[1]} x {image.shape[0]}"] += 1
        channels = image.shape[2] if image.ndim == 3 else 1
        kinds[f"{channels} channel{'s' if channels > 1 else ''} of {image.dtype}"] += 1
        counts[row] = np.bincount(mask.ravel(), minlength=_N_LABELS)
        if can_count_objects:
            is_object = torch.from_numpy((mask > 0) & (mask != _never(ignore_index)))[None]
            found = ObjectScores()
            found.update(torch.zeros_like(is_object), is_object)
            objects.add(np.array([int(found.scores()["n_objects"])]))
    is_binary = set(np.flatnonzero(counts.sum(0)).tolist()) <= {0, 255} and ignore_index != 255
    if is_binary:
        counts = counts[:, [0, 255]]
    elif ignore_index is not None and 0 <= ignore_index < _N_LABELS:
        counts[:, ignore_index] = 0
    counts = counts[:, : max(2, int(np.flatnonzero(counts.sum(0)).max(initial=0)) + 1)]
    share = _foreground(counts)
    partition = _partition(counts)
    objects_seen = bool(objects.arrays()[1].sum())
    numbers: dict[str, Any] = {
        "kind": "images",
        "images": str(images),
        "masks": str(masks),
        "files": n_pairs,
        "inspected_images": len(pairs),
        "sizes": dict(sizes.most_common()),
        "pixels": dict(kinds.most_common()),
        "mask_values": "0 and 255, read as classes 0 and 1" if is_binary else "labels",
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
                **proposals(partition),
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
        {"foreground_share": share, "samples": _samples(pairs, share, is_binary, ignore_index)},
    )


def _read_mask(pair: Pair) -> NDArray[np.uint8]:
    mask = read_image(pair.mask)
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise ValueError(
                f"Expected {pair.mask} to hold labels, one channel, got {mask.shape[2]} channels "
                "that differ: colours are no labels; convert them."
            )
        mask = mask[..., 0]
    if mask.size and not (mask.min() >= 0 and mask.max() < _N_LABELS and (mask % 1 == 0).all()):
        raise ValueError(
            f"Expected {pair.mask} to hold labels, whole numbers from 0 to {_N_LABELS - 1}, got "
            f"{mask.dtype} from {mask.min()} to {mask.max()}; of an image of values make a mask, "
            "image > 0 say."
        )
    return mask.astype(np.uint8)


def _never(ignore_index: int | None) -> int:
    return -1 if ignore_index is None else ignore_index


def _foreground(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels of each image that are not of class 0."""
    share: NDArray[np.float64] = counts[:, 1:].sum(1) / np.maximum(counts.sum(1), 1)
    return share


def _partition(counts: NDArray[np.int64]) -> Partition:
    is_present = counts > 0
    of_images = (counts.sum(1, keepdims=True) * is_present).sum(0)
    statistics = ClassStatistics.from_counts(
        counts.sum(0).tolist(), is_present.sum(0).tolist(), of_images.tolist(), len(counts)
    )
    names = [f"class {k}" for k in range(counts.shape[1])]
    return Partition(("background", *names[1:]), statistics)


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(["mean", *QUANTILES], math.nan)
    found = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {"mean": float(values.mean()), **found}


def _samples(
    pairs: list[Pair], share: NDArray[np.float64], is_binary: bool, ignore_index: int | None
) -> list[dict[str, Any]]:
    """The images of median and of largest foreground share."""
    order = np.argsort(share, kind="stable")
    found = []
    for i in dict.fromkeys([int(order[len(order) // 2]), int(order[-1])]):
        mask = _read_mask(pairs[i]).astype(np.int64)
        mask[mask == _never(ignore_index)] = 0
        label = (mask > 0).astype(np.int64) if is_binary else mask
        found.append({"name": pairs[i].image.name, "image": read_image(pairs[i].image),
                      "mask": label})  # fmt: skip
    return found[:_SAMPLES]


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
        listed = ", ".join(unseen[:5]) + (", .." if len(unseen) > 5 else "")
        found.append(f"no pixel of {listed}")
    if len(numbers["sizes"]) > 1:
        found.append(f"images of {len(numbers['sizes'])} sizes: crop or pad them for batches")
    without = numbers["images_without_foreground"]
    if without:
        found.append(f"{without} of {numbers['inspected_images']} images have no foreground")
    return found
