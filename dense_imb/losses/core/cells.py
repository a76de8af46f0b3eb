"""Cells: the sums in which the pixels of a batch count, one number for each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.balance import wide

FEW_CLASSES = 8  # up to which one pass for each class beats a gather and a histogram
_MANY_CELLS = 64  # more are summed by index where a histogram must not be used


class Cells(Protocol):
    """Sums over groups of pixels; None in place of a map stands for 1 everywhere."""

    @property
    def n(self) -> int:
        """Number of cells."""
        ...

    def sums(self, maps: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
        """Return the sums of maps (B, S) over each cell, (n,) in the wide type of `dtype`."""
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

    def sums(self, maps: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
        return [self._count() if pixel is None else self._sum(pixel) for pixel in maps]

    def _count(self) -> Tensor:
        if values_are_readable(self.key):
            return torch.bincount(self.key.reshape(-1), None, self.n).to(torch.float64)
        return self.plain_sum(torch.ones_like(self.key, dtype=wide(self.key.device)))

    def _sum(self, pixel: Tensor) -> Tensor:
        if values_are_readable(pixel):  # a histogram of float32 weights would add in float32
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


@dataclass(frozen=True, eq=False)
class ClassCells:
    """One cell for each class, of each image or of all together."""

    label: Tensor  # (B, S) int64, 0 .. n_classes - 1
    n_classes: int
    by_image: bool

    @property
    def n(self) -> int:
        return self.n_classes * (self.label.shape[0] if self.by_image else 1)

    @property
    def are_few(self) -> bool:
        """Whether the classes are taken one by one."""
        return self.n_classes <= FEW_CLASSES or not values_are_readable(self.label)

    def masks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield 1.0 at the pixels of each class and 0.0 elsewhere, in one buffer that is reused."""
        if self.n_classes == 2:
            is_one = self.label.to(dtype)
            yield 1 - is_one
            yield is_one
            return
        narrow = self.label.to(torch.uint8) if self.n_classes <= FEW_CLASSES else self.label
        buffer = torch.empty(self.label.shape, dtype=dtype, device=self.label.device)
        for k in range(self.n_classes):
            yield torch.eq(narrow, k, out=buffer)

    def sums(self, maps: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
        if not self.are_few:
            return self._keyed().sums(maps, dtype)
        results: list[list[Tensor]] = [[] for _ in maps]
        for mask in self.masks(dtype):
            for result, pixel in zip(results, maps, strict=True):
                result.append((mask if pixel is None else pixel * mask).sum(-1))
        return [self.in_rows(torch.stack(result, 1)) for result in results]

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
            return torch.addcmul(zero, self.label.to(of_cell.dtype), one - zero)
        return self._keyed().spread(of_cell)

    def _keyed(self) -> KeyedCells:
        if not self.by_image:
            return KeyedCells(self.label, self.n)
        row = torch.arange(self.label.shape[0], device=self.label.device).unsqueeze(1)
        return KeyedCells(torch.add(self.label, row, alpha=self.n_classes), self.n)
