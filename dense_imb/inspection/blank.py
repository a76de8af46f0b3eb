"""Losses of a blank prediction, beside those of a perfect and an undecided one.

These predictions depend only on the true class and value of a pixel. The loss of a whole data set
therefore follows from its counts: one pixel of each kind, weighted by their number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    BalancedSoftmaxLoss,
    BiasCompensatedLoss,
    ClassDependentTemperatureLoss,
    ComplementCrossEntropyLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    HardMiningLoss,
    LDAMLoss,
    OutcomeBalancedMSELoss,
)

CONFIDENCE = 0.99  # probability of the predicted class
# excess of blank over perfect; that of undecided is 1
_LOOKS_GOOD, _LOOKS_BAD = 0.25, 1.0

ValueLoss = Callable[..., Any]


def _mean_of(error: Callable[[Tensor], Tensor]) -> ValueLoss:
    def loss(prediction: Tensor, target: Tensor, *, pixel_weight: Tensor) -> Tensor:
        return (pixel_weight * error(prediction - target)).sum() / pixel_weight.sum()

    return loss


# losses by the Python expression that makes them
_VALUE_LOSSES: Mapping[str, ValueLoss] = {
    "torch.nn.MSELoss()": _mean_of(torch.square),
    "torch.nn.L1Loss()": _mean_of(torch.abs),
    "ACBMSELoss()": ACBMSELoss(),
    "BalancedRegressionLoss()": BalancedRegressionLoss(),
    "OutcomeBalancedMSELoss()": OutcomeBalancedMSELoss(),
}
_LOGIT_LOSSES: Mapping[str, Callable[[Sequence[int]], Any]] = {
    "CrossEntropyLoss()": lambda counts: CrossEntropyLoss(),
    "CrossEntropyLoss(balance=Balance())": lambda counts: CrossEntropyLoss(balance=Balance()),
    "FocalLoss()": lambda counts: FocalLoss(),
    "FocalLoss(balance=Balance())": lambda counts: FocalLoss(balance=Balance()),
    "HardMiningLoss()": lambda counts: HardMiningLoss(),
    "HardMiningLoss(balance=Balance())": lambda counts: HardMiningLoss(balance=Balance()),
    "ComplementCrossEntropyLoss()": lambda counts: ComplementCrossEntropyLoss(),
    "BalancedSoftmaxLoss(class_counts)": BalancedSoftmaxLoss,
    "BiasCompensatedLoss(class_counts)": BiasCompensatedLoss,
    "ClassDependentTemperatureLoss(class_counts)": ClassDependentTemperatureLoss,
    "LDAMLoss(class_counts)": LDAMLoss,
    "DiceLoss()": lambda counts: DiceLoss(),
    "CompoundLoss(DiceLoss(), CrossEntropyLoss())": lambda counts: CompoundLoss(
        DiceLoss(), CrossEntropyLoss()
    ),
}


class LossRow(NamedTuple):
    """Values of one loss on a whole data set.

    Args:
        loss: Python expression that makes the loss.
        perfect, undecided, blank: loss of such a prediction.
        input: loss of the input itself; None for losses of logits.
    """

    loss: str
    perfect: float
    undecided: float
    blank: float
    input: float | None = None

    @property
    def blank_share(self) -> float:
        """(blank - perfect) / (undecided - perfect); 0 means as good as perfect."""
        span = self.undecided - self.perfect
        return (self.blank - self.perfect) / span if span > 0 else math.nan

    @property
    def verdict(self) -> str:
        """Verdict on a blank prediction by this loss, in words."""
        if math.isnan(self.blank_share):
            return "can't tell"
        if self.blank_share < _LOOKS_GOOD:
            return "blank looks good"
        return "blank looks bad" if self.blank_share > _LOOKS_BAD else "in between"

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {**self._asdict(), "blank_share": self.blank_share, "verdict": self.verdict}


def rows_of_values(
    value: Tensor, wanted_count: Tensor, unwanted_count: Tensor, n_empty: int
) -> list[LossRow]:
    """Return the rows of losses of values between 0 and 1.

    A blank prediction is 0 everywhere, an undecided one 0.5.

    Args:
        value: (K,) values that occur.
        wanted_count: (K,) pixels in which input and target have the value.
        unwanted_count: (K,) pixels in which the input has the value and the target is 0: noise.
        n_empty: pixels in which both are 0.
    """
    zero = torch.zeros(1, dtype=torch.float64)
    value = value.double()
    target = torch.cat([zero, torch.zeros_like(value), value])
    given = torch.cat([zero, value, value])
    weight = torch.cat([zero + n_empty, unwanted_count.double(), wanted_count.double()])
    is_there = weight > 0
    target, given, weight = target[is_there], given[is_there], weight[is_there]
    if not len(weight):
        return []
    predictions = (target, torch.full_like(target, 0.5), torch.zeros_like(target), given)
    return [
        LossRow(name, *(float(loss(p, target, pixel_weight=weight)) for p in predictions))
        for name, loss in _VALUE_LOSSES.items()
    ]


def rows_of_logits(class_counts: Sequence[int]) -> list[LossRow]:
    """Return the rows of losses of logits.

    A blank prediction is confident in class 0 everywhere, an undecided one has logits of 0.

    Example:
        >>> row = rows_of_logits([9900, 100])[0]
        >>> row.loss, round(row.perfect, 3), round(row.undecided, 3), round(row.blank, 3)
        ('CrossEntropyLoss()', 0.01, 0.693, 0.056)
        >>> row.verdict
        'blank looks good'
    """
    n_classes = len(class_counts)
    count = torch.tensor(class_counts, dtype=torch.float64)
    label = torch.arange(n_classes)[count > 0]
    weight = count[count > 0]
    if not len(label) or n_classes < 2:
        return []
    rest = (1 - CONFIDENCE) / (n_classes - 1)
    confident = torch.full((n_classes, n_classes), rest, dtype=torch.float64)
    confident = confident.fill_diagonal_(CONFIDENCE).log()  # row k predicts class k
    predictions = (
        confident[label],
        torch.zeros_like(confident[label]),
        confident[:1].expand(len(label), -1),
    )
    rows = []
    for name, make in _LOGIT_LOSSES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report itself names classes without a pixel
            loss = make(list(class_counts))
        values = (float(loss(p.clone(), label, pixel_weight=weight)) for p in predictions)
        rows.append(LossRow(name, *values))
    return rows
