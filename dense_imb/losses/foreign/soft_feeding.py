"""Feeding any loss, ours or another library's, with probabilities of the classes of pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses.foreign.feeding import Intake, feed, intake_of

_SIDE = 32  # of the pixels on which a loss is tried


def feed_soft(
    loss: nn.Module,
    intake: Intake,
    logits: Tensor,
    probability: Tensor,
    options: Mapping[str, Any],
) -> Any:
    """The value of the loss of logits (B, C, *spatial) and soft targets of the same shape.

    With C = 1 the target is the probability of the second of two classes.
    """
    if "mask" in options and "mask" not in intake.takes:
        raise ValueError(
            f"Expected a loss that takes a `mask` where mixed pixels are ignored, got "
            f"{intake.name}, which has none; use a loss of dense_imb, or label all pixels."
        )
    if intake.takes_shares and logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
        probability = torch.cat([1 - probability, probability], 1)
    return feed(loss, intake, logits, probability, options)


def check_takes_soft(loss: nn.Module, n_channels: int, spatial_dims: int = 2) -> None:
    """Refuse a loss that soft targets, which mixing makes, can't be fed to; it is tried on some.

    Args:
        loss: ours or another library's.
        n_channels: of the logits.
        spatial_dims: of the logits, 0 for whole images.
    """
    intake = intake_of(loss)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((2, n_channels, *(_SIDE,) * spatial_dims), generator=rng)
    share = torch.rand(logits.shape, generator=rng)
    probability = share.softmax(1) if n_channels > 1 else share
    label = probability.argmax(1) if n_channels > 1 else (share[:, 0] > 0.5).long()
    problem = _problem(loss, lambda tried: feed_soft(tried, intake, logits, probability, {}))
    if problem is None or _problem(loss, lambda tried: feed(tried, intake, logits, label, {})):
        return  # what is wrong with labels, too, is no matter of mixing
    why = "wants one class for each pixel"
    if "soft" not in problem and "probabilities" not in problem:
        why = f"says: {problem.splitlines()[0].rstrip('.')}"
    raise ValueError(
        f"Expected a loss that takes the soft targets of `mixing`, got {intake.name}, which "
        f"{why}; CrossEntropyLoss, FocalLoss and HardMiningLoss take them, with any balance."
    )


def _problem(loss: nn.Module, call: Callable[[nn.Module], Any]) -> str | None:
    """What a loss says against a call, in a copy: a call may leave a trace."""
    tried = copy.deepcopy(loss).cpu()
    try:
        with torch.no_grad():
            call(tried)
    except (ValueError, TypeError, RuntimeError) as problem:
        return str(problem)
    return None
