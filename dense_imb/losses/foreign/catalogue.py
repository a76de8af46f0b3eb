"""Every public loss in one line, as `dense-imb losses` prints it, and the input of each loss."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One loss: name of its Module, input, formula and source."""

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
        "BalancedMSELoss",
        "values",
        "mean_i (p_i - t_i)^2 + 2 s^2 log sum_j exp(-(p_i - t_j)^2 / 2 s^2)",
        "Ren et al. 2022, on a sample of the pixels",
    ),
    Entry(
        "OutcomeBalancedMSELoss",
        "values",
        "1/K sum_o w_o mean_{outcome o} (p - t)^2,  o in TP, FP, FN, TN",
        "DeepClean3D",
    ),
    Entry(
        "CrossEntropyLoss",
        "logits",
        "mean -log p_y,  p = softmax(z)",
        "torch's own, with a balance",
    ),
    Entry(
        "FocalLoss",
        "logits",
        "mean -alpha (1 - p_y)^gamma log p_y",
        "Lin et al. 2017",
    ),
    Entry(
        "HardMiningLoss",
        "logits",
        "mean -alpha h(p_y)^gamma log p_y,  h = sinc(p) - exp(-delta p) sinc(delta p)",
        "Foahom Gouabou et al. 2022",
    ),
    Entry(
        "ComplementCrossEntropyLoss",
        "logits",
        "mean -log p_y + f/C entropy(softmax of the wrong classes)",
        "Kim et al. 2020",
    ),
    Entry(
        "BalancedSoftmaxLoss",
        "logits",
        "mean -log softmax(z + tau log prior)_y",
        "Ren et al. 2020, Menon et al. 2021",
    ),
    Entry(
        "ClassDependentTemperatureLoss",
        "logits",
        "mean -log softmax(z / n^power)_y",
        "Ye et al. 2020",
    ),
    Entry(
        "BiasCompensatedLoss",
        "logits",
        "(1 - a) CE(z + log prior - log test prior) + a CE(z),  a = progress^2",
        "class imbalance alleviation, compensated loss",
    ),
    Entry(
        "LDAMLoss",
        "logits",
        "mean -log softmax(s (z - m onehot(y)))_y,  m_k ~ n_k^(-1/4)",
        "Cao et al. 2019",
    ),
    Entry(
        "PixelLoss",
        "logits",
        "mean phi(log softmax(adjust(z))_y)",
        "any penalty on any adjustment",
    ),
    Entry(
        "RegionLoss",
        "logits",
        "1/K sum_k w_k (1 - index(tp_k, fp_k, fn_k, tn_k))^gamma",
        "Dice, Jaccard, Tversky, Matthews, GeneralizedDice or any formula",
    ),
    Entry(
        "DiceLoss",
        "logits",
        "1/K sum_k 1 - 2 tp_k / (2 tp_k + fp_k + fn_k)",
        "Milletari et al. 2016",
    ),
    Entry(
        "TverskyLoss",
        "logits",
        "1/K sum_k (1 - tp_k / (tp_k + alpha fp_k + beta fn_k))^gamma",
        "Salehi et al. 2017, Abraham and Khan 2019",
    ),
    Entry(
        "RangeLoss",
        "features",
        "w k / sum_{j<=k} 1/D_j of each class + v max(margin - D of the closest centres, 0)",
        "Zhang et al. 2017",
    ),
    Entry(
        "CompoundLoss",
        "logits",
        "sum_j w_j loss_j(z, y)",
        "any losses, ours and other libraries'",
    ),
)

# the input of each of our losses, by name
OUR_INPUTS = {entry.name: entry.feeds_on for entry in CATALOGUE}
# torch.nn has mostly losses of values, distances and sequences; these take logits
_TORCH_LOGITS = ("CrossEntropyLoss", "NLLLoss", "NLLLoss2d", "BCEWithLogitsLoss")
_KORNIA_VALUES = (
    "CauchyLoss",
    "CharbonnierLoss",
    "GemanMcclureLoss",
    "HausdorffERLoss",
    "HausdorffERLoss3D",
    "InverseDepthSmoothnessLoss",
    "MS_SSIMLoss",
    "PSNRLoss",
    "SSIM3DLoss",
    "SSIMLoss",
    "WelschLoss",
)


def feeding_rule(module: str | None, name: str) -> str:
    """Return the input of a loss by name alone: "logits", "values" or "features".

    Our losses are looked up in the catalogue. Losses of torch take values, except for
    CrossEntropyLoss, NLLLoss and BCEWithLogitsLoss. Those regression losses of kornia that are
    listed here take values. All other losses take logits.

    Args:
        module: import path, None for a loss of `dense_imb.losses`.
        name: name of the class.

    Example:
        >>> feeding_rule(None, "ACBMSELoss"), feeding_rule("monai.losses", "DiceLoss")
        ('values', 'logits')
    """
    package = "dense_imb" if module is None else module.split(".")[0]
    if package == "dense_imb":
        return OUR_INPUTS.get(name, "logits")
    if package == "torch":
        return "logits" if name in _TORCH_LOGITS else "values"
    return "values" if package == "kornia" and name in _KORNIA_VALUES else "logits"
