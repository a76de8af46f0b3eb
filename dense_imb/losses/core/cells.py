"""Cells: the sums in which the pixels of a batch count, one number for each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dense_imb.base.checks import (
    is_plain_eager,
    launches_kernels,
    trains_eagerly,
    values_are_readable,
)
from dense_imb.losses.core.groups import one_hot, wide

FEW_CLASSES = 8  # up to which one pass for each class beats a gather and a histogram
_MANY_CELLS = 64  # more are summed by index where a histogram must not be used


class Cells(Protocol):
    """Sums over groups of pixels; None in place of a map stands for 1 everywhere."""

    @property
    def n(self) -> int:
        """Number of cells."""
        ...

    def sums(self, maps: Sequence[Tensor | None]) -> list[Tensor]:
        """Return the sums of maps (B, S) over each cell, (n,) in the wide type."""
        ...

    def plain_sum(self, pixel: Tensor) -> Tensor:
        """Return the same of one map in operations that torch differentiates and transforms."""
        ...

    def spread(self, of_cell: Tensor) -> Tensor:
        """Return for each pixel the number of its cell, (B, S)."""
        ...


@dataclass(frozen=True, eq=False)
class KeyedCells:
    """Cells by number."""

    key: Tensor  # (B, S) integers, 0 .. n - 1
    n: int

    def sums(self, maps: Sequence[Tensor | None]) -> list[Tensor]:
        return [self._count() if pixel is None else self._sum(pixel) for pixel in maps]

    def _count(self) -> Tensor:
        if values_are_readable(self.key):
            return torch.bincount(self.key.reshape(-1), None, self.n).to(torch.float64)
        return self.plain_sum(torch.ones_like(self.key, dtype=wide(self.key.device)))

    def _sum(self, pixel: Tensor) -> Tensor:
        if values_are_readable(pixel) and not trains_eagerly(
            pixel
        ):  # a histogram of float32 weights would add in float32
            return torch.bincount(self.key.reshape(-1), pixel.reshape(-1).double(), self.n)
        return self.plain_sum(pixel)

    def plain_sum(self, pixel: Tensor) -> Tensor:
        dtype = wide(pixel.device)
        if self.n <= _MANY_CELLS:
            of_cell = [torch.where(self.key == k, pixel, 0.0).sum() for k in range(self.n)]
            return torch.stack(of_cell).to(dtype)
        total = torch.zeros(self.n, dtype=dtype, device=pixel.device)
        return total.index_add(0, self.key.reshape(-1), pixel.reshape(-1).to(dtype))

    def spread(self, of_cell: Tensor) -> Tensor:
        return of_cell.index_select(0, self.key.reshape(-1)).view_as(self.key)


def are_few(label: Tensor, n_classes: int) -> bool:
    """Whether classes are taken one by one: a few, but on a GPU they are taken at once."""
    if launches_kernels(label):
        return False
    return n_classes <= FEW_CLASSES or not values_are_readable(label)


def narrow_classes(label: Tensor, n_classes: int) -> Tensor:
    """Return a class map in the smallest type that holds it."""
    return label.to(torch.uint8) if n_classes <= 256 else label


def class_masks(label: Tensor, classes: range, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """Yield each class, and 1.0 at its pixels and 0.0 elsewhere, in one buffer that is reused."""
    buffer = torch.empty(label.shape, dtype=dtype, device=label.device)
    for k in classes:
        yield k, torch.eq(label, k, out=buffer)


class ClassCells:
    """One cell for each class, of each image or of all together.

    Args:
        label: (B, S) int64, 0 .. n_classes - 1.
        n_classes: number of classes.
        by_image: whether each image has cells of its own.
        dtype: type of the maps.
    """

    def __init__(self, label: Tensor, n_classes: int, by_image: bool, dtype: torch.dtype) -> None:
        self.label = label
        self.n_classes = n_classes
        self.by_image = by_image
        self.dtype = dtype
        self._is_one: Tensor | None = None
        self._narrow: Tensor | None = None
        self._is_of_class: Tensor | None = None  # (B, C, S) bool

    @property
    def n(self) -> int:
        return self.n_classes * (self.label.shape[0] if self.by_image else 1)

    @property
    def is_one(self) -> Tensor:
        """1.0 at the pixels of the second of two classes; (B, S)."""
        if self._is_one is None:
            self._is_one = self.label.to(self.dtype)
        return self._is_one

    @property
    def are_few(self) -> bool:
        """Whether the classes are taken one by one."""
        return are_few(self.label, self.n_classes)

    @property
    def narrow(self) -> Tensor:
        """The label in the smallest type, which is compared fastest."""
        if self._narrow is None:
            self._narrow = narrow_classes(self.label, self.n_classes)
        return self._narrow

    def masks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each class, and 1.0 at its pixels; see `class_masks`."""
        return class_masks(self.narrow, range(self.n_classes), self.dtype)

    def sums(self, maps: Sequence[Tensor | None]) -> list[Tensor]:
        # buffers that are written to have no gradient
        if not is_plain_eager() or any(m is not None and trains_eagerly(m) for m in maps):
            one = torch.ones((), dtype=self.dtype, device=self.label.device)
            return [
                self.plain_sum(one.expand_as(self.label) if pixel is None else pixel)
                for pixel in maps
            ]
        if self.n_classes > 2 and launches_kernels(self.label):
            return [self._sums_at_once(pixel) for pixel in maps]
        if not self.are_few and self.n_classes > 2:
            return self._keyed().sums(maps)
        results: list[list[Tensor]]
        if self.n_classes == 2:
            results = [self._sums_of_two(pixel) for pixel in maps]
        else:
            results = [[] for _ in maps]
            part = torch.empty(self.label.shape, dtype=self.dtype, device=self.label.device)
            for _, mask in self.masks():
                for result, pixel in zip(results, maps, strict=True):
                    masked = mask if pixel is None else torch.mul(pixel, mask, out=part)
                    result.append(masked.sum(-1))
        return [self.in_rows(torch.stack(result, 1)) for result in results]

    def _sums_at_once(self, pixel: Tensor | None) -> Tensor:
        if self._is_of_class is None:
            self._is_of_class = one_hot(self.narrow, self.n_classes)
        mask = self._is_of_class
        if pixel is None:  # a sum of bool would make a map of int64
            return self.in_rows(mask.to(self.dtype).sum(-1))
        masked = torch.where(mask, pixel.unsqueeze(1), 0.0)
        return self.in_rows(masked.sum(-1))

    def _sums_of_two(self, pixel: Tensor | None) -> list[Tensor]:
        """Return the sums over each image, (B,) each."""
        if pixel is None:
            n_ones = self.is_one.sum(-1)
            return [self.label.shape[1] - n_ones, n_ones]
        part = pixel * self.is_one
        n_ones = part.sum(-1)
        return [torch.sub(pixel, part, out=part).sum(-1), n_ones]

    def in_rows(self, of_image: Tensor) -> Tensor:
        """Return (n,) sums in the wide type from those of each image, (B, n_classes)."""
        of_image = of_image.to(wide(of_image.device))
        return of_image.reshape(-1) if self.by_image else of_image.sum(0)

    def plain_sum(self, pixel: Tensor) -> Tensor:
        of_class = [torch.where(self.label == k, pixel, 0.0).sum(-1) for k in range(self.n_classes)]
        return self.in_rows(torch.stack(of_class, 1))

    def spread(self, of_cell: Tensor) -> Tensor:
        if self.n_classes == 2:
            zero, one = of_cell.view(-1, 2).unsqueeze(2).unbind(1)  # (rows, 1)
            return torch.addcmul(zero, self.is_one, one - zero)
        return self._keyed().spread(of_cell)

    def _keyed(self) -> KeyedCells:
        if not self.by_image:
            return KeyedCells(self.label, self.n)
        row = torch.arange(self.label.shape[0], device=self.label.device).unsqueeze(1)
        return KeyedCells(torch.add(self.label, row, alpha=self.n_classes), self.n)
