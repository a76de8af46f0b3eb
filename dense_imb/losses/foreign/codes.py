"""Loss codes: the short names under which the hard mining paper's tables list their losses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Unpack

from dense_imb.losses.core.class_weights import class_weights
from dense_imb.losses.core.counts import class_counts_of
from dense_imb.losses.core.options import MeanOptions, check_options, shows_options
from dense_imb.losses.core.pixel_loss import ClassificationLoss
from dense_imb.losses.named.cross_entropy import CrossEntropyLoss
from dense_imb.losses.named.focal import FocalLoss
from dense_imb.losses.named.hard_mining import HardMiningLoss
from dense_imb.losses.named.ldam import LDAMLoss

_HARD_MINING = re.compile(r"hmld(?P<delta>\d+)g(?P<gamma>\d+)(?:a(?P<alpha>\d+))?")
_FOCAL = re.compile(r"flg(?P<gamma>\d+)(?:a(?P<alpha>\d+))?")
_BALANCED_FOCAL = re.compile(r"CBFLossg(?P<gamma>\d+)")


@shows_options(MeanOptions)
def loss_from_code(
    code: str, class_counts: Any = None, **options: Unpack[MeanOptions]
) -> ClassificationLoss:
    """Return the loss that a code names.

    | code | loss |
    | --- | --- |
    | ce | cross-entropy |
    | csce | cross-entropy weighted by inverse class frequency |
    | flg2a50 | focal, gamma 2, alpha 0.50 |
    | hmld10000000g05a75 | hard mining, delta 1e7, gamma 0.5, alpha 0.75 |
    | CBLoss | cross-entropy weighted by the effective number of samples |
    | CBFLossg05 | focal, gamma 0.5, with the weights of CBLoss |
    | LDAM-RW | LDAM with the weights of CBLoss |

    A gamma of 05 is 0.5, of 1 is 1, of 2 is 2. An alpha of 75 is 0.75; the default is 1. The
    effective number is (1 - beta^n) / (1 - beta) with beta = 0.9999.

    Args:
        code: one of the table.
        class_counts: pixels (or images) of each class, for the codes with weights or margins.
        options: `ignore_index`, `balance`, `reduction`; see `pixel_loss`.

    Example:
        >>> loss_from_code("hmld10000000g05a75").penalty
        HardMining(alpha=0.75, gamma=0.5, delta=10000000.0)
    """
    if not isinstance(code, str):
        raise TypeError(f"Expected `code` to be a string, got {type(code).__name__}.")
    check_options("the loss", options, MeanOptions)
    if match := _HARD_MINING.fullmatch(code):
        delta = float(match["delta"])
        return HardMiningLoss(_alpha(match), _gamma(match), delta, **options)
    if match := _FOCAL.fullmatch(code):
        return FocalLoss(_alpha(match), _gamma(match), **options)
    if code == "ce":
        return CrossEntropyLoss(**options)
    if code == "csce":
        return CrossEntropyLoss(**_weighted(options, class_weights(_counts(code, class_counts))))
    if code == "CBLoss":
        weight = class_weights(_counts(code, class_counts), "effective")
        return CrossEntropyLoss(**_weighted(options, weight))
    if match := _BALANCED_FOCAL.fullmatch(code):
        weight = class_weights(_counts(code, class_counts), "effective")
        return FocalLoss(1.0, _gamma(match), **_weighted(options, weight))
    if code == "LDAM-RW":
        counts = _counts(code, class_counts)
        return LDAMLoss(counts, **_weighted(options, class_weights(counts, "effective")))
    raise ValueError(
        "Expected `code` to be ce, csce, CBLoss, LDAM-RW or of the form flg2, flg2a50, "
        f"hmld10000000g05, hmld10000000g05a75 or CBFLossg05, got {code!r}."
    )


def is_code(text: str) -> bool:
    """Whether a text is a code of `loss_from_code`.

    Example:
        >>> is_code("csce"), is_code("focal")
        (True, False)
    """
    patterns = (_HARD_MINING, _FOCAL, _BALANCED_FOCAL)
    is_plain = text in ("ce", "csce", "CBLoss", "LDAM-RW")
    return is_plain or any(pattern.fullmatch(text) for pattern in patterns)


def _gamma(match: re.Match[str]) -> float:
    """Convert 05 to 0.5, 1 to 1, 2 to 2."""
    digits = match["gamma"]
    return float(f"0.{digits[1:]}") if digits.startswith("0") and len(digits) > 1 else float(digits)


def _alpha(match: re.Match[str]) -> float:
    """Convert 75 to 0.75, none to 1."""
    digits = match["alpha"]
    return 1.0 if digits is None else float(f"0.{digits}")


def _counts(code: str, class_counts: Any) -> tuple[float, ...]:
    if class_counts is None:
        raise ValueError(f"The code {code!r} needs `class_counts`; pass the pixels of each class.")
    return class_counts_of(class_counts)


def _weighted(options: MeanOptions, weight: tuple[float, ...]) -> MeanOptions:
    """Return the options with a class weight, inside the balance if there is one."""
    if options.get("class_weight") is not None or getattr(options.get("balance"), "weight", None):
        raise ValueError(
            "The code sets the class weights; drop `class_weight` and the weight of `balance`."
        )
    weighted = options.copy()
    balance = options.get("balance")
    if balance is None:
        weighted["class_weight"] = weight
    else:
        weighted["balance"] = replace(balance, weight=weight)
    return weighted
