"""Sums of the errors of value maps, by channel, by cell and by value of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_finite,
    check_floating,
    check_same_shape,
    expand_pixels,
    readable,
)
from dense_imb.metrics._counts import StreamingCounts
from dense_imb.metrics.values.checks import (
    checked_channels,
    checked_edges,
    checked_lit_level,
    checked_names,
    finite_values,
    membership,
    pixels_last,
)

# rows of a table of scores: the network, a blank map, the mean training value, the input itself
PREDICTION, BLANK, MEAN, INPUT = "prediction", "blank", "mean of training", "input"
REST = "rest"  # name of the cell of pixels in no other
_AT_ONCE = 1 << 21  # values of a batch
_MASK = "leave such pixels out with `mask`"


class ValueSums(StreamingCounts):
    """Base class of `ValueScores`: the sums, of which its scores are functions."""

    def __init__(
        self,
        n_channels: int = 1,
        *,
        level: float | None = None,
        lit_level: float | Sequence[float] | None = None,
        value_edges: Sequence[float] = (),
        cells: Sequence[str] = (),
        labels: bool = False,
        rest: bool = False,
        mean: Sequence[float] | None = None,
        with_input: bool = False,
    ) -> None:
        check_at_least("n_channels", n_channels, 1)
        if level is not None:
            check_finite("level", level)
        self.n_channels = n_channels
        self.level = level
        self.lit_level = checked_lit_level(lit_level, level, n_channels)
        self.value_edges = checked_edges(value_edges)
        self.cells = checked_names(cells, labels)
        self.labels, self.rest = bool(labels), bool(rest)
        self.cell_names = (*self.cells, *[REST] * self.rest)
        self.mean = None if mean is None else checked_channels("mean", mean, n_channels)
        self.with_input = bool(with_input)
        self.scorers = (PREDICTION, BLANK, *[MEAN] * (mean is not None), *[INPUT] * with_input)
        n_rows, n_cells = len(self.scorers), len(self.cell_names)
        n_bins = len(self.value_edges) + 1 if self.value_edges else 0
        self._n_images = torch.zeros((), dtype=torch.int64)
        self._count = _counts(n_channels, 2)  # pixels, of them with a target above the level
        self._lit = _counts(n_rows, n_channels, 2)  # lit pixels, of them with such a target
        self._error = _sums(n_rows, n_channels, 3)  # of e = p - t, |e| and e^2
        self._bin_count = _counts(n_bins)
        self._bin_error = _sums(n_rows, n_bins, 3)
        self._n_outside = _counts()  # pixels in no cell
        self._cell_count = _counts(n_cells, 2)  # pixels, images with such pixels
        self._cell_error = _sums(n_rows, n_cells, 3)
        self._cell_image = _sums(n_rows, n_cells, 2)  # of an image's mean of |e|, and its square

    def _settings(self) -> dict[str, Any]:
        return {
            "n_channels": self.n_channels,
            "level": self.level,
            "lit_level": None if self.lit_level is None else list(self.lit_level),
            "value_edges": list(self.value_edges),
            "cells": list(self.cells),
            "labels": self.labels,
            "rest": self.rest,
            "mean": None if self.mean is None else list(self.mean),
            "with_input": self.with_input,
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            self._error, self._lit, self._count, self._n_images, self._bin_error, self._bin_count,
            self._cell_error, self._cell_image, self._cell_count, self._n_outside,
        )  # fmt: skip

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        cells: Tensor | None = None,
        *,
        input: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Add a batch of images.

        Args:
            prediction: (B, C, *spatial).
            target: same shape.
            cells: masks, bool (B, n_cells, *spatial), or integers (B, *spatial): labels, or a bit
                field whose bit g is set in cell g.
            input: input of the network in the shape of `prediction`, for the row "input".
            mask: bool, (B, *spatial) or the shape of `prediction`, False for pixels to leave out.
        """
        prediction, target, cells, input, mask = readable(
            prediction=prediction, target=target, cells=cells, input=input, mask=mask
        )
        check_floating("prediction", prediction)
        check_same_shape("target", target, "prediction", prediction)
        if prediction.dim() < 2 or prediction.shape[1] != self.n_channels:
            raise ValueError(
                f"Expected `prediction` (B, {self.n_channels}, *spatial), "
                f"got {tuple(prediction.shape)}."
            )
        valid = torch.ones(prediction.shape, dtype=torch.bool)
        if mask is not None:
            valid = expand_pixels("mask", mask, prediction, "prediction").bool().cpu()
        truth = finite_values("target", target, valid, _MASK)
        given = self._finite_maps(prediction, input, valid)
        pixels_of = self._checked_cells(cells, valid)
        truth, valid, *given = (pixels_last(one) for one in (truth, valid, *given))
        self._n_images += len(truth)
        images = _CellImages(len(self.cell_names), len(self.scorers), len(truth))
        for part in _blocks(valid):
            self._add_block(
                self._rows([one[..., part] for one in given]),
                truth[..., part],
                valid[..., part],
                [pixels_of(k, part) for k in range(len(self.cells))] if pixels_of else [],
                images,
            )
        self._cell_count[:, 1] += images.n_images()
        self._cell_image += images.sums()

    def _add_block(
        self,
        maps: Tensor,
        truth: Tensor,
        valid: Tensor,
        pixels_of_cells: Sequence[Tensor],
        images: _CellImages,
    ) -> None:
        """Add some pixels of each image.

        Args:
            maps: float64 (rows, B, C, n).
            truth, valid: (B, C, n).
            pixels_of_cells: bool (B, C, n) for each cell.
            images: sums of each image in each cell.
        """
        error = (maps - truth).where(valid, 0.0)
        self._count[:, 0] += _by_channel(valid[None])[0]
        self._error += _three_sums(error, _by_channel)
        if self.level is not None:
            self._add_lit(maps, truth, valid, self.level)
        if self.value_edges:
            self._add_bins(error[:, valid], truth[valid])
        if not self.cells:
            return
        is_outside = valid.clone()
        for number, is_in in enumerate(pixels_of_cells):
            is_outside &= ~is_in
            self._add_cell(number, error, is_in & valid, images)
        self._n_outside += is_outside.sum()
        if self.rest:
            self._add_cell(len(self.cells), error, is_outside, images)

    def _finite_maps(self, prediction: Tensor, given: Tensor | None, valid: Tensor) -> list[Tensor]:
        """Return prediction and input in float64."""
        if self.with_input and given is None:
            raise ValueError("Expected `input` in each update of scores with its row, got none.")
        if given is not None and not self.with_input:
            raise ValueError("Expected no `input`, got one; make the scores with with_input=True.")
        maps = [finite_values("prediction", prediction, valid, "look for it in the network")]
        if given is not None:
            check_same_shape("input", given, "prediction", prediction)
            maps.append(finite_values("input", given, valid, _MASK))
        return maps

    def _rows(self, given: Sequence[Tensor]) -> Tensor:
        """Return the map of each row, (rows, B, C, n), from prediction and input."""
        maps = [given[0], torch.zeros_like(given[0])]
        if self.mean is not None:
            maps.append(_per_channel(self.mean).expand_as(given[0]))
        return torch.stack([*maps, *given[1:]])

    def _checked_cells(
        self, cells: Tensor | None, valid: Tensor
    ) -> Callable[[int, slice], Tensor] | None:
        if cells is None and self.cells:
            names = ", ".join(self.cells)
            raise ValueError(f"Expected `cells` of {names}, got none; pass them to each update.")
        if cells is None:
            return None
        if not self.cells:
            raise ValueError("Expected no `cells`, got some; name them: ValueScores(cells=[...]).")
        return membership(cells, self.cells, self.labels, valid)

    def _add_lit(self, maps: Tensor, truth: Tensor, valid: Tensor, level: float) -> None:
        is_target, is_lit = (truth > level) & valid, (maps > level) & valid
        if self.lit_level is not None:
            is_lit[0] = (maps[0] > _per_channel(self.lit_level)) & valid
        self._count[:, 1] += _by_channel(is_target[None])[0]
        self._lit += torch.stack([_by_channel(is_lit), _by_channel(is_lit & is_target)], -1)

    def _add_bins(self, error: Tensor, truth: Tensor) -> None:
        edges = torch.tensor(self.value_edges, dtype=torch.float64)
        slot = torch.bucketize(truth, edges, right=True)
        n_bins = len(self._bin_count)
        self._bin_count += torch.bincount(slot, minlength=n_bins)
        self._bin_error += _three_sums(
            error,
            lambda part: torch.stack([torch.bincount(slot, row, n_bins) for row in part]),
        )

    def _add_cell(self, number: int, error: Tensor, is_in: Tensor, images: _CellImages) -> None:
        image = is_in.nonzero()[:, 0]
        inside = error[:, is_in]  # (rows, pixels)
        n_pixels = torch.bincount(image, minlength=len(is_in))
        self._cell_count[number, 0] += n_pixels.sum()
        self._cell_error[:, number] += _three_sums(inside, lambda part: part.sum(1))
        images.n_pixels[number] += n_pixels
        images.total[number].index_add_(1, image, inside.abs())


class _CellImages:
    """Number of pixels, and sum of |e| by row, of each image of a batch in each cell."""

    def __init__(self, n_cells: int, n_rows: int, n_images: int) -> None:
        self.n_pixels = _counts(n_cells, n_images)
        self.total = _sums(n_cells, n_rows, n_images)

    def n_images(self) -> Tensor:
        """Return the number of images with pixels in each cell."""
        return (self.n_pixels > 0).sum(1)

    def sums(self) -> Tensor:
        """Return the sums over images of the mean of |e|, and of its square, (rows, cells, 2)."""
        mean = self.total / self.n_pixels.clamp(min=1).unsqueeze(1)
        return torch.stack([mean.sum(2), mean.square().sum(2)], -1).transpose(0, 1)


def _blocks(valid: Tensor) -> Iterator[slice]:
    """Yield slices of the pixels (B, C, pixels), so that memory does not grow with an image."""
    batch, channels, n = valid.shape
    at_once = max(_AT_ONCE // max(batch * channels, 1), 1)
    yield from (slice(start, start + at_once) for start in range(0, n, at_once))


def _counts(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def _sums(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _per_channel(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def _three_sums(error: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the totals of e, |e| and e^2 in a last dimension."""
    return torch.stack([total(part) for part in (error, error.abs(), error.square())], -1)


def _by_channel(value: Tensor) -> Tensor:
    """Sum (rows, B, C, pixels) over images and pixels, to (rows, C)."""
    return value.sum((1, 3))
