"""Short names of losses, accepted wherever a loss is typed; `dense-imb compare` prints them."""

from __future__ import annotations

from dense_imb.base.refusals import nearest
from dense_imb.losses.foreign.catalogue import OUR_INPUTS

_DICE = "monai.losses:DiceLoss(softmax=True, to_onehot_y=True, include_background=False)"

# each stands for the text of one loss
SHORT_NAMES: dict[str, str] = {
    "cross-entropy": "CrossEntropyLoss",
    "balanced cross-entropy": "CrossEntropyLoss(balance={})",
    "weighted cross-entropy": "CrossEntropyLoss(class_weight='inverse')",
    "focal": "FocalLoss(gamma=2.0)",
    "balanced softmax": "BalancedSoftmaxLoss",
    "hard mining": "HardMiningLoss",
    "balanced hard mining": "HardMiningLoss(balance={})",
    "complement cross-entropy": "ComplementCrossEntropyLoss",
    "balanced complement cross-entropy": "ComplementCrossEntropyLoss(balance={})",
    "class-dependent temperature": "ClassDependentTemperatureLoss",
    "LDAM": "LDAMLoss",
    "ACB-MSE": "ACBMSELoss",
    "Balanced MSE": "BalancedMSELoss",
    "MSE": "torch.nn:MSELoss",
    "MAE": "torch.nn:L1Loss",
    "Dice": _DICE,
    "DiceCE": _DICE.replace("DiceLoss", "DiceCELoss"),
    "Tversky": _DICE.replace("DiceLoss(", "TverskyLoss(alpha=0.3, beta=0.7, "),
}
_BY_LOWER = {name.lower(): text for name, text in SHORT_NAMES.items()}


def full_text(name: str) -> str | None:
    """Return the text of the loss that a short name stands for; None for other texts.

    Upper and lower case count as equal.

    Example:
        >>> full_text("Balanced Softmax"), full_text("FocalLoss")
        ('BalancedSoftmaxLoss', None)
    """
    return _BY_LOWER.get(name.strip().lower())


def suggest_loss(name: str) -> str:
    """Return " Did you mean ...?" with the nearest name of a loss, or "" where none is near.

    The ending "Loss" is left out of the comparison, because nearly all names share it.

    Example:
        >>> suggest_loss("TverskyLos"), suggest_loss("FocalLss")
        (" Did you mean 'TverskyLoss'?", " Did you mean 'FocalLoss'?")
    """
    stems = {_stem(one): one for one in [*SHORT_NAMES, *OUR_INPUTS]}  # ours win
    near = nearest(_stem(name), stems)
    return "" if near is None else f" Did you mean {stems[near]!r}?"


def _stem(name: str) -> str:
    lower = name.lower()
    for ending in ("loss", "los", "lss"):
        lower = lower.removesuffix(ending)
    return lower.strip()
