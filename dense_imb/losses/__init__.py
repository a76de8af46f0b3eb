"""Losses for images in which almost every pixel is of the wrong class.

    loss = sum over classes c of  w_c * mean over the pixels of class c of  error(pixel)

A loss is an error map, a partition of the pixels into classes, and a `Balance` that says how the
class means combine. Functions hold the formulas, Modules store their arguments. `dense-imb losses`
lists the Modules.
"""

from dense_imb.losses.acb_mse import ACBMSELoss, acb_mse_loss
from dense_imb.losses.balance import Balance, Parts, balanced_mean
from dense_imb.losses.outcome import OutcomeBalancedMSELoss, outcome_balanced_mse_loss
from dense_imb.losses.partition import Hits, Outcome, ValueBins
from dense_imb.losses.regression import BalancedRegressionLoss, balanced_regression_loss

__all__ = [
    "ACBMSELoss",
    "Balance",
    "BalancedRegressionLoss",
    "Hits",
    "Outcome",
    "OutcomeBalancedMSELoss",
    "Parts",
    "ValueBins",
    "acb_mse_loss",
    "balanced_mean",
    "balanced_regression_loss",
    "outcome_balanced_mse_loss",
]
