"""Every public loss in one line: what `dense-imb losses` prints."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One loss: its Module's name, what it is fed, its formula and where it was published."""

    name: str
    feeds_on: str  # "values": (prediction, target); "logits": (logits, target)
    formula: str
    source: str


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        "ACBMSELoss",
        "values",
        "w_e mean_{t=0} (p - t)^2 + w_h mean_{t!=0} (p - t)^2",
        "ACB-MSE, package acb-mse",
    ),
    Entry(
        "BalancedRegressionLoss",
        "values",
        "1/K sum_c w_c mean_{class c} error(p, t)",
        "the same for N classes and any error",
    ),
    Entry(
        "OutcomeBalancedMSELoss",
        "values",
        "1/K sum_o w_o mean_{outcome o} (p - t)^2,  o in TP, FP, FN, TN",
        "DeepClean3D",
    ),
)
