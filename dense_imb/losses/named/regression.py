"""Balanced regression: any error map, averaged so that every class of pixels counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_choice,
    check_floating,
    check_ignore_index,
    check_integral,
    check_same_shape,
    check_tensor,
    expand_pixels,
    widen_half,
)
from dense_imb.losses.core.balance import (
    Balance,
    check_reduction,
    clean_label,
    reduce_balanced,
    valid_pixels,
)
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.options import CallOptions, check_options, shows_options
from dense_imb.losses.core.partition import Hits

ErrorMap = Callable[[Tensor, Tensor], Tensor]
Partition = Callable[[Tensor, Tensor], Tensor]


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction, target, reduction="none")


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    # not l1_loss: its gradient at NaN is sign(NaN) = 0, which hides the NaN from the optimizer
    difference = prediction - target
    sign = difference.detach().sign()
    return difference * torch.where(difference.isnan(), torch.nan, sign)


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(prediction, target, reduction="none")


_ERRORS: dict[str, ErrorMap] = {"mse": _squared, "l1": _absolute, "huber": _huber}


def balanced_regression_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    error: str | ErrorMap = "mse",
    partition: str | Partition = "hits",
    balance: Balance | None = None,
    n_classes: int | None = None,
    label: Tensor | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    reduction: str = "mean",
    return_parts: bool = False,
) -> Any:
    """Regression error in which every class of pixels counts by its weight, not by its size.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error(p_i, t_i)

    Args:
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        error: "mse", "l1", "huber" or a function (prediction, target) -> error of each pixel.
        partition: "hits" (target = 0, target != 0), "labels" (the `label` of the call),
            `ValueBins`, `Outcome` or a function (prediction, target) -> label of each pixel.
        balance: how the class means combine; by default the mean over the classes present.
        n_classes: number of classes; needed for labels or a function, if `balance` has no weights.
        label: class of each pixel, with partition="labels".
        ignore_index: label of the pixels that are left out.
        mask: nonzero where a pixel counts. Others are left out, a NaN there included.
        pixel_weight: weight of each pixel within its class, at least 0.
        class_count: pixels of each class in a whole window of gradient accumulation.
        reduction: "mean" for the loss, "none" for the map of contributions whose sum is the loss.
        return_parts: return `Parts` (value, class_mean, class_count) in place of the value.

    Example:
        >>> t = torch.tensor([0.0, 0.0, 0.0, 2.0])
        >>> balanced_regression_loss(torch.ones(4), t, error="l1")
        tensor(1.)
    """
    prediction, target, label = bare(prediction), bare(target), bare(label)
    mask, pixel_weight = bare(mask), bare(pixel_weight)
    balance = Balance() if balance is None else balance
    find_label, n_classes = _resolve_partition(partition, balance, n_classes)
    measure = _resolve_error(error)
    check_reduction(reduction)
    check_floating("prediction", prediction)
    check_same_shape("target", target, "prediction", prediction)
    if target.is_complex():
        raise TypeError(f"Expected `target` to be real, got {target.dtype}.")
    if balance.scope == "image" and prediction.dim() < 2:
        raise ValueError(
            'Expected `prediction` with images in its first dimension for scope "image", got the '
            f"shape {tuple(prediction.shape)}."
        )
    valid = valid_pixels(prediction, "prediction", mask, pixel_weight)

    if find_label is not None:
        pixel_class = find_label(prediction, target)
        if not hasattr(find_label, "n_classes"):  # a function of the caller's
            check_integral("label", pixel_class)
            check_same_shape("label", pixel_class, "prediction", prediction)
            pixel_class, valid = clean_label("label", pixel_class, n_classes, ignore_index, valid)
    else:
        if label is None:
            raise ValueError(
                'Expected `label` with partition="labels", got none: call the loss as '
                "loss(prediction, target, label=label)."
            )
        check_integral("label", label)
        pixel_class = expand_pixels("label", label, prediction, "prediction")
        pixel_class, valid = clean_label("label", pixel_class, n_classes, ignore_index, valid)

    # a 16-bit square would overflow at 256, so widen before, not after
    prediction = widen_half(prediction)
    target = target.to(prediction.dtype)
    if valid is not None:
        # clean what the error is made of: 0 x NaN would be left in the gradient otherwise
        if callable(error):
            prediction = torch.where(valid, prediction, 0.0)
            target = torch.where(valid, target, 0.0)
        else:  # a function of the difference: one buffer to clean, not two
            prediction = torch.where(valid, prediction - target, 0.0)
            target = prediction.new_zeros(()).expand_as(prediction)
    error_map = measure(prediction, target)
    check_tensor("error", error_map)
    if error_map.shape != prediction.shape:
        raise ValueError(
            f"Expected `error` to return one number for each pixel, {tuple(prediction.shape)}, "
            f'got the shape {tuple(error_map.shape)}; give it reduction="none".'
        )
    return reduce_balanced(
        error_map,
        pixel_class,
        n_classes,
        valid=valid,
        balance=balance,
        pixel_weight=pixel_weight,
        class_count=class_count,
        reduction=reduction,
        return_parts=return_parts,
        is_clean=not callable(error),
        may_overwrite=not callable(error),
    )


def _resolve_error(error: str | ErrorMap) -> ErrorMap:
    if callable(error):
        return error
    check_choice("error", error, _ERRORS)
    return _ERRORS[error]


def _resolve_partition(
    partition: str | Partition, balance: Balance, n_classes: int | None
) -> tuple[Partition | None, int]:
    """The function that labels pixels, None for labels of the call, and the number of classes."""
    if not callable(partition):
        check_choice("partition", partition, ("hits", "labels"))
    if partition == "hits":
        partition = Hits()
    known = getattr(partition, "n_classes", None)
    if n_classes is None:
        n_classes = known
    if n_classes is None and balance.weight is not None:
        n_classes = len(balance.weight)
    if n_classes is None:
        raise ValueError(
            f"Expected `n_classes` (or a balance with weights) with partition={partition!r}, "
            "got none: the number of classes cannot be read from one batch."
        )
    if known is not None and n_classes != known:
        raise ValueError(
            f"Expected `n_classes` of {known} with partition={partition!r}, got {n_classes}."
        )
    if n_classes < 1:
        raise ValueError(f"Expected `n_classes` of at least 1, got {n_classes}.")
    balance.check_n_classes(n_classes)
    return partition if callable(partition) else None, n_classes


class BalancedRegressionLoss(Loss):
    """Regression error in which every class of pixels counts by its weight, not by its size.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error(p_i, t_i)

    See `balanced_regression_loss` for the arguments. At call time: `label`, `mask`,
    `pixel_weight`, `class_count`, `return_parts`.

    Example:
        >>> loss = BalancedRegressionLoss("huber", ValueBins([0.5, 1.5]))
        >>> loss(torch.zeros(3), torch.tensor([0.0, 1.0, 2.0]))
        tensor(0.6667)
    """

    shown = ("error", "partition", "balance", "n_classes", "ignore_index", "reduction")

    def __init__(
        self,
        error: str | ErrorMap = "mse",
        partition: str | Partition = "hits",
        balance: Balance | None = None,
        *,
        n_classes: int | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_reduction(reduction)
        _resolve_error(error)
        self.balance = Balance() if balance is None else balance
        _, self.n_classes = _resolve_partition(partition, self.balance, n_classes)
        check_ignore_index(ignore_index)
        self.error = error
        self.partition = partition
        self.ignore_index = ignore_index

    @shows_options(CallOptions)
    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        label: Tensor | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """The loss of values of any shape; see `balanced_regression_loss` for the options."""
        check_options(type(self).__name__, options, CallOptions)
        return balanced_regression_loss(
            prediction,
            target,
            error=self.error,
            partition=self.partition,
            balance=self.balance,
            n_classes=self.n_classes,
            label=label,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            **options,
        )
