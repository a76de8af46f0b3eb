"""Parts of a sum of losses that are formulas of class sums, from one softmax and one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses.core.penalty import CrossEntropy
from dense_imb.losses.core.penalty_sums import value_of_errors, window_of_errors
from dense_imb.losses.core.pixel_loss import PixelLoss
from dense_imb.losses.core.region import Numbers, RegionLoss, region_pixels
from dense_imb.losses.core.target import PixelTarget, check_are_logits

_SHARED = ("mask", "pixel_weight", "instance", "window")  # options that one pass serves


def share_a_softmax(losses: Mapping[str, nn.Module], options: Mapping[str, Any]) -> bool:
    """Whether the losses are formulas of class sums of the same probabilities."""
    parts = list(losses.values())
    regions = [part for part in parts if isinstance(part, RegionLoss)]
    others = [value for name, value in options.items() if name not in _SHARED]
    if not regions or any(value is not None and value is not False for value in others):
        return False
    first = regions[0]
    if len(regions) > 1 and any(part.per == "instance" for part in regions):
        return False
    return all(_is_like(part, first) for part in parts)


def _is_like(part: nn.Module, region: RegionLoss) -> bool:
    """Whether a part takes its sums from the same softmax as a region loss."""
    if isinstance(part, PixelLoss):
        is_of_images = part.balance is not None and part.balance.scope == "image"
        if not is_formula_of_sums(part) or (region.per == "instance" and is_of_images):
            return False
    elif not isinstance(part, RegionLoss):
        return False
    return part.adjustment == region.adjustment and part.ignore_index == region.ignore_index


def is_formula_of_sums(loss: PixelLoss) -> bool:
    """Whether a loss of pixels is a formula of the sums of its penalty over the classes."""
    is_plain = type(loss).error is PixelLoss.error and loss.per == "pixel" and loss.spread is None
    return is_plain and loss.reduction in ("mean", "sum")


def values_of_parts(
    losses: Mapping[str, nn.Module], logits: Tensor, target: Tensor, options: Mapping[str, Any]
) -> dict[str, Tensor] | None:
    """Return the value of each part; None for a soft target, for which there is no fast form."""
    window = options.get("window")
    shared = _shared_sums(losses, logits, target, options)
    if shared is None:
        return None
    pixels, numbers, errors = shared
    values = {}
    for place, (name, loss) in enumerate(losses.items()):
        seen = None if window is None else window.numbers[place]
        if isinstance(loss, RegionLoss):
            value, _ = loss.value_of(numbers, seen)
        else:
            assert isinstance(loss, PixelLoss)
            value = value_of_errors(loss, *errors[name], window=seen)
        values[name] = value.to(pixels.logits.dtype)
    return values


def windows_of_parts(
    losses: Mapping[str, nn.Module], logits: Tensor, target: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, ...] | None:
    """Return each part's sums of one call, which add up to those of a window."""
    with torch.no_grad():
        shared = _shared_sums(losses, logits, target, options)
        if shared is None:
            return None
        _, numbers, errors = shared
        windows = []
        for name, loss in losses.items():
            if isinstance(loss, RegionLoss):
                windows.append(loss.window_of(numbers))
            else:
                assert isinstance(loss, PixelLoss)
                windows.append(window_of_errors(loss, *errors[name]))
        return tuple(windows)


def _shared_sums(
    losses: Mapping[str, nn.Module], logits: Tensor, target: Tensor, options: Mapping[str, Any]
) -> tuple[PixelTarget, Numbers, dict[str, tuple[Tensor, Tensor]]] | None:
    """Return the pixels, the sums of the region losses, and mass and error of the others."""
    regions = [part for part in losses.values() if isinstance(part, RegionLoss)]
    points = {name: part for name, part in losses.items() if isinstance(part, PixelLoss)}
    if any(part.validate for part in losses.values()):
        check_are_logits(logits)
    pixels = region_pixels(
        logits,
        target,
        adjustment=regions[0].adjustment,
        ignore_index=regions[0].ignore_index,
        mask=options.get("mask"),
        pixel_weight=options.get("pixel_weight"),
        soft_for='a loss with per="instance"' if regions[0].per == "instance" else None,
    )
    if pixels.probability is not None:
        return None
    # the one with rows of images serves all
    by_image = [part for part in regions if part.by_image]
    wants_images = any(
        part.balance is not None and part.balance.scope == "image" for part in points.values()
    )
    penalties = tuple(
        None if isinstance(part.penalty, CrossEntropy) else part.penalty for part in points.values()
    )
    numbers = (by_image or regions)[0].numbers(
        pixels, options.get("instance"), penalties, by_image=len(by_image) > 0 or wants_images
    )
    errors = {
        name: (numbers.mass, error) for name, error in zip(points, numbers.errors, strict=True)
    }
    return pixels, numbers, errors
