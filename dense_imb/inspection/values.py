"""Inspection of images with maps of values: how rare the values that matter are."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.checks import check_at_least
from dense_imb.base.progress import tqdm
from dense_imb.data.values.cells import CellKind
from dense_imb.data.values.pairs import LIT_EMPTY, ValueImages, ValueTally, is_lit, open_values
from dense_imb.inspection.report import Inspection
from dense_imb.losses.foreign.recommended import recommended_for_values

_FINE = 16_000  # bins of the histogram that quantiles are read from
_SHOWN = 40  # bins of the histogram that is shown
_QUANTILES = {"q05": 0.05, "median": 0.5, "q95": 0.95}
# loss of a blank map over that of the best constant map
_LOOKS_GOOD, _LOOKS_BAD = 1.1, 1.5
_SAMPLES = 2
_FEW = 20  # pixels of a cell, of which errors are luck
_UNEVEN = 10  # pixels of the largest cell over the smallest, from where on each should count alike


class ConstantRow(NamedTuple):
    """Values of one loss for maps that are the same everywhere.

    Args:
        loss: Python expression that makes the loss.
        blank, mean, median: loss of a map of 0, of the mean and of the median of all values.
        best: smallest loss of a constant map.
        best_value: value of that map.
    """

    loss: str
    blank: float
    mean: float
    median: float
    best: float
    best_value: float

    @property
    def verdict(self) -> str:
        """Verdict on a blank map by this loss, in words."""
        if not self.best > 0:
            return "blank looks good" if self.blank == self.best else "blank looks bad"
        ratio = self.blank / self.best
        if ratio < _LOOKS_GOOD:
            return "blank looks good"
        return "blank looks bad" if ratio > _LOOKS_BAD else "in between"

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {**self._asdict(), "verdict": self.verdict}


def inspect_values(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str] | None = None,
    *,
    cells: str | os.PathLike[str] | None = None,
    cell_kind: CellKind = "labels",
    cell_names: Sequence[str] | None = None,
    n_images: int | None = None,
    counted: str | os.PathLike[str] | None = None,
    level: float | None = None,
    spatial_dims: int | None = None,
    show_progress: bool = True,
) -> Inspection:
    """Measure maps of values: their histogram, the share of each cell, and losses of blank maps.

    Args:
        images, targets, cells, cell_kind, cell_names, counted, spatial_dims: see `open_values`.
        n_images: number of images to inspect, evenly spaced by name; all by default.
        level: value above which a pixel is lit; by default half the mean of the values that are
            not 0.
        show_progress: show a progress bar.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb.inspection import inspect_values
        >>> path, image = tempfile.mkdtemp() + "/plans.h5", np.zeros((4, 1, 10, 10), np.float32)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["target"] = image, image + 60 * np.eye(10)
        >>> numbers = inspect_values(path, spatial_dims=2, show_progress=False).numbers
        >>> numbers["nonzero_share"], numbers["level"]
        (0.1, 30.0)
    """
    data = open_values(
        images,
        targets,
        cells=cells,
        cell_kind=cell_kind,
        cell_names=cell_names,
        counted=counted,
        spatial_dims=spatial_dims,
        show_progress=show_progress,
    )
    n_files = len(data)
    if n_images is not None:
        check_at_least("events", n_images, 1)
        spaced = np.linspace(0, n_files - 1, min(n_images, n_files)).round()
        data = data.subset(np.unique(spaced).astype(int).tolist())
    tally = data.tally(show_progress)
    level = tally.level if level is None else level
    look = _Look(data, tally, level, show_progress)
    content = look.content if tally.cell_content is None else tally.cell_content
    names = LIT_EMPTY if data.cells is None else data.cells.names
    n_pixels = tally.n_values // data.n_targets
    counts = (tally.n_values - tally.n_nonzero, tally.n_nonzero)
    edges = data.bin_edges(tally)
    numbers: dict[str, Any] = {
        "kind": "values",
        "images": str(images),
        "targets": None if targets is None else str(targets),
        "cells": None if cells is None else str(cells),
        "cell_kind": None if cells is None else cell_kind,
        "counted": None if counted is None else str(counted),
        "spatial_dims": data.spatial_dims,
        "channels": data.n_targets,
        "files": n_files,
        "inspected_images": len(data),
        "sizes": {" x ".join(map(str, size)): n for size, n in tally.sizes.most_common()},
        "pixels": dict(look.kinds.most_common()),
        "values": {
            "min": tally.low,
            **look.quantiles,
            "max": tally.high,
            "mean": math.fsum(tally.target_mean) / data.n_targets,
        },
        "nonzero_share": tally.nonzero_share,
        "nonzero": look.nonzero_quantiles,
        "level": level,
        "lit_share": look.n_lit / max(n_pixels, 1),
        "images_without_lit": int((look.content[:, 1] == 0).sum()),
        "histogram": {"edges": look.edges, "counts": look.counts, "zeros": look.n_zeros},
        "classes": {
            name: {
                "pixels": int(content[:, k].sum()),
                "share": float(content[:, k].sum() / max(n_pixels, 1)),
                "images": int((content[:, k] > 0).sum()),
                "mean": look.mean_of[k],
            }
            for k, name in enumerate(names)
        },
        "outside_share": tally.n_outside / max(n_pixels, 1),
        "loss_over_cells": _loss_over_cells(tally.cell_content, cell_kind),
        "recommended_loss": recommended_for_values(counts, edges)._asdict(),
        "losses": {"constant": [row.as_dict() for row in look.loss_rows()]},
    }
    numbers["warnings"] = _warnings(numbers)
    return Inspection(numbers, {"lit_share": look.lit_shares, "samples": look.samples()})


class _Look:
    """A second pass over maps, whose range is known: histogram, means by cell, and kinds of image.

    Args:
        data: images with maps.
        tally: sums of the first pass.
        level: value above which a pixel is lit.
        show_progress: show a progress bar.
    """

    def __init__(
        self, data: ValueImages, tally: ValueTally, level: float, show_progress: bool
    ) -> None:
        self.data, self.tally, self.level = data, tally, level
        low, high = min(tally.low, 0.0), max(tally.high, 0.0)
        self._range = low, high if high > low else low + 1.0
        fine = np.zeros(_FINE, np.int64)
        n_cells = 2 if data.cells is None else data.cells.n
        total, count = np.zeros(n_cells), np.zeros(n_cells)
        self.kinds: Counter[str] = Counter()
        self.content = np.zeros((len(data), 2), np.int64)
        # weight of a value in the mean over cells, summed by bin; of values that are 0; of |value|
        self._weighted, self._weight_of_zeros, self._weighted_sum = np.zeros(_FINE), 0.0, 0.0
        weight = _cell_weights(tally.cell_content, data.n_targets)
        for i in tqdm(range(len(data)), "inspect", unit="image", disable=not show_progress):
            image, target, cells = data.image(i), data.counted_values(i), data.cell_map(i)
            self.kinds[f"{len(image)} channel{'s' * (len(image) > 1)} of {image.dtype}"] += 1
            fine += np.histogram(target[target != 0], _FINE, self._range)[0]
            lit = is_lit(target, level)
            self.content[i] = lit.size - lit.sum(), lit.sum()
            masks = np.stack([~lit, lit])
            if data.cells is not None and cells is not None:
                counted = data.counted(i)
                masks = data.cells.masks(cells.ravel() if counted is None else cells[counted])
                self._add_weighted(target, weight @ masks)
            for k, mask in enumerate(masks):
                total[k] += target[:, mask].sum(dtype=np.float64)
                count[k] += target.shape[0] * np.count_nonzero(mask)
        self._fine = fine
        self.n_zeros = tally.n_values - tally.n_nonzero
        self.n_lit = int(self.content[:, 1].sum())
        self.mean_of = [s / n if n else math.nan for s, n in zip(total, count, strict=True)]
        step = _FINE // _SHOWN
        shown = np.add.reduceat(fine, np.arange(0, _FINE, step))
        self.counts: list[int] = shown.tolist()
        ends = np.linspace(*self._range, _FINE + 1)
        self.edges: list[float] = [*ends[:-1:step].tolist(), self._range[1]]

    def _add_weighted(self, values: NDArray[np.float32], weight: NDArray[np.float64]) -> None:
        """Add values (K, n) of pixels that have a weight in the mean over cells, (n,)."""
        weights = np.broadcast_to(weight, values.shape)
        is_zero = values == 0
        self._weighted += np.histogram(
            values[~is_zero], _FINE, self._range, weights=weights[~is_zero]
        )[0]
        self._weight_of_zeros += float(weights[is_zero].sum())
        self._weighted_sum += float((weights * np.abs(values)).sum())

    @property
    def _middle(self) -> NDArray[np.float64]:
        ends = np.linspace(*self._range, _FINE + 1)
        return np.asarray((ends[:-1] + ends[1:]) / 2)

    @property
    def lit_shares(self) -> NDArray[np.float64]:
        """Lit fraction of each image."""
        return np.asarray(self.content[:, 1] / np.maximum(self.content.sum(1), 1))

    @property
    def quantiles(self) -> dict[str, float]:
        """Quantiles of all values, within a bin of the histogram."""
        counts = np.append(self._fine, self.n_zeros)
        return _quantiles(np.append(self._middle, 0.0), counts)

    @property
    def nonzero_quantiles(self) -> dict[str, float]:
        """Quantiles of the values that are not 0."""
        return _quantiles(self._middle, self._fine)

    def loss_rows(self) -> list[ConstantRow]:
        """Return the losses of constant maps."""
        tally, n = self.tally, max(self.tally.n_values, 1)
        mean, square = float(np.mean(tally.target_mean)), tally.square_sum / n
        share = tally.nonzero_share
        median = self.quantiles["median"]

        def mse(c: float) -> float:
            return max(square - 2 * c * mean + c * c, 0.0)

        def mae(c: float) -> float:
            if c == 0:
                return tally.absolute_sum / n
            sized = np.abs(self._middle - c) @ self._fine + abs(c) * self.n_zeros
            return float(sized) / n

        def acb(c: float) -> float:
            empty = c * c if share < 1 else 0.0
            return empty + (mse(c) - (1 - share) * c * c) / share if share else empty

        def over_cells(c: float) -> float:
            if c == 0:
                return self._weighted_sum
            return float(np.abs(self._middle - c) @ self._weighted) + abs(c) * self._weight_of_zeros

        best_acb = mean / share if share == 1 else mean / max(share, 1e-300) / 2
        losses = [
            ("torch.nn.MSELoss()", mse, mean),
            ("torch.nn.L1Loss()", mae, median),
            ("ACBMSELoss()", acb, best_acb),
        ]
        if (cells := self.data.cells) is not None:
            values = np.append(self._middle, 0.0)
            best = _quantiles(values, np.append(self._weighted, self._weight_of_zeros))["median"]
            losses.append((_over_cells(cells.kind), over_cells, best))
        rows = []
        for name, loss, best in losses:
            least = loss(best) if share else 0.0
            rows.append(ConstantRow(name, loss(0.0), loss(mean), loss(median), least, best))
        return rows

    def samples(self) -> list[dict[str, Any]]:
        """Return the images of median and of largest lit share; one slice of a volume."""
        order = np.argsort(self.lit_shares, kind="stable")
        samples = []
        for i in dict.fromkeys([int(order[len(order) // 2]), int(order[-1])]):
            image, target, name = self.data.image(i), self.data.target(i)[0], self.data.names[i]
            if target.ndim == 3:
                axis = int(np.argmin(target.shape))
                mass = np.abs(target).sum(tuple(d for d in range(3) if d != axis))
                k = int(mass.argmax())
                name += f", slice {k + 1} of {target.shape[axis]}"
                image, target = image.take(k, 1 + axis), target.take(k, axis)
            samples.append({"name": name, "image": np.moveaxis(image, 0, -1), "target": target})
        return samples[:_SAMPLES]


def _loss_over_cells(content: NDArray[np.int64] | None, kind: CellKind) -> str | None:
    """Return the loss in which uneven cells count alike; None for even cells, or without any.

    Args:
        content: (n_images, n_cells) pixels of each cell in each image; None without cells.
        kind: form of the cells.
    """
    if content is None:
        return None
    pixels = [n for n in content.sum(0).tolist() if n]
    if not pixels or max(pixels) <= _UNEVEN * min(pixels):
        return None
    return _over_cells(kind)


def _over_cells(kind: CellKind) -> str:
    return f'BalancedRegressionLoss("l1", "{"masks" if kind == "bits" else "labels"}")'


def _cell_weights(content: NDArray[np.int64] | None, n_targets: int) -> NDArray[np.float64]:
    """Return the weight of a value in the mean over cells of its mean, (n_cells,).

    Args:
        content: (n_images, n_cells) pixels of each cell in each image; None without cells.
        n_targets: values of a pixel.
    """
    pixels = np.zeros(0) if content is None else content.sum(0)
    n_present = np.count_nonzero(pixels)
    return np.divide(1, n_targets * n_present * pixels, out=np.zeros(len(pixels)), where=pixels > 0)


def _quantiles(values: NDArray[np.float64], counts: NDArray[Any]) -> dict[str, float]:
    """Return quantiles of values with frequencies; NaN without any."""
    order = np.argsort(values, kind="stable")
    below = counts[order].cumsum()
    if not below[-1]:
        return dict.fromkeys(_QUANTILES, math.nan)
    places = {name: np.searchsorted(below, q * below[-1]) for name, q in _QUANTILES.items()}
    return {name: float(values[order[place]]) for name, place in places.items()}


def _warnings(numbers: dict[str, Any]) -> list[str]:
    lines = []
    absent = [name for name, one in numbers["classes"].items() if not one["pixels"]]
    if absent:
        lines.append(f"no pixel of {', '.join(absent[:5])}{', ..' if len(absent) > 5 else ''}")
    few = [n for n, one in numbers["classes"].items() if 0 < one["pixels"] < _FEW]
    if few:
        lines.append(f"fewer than {_FEW} pixels of {', '.join(few)}: errors there are luck")
    if numbers["nonzero_share"] == 0:
        lines.append("every value is 0: nothing to learn")
    if len(numbers["sizes"]) > 1:
        lines.append(f"images of {len(numbers['sizes'])} sizes: crops are of one size")
    if without := numbers["images_without_lit"]:
        lines.append(
            f"{without} of {numbers['inspected_images']} images have no value above "
            f"{numbers['level']:.3g}"
        )
    if numbers["values"]["min"] < 0:
        lines.append("some values are below 0: lit pixels are those above the level only")
    return lines
