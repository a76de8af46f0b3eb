"""Soft targets, the class probabilities of pixels, for any loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses.foreign.feeding import Intake, feed, intake_of

_SIDE = 32  # side length of the images on which a loss is tried


def feed_soft(
    loss: nn.Module,
    intake: Intake,
    logits: Tensor,
    probability: Tensor,
    options: Mapping[str, Any],
) -> Any:
    """Return the loss of logits (B, C, *spatial) and soft targets of the same shape.

    With C = 1 the target is the probability of the second of two classes.
    """
    if "mask" in options and "mask" not in intake.takes:
        raise ValueError(
            f"`{intake.name}` takes no `mask`, which mixing needs to ignore pixels; use a loss of "
            "dense_imb, or label all pixels."
        )
    if intake.takes_shares and logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
        probability = torch.cat([1 - probability, probability], 1)
    return feed(loss, intake, logits, probability, options)


def check_takes_soft(loss: nn.Module, n_channels: int, spatial_dims: int = 2) -> None:
    """Refuse a loss that cannot take the soft targets of mixing, by trying it on some.

    Args:
        loss: a loss of ours or of another library.
        n_channels: number of channels of the logits.
        spatial_dims: number of spatial dimensions of the logits, 0 for whole images.
    """
    intake = intake_of(loss)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((2, n_channels, *(_SIDE,) * spatial_dims), generator=rng)
    share = torch.rand(logits.shape, generator=rng)
    probability = share.softmax(1) if n_channels > 1 else share
    label = probability.argmax(1) if n_channels > 1 else (share[:, 0] > 0.5).long()
    problem = _problem(loss, lambda tried: feed_soft(tried, intake, logits, probability, {}))
    if problem is None or _problem(loss, lambda tried: feed(tried, intake, logits, label, {})):
        return  # labels fail too: not because of mixing
    why = "takes one class for each pixel"
    if "soft" not in problem and "probabilities" not in problem:
        why = f"raised: {problem.splitlines()[0].rstrip('.')}"
    raise ValueError(
        f"Expected a loss that takes the soft targets of `mixing`, got {intake.name}, which "
        f"{why}; CrossEntropyLoss, FocalLoss and HardMiningLoss take them, with any balance."
    )


def _problem(loss: nn.Module, call: Callable[[nn.Module], Any]) -> str | None:
    """Return the message with which a copy of the loss refuses a call, else None."""
    tried = copy.deepcopy(loss).cpu()
    try:
        with torch.no_grad():
            call(tried)
    except (ValueError, TypeError, RuntimeError) as problem:
        return str(problem)
    return None
