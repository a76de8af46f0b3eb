"""Losses of values: an error map, a partition of the pixels into classes, and a balanced mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import (
    WIDE_UNSIGNED,
    bare,
    check_devices,
    check_floating,
    check_integral,
    check_same_shape,
    check_tensor,
    expand_pixels,
    widen_half,
)
from dense_imb.losses.core.balance import (
    Balance,
    check_groups,
    check_reduction,
    expand_instances,
    reduce_balanced,
)
from dense_imb.losses.core.cover import Cover, PackedCover, pack
from dense_imb.losses.core.instances import Per, check_instance_given, check_per
from dense_imb.losses.core.pixels import clean_label, valid_pixels
from dense_imb.losses.core.spread import Spread, check_spreads_classes, spread_errors
from dense_imb.losses.core.target import check_not_swapped

ErrorMap = Callable[[Tensor, Tensor], Tensor]
Partition = Callable[[Tensor, Tensor], Tensor]


def mean_of_values(
    error: ErrorMap,
    partition: Partition | Cover,
    prediction: Tensor,
    target: Tensor,
    *,
    n_classes: int,
    balance: Balance,
    label: Tensor | None = None,
    per: Per = "pixel",
    max_instances: int | None = None,
    instance: Tensor | None = None,
    spread: Spread | None = None,
    is_of_difference: bool = True,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    reduction: str = "mean",
    return_parts: bool = False,
) -> Any:
    """Check prediction and target, take the error and the class of each pixel, and reduce them.

    Args:
        error: returns the error of each pixel from prediction and target.
        partition: returns the class of each pixel from prediction and target. One with an
            attribute `n_classes` returns legal classes; those of another are checked. Or the
            cells of `label`.
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        n_classes: number of classes.
        balance: see `Balance`.
        label: masks or bit field of a cover.
        per, max_instances, instance: see `balanced_regression_loss`.
        spread: see `pixel_loss`.
        is_of_difference: whether `error` depends on p - t alone and returns a buffer of its own.
        ignore_index, mask, pixel_weight, class_count, reduction, return_parts: see
            `balanced_regression_loss`.
    """
    prediction, target = bare(prediction), bare(target)
    label, instance = bare(label), bare(instance)
    mask, pixel_weight = bare(mask), bare(pixel_weight)
    check_reduction(reduction)
    check_not_swapped("prediction", prediction, target)
    check_floating("prediction", prediction)
    check_same_shape("target", target, "prediction", prediction)
    check_devices(
        "prediction", prediction, target=target, label=label, instance=instance, mask=mask,
        pixel_weight=pixel_weight,
    )  # fmt: skip
    if balance.scope == "image" and prediction.dim() < 2:
        raise ValueError(
            'Expected `prediction` with images in its first dimension for scope "image", got the '
            f"shape {tuple(prediction.shape)}."
        )
    cover = partition if isinstance(partition, Cover) else None
    check_per(per, max_instances)
    check_groups(cover, per, class_count, ignore_index)
    check_spreads_classes(spread, cover, per)
    valid = valid_pixels(prediction, "prediction", mask, pixel_weight)
    check_instance_given(per, instance)
    groups: Tensor | PackedCover
    if isinstance(partition, Cover):
        groups = pack(partition, label, prediction, "prediction", valid)
    else:
        if target.dtype in WIDE_UNSIGNED:  # few operations know them
            target = target.to(prediction.dtype)
        groups = partition(prediction, target)
        if not hasattr(partition, "n_classes"):
            check_integral("label", groups)
            check_same_shape("label", groups, "prediction", prediction)
            groups, valid = clean_label("label", groups, n_classes, ignore_index, valid)
    instances = expand_instances(instance, prediction, "prediction", max_instances, valid)

    # a 16-bit square would overflow at 256, so widen before, not after
    prediction = widen_half(prediction)
    target = target.to(prediction.dtype)
    if valid is not None:
        # clean the input of the error: 0 x NaN would be left in the gradient otherwise
        if is_of_difference:  # one buffer to clean, not two
            prediction = torch.where(valid, prediction - target, 0.0)
            target = prediction.new_zeros(()).expand_as(prediction)
        else:
            prediction = torch.where(valid, prediction, 0.0)
            target = torch.where(valid, target, 0.0)
    error_map = error(prediction, target)
    check_tensor("error", error_map)
    if error_map.shape != prediction.shape:
        raise ValueError(
            f"Expected `error` to return one number for each pixel, {tuple(prediction.shape)}, "
            f'got the shape {tuple(error_map.shape)}; give it reduction="none".'
        )
    if spread is not None and isinstance(groups, Tensor):
        weight = None
        if pixel_weight is not None:
            weight = expand_pixels("pixel_weight", pixel_weight, prediction, "prediction")
            weight = weight.to(prediction.dtype)
        error_map = spread_errors(
            spread,
            error_map,
            groups,
            n_classes,
            valid=valid,
            weight=weight,
            scope=balance.scope,
            class_count=class_count,
        )
    return reduce_balanced(
        error_map,
        groups,
        n_classes,
        valid=valid,
        instances=instances,
        balance=balance,
        pixel_weight=pixel_weight,
        class_count=class_count,
        reduction=reduction,
        return_parts=return_parts,
        is_clean=is_of_difference or spread is not None,
        may_overwrite=is_of_difference,
    )


def is_nonzero(value: Tensor) -> Tensor:
    """Return value != 0.

    On a CPU .bool() is ten times faster in eager mode and three times slower compiled.
    """
    return value != 0 if torch.compiler.is_compiling() else value.bool()
