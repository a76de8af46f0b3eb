"""Squared error balanced over the outcomes of a thresholded prediction: TP, FP, FN, TN."""

from __future__ import annotations

from typing import Any, Literal, Unpack, get_args

from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.losses.core.balance import Balance, Combine, Scope, check_reduction
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.options import (
    CallOptions,
    ReducedCallOptions,
    check_options,
    shows_options,
)
from dense_imb.losses.core.partition import Outcome
from dense_imb.losses.named.regression import balanced_regression_loss

OutcomeCombine = Literal["mean", "sum", "carrot_stick"]

# how each of TP, FP, FN, TN combines; the frame goes with the classes marked "mean"
_COMBINE: dict[str, Combine | tuple[Combine, ...]] = {
    "mean": "mean",
    "sum": "sum",
    "carrot_stick": ("mean", "sum", "sum", "mean"),
}


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
    """Mean squared error balanced over what became of each pixel.

        loss = 1/K sum_o  w_o mean_{i of outcome o} (p_i - t_i)^2,   o in TP, FP, FN, TN

    A pixel is predicted where p > threshold, and true where t != 0. An outcome that the batch lacks
    adds nothing.

    Args:
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        tp_weight, fp_weight, fn_weight, tn_weight: w_o.
        frame_weight: weight of one more term, the mean squared error of the full frame.
        threshold: above it a prediction counts as a hit.
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
    return balanced_regression_loss(
        prediction,
        target,
        partition=Outcome(threshold),
        balance=_balance(tp_weight, fp_weight, fn_weight, tn_weight, frame_weight, combine, scope),
        **options,
    )


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
    """Mean squared error balanced over what became of each pixel.

        loss = 1/K sum_o  w_o mean_{i of outcome o} (p_i - t_i)^2,   o in TP, FP, FN, TN

    See `outcome_balanced_mse_loss` for the arguments. At call time: `mask`, `pixel_weight`,
    `class_count`, `return_parts`.

    Example:
        >>> loss = OutcomeBalancedMSELoss(fn_weight=2.0, combine="carrot_stick")
        >>> loss(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 1.0]))
        tensor(2.2500)
    """

    shown = ("partition", "balance", "reduction")

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

    @shows_options(CallOptions)
    def forward(self, prediction: Tensor, target: Tensor, **options: Unpack[CallOptions]) -> Any:
        """The loss of values of any shape; see `balanced_regression_loss` for the options."""
        check_options(type(self).__name__, options, CallOptions)
        return balanced_regression_loss(
            prediction,
            target,
            partition=self.partition,
            balance=self.balance,
            reduction=self.reduction,
            **options,
        )
