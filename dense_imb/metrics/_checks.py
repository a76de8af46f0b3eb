"""Checks of scores and logits."""

from __future__ import annotations

import torch
from torch import Tensor

from dense_imb.base.checks import check_floating, check_tensor
from dense_imb.metrics._counts import in_float64


def refuse_class_numbers(
    name: str, value: Tensor, target_name: str = "", target: Tensor | None = None
) -> None:
    """Refuse integers and bools, such as the result of argmax, where scores are expected.

    Args:
        name: name of the argument that should hold scores.
        value: its value.
        target_name: name of the argument that holds the truth, "" without one.
        target: its value; where it is floating point, the error suggests to swap the two.
    """
    check_tensor(name, value)
    if value.is_floating_point() or value.is_complex():
        return
    cure = "pass the output of the network before argmax, rounding or thresholding"
    if isinstance(target, Tensor) and target.is_floating_point():
        cure = f"`{name}` comes before `{target_name}`, swap the two"
    raise TypeError(
        f"Expected `{name}` to be floating point, got class numbers ({value.dtype}); {cure}."
    )


def checked_score(
    score: Tensor, scale: str, target_name: str = "", target: Tensor | None = None
) -> Tensor:
    """Return the scores in float64, the type in which thresholds are compared.

    Raises for NaN, for class numbers, and for scores outside [0, 1] if `scale` is "probability".
    """
    refuse_class_numbers("score", score, target_name, target)
    check_floating("score", score)
    score = in_float64(score)
    if score.numel() == 0:
        return score
    low, high = torch.aminmax(score)
    if bool(low.isnan()):
        raise ValueError("Expected `score` without NaN, got one; look for it in the network.")
    if scale == "probability" and not (bool(low >= 0) and bool(high <= 1)):
        raise ValueError(
            f"Expected `score` between 0 and 1, got {float(low if low < 0 else high):g}; "
            'logits and other real scores need scale="logit".'
        )
    return score
