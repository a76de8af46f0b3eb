"""Balanced regression: the mean of any error map over classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_choice,
    check_devices,
    check_ignore_index,
    expand_pixels,
    is_plain_eager,
)
from dense_imb.losses.core.balance import Balance, check_balance, check_groups, check_reduction
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.core.instances import Per, check_per
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.natural import value_probability
from dense_imb.losses.core.options import CallOptions, check_options, shows_options
from dense_imb.losses.core.spread import Spread, check_spread, check_spreads_classes
from dense_imb.losses.core.value_loss import ErrorMap, Partition, mean_of_values
from dense_imb.losses.named.acb_mse import Hits, squared_error, weights_of_values
from dense_imb.losses.named.value_bins import ValueBins


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    # not l1_loss: its gradient at NaN is sign(NaN) = 0, which hides the NaN from the optimizer
    difference = prediction - target
    known = difference.detach()
    # the sign, and NaN where it is NaN: a third of the time of sign() and where();
    # below 1 / max, among the denormal numbers, it rises from 0 to 1
    sign = known * torch.finfo(known.dtype).max
    sign = sign.clamp_(-1, 1) if is_plain_eager() else sign.clamp(-1, 1)  # vmap has no clamp_
    return difference * sign


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(prediction, target, reduction="none")


_ERRORS: dict[str, ErrorMap] = {"mse": squared_error, "l1": _absolute, "huber": _huber}


def balanced_regression_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    error: str | ErrorMap = "mse",
    partition: str | Partition | Cover = "hits",
    balance: Balance | None = None,
    n_classes: int | None = None,
    spread: Spread | None = None,
    label: Tensor | None = None,
    per: Per = "pixel",
    max_instances: int | None = None,
    instance: Tensor | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    reduction: str = "mean",
    return_parts: bool = False,
) -> Any:
    """Regression error in which a class of pixels counts by its weight, not by its size.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error(p_i, t_i)

    Args:
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        error: "mse", "l1", "huber" or a function (prediction, target) -> error of each pixel.
        partition: "hits" (target = 0, target != 0), "labels" (the `label` of the call), "masks"
            (the overlapping cells of the `label`, see `Cover`), `Cover`, `ValueBins`, `Outcome` or
            a function (prediction, target) -> label of each pixel.
        balance: rule by which class means combine; by default the mean over the classes present.
        n_classes: number of classes; needed for labels or a function, if `balance` has no weights.
        label: class of each pixel, with partition="labels"; masks or bit field of a cover.
        per: "pixel", or "instance" for class means over instances, of which each counts the same.
        max_instances: with per="instance", bound of the numbers in `instance`, see `pixel_loss`.
        instance: with per="instance", the object of each pixel, integers, (B, *spatial) or
            (B, 1, *spatial); 0 for none.
        spread: `Hardest(share)` or `WorstNeighbour(size)`, by which pixels share their errors
            before the mean; none by default.
        ignore_index: label of ignored pixels.
        mask: nonzero where a pixel counts. Others are ignored, even if they hold NaN.
        pixel_weight: weight of each pixel within its class, at least 0.
        class_count: pixels of each class in a whole window of gradient accumulation.
        reduction: "mean" for the loss, "none" for the map of contributions whose sum is the loss.
        return_parts: return `Parts` (value, class_mean, class_count) instead of the value.

    Example:
        >>> t = torch.tensor([0.0, 0.0, 0.0, 2.0])
        >>> balanced_regression_loss(torch.ones(4), t, error="l1")
        tensor(1.)
    """
    balance = Balance() if balance is None else balance
    check_spread(spread)
    classify, n_classes = _resolve_partition(partition, balance, n_classes)
    if isinstance(partition, ValueBins):
        balance = partition.weigh(balance)
    return mean_of_values(
        _resolve_error(error),
        _given_label(bare(label)) if classify is None else classify,
        prediction,
        target,
        n_classes=n_classes,
        balance=balance,
        label=label if isinstance(classify, Cover) else None,
        per=per,
        max_instances=max_instances,
        instance=instance,
        spread=spread,
        is_of_difference=not callable(error),
        ignore_index=ignore_index,
        mask=mask,
        pixel_weight=pixel_weight,
        class_count=class_count,
        reduction=reduction,
        return_parts=return_parts,
    )


def _given_label(label: Tensor | None) -> Partition:
    """Return a partition by the label map of the call."""

    def classify(prediction: Tensor, target: Tensor) -> Tensor:
        if label is None:
            raise ValueError(
                'Expected `label` with partition="labels", got none: call the loss as '
                "loss(prediction, target, label=label)."
            )
        check_devices("prediction", prediction, label=label)
        return expand_pixels("label", label, prediction, "prediction")

    return classify


def _resolve_error(error: str | ErrorMap) -> ErrorMap:
    if callable(error):
        return error
    check_choice("error", error, _ERRORS)
    return _ERRORS[error]


def _resolve_partition(
    partition: str | Partition | Cover, balance: Balance, n_classes: int | None
) -> tuple[Partition | Cover | None, int]:
    """Return the function that labels pixels and the number of classes.

    The function is None for labels that come with the call, and a cover for cells that do.
    """
    check_balance(balance)
    if isinstance(partition, dict | Balance):
        raise TypeError(
            'Expected `partition` to be "hits", "labels", "masks", ValueBins, a Cover or a '
            f"function, got {partition!r}; give a balance by its name, balance=Balance()."
        )
    if not (callable(partition) or isinstance(partition, Cover)):
        check_choice("partition", partition, ("hits", "labels", "masks"))
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
    if partition == "masks":
        partition = Cover(n_classes)
    return None if isinstance(partition, str) else partition, n_classes


class BalancedRegressionLoss(Loss):
    """Regression error in which a class of pixels counts by its weight, not by its size.

        loss = sum_c  w_c / K  *  mean over the pixels of class c of error(p_i, t_i)

    See `balanced_regression_loss` for the arguments. At call time: `label`, `mask`,
    `pixel_weight`, `class_count`, `instance`, `return_parts`.

    Example:
        >>> loss = BalancedRegressionLoss("huber", ValueBins([0.5, 1.5]))
        >>> loss(torch.zeros(3), torch.tensor([0.0, 1.0, 2.0]))
        tensor(0.6667)
    """

    shown: tuple[str, ...] = (
        "error", "partition", "balance", "n_classes", "spread", "ignore_index", "reduction",
    )  # fmt: skip
    spread: Spread | None = None
    no_probability = "its outputs are values, not logits"

    def __init__(
        self,
        error: str | ErrorMap = "mse",
        partition: str | Partition | Cover = "hits",
        balance: Balance | None = None,
        *,
        n_classes: int | None = None,
        per: Per = "pixel",
        max_instances: int | None = None,
        spread: Spread | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_reduction(reduction)
        _resolve_error(error)
        self.balance = Balance() if balance is None else balance
        groups, self.n_classes = _resolve_partition(partition, self.balance, n_classes)
        if isinstance(partition, ValueBins):
            partition.weigh(self.balance)
        check_spread(spread)
        check_ignore_index(ignore_index)
        check_per(per, max_instances)
        check_groups(groups if isinstance(groups, Cover) else None, per, None, ignore_index)
        check_spreads_classes(spread, groups if isinstance(groups, Cover) else None, per)
        self.per = per
        self.max_instances = max_instances
        if per == "instance":
            self.shown = (*self.shown, "per", "max_instances")
        self.error = error
        self.partition = partition
        self.spread = spread
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
        """Return the loss of values; see `balanced_regression_loss` for shapes and options."""
        check_options(type(self).__name__, options, CallOptions)
        return balanced_regression_loss(
            prediction,
            target,
            error=self.error,
            partition=self.partition,
            balance=self.balance,
            n_classes=self.n_classes,
            spread=self.spread,
            label=label,
            per=self.per,
            max_instances=self.max_instances,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            **options,
        )

    def probability(self, logits: Tensor, class_share: Any = None) -> Tensor:
        """Return the natural probability of a hit, for targets of 0 and 1.

        Squared errors of the partition "hits" only, see `ACBMSELoss.probability`. The Huber loss
        is one, as long as no error exceeds 1.

        Args:
            logits: predictions, any shape. They are values, not logits.
            class_share: fractions of empty pixels and of hits, or their counts.
        """
        if self.error not in ("mse", "huber"):
            raise self.refuse_probability(
                f"only squared errors have the mean as their best output, not {self.error!r}"
            )
        if not (self.partition == "hits" or isinstance(self.partition, Hits)):
            raise self.refuse_probability(
                'only the partition "hits" tells targets of 0 from those of 1'
            )
        weight = weights_of_values(self, self.balance, class_share, self.per)
        return value_probability(logits, weight)
