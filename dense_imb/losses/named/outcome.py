"""Squared error balanced over the outcomes of a thresholded prediction: TP, FP, FN, TN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Unpack, get_args

from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.losses.core.balance import Balance, Combine, Scope, check_reduction
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.options import (
    ReducedCallOptions,
    ValueCallOptions,
    check_options,
    shows_options,
)
from dense_imb.losses.core.value_loss import is_nonzero, mean_of_values
from dense_imb.losses.named.acb_mse import squared_error

OutcomeCombine = Literal["mean", "sum", "carrot_stick"]

# TP, FP, FN, TN: entries marked "mean" share one mean, to which the frame belongs
_COMBINE: dict[str, Combine | tuple[Combine, ...]] = {
    "mean": "mean",
    "sum": "sum",
    "carrot_stick": ("mean", "sum", "sum", "mean"),
}


@dataclass(frozen=True)
class Outcome:
    """Four classes, the outcomes of a thresholded prediction: 0 TP, 1 FP, 2 FN, 3 TN.

    A pixel is predicted where prediction > threshold, and true where target != 0.

    Example:
        >>> Outcome()(torch.tensor([0.9, 0.9, 0.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0]))
        tensor([0, 1, 2, 3], dtype=torch.int32)
    """

    threshold: float = 0.0
    n_classes = 4

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        is_missed = (prediction.detach() <= self.threshold).int()
        return 2 * is_missed + (~is_nonzero(target)).int()


def _mean(
    prediction: Tensor, target: Tensor, partition: Outcome, balance: Balance, **options: Any
) -> Any:
    return mean_of_values(
        squared_error, partition, prediction, target, n_classes=4, balance=balance, **options
    )


@shows_options(ReducedCallOptions)
def outcome_balanced_mse_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    tp_weight: float = 1.0,
    fp_weight: float = 1.0,
    fn_weight: float = 1.0,
    tn_weight: float = 1.0,
    frame_weight: float = 0.0,
    threshold: float = 0.0,
    combine: OutcomeCombine = "mean",
    scope: Scope = "batch",
    **options: Unpack[ReducedCallOptions],
) -> Any:
    """Mean squared error balanced over the outcome of each pixel.

        loss = 1/K sum_o  w_o mean_{i of outcome o} (p_i - t_i)^2,   o in TP, FP, FN, TN

    A pixel is predicted where p > threshold, and true where t != 0. An outcome without a pixel in
    the batch adds nothing.

    Args:
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        tp_weight, fp_weight, fn_weight, tn_weight: w_o.
        frame_weight: weight of one more term, the mean squared error of the full frame.
        threshold: a prediction above it counts as a hit.
        combine: "mean": K is the number of terms present, the frame's included; "sum": K = 1;
            "carrot_stick": the mean of TP, TN and frame, plus the sum of FP and FN.
        scope: see `Balance`.
        options: `mask`, `pixel_weight`, `class_count`, `reduction` and `return_parts`, see
            `balanced_regression_loss`.

    Example:
        >>> p, t = torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([3.0, 0.0, 0.0, 0.0])
        >>> outcome_balanced_mse_loss(p, t, combine="sum")
        tensor(8.)
    """
    check_options("the loss", options, ReducedCallOptions)
    balance = _balance(tp_weight, fp_weight, fn_weight, tn_weight, frame_weight, combine, scope)
    return _mean(prediction, target, Outcome(threshold), balance, **options)


def _balance(
    tp_weight: float,
    fp_weight: float,
    fn_weight: float,
    tn_weight: float,
    frame_weight: float,
    combine: OutcomeCombine,
    scope: Scope,
) -> Balance:
    check_choice("combine", combine, get_args(OutcomeCombine))
    weights = {"tp": tp_weight, "fp": fp_weight, "fn": fn_weight, "tn": tn_weight}
    for outcome, weight in weights.items():
        check_at_least(f"{outcome}_weight", weight, 0)
    return Balance(
        weight=tuple(weights.values()),
        scope=scope,
        combine=_COMBINE[combine],
        frame_weight=frame_weight,
    )


class OutcomeBalancedMSELoss(Loss):
    """Mean squared error balanced over the outcome of each pixel.

        loss = 1/K sum_o  w_o mean_{i of outcome o} (p_i - t_i)^2,   o in TP, FP, FN, TN

    See `outcome_balanced_mse_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `return_parts`.

    Example:
        >>> loss = OutcomeBalancedMSELoss(fn_weight=2.0, combine="carrot_stick")
        >>> loss(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 1.0]))
        tensor(2.2500)
    """

    shown = ("partition", "balance", "reduction")
    no_probability = "the weight of a pixel depends on its prediction"

    def __init__(
        self,
        tp_weight: float = 1.0,
        fp_weight: float = 1.0,
        fn_weight: float = 1.0,
        tn_weight: float = 1.0,
        *,
        frame_weight: float = 0.0,
        threshold: float = 0.0,
        combine: OutcomeCombine = "mean",
        scope: Scope = "batch",
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_reduction(reduction)
        self.partition = Outcome(threshold)
        self.balance = _balance(
            tp_weight, fp_weight, fn_weight, tn_weight, frame_weight, combine, scope
        )

    @shows_options(ValueCallOptions)
    def forward(
        self, prediction: Tensor, target: Tensor, **options: Unpack[ValueCallOptions]
    ) -> Any:
        """Return the loss of values; see `balanced_regression_loss` for shapes and options."""
        check_options(type(self).__name__, options, ValueCallOptions)
        return _mean(
            prediction, target, self.partition, self.balance, reduction=self.reduction, **options
        )
