"""Groups of pixels and the sums over them: classes, and the instances of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    is_plain_eager,
    launches_kernels,
    trains_eagerly,
    values_are_readable,
)
from dense_imb.losses.core.instances import InstanceMap, number_cells, warn_of_uncovered

if TYPE_CHECKING:
    from dense_imb.losses.core.balance import Balance
    from dense_imb.losses.core.coefficient import Coefficients

_AT_ONCE = 2**27  # bytes of a map of each class, up to which a GPU sums all classes at once


class Groups:
    """Groups of the valid pixels: sums over them, and numbers spread to their pixels."""

    def count(self) -> Tensor:
        """Return the number of pixels of each group, int64."""
        raise NotImplementedError

    def sum(self, pixel: Tensor) -> Tensor:
        """Return the sums over each group, float64, of a map that is 0 where not valid."""
        raise NotImplementedError

    def spread(self, of_group: Tensor) -> Tensor:
        """Return for each pixel the number of its group; NaN for an illegal label."""
        raise NotImplementedError

    def totals(
        self, error: Tensor | None, weight: Tensor | None, balance: Balance
    ) -> dict[str, Tensor]:
        """Return the numbers of each row and class, see `coefficients`.

        Args:
            error: error map, 0 where not valid; None if its sums are not needed.
            weight: pixel weights, 0 where not valid; None if all are 1.
            balance: rule by which the class means combine.
        """
        sums = {"count": self.count()}
        if weight is not None:
            sums["mass"] = self.sum(weight)
        if error is not None:
            sums["error"] = sum_of(self, error if weight is None else error * weight)
        return sums

    def share(self, coefficient: Coefficients, dtype: torch.dtype) -> Tensor:
        """Return the coefficient of each pixel."""
        return self.spread(coefficient.with_frame().to(dtype))


class Classes(Groups):
    """Rows of labelled pixels, and sums over the valid pixels of each class, (rows, C).

    A label is bool for two classes, or an index in 0 .. C - 1. An index becomes C where the pixel
    does not count; C + 1 marks an illegal label where it could not be refused.
    """

    def __init__(self, label: Tensor, n_classes: int, valid: Tensor | None, n_rows: int) -> None:
        self.n_classes = n_classes
        self.n_slots = n_classes + 2
        self.is_bool = label.dtype == torch.bool
        self.valid = None if valid is None else valid.reshape(n_rows, -1)
        self.label = label.reshape(n_rows, -1)
        if not self.is_bool:
            if self.valid is not None:
                self.label = torch.where(self.valid, self.label, n_classes)
            self.slot = self.label
            if n_rows > 1:
                row = torch.arange(n_rows, device=label.device, dtype=label.dtype)
                self.slot = self.label + self.n_slots * row.unsqueeze(1)

    def count(self) -> Tensor:  # exact where a float32 would stick at 2^24
        if self.is_bool:
            n_valid: Tensor | int = self.label.shape[1]
            is_one = self.label
            if self.valid is not None:
                n_valid = count_true(self.valid)
                is_one = is_one & self.valid
            n_one = count_true(is_one)
            return torch.stack([n_valid - n_one, n_one], 1)
        if values_are_readable(self.label):
            return self._bincount(None)
        if self._fits_at_once(1 + torch.int64.itemsize):  # a sum of bool is one of int64
            return one_hot(self.label, self.n_classes).sum(-1)
        return torch.stack([(self.label == c).sum(1) for c in range(self.n_classes)], 1)

    def sum(self, pixel: Tensor) -> Tensor:
        pixel, dtype = pixel.reshape(self.label.shape), wide(pixel.device)
        if self.is_bool:  # widened behind where(): compiled, the gradient stays narrow
            zero = torch.where(self.label, 0.0, pixel).sum(1, dtype=dtype)
            one = torch.where(self.label, pixel, 0.0).sum(1, dtype=dtype)
            return torch.stack([zero, one], 1)
        if self._fits_at_once(1 + dtype.itemsize):
            mask = one_hot(self.label, self.n_classes)
            return torch.where(mask, pixel.unsqueeze(1), 0.0).sum(-1, dtype=dtype)
        pixel = pixel.to(dtype)
        if values_are_readable(self.label) and not trains_eagerly(pixel):
            return self._bincount(pixel)
        of_class = [torch.where(self.label == c, pixel, 0.0).sum(1) for c in range(self.n_classes)]
        return torch.stack(of_class, 1)

    def spread(self, of_group: Tensor) -> Tensor:
        if self.is_bool:
            return torch.where(self.label, of_group[:, 1:], of_group[:, :1])
        return slot_table(of_group).reshape(-1).index_select(0, self.slot.reshape(-1))

    def _fits_at_once(self, n_bytes: int) -> bool:
        """Whether all classes are summed at once, with so many bytes for each pixel and class."""
        n = self.label.numel() * self.n_classes
        return launches_kernels(self.label) and n * n_bytes <= _AT_ONCE

    def _bincount(self, pixel: Tensor | None) -> Tensor:
        n_rows = self.label.shape[0]
        weights = None if pixel is None else pixel.reshape(-1)
        total = torch.bincount(self.slot.reshape(-1), weights, n_rows * self.n_slots)
        return total.view(n_rows, self.n_slots)[:, : self.n_classes]


class InstanceCells(Groups):
    """Cells (image, instance, class), and sums over the valid pixels of each, (B, R + 1, C)."""

    is_cell: Tensor
    divisor: Tensor  # mass of each cell, by which its sum of errors is divided

    def __init__(
        self,
        label: Tensor,
        n_classes: int,
        valid: Tensor | None,
        n_rows: int,
        instances: InstanceMap,
    ) -> None:
        label = label.int() if label.dtype == torch.bool else label
        if valid is not None:
            label = torch.where(valid, label, n_classes)
        self.instances = instances
        self.n_classes = n_classes
        self.n_rows = n_rows
        self.shape = (label.shape[0], instances.n_slots, n_classes + 2)
        self.slot = number_cells(label, instances, n_classes + 2).reshape(-1)

    def count(self) -> Tensor:
        return self._cells(None)

    def sum(self, pixel: Tensor) -> Tensor:
        return self._cells(pixel.reshape(-1).to(wide(pixel.device)))

    def spread(self, of_group: Tensor) -> Tensor:
        return slot_table(of_group).reshape(-1).index_select(0, self.slot)

    def totals(
        self, error: Tensor | None, weight: Tensor | None, balance: Balance
    ) -> dict[str, Tensor]:
        count = self.count()
        warn_of_uncovered(count, self.instances)
        mass = count if weight is None else self.sum(weight)
        self.is_cell = count > 0
        divisor = mass.to(wide(mass.device))
        if balance.min_count > 1:
            divisor = divisor.clamp(min=balance.min_count)
        self.divisor = torch.where(self.is_cell, divisor, 1.0)
        sums = {"count": self._in_rows(self.is_cell), "pixels": self._in_rows(count)}
        if balance.frame_weight > 0:
            sums["frame"] = self._in_rows(mass)
        if error is not None:
            total = sum_of(self, error if weight is None else error * weight)
            mean = torch.where(self.is_cell, total / self.divisor, 0.0)
            sums["error"] = self._in_rows(mean)
            if balance.frame_weight > 0:
                sums["frame_error"] = self._in_rows(total)
        return sums

    def share(self, coefficient: Coefficients, dtype: torch.dtype) -> Tensor:
        of_cell = coefficient.of_class.unsqueeze(1) / self.divisor
        if coefficient.of_frame is not None:
            of_cell = of_cell + coefficient.of_frame.unsqueeze(1)
        return self.spread(torch.where(self.is_cell, of_cell, 0.0).to(dtype))

    def _in_rows(self, of_cell: Tensor) -> Tensor:
        """Sum over the instances of each row, (B, R + 1, C) -> (rows, C)."""
        of_image = of_cell.sum(1)
        return of_image.sum(0, keepdim=True) if self.n_rows == 1 else of_image

    def _cells(self, pixel: Tensor | None) -> Tensor:
        n_cells = self.shape[0] * self.shape[1] * self.shape[2]
        has_gradient = pixel is not None and trains_eagerly(pixel)
        if values_are_readable(self.slot) and not has_gradient:
            total = torch.bincount(self.slot, pixel, n_cells)
        else:  # bincount reads the maximum, and has no gradient
            one = torch.ones((), dtype=torch.int64, device=self.slot.device)
            pixel = one.expand(self.slot.shape) if pixel is None else pixel
            total = torch.zeros(n_cells, dtype=pixel.dtype, device=pixel.device)
            total = total.index_add(0, self.slot, pixel)
        return total.view(self.shape)[..., : self.n_classes]


def sum_of(groups: Groups, pixel: Tensor) -> Tensor:
    """Return the sums of a map over groups, with the gradient that the map has."""
    if torch.compiler.is_compiling():
        return groups.sum(pixel.detach())
    if not trains_eagerly(pixel):
        return groups.sum(pixel)
    total: Tensor = _Sum.apply(pixel, groups)
    return total


class _Sum(torch.autograd.Function):
    """Sums over groups. torch's bincount has no gradient of its own."""

    @staticmethod
    def forward(pixel: Tensor, groups: Groups) -> Tensor:
        return groups.sum(pixel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pixel, ctx.groups = inputs
        ctx.shape, ctx.dtype = pixel.shape, pixel.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        # Euler: in the first derivative of the loss, these terms add up to 0
        if not torch.is_grad_enabled():
            return None, None
        return ctx.groups.spread(gradient.to(ctx.dtype)).reshape(ctx.shape), None


def slot_table(of_class: Tensor) -> Tensor:
    """Extend (..., C) to (..., C + 2): 0 for an ignored pixel, NaN for an illegal label."""
    return F.pad(F.pad(of_class, (0, 1), value=0.0), (0, 1), value=torch.nan)


def class_tensor(values: Sequence[float], like: Tensor) -> Tensor:
    """Return one number for each class on the device of `like`, without waiting for it."""
    host = torch.tensor(values, dtype=wide(like.device))
    if like.device.type == "cuda" and not torch.compiler.is_compiling():
        host = host.pin_memory()
    return host.to(like.device, non_blocking=True)


def wide(device: torch.device) -> torch.dtype:
    """Return the dtype of sums over pixels: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def one_hot(label: Tensor, n_classes: int) -> Tensor:  # (rows, pixels) -> (rows, C, pixels)
    """Return whether each pixel is of each class, in one operation."""
    classes = torch.arange(n_classes, device=label.device, dtype=label.dtype)
    return label.unsqueeze(1) == classes.unsqueeze(1)


def count_true(is_true: Tensor) -> Tensor:  # (rows, pixels) -> (rows,)
    """Return the number of True entries of each row."""
    # twice as fast as sum, but slower compiled, and in a vmap of torch 2.10
    if is_true.shape[0] == 1 and is_plain_eager():
        return torch.count_nonzero(is_true).unsqueeze(0)
    return is_true.sum(1)
