"""The balanced mean: the one reduction behind every loss of this library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_choice,
    check_devices,
    check_floating,
    check_integral,
    check_n_entries,
    class_numbers,
    expand_pixels,
    trains_eagerly,
    values_are_readable,
    widen_half,
)
from dense_imb.losses.core.coefficient import coefficients, power_of
from dense_imb.losses.core.cover import Cover, CoverCells, PackedCover, pack
from dense_imb.losses.core.groups import Classes, Groups, InstanceCells, class_tensor, wide
from dense_imb.losses.core.instances import InstanceMap, Per, bounded_instances, check_per
from dense_imb.losses.core.pixels import clean_label, valid_pixels
from dense_imb.losses.core.processes import n_processes, with_gradient_of

Scope = Literal["image", "batch", "global"]
Combine = Literal["sum", "mean"]
Absent = Literal["skip", "zero", "rate", "index"]
Gradient = Literal["mean", "sum"]


@dataclass(frozen=True)
class Balance:
    """Rule by which the means over the classes become one number.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error

    With a power p, the power mean of the class means m_c:

        loss = (sum_c  v_c m_c^p)^(1/p),    v_c = w_c / K * n_c^g / mean over the classes of n^g

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
        power: p, from 1, the mean of the class means, to infinity (also as the text "inf"), the
            worst class. Errors must be at least 0 then. Measured: 2 raised the
            recall of the worst class in one of three tasks, its average precision in none; infinity
            more than halved the average precision.
        count_power: g, exponent of the number n_c of pixels in a class's weight. 0 is balanced, 1
            the plain mean over all pixels, 1/2 between them. Of instances, n_c is their number.
            Measured: no significant gain over the better of 0 and 1.
            For bins of values, see also `ValueBins(power=...)`.

    Example:
        >>> error = torch.tensor([0.0, 0.0, 0.0, 6.0])
        >>> label = torch.tensor([0, 0, 0, 1])
        >>> balanced_mean(error, label, 2, balance=Balance())
        tensor(3.)
        >>> balanced_mean(error, label, 2, balance=Balance(weight=(1.0, 2.0), combine="sum"))
        tensor(12.)
        >>> balanced_mean(error, label, 2, balance=Balance(power=math.inf))
        tensor(6.)
    """

    weight: Sequence[float] | None = None
    scope: Scope = "batch"
    combine: Combine | Sequence[Combine] = "mean"
    absent: Absent | None = None
    min_count: float = 1
    frame_weight: float = 0.0
    gradient: Gradient = "mean"
    power: float = 1
    count_power: float = 0

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
        check_at_least("count_power", self.count_power, 0)
        if self.power in ("inf", math.inf):  # a typed loss has no name for infinity
            object.__setattr__(self, "power", math.inf)
        else:
            check_at_least("power", self.power, 1)
        if self.weight is not None:
            object.__setattr__(self, "weight", class_numbers("weight", self.weight))

    @property
    def weighs_by_size(self) -> bool:
        """Whether the weight of a class depends on its number of pixels."""
        return self.count_power > 0

    def size_of(self, share: Tensor) -> Tensor:
        """Return factors of the class weights from the share of pixels, n^g; (rows, C)."""
        return power_of(share, self.count_power)

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
    """The loss and its parts, which are detached.

    Example:
        >>> import torch
        >>> from dense_imb.losses import Balance, balanced_mean
        >>> error, label = torch.tensor([1.0, 1.0, 4.0]), torch.tensor([0, 0, 1])
        >>> parts = balanced_mean(error, label, 2, balance=Balance(), return_parts=True)  # Parts
        >>> parts.value, parts.class_mean, parts.class_count
        (tensor(2.5000), tensor([1., 4.], dtype=torch.float64), tensor([2, 1]))
    """

    value: Tensor
    class_mean: Tensor  # (n_classes,) mean error of each class, NaN where it has no pixel
    class_count: Tensor  # (n_classes,) int64, valid pixels of each class


def balanced_mean(
    error: Tensor,
    label: Tensor,
    n_classes: int | None = None,
    *,
    balance: Balance,
    cover: Cover | None = None,
    instance: Tensor | None = None,
    max_instances: int | None = None,
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

    With `instance`, a class mean is the mean over the class's instances of their mean errors. With
    `cover`, a pixel has the sum of the coefficients of all its cells.

    Args:
        error: one number for each pixel, any shape; the first dimension counts the images.
        label: class of each pixel, 0 .. n_classes - 1, bool or integer. With a cover, its masks or
            bit field.
        n_classes: number of classes C; a cover knows its own.
        balance: how the class means combine.
        cover: cells that may overlap, in place of classes; see `Cover`.
        instance: number of the object of each pixel, integers, (B, *spatial) or (B, 1, *spatial),
            0 for none: those pixels of a class are one instance more in each image.
        max_instances: bound of these numbers, R. Larger ones count as 0, with a warning. By
            default the map's maximum, which is read once.
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
    per: Per = "pixel" if instance is None else "instance"
    check_per(per, max_instances)
    check_groups(cover, per, class_count, ignore_index)
    check_devices(
        "error", error, label=label, instance=instance, mask=mask, pixel_weight=pixel_weight
    )
    valid = valid_pixels(error, "error", mask, pixel_weight)
    groups: Tensor | PackedCover
    if cover is not None:
        n_classes = cover.n_classes
        groups = pack(cover, label, error, "error", valid)
    else:
        if n_classes is None:
            raise TypeError("Expected `n_classes` with a label of classes, got none.")
        check_integral("label", label)
        label = expand_pixels("label", label, error, "error")
        groups, valid = clean_label("label", label, n_classes, ignore_index, valid)
    return reduce_balanced(
        error,
        groups,
        n_classes,
        valid=valid,
        instances=expand_instances(instance, error, "error", max_instances, valid),
        balance=balance,
        pixel_weight=pixel_weight,
        class_count=class_count,
        reduction=reduction,
        return_parts=return_parts,
    )


def check_groups(
    cover: Cover | None, per: Per, class_count: object, ignore_index: int | None
) -> None:
    """Refuse combinations of options for which no groups of pixels are defined."""
    if cover is not None and per == "instance":
        raise ValueError('A loss takes the cells of a cover or per="instance", not both.')
    if cover is not None and ignore_index is not None:
        raise ValueError(
            f"Expected no `ignore_index` with a cover, got {ignore_index}; use `mask`."
        )
    if class_count is not None and per == "instance":
        raise ValueError(
            'Expected no `class_count` with per="instance", got one: the class means are over '
            "instances, not over pixels."
        )


def expand_instances(
    instance: Tensor | None,
    like: Tensor,
    like_name: str,
    max_instances: int | None,
    valid: Tensor | None,
) -> InstanceMap | None:
    """Return the checked instance map in the shape of `like`."""
    if instance is None:
        return None
    if like.dim() < 2:
        raise ValueError(
            f"Expected `{like_name}` with images in its first dimension for an `instance` map, "
            f"got the shape {tuple(like.shape)}."
        )
    instance = expand_pixels("instance", instance, like, like_name)
    return bounded_instances(instance, max_instances=max_instances, valid=valid)


def reduce_balanced(
    error: Tensor,
    label: Tensor | PackedCover,
    n_classes: int,
    *,
    balance: Balance,
    valid: Tensor | None = None,
    instances: InstanceMap | None = None,
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
        instances: map in the shape of the error map; None for means over pixels.
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
    groups = _groups_of(label, n_classes, valid, n_rows, instances)
    summed = None
    if return_parts or balance.scope == "global" or balance.power != 1:
        # second derivatives flow through the coefficients of a power mean
        summed = error.detach() if balance.power == 1 else error
    sums = groups.totals(summed, weight, balance)
    if class_count is not None:
        if "frame" in sums:
            raise ValueError(
                "Expected no `class_count` with the frame_weight of a cover, got one: its cells "
                "don't tell the number of pixels in the window; use frame_weight=0."
            )
        sums["window"] = _window_mass(class_count, n_classes, balance, sums["count"])
    is_shared = n_processes(balance.scope) > 1
    if is_shared:
        if weight is not None and trains_eagerly(weight):
            raise ValueError(
                "Expected `pixel_weight` without gradient in a balance over several processes, got "
                "one that requires it; call .detach() on it first."
            )
        sums = _sum_over_processes(sums)

    coefficient = coefficients(sums, balance)
    if reduction == "mean" and torch.compiler.is_compiling() and _are_two_classes(groups):
        # the gradient needs the inputs alone: a map of coefficients would be kept for it
        total = groups.sum(error if weight is None else error * weight)
        value = (coefficient.with_frame() * total).sum().to(error.dtype)
    else:
        share = groups.share(coefficient, error.dtype).view_as(error)
        if weight is not None:
            share = share.mul_(weight)
        may_overwrite = may_overwrite and not share.requires_grad
        contribution = error.mul_(share) if may_overwrite else error * share
        value = contribution if reduction == "none" else contribution.sum()
    if is_shared:
        total = value if reduction == "none" else coefficient.total(sums)
        value = with_gradient_of(value, total, balance)
    if not return_parts:
        return value
    of_class = {name: numbers.detach().sum(0) for name, numbers in sums.items()}
    mass = of_class.get("mass", of_class["count"])
    class_mean = torch.where(of_class["count"] > 0, of_class["error"] / mass, torch.nan)
    return Parts(value, class_mean, of_class.get("pixels", of_class["count"]).long())


def _groups_of(
    label: Tensor | PackedCover,
    n_classes: int,
    valid: Tensor | None,
    n_rows: int,
    instances: InstanceMap | None,
) -> Groups:
    if isinstance(label, PackedCover):
        return CoverCells(label, n_rows)
    if instances is not None:
        return InstanceCells(label, n_classes, valid, n_rows, instances)
    return Classes(label, n_classes, valid, n_rows)


def _are_two_classes(groups: Groups) -> bool:
    return isinstance(groups, Classes) and groups.is_bool


def class_sums(
    error: Tensor,
    label: Tensor,
    n_classes: int,
    valid: Tensor | None,
    pixel_weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, sum of weights and sum of weighted errors of the valid pixels of each class."""
    classes = Classes(label, n_classes, valid, 1)
    count = classes.count()[0]
    if pixel_weight is None or valid is None:
        return count, count, classes.sum(error)[0]
    weight = torch.where(valid, pixel_weight.to(error.dtype), 0.0)
    return count, classes.sum(weight)[0], classes.sum(error * weight)[0]


def check_balance(balance: object) -> None:
    """Refuse what is no `Balance`, and one of region losses, for a mean of errors."""
    if not isinstance(balance, Balance):
        raise TypeError(
            f"Expected `balance` to be a Balance, got {type(balance).__name__}; write Balance()."
        )
    balance.check_averages_errors()


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that the balanced mean does not have."""
    if reduction == "sum":
        raise ValueError(
            'Expected `reduction` to be "mean" or "none" with a balance, got "sum": the balanced '
            'mean is already a sum of contributions; reduction="none" returns them.'
        )
    check_choice("reduction", reduction, ("mean", "none"))


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
    if balance.power != 1:
        raise ValueError(
            f"Expected no `class_count` with power={balance.power:g}, got one: the coefficients "
            "need the errors of the whole window, not only its counts; use power=1."
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
    packed = torch.cat([part.detach().to(wide(part.device)) for part in sums.values()])
    dist.all_reduce(packed)
    return dict(zip(sums, torch.split(packed, 1), strict=True))
