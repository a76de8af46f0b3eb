"""Refusals of losses per instance where there are no instances."""

from __future__ import annotations

from torch import nn

from dense_imb.base.refusals import Refused, refusal
from dense_imb.data.epochs.mixing import Mixing
from dense_imb.losses.foreign.feeding import wants_instances


def check_instances_not_mixed(mixing: Mixing) -> None:
    """Refuse mixing of images with a loss per instance: two objects would share a pixel."""
    if mixing.kind != "none":
        raise Refused(
            "no mixing of images with a loss per instance",
            f"{mixing.kind}, in which objects of two images share pixels",
            "drop {mixing.kind}, or take a loss without `per`",
        )


def check_per_class(loss: nn.Module, what: str, why: str, cure: str) -> None:
    """Refuse a loss per instance where there is no map of instances.

    Args:
        loss: a loss.
        what: its place, for example "a loss of whole images".
        why: reason why there are no instances.
        cure: cure, with options in braces.
    """
    if wants_instances(loss):
        raise refusal(f'{what[0].upper()}{what[1:]} takes no per="instance": {why}; {cure}.')


def check_pseudo_loss(loss: nn.Module) -> None:
    """Refuse a loss of pseudo-labels per instance."""
    check_per_class(
        loss,
        "a loss of pseudo-labels",
        "objects that a teacher labels in part have no components",
        "add {unlabelled.loss=CrossEntropyLoss}",
    )
