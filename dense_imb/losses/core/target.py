"""The contract of every classification loss: which shapes and types mean what.

Logits are (B, C, *spatial) with any number of spatial dimensions, C = 1 meaning binary. A target
holds class indices, (B, *spatial) or (B, 1, *spatial), of any integer type or whole floats, or one
number for each class, (B, C, *spatial): one-hot or probabilities. With C = 1 a float target is the
probability of the foreground, and everything counts two classes, [background, foreground].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_floating,
    check_label_range,
    check_tensor,
    values_are_readable,
    widen_half,
)
from dense_imb.losses.core.balance import both, valid_pixels

SUM_TOLERANCE = 1e-2  # probabilities may come from float16


class PixelTarget(NamedTuple):
    """Logits and target after the contract: of at least two classes, clean where not valid."""

    logits: Tensor  # (B, C, *spatial), float32 or wider
    label: Tensor  # (B, *spatial) int64, always legal
    slot: Tensor  # label, but C where not valid, and C + 1 where illegal and not refused
    probability: Tensor | None  # (B, C, *spatial) where the target is soft
    valid: Tensor | None  # (B, *spatial) bool; None where every pixel is
    pixel_weight: Tensor | None  # (B, *spatial)

    @property
    def n_classes(self) -> int:
        return self.logits.shape[1]


def pixel_target(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    soft_for: str | None = None,
) -> PixelTarget:
    """Apply the contract. `soft_for` names a loss that refuses soft targets."""
    logits, target = bare(logits), bare(target)
    mask, pixel_weight = bare(mask), bare(pixel_weight)
    check_floating("logits", logits)
    check_tensor("target", target)
    if logits.dim() < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"Expected `logits` of the shape (B, C, *spatial), got {tuple(logits.shape)}."
        )
    if target.is_complex():
        raise TypeError(f"Expected `target` to be real, got {target.dtype}.")
    logits = widen_half(logits)
    is_binary = logits.shape[1] == 1
    pixels = logits[:, 0]  # (B, *spatial), for its shape
    if is_binary:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    n_classes = logits.shape[1]

    mask = None if mask is None else without_channel("mask", mask, pixels)
    if pixel_weight is not None:
        pixel_weight = without_channel("pixel_weight", pixel_weight, pixels)
    valid = valid_pixels(pixels, "target", mask, pixel_weight)

    probability = None
    if target.shape == logits.shape and not is_binary:
        label, valid, probability = _of_each_class(target, n_classes, ignore_index, valid, soft_for)
    else:
        target = without_channel("target", target, pixels, shown=logits)
        if ignore_index is not None:
            valid = both(valid, target != ignore_index)
        if is_binary and target.is_floating_point():
            label, probability = _of_foreground(target, valid, soft_for)
        else:
            label = _of_indices(target, n_classes, valid)

    if valid is not None and pixel_weight is None and values_are_readable(valid):
        valid = None if bool(valid.all()) else valid  # nothing to leave out
    slot = label
    if valid is not None:
        logits = torch.where(valid.unsqueeze(1), logits, 0.0)
        slot = torch.where(valid, label, n_classes)
        label = torch.where(valid, label, 0)
        if probability is not None:
            probability = torch.where(valid.unsqueeze(1), probability, 0.0)
    if not values_are_readable(label):
        label = label.clamp(0, n_classes - 1)
    if probability is not None:
        probability = probability.to(logits.dtype)
    return PixelTarget(logits, label, slot, probability, valid, pixel_weight)


def check_are_logits(logits: Tensor) -> None:
    """Refuse what looks like probabilities, where looking is free.

    All of it lies in [0, 1], and either sums to 1 over the channels or spreads over at least a
    quarter of [0, 1] in at least 64 numbers. One constant number, a fresh network's, may be both.
    """
    check_floating("logits", logits)
    if not values_are_readable(logits) or logits.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(logits.detach()))
    if not (low >= 0 and high <= 1 and low < high):  # NaN is the loss's to show
        return
    sums_to_one = False
    if logits.dim() > 1 and logits.shape[1] > 1:
        sums_to_one = bool(((widen_half(logits.detach()).sum(1) - 1).abs() < SUM_TOLERANCE).all())
    if sums_to_one or (high - low >= 0.25 and logits.numel() >= 64):
        last = "softmax" if logits.dim() > 1 and logits.shape[1] > 1 else "sigmoid"
        raise ValueError(
            f"Expected `logits`, got {logits.numel()} numbers from {low:.3g} to {high:.3g}, which "
            f"look like probabilities; leave the network's last {last} away, or pass "
            "`validate=False`."
        )


def without_channel(
    name: str, value: Tensor, pixels: Tensor, shown: Tensor | None = None
) -> Tensor:
    """View (B, 1, *spatial) as (B, *spatial)."""
    check_tensor(name, value)
    if value.dim() == pixels.dim() + 1 and value.shape[1] == 1:
        value = value.squeeze(1)
    if value.shape == pixels.shape:
        return value
    batch, *spatial = pixels.shape
    accepted = f"{(batch, *spatial)} or {(batch, 1, *spatial)}"
    if shown is not None:
        accepted = f"{(batch, *spatial)}, {(batch, 1, *spatial)} or {tuple(shown.shape)}"
    raise ValueError(
        f"Expected `{name}` of the shape {accepted}, got {tuple(value.shape)}"
        f"{_cure_of_shape(name, value, pixels, shown)}."
    )


def _cure_of_shape(name: str, value: Tensor, pixels: Tensor, shown: Tensor | None) -> str:
    """What to do about a channel dimension of the wrong size or in the wrong place."""
    batch, *spatial = pixels.shape
    if value.dim() != pixels.dim() + 1 or not spatial:
        return ""
    if shown is not None and tuple(value.shape) == (batch, *spatial, shown.shape[1]):
        return f"; its channels are the last dimension: {name}.movedim(-1, 1)"
    if tuple(value.shape) == (batch, *spatial, 1):
        return f"; its channel is the last dimension: {name}.squeeze(-1)"
    if shown is not None and (value.shape[0], *value.shape[2:]) == (batch, *spatial):
        return (
            f"; its {value.shape[1]} channels are neither one nor the {shown.shape[1]} classes of "
            "the logits"
        )
    return ""


def _of_indices(target: Tensor, n_classes: int, valid: Tensor | None) -> Tensor:
    """Indices of any type, as int64; n_classes + 1 where illegal and not refused."""
    is_whole = None
    if target.is_floating_point():
        is_whole = target == target.round()  # False for NaN
        if values_are_readable(target):
            is_broken = ~is_whole if valid is None else ~is_whole & valid
            if bool(is_broken.any()):
                raise ValueError(
                    f"Expected `target` to hold class indices, got {float(target[is_broken][0])}; "
                    "probabilities need one channel for each class."
                )
    label = target.long()
    if values_are_readable(label):
        check_label_range("target", label, n_classes, valid)
        return label
    is_legal = (label >= 0) & (label < n_classes)
    if is_whole is not None:
        is_legal = is_legal & is_whole
    return torch.where(is_legal, label, n_classes + 1)


def _of_foreground(
    target: Tensor, valid: Tensor | None, soft_for: str | None
) -> tuple[Tensor, Tensor | None]:
    """Label and probability of a binary target of floats, the foreground's probability."""
    is_hard = (target == 0) | (target == 1)
    label = (target > 0.5).long()
    if values_are_readable(target):
        used = target if valid is None else target[valid]
        if not bool(((used >= 0) & (used <= 1)).all()):
            low, high = float(used.min()), float(used.max())
            raise ValueError(
                "Expected `target` of binary logits between 0 and 1, got values from "
                f"{low:g} to {high:g}; map a mask of 0 and {high:g} with (target > 0), or pass "
                "`ignore_index`."
            )
        if bool((is_hard if valid is None else is_hard | ~valid).all()):
            return label, None
        _check_takes_soft(soft_for)
    else:
        is_legal = (target >= 0) & (target <= 1) if soft_for is None else is_hard
        label = torch.where(is_legal, label, 3)
        if soft_for is not None:
            return label, None
    return label, torch.stack([1 - target, target], 1)


def _of_each_class(
    target: Tensor,
    n_classes: int,
    ignore_index: int | None,
    valid: Tensor | None,
    soft_for: str | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Label, valid pixels and probability of a target with one channel for each class."""
    probability = target.float() if not target.is_floating_point() else target
    highest, label = probability.max(1)
    if ignore_index is not None:
        valid = both(valid, label != ignore_index)
    is_sound = (probability.sum(1) - 1).abs() <= SUM_TOLERANCE
    is_sound = is_sound & (probability.amin(1) >= 0)
    is_one_hot = is_sound & (highest == 1)
    if values_are_readable(target):
        for_all = is_sound if valid is None else is_sound | ~valid
        if not bool(for_all.all()):
            broken = probability.movedim(1, -1)[~for_all][0]
            raise ValueError(
                "Expected `target` to hold probabilities that sum to 1 over the classes, got "
                f"{[round(value, 4) for value in broken.tolist()]} at a pixel."
            )
        if soft_for is not None:
            if not bool((is_one_hot if valid is None else is_one_hot | ~valid).all()):
                _check_takes_soft(soft_for)
            return label, valid, None
    else:
        label = torch.where(is_sound if soft_for is None else is_one_hot, label, n_classes + 1)
        if soft_for is not None:
            return label, valid, None
    return label, valid, probability


def _check_takes_soft(soft_for: str | None) -> None:
    if soft_for is not None:
        raise ValueError(
            f"Expected `target` to hold one class for each pixel, got probabilities: {soft_for} "
            "has no formula for soft targets; use their argmax, or another loss."
        )
