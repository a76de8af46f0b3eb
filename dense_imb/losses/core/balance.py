"""The balanced mean: the one reduction behind every loss of this library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_integral,
    check_label_range,
    check_n_entries,
    class_numbers,
    expand_pixels,
    values_are_readable,
    widen_half,
)

Scope = Literal["image", "batch", "global"]
Combine = Literal["sum", "mean"]
Absent = Literal["skip", "zero", "rate", "index"]
Gradient = Literal["mean", "sum"]


@dataclass(frozen=True)
class Balance:
    """Rule by which the means over the classes become one number.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error

    Args:
        weight: w_c, one number for each class; all 1 by default.
        scope: pixels that a class mean runs over. "image": one image, followed by the mean over
            the images. "batch": the batch. "global": the batches of all processes, equal to
            "batch" without a process group. With "global" every process must call the loss equally
            often: a validation on rank 0 alone would wait for ever.
        combine: "mean" divides by the number of classes (K), "sum" does not (K = 1). One entry for
            each class mixes the two: classes marked "mean" share their K, the others are added.
        absent: treatment of a class without pixels. "skip", the default of errors, excludes it
            from K, and "zero" counts it; it adds nothing. Region losses alone have "rate", their
            default, which adds the class's mean probability, and "index", its formula as it is.
        min_count: a class mean is divided by at least this many pixels, so that one stray pixel
            need not outweigh a whole frame. The default changes nothing.
        frame_weight: weight of one more entry, the plain mean over all valid pixels.
        gradient: the trainer's reduction of gradients over processes, for scope "global": "mean"
            as in DDP and FSDP, or "sum".

    Example:
        >>> error = torch.tensor([0.0, 0.0, 0.0, 6.0])
        >>> label = torch.tensor([0, 0, 0, 1])
        >>> balanced_mean(error, label, 2, balance=Balance())
        tensor(3.)
        >>> balanced_mean(error, label, 2, balance=Balance(weight=(1.0, 2.0), combine="sum"))
        tensor(12.)
    """

    weight: Sequence[float] | None = None
    scope: Scope = "batch"
    combine: Combine | Sequence[Combine] = "mean"
    absent: Absent | None = None
    min_count: float = 1
    frame_weight: float = 0.0
    gradient: Gradient = "mean"

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, get_args(Scope))
        if self.absent is not None:
            check_choice("absent", self.absent, get_args(Absent))
        check_choice("gradient", self.gradient, get_args(Gradient))
        for entry in [self.combine] if isinstance(self.combine, str) else self.combine:
            check_choice("combine", entry, get_args(Combine))
        if not isinstance(self.combine, str):
            object.__setattr__(self, "combine", tuple(self.combine))
        check_at_least("frame_weight", self.frame_weight, 0)
        check_at_least("min_count", self.min_count, 1)
        if self.weight is not None:
            object.__setattr__(self, "weight", class_numbers("weight", self.weight))

    def check_averages_errors(self) -> None:
        """Refuse the treatments of absent classes that only region losses have."""
        if self.absent in ("rate", "index"):
            raise ValueError(
                'Expected `absent` to be "skip" or "zero" for a mean of errors, got '
                f"{self.absent!r}, which region losses have; use RegionLoss or DiceLoss."
            )

    def check_n_classes(self, n_classes: int) -> None:
        """Refuse a `weight` or `combine` of another length than the number of classes."""
        if self.weight is not None:
            check_n_entries("weight", self.weight, n_classes)
        if not isinstance(self.combine, str):
            check_n_entries("combine", self.combine, n_classes)


class Parts(NamedTuple):
    """The loss and its parts, which are detached."""

    value: Tensor
    class_mean: Tensor  # (n_classes,) mean error of each class, NaN where it has no pixel
    class_count: Tensor  # (n_classes,) int64, valid pixels of each class


def balanced_mean(
    error: Tensor,
    label: Tensor,
    n_classes: int,
    *,
    balance: Balance,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    reduction: str = "mean",
    return_parts: bool = False,
) -> Any:
    """Mean of an error map in which a class counts by its weight, not by its number of pixels.

        n_c  = number of valid pixels of class c,       m_c = sum of their pixel weights u
        coef = w_c / (m_c K) where n_c > 0, else 0
        loss = sum over valid pixels i of  coef_{c_i} u_i error_i

    Args:
        error: one number for each pixel, any shape; the first dimension counts the images.
        label: class of each pixel, 0 .. n_classes - 1, bool or integer.
        n_classes: number of classes C.
        balance: how the class means combine.
        ignore_index: label of ignored pixels.
        mask: nonzero where a pixel counts. A NaN elsewhere does not reach the value, but may reach
            the gradient of your formula: clean the input of the error map.
        pixel_weight: u, at least 0; a pixel of weight 0 is ignored.
        class_count: m_c of a whole window of gradient accumulation on this process, instead of
            this call's. The loss of the window is the sum over its calls: don't divide it.
        reduction: "mean" for the loss, "none" for the map of contributions whose sum is the loss.
        return_parts: return `Parts` (value, class_mean, class_count) instead of the value.

    Example:
        >>> balanced_mean(torch.tensor([1.0, 1.0, 5.0]), torch.tensor([0, 0, 1]), 2,
        ...               balance=Balance())
        tensor(3.)
    """
    check_reduction(reduction)
    check_floating("error", error)
    check_integral("label", label)
    label = expand_pixels("label", label, error, "error")
    valid = valid_pixels(error, "error", mask, pixel_weight)
    label, valid = clean_label("label", label, n_classes, ignore_index, valid)
    return reduce_balanced(
        error,
        label,
        n_classes,
        valid=valid,
        balance=balance,
        pixel_weight=pixel_weight,
        class_count=class_count,
        reduction=reduction,
        return_parts=return_parts,
    )


def valid_pixels(
    like: Tensor, like_name: str, mask: Tensor | None, pixel_weight: Tensor | None
) -> Tensor | None:
    """Return a mask of the pixels that count, in the shape of `like`; None if all do."""
    valid = None
    if mask is not None:
        valid = expand_pixels("mask", mask, like, like_name).bool()
    if pixel_weight is not None:
        check_floating("pixel_weight", pixel_weight)
        if values_are_readable(pixel_weight) and bool((pixel_weight < 0).any()):
            raise ValueError(
                f"Expected `pixel_weight` of at least 0, got {float(pixel_weight.min())}."
            )
        is_weighted = expand_pixels("pixel_weight", pixel_weight, like, like_name).bool()
        valid = both(valid, is_weighted)
    return valid


def both(valid: Tensor | None, more: Tensor) -> Tensor:
    """Return valid & more; None counts as True everywhere."""
    return more if valid is None else valid & more


def clean_label(
    name: str, label: Tensor, n_classes: int, ignore_index: int | None, valid: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Apply `ignore_index` and refuse illegal labels.

    If values cannot be read without waiting for an accelerator, an illegal label becomes
    n_classes + 1, which makes the loss NaN: no crash, and no silent number.
    """
    if label.dtype == torch.bool and ignore_index is None and n_classes == 2:
        return label, valid  # fast path for two classes
    if label.dtype not in (torch.int32, torch.int64):
        label = label.long()
    if ignore_index is not None:
        valid = both(valid, label != ignore_index)
    if values_are_readable(label):
        check_label_range(name, label, n_classes, valid)
    else:
        label = torch.where((label < 0) | (label >= n_classes), n_classes + 1, label)
    return label, valid


def reduce_balanced(
    error: Tensor,
    label: Tensor,
    n_classes: int,
    *,
    balance: Balance,
    valid: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    reduction: str = "mean",
    return_parts: bool = False,
    is_clean: bool = False,
    may_overwrite: bool = False,
) -> Any:
    """Return the balanced mean of checked arguments, see `balanced_mean`.

    Args:
        error, label, n_classes, balance: checked, as in `balanced_mean`.
        valid: mask of the pixels that count; None if all do.
        pixel_weight, class_count, reduction, return_parts: as in `balanced_mean`.
        is_clean: whether the error map holds no NaN outside of `valid`, nor its gradient.
        may_overwrite: whether the error map may be overwritten, which saves a buffer.
    """
    balance.check_n_classes(n_classes)
    balance.check_averages_errors()
    error = widen_half(error)
    weight = None
    if valid is not None:
        if not is_clean:
            error = torch.where(valid, error, 0.0)
        if pixel_weight is not None:
            weight = expand_pixels("pixel_weight", pixel_weight, error, "error").to(error.dtype)
            weight = torch.where(valid, weight, 0.0)

    n_rows = max(error.shape[0], 1) if balance.scope == "image" and error.dim() > 0 else 1
    classes = _Classes(label, n_classes, valid, n_rows)
    count = classes.count()  # (rows, C)
    sums: dict[str, Tensor] = {"count": count}
    if weight is not None:
        sums["mass"] = classes.sum(weight)
    if return_parts or balance.scope == "global":
        detached = error.detach()
        sums["error"] = classes.sum(detached if weight is None else detached * weight)
    if class_count is not None:
        sums["window"] = _window_mass(class_count, n_classes, balance, count)
    n_processes = 1
    if balance.scope == "global" and dist.is_available() and dist.is_initialized():
        sums = _sum_over_processes(sums)
        n_processes = dist.get_world_size()

    coefficient = coefficients(sums, balance)
    share = classes.spread(coefficient.to(error.dtype)).view_as(error)
    if weight is not None:
        share = share.mul_(weight)
    contribution = error.mul_(share) if may_overwrite else error * share
    value = contribution if reduction == "none" else contribution.sum()
    if n_processes > 1:
        factor = n_processes if balance.gradient == "mean" else 1
        total = contribution if reduction == "none" else (coefficient * sums["error"]).sum()
        value = WithGradientOf.apply(value, total.detach().to(value.dtype), factor)
    if not return_parts:
        return value
    of_class = {name: total.sum(0) for name, total in sums.items()}
    mass = of_class.get("mass", of_class["count"])
    class_mean = torch.where(of_class["count"] > 0, of_class["error"] / mass, torch.nan)
    return Parts(value, class_mean, of_class["count"].long())


def class_sums(
    error: Tensor,
    label: Tensor,
    n_classes: int,
    valid: Tensor | None,
    pixel_weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, sum of weights and sum of weighted errors of the valid pixels of each class."""
    classes = _Classes(label, n_classes, valid, 1)
    count = classes.count()[0]
    if pixel_weight is None or valid is None:
        return count, count, classes.sum(error)[0]
    weight = torch.where(valid, pixel_weight.to(error.dtype), 0.0)
    return count, classes.sum(weight)[0], classes.sum(error * weight)[0]


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that the balanced mean does not have."""
    if reduction == "sum":
        raise ValueError(
            'Expected `reduction` to be "mean" or "none" with a balance, got "sum": the balanced '
            'mean is already a sum of contributions; reduction="none" returns them.'
        )
    check_choice("reduction", reduction, ("mean", "none"))


class _Classes:
    """Rows of labelled pixels, and sums over the valid pixels of each class.

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

    def count(self) -> Tensor:  # (rows, C) int64, exact where a float32 would stick at 2^24
        if self.is_bool:
            n_valid: Tensor | int = self.label.shape[1]
            is_one = self.label
            if self.valid is not None:
                n_valid = _count_true(self.valid)
                is_one = is_one & self.valid
            n_one = _count_true(is_one)
            return torch.stack([n_valid - n_one, n_one], 1)
        if values_are_readable(self.label):
            return self._bincount(None)
        return torch.stack([(self.label == c).sum(1) for c in range(self.n_classes)], 1)

    def sum(self, pixel: Tensor) -> Tensor:  # (rows, C) float64, of a map that is 0 where not valid
        pixel = pixel.reshape(self.label.shape).to(wide(pixel.device))
        if not self.is_bool and values_are_readable(self.label):
            return self._bincount(pixel)
        of_class = [torch.where(self.label == c, pixel, 0.0).sum(1) for c in range(self.n_classes)]
        return torch.stack(of_class, 1)

    def spread(self, of_class: Tensor) -> Tensor:
        """Return for each pixel the number of its class; NaN for an illegal label."""
        if self.is_bool:
            return torch.where(self.label, of_class[:, 1:], of_class[:, :1])
        return slot_table(of_class).reshape(-1).index_select(0, self.slot.reshape(-1))

    def _bincount(self, pixel: Tensor | None) -> Tensor:
        n_rows = self.label.shape[0]
        weights = None if pixel is None else pixel.reshape(-1)
        total = torch.bincount(self.slot.reshape(-1), weights, n_rows * self.n_slots)
        return total.view(n_rows, self.n_slots)[:, : self.n_classes]


def slot_table(of_class: Tensor) -> Tensor:
    """Extend (..., C) to (..., C + 2): 0 for an ignored pixel, NaN for an illegal label."""
    return F.pad(F.pad(of_class, (0, 1), value=0.0), (0, 1), value=torch.nan)


def _count_true(is_true: Tensor) -> Tensor:  # (rows, pixels) -> (rows,)
    if is_true.shape[0] == 1:  # twice as fast as sum
        return torch.count_nonzero(is_true).unsqueeze(0)
    return is_true.sum(1)


def coefficients(sums: dict[str, Tensor], balance: Balance) -> Tensor:
    """Return coef of each row and class, (rows, C) float64."""
    count = sums["count"]
    mass = sums.get("window", sums.get("mass", count)).to(wide(count.device))
    # never mass > 0 for the counts of this call: a NaN pixel weight would hide the class
    is_present = mass > 0 if "window" in sums else count > 0
    divisor = mass.clamp(min=balance.min_count) if balance.min_count > 1 else mass
    n_entries = None if balance.combine == "sum" else _n_entries(is_present, balance)
    if n_entries is not None:
        divisor = divisor * _per_class(n_entries, balance)
    if balance.weight is None:
        coefficient = 1 / divisor
    else:
        coefficient = class_tensor(balance.weight, mass) / divisor
    if balance.frame_weight > 0:
        frame = balance.frame_weight / mass.sum(1, keepdim=True)
        coefficient = coefficient + (frame if n_entries is None else frame / n_entries)
    coefficient = torch.where(is_present, coefficient, 0.0)
    if "window" in sums:  # pixels of a class that is absent from the window
        coefficient = torch.where((count > 0) & ~is_present, torch.nan, coefficient)
    if count.shape[0] > 1:
        coefficient = coefficient / is_present.any(1).sum().clamp(min=1)
    return coefficient


def _n_entries(is_present: Tensor, balance: Balance) -> Tensor:
    """Return K of the classes that combine by their mean, with the frame's entry; (rows, 1)."""
    is_entry = torch.ones_like(is_present) if balance.absent == "zero" else is_present
    if not isinstance(balance.combine, str):
        is_mean = class_tensor([entry == "mean" for entry in balance.combine], is_present)
        is_entry = is_entry & is_mean.bool()
    return (is_entry.sum(1, keepdim=True) + int(balance.frame_weight > 0)).clamp(min=1)


def _per_class(n_entries: Tensor, balance: Balance) -> Tensor:
    """Return K of each class: 1 for those that are added."""
    if isinstance(balance.combine, str):
        return n_entries
    is_mean = class_tensor([entry == "mean" for entry in balance.combine], n_entries)
    return torch.where(is_mean > 0, n_entries, 1)


def class_tensor(values: Sequence[float], like: Tensor) -> Tensor:
    """Return one number for each class on the device of `like`, without waiting for it."""
    host = torch.tensor(values, dtype=wide(like.device))
    if like.device.type == "cuda" and not torch.compiler.is_compiling():
        host = host.pin_memory()
    return host.to(like.device, non_blocking=True)


def wide(device: torch.device) -> torch.dtype:
    """Return the dtype of sums over pixels: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def _window_mass(
    class_count: Tensor | Sequence[float], n_classes: int, balance: Balance, count: Tensor
) -> Tensor:
    if not isinstance(class_count, Tensor):
        class_count = class_tensor(class_numbers("class_count", class_count), count)
    if class_count.shape != (n_classes,):
        raise ValueError(
            f"Expected `class_count` with one entry for each of the {n_classes} classes, "
            f"got the shape {tuple(class_count.shape)}."
        )
    if balance.scope == "image":
        raise ValueError(
            'Expected no `class_count` with scope "image", got one: each image is whole in its '
            'call; use scope "batch" or "global" for a window of gradient accumulation.'
        )
    if values_are_readable(class_count) and values_are_readable(count):
        if not bool((class_count >= 0).all()):
            raise ValueError(f"Expected `class_count` of at least 0, got {class_count.tolist()}.")
        missing = ((class_count == 0) & (count[0] > 0)).nonzero().flatten().tolist()
        if missing:
            raise ValueError(
                f"Expected `class_count` to count the pixels of the whole window, got 0 for class "
                f"{missing[0]}, of which this call alone has {int(count[0, missing[0]])}."
            )
    return class_count.to(count.device).unsqueeze(0)


def _sum_over_processes(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum the few numbers of each class over all processes, in one collective."""
    packed = torch.cat([part.to(wide(part.device)) for part in sums.values()])
    dist.all_reduce(packed)
    return dict(zip(sums, torch.split(packed, 1), strict=True))


class WithGradientOf(torch.autograd.Function):
    """The value `total` with `factor` times the gradient of `local`.

    Not `total + factor * (local - local.detach())`, which turns an infinite loss into NaN.
    """

    @staticmethod
    def forward(local: Tensor, total: Tensor, factor: int) -> Tensor:
        return total.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.factor = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.factor, None, None
