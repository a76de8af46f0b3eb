"""Losses for images in which almost every pixel is of the wrong class.

    loss = sum over classes c of  w_c * mean over the pixels of class c of  error(pixel)

A loss is an error map, a partition of the pixels into classes, and a `Balance` that says how the
class means combine. Functions hold the formulas, Modules store their arguments. `dense-imb losses`
lists the Modules.
"""

from dense_imb.losses.core.balance import Balance, Parts, balanced_mean
from dense_imb.losses.core.class_weights import class_weights
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.core.overlap import (
    Dice,
    GeneralizedDice,
    Index,
    Jaccard,
    Matthews,
    Overlap,
    Tversky,
)
from dense_imb.losses.core.penalty import CrossEntropy
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss
from dense_imb.losses.core.region import RegionLoss, overlap, region_loss
from dense_imb.losses.foreign.codes import loss_from_code
from dense_imb.losses.foreign.compound import CompoundLoss
from dense_imb.losses.named.acb_mse import ACBMSELoss, Hits, acb_mse_loss
from dense_imb.losses.named.balanced_mse import BalancedMSELoss, balanced_mse_loss
from dense_imb.losses.named.balanced_softmax import (
    BalancedSoftmaxLoss,
    LogPrior,
    balanced_softmax_loss,
)
from dense_imb.losses.named.bias_compensated import BiasCompensatedLoss, bias_compensated_loss
from dense_imb.losses.named.class_dependent_temperature import (
    ClassDependentTemperatureLoss,
    Temperature,
    class_dependent_temperature_loss,
)
from dense_imb.losses.named.complement_cross_entropy import (
    ComplementCrossEntropyLoss,
    complement_cross_entropy_loss,
)
from dense_imb.losses.named.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from dense_imb.losses.named.dice import DiceLoss
from dense_imb.losses.named.focal import Focal, FocalLoss, focal_loss
from dense_imb.losses.named.hard_mining import HardMining, HardMiningLoss, hard_mining_loss
from dense_imb.losses.named.ldam import LDAMLoss, Margin, ldam_loss
from dense_imb.losses.named.linear import Linear
from dense_imb.losses.named.outcome import (
    Outcome,
    OutcomeBalancedMSELoss,
    outcome_balanced_mse_loss,
)
from dense_imb.losses.named.range_loss import RangeLoss, range_loss
from dense_imb.losses.named.regression import (
    BalancedRegressionLoss,
    balanced_regression_loss,
)
from dense_imb.losses.named.tversky import TverskyLoss
from dense_imb.losses.named.value_bins import Kernel, ValueBins
from dense_imb.losses.spread import Hardest, WorstNeighbour

__all__ = [
    "ACBMSELoss",
    "Balance",
    "BalancedMSELoss",
    "BalancedRegressionLoss",
    "BalancedSoftmaxLoss",
    "BiasCompensatedLoss",
    "ClassDependentTemperatureLoss",
    "ComplementCrossEntropyLoss",
    "CompoundLoss",
    "Cover",
    "CrossEntropy",
    "CrossEntropyLoss",
    "Dice",
    "DiceLoss",
    "Focal",
    "FocalLoss",
    "GeneralizedDice",
    "HardMining",
    "HardMiningLoss",
    "Hardest",
    "Hits",
    "Index",
    "Jaccard",
    "Kernel",
    "LDAMLoss",
    "Linear",
    "LogPrior",
    "Margin",
    "Matthews",
    "Outcome",
    "OutcomeBalancedMSELoss",
    "Overlap",
    "Parts",
    "PixelLoss",
    "RangeLoss",
    "RegionLoss",
    "Temperature",
    "Tversky",
    "TverskyLoss",
    "ValueBins",
    "WorstNeighbour",
    "acb_mse_loss",
    "balanced_mean",
    "balanced_mse_loss",
    "balanced_regression_loss",
    "balanced_softmax_loss",
    "bias_compensated_loss",
    "class_dependent_temperature_loss",
    "class_weights",
    "complement_cross_entropy_loss",
    "cross_entropy_loss",
    "focal_loss",
    "hard_mining_loss",
    "ldam_loss",
    "loss_from_code",
    "outcome_balanced_mse_loss",
    "overlap",
    "pixel_loss",
    "range_loss",
    "region_loss",
]
