"""The head of a network: the layer that turns features into its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def head_of(network: nn.Module) -> nn.Module:
    """The last layer with weights, in the order in which a network lists its layers.

    Its input are the features, of the same width at every pixel.

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
    """The size that a network pads a frame to, behind its far edges: what its features cover.

    That of networks without a method `padded` is the frame's own.

    Example:
        >>> from dense_imb.models import FastUNet
        >>> padded_frame(FastUNet(8, 1), (128, 88))
        (128, 96)
    """
    padded: Any = getattr(network, "padded", tuple)
    return tuple(padded(frame))
