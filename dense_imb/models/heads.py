"""The head of a network, which turns features into the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def head_of(network: nn.Module) -> nn.Module:
    """Return the last layer with weights, in the order of `network.modules()`.

    Its input is the feature map, one feature vector per pixel (or per image).

    Example:
        >>> from dense_imb.models import build_classifier_network
        >>> head_of(build_classifier_network("resnet32", in_channels=3, n_classes=10))
        Linear(in_features=64, out_features=10, bias=True)
    """
    layers = [
        layer
        for layer in network.modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    if not layers:
        raise ValueError(f"Expected a network with weights, got {type(network).__name__}.")
    return layers[-1]


def padded_frame(network: nn.Module, frame: Sequence[int]) -> tuple[int, ...]:
    """Return the size to which a network pads a frame; its feature map covers this size.

    Networks without a method `padded` do not pad.

    Example:
        >>> from dense_imb.models import FastUNet
        >>> padded_frame(FastUNet(8, 1), (128, 88))
        (128, 96)
    """
    padded: Any = getattr(network, "padded", tuple)
    return tuple(padded(frame))
