"""The contract of every classification loss: accepted shapes and types, and their meaning.

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
    check_devices,
    check_floating,
    check_label_range,
    check_tensor,
    is_other,
    values_are_readable,
    widen_half,
)
from dense_imb.losses.core.pixels import both, valid_pixels

SUM_TOLERANCE = 1e-2  # probabilities may come from float16
_LONGEST_LIST = 6  # numbers that an error shows of a pixel


class PixelTarget(NamedTuple):
    """Logits and target after the contract: at least two classes, clean where not valid."""

    logits: Tensor  # (B, C, *spatial), float32 or wider; C = 1 only where wanted
    label: Tensor  # (B, *spatial) int64, always legal
    slot: Tensor  # label, but C where not valid, and C + 1 where illegal and not refused
    probability: Tensor | None  # (B, C, *spatial) where the target is soft
    valid: Tensor | None  # (B, *spatial) bool; None where every pixel is
    pixel_weight: Tensor | None  # (B, *spatial)
    n_classes: int  # a field, since torch 2.10 cannot trace a property of a NamedTuple


def pixel_target(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    soft_for: str | None = None,
    keep_binary: bool = False,
) -> PixelTarget:
    """Apply the contract to logits and target.

    Args:
        logits, target, ignore_index, mask, pixel_weight: see `pixel_loss`.
        soft_for: name of the loss, if it refuses soft targets.
        keep_binary: leave binary logits in one channel, unless the target is soft.
    """
    logits, target = bare(logits), bare(target)
    mask, pixel_weight = bare(mask), bare(pixel_weight)
    check_not_swapped("logits", logits, target)
    check_floating("logits", logits)
    check_tensor("target", target)
    check_devices("logits", logits, target=target, mask=mask, pixel_weight=pixel_weight)
    if logits.dim() < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"Expected `logits` of the shape (B, C, *spatial), got {tuple(logits.shape)}."
        )
    logits = widen_half(logits)
    is_binary = logits.shape[1] == 1
    pixels = logits[:, 0]  # (B, *spatial), for its shape
    if is_binary and not keep_binary:
        logits = _two_channels(logits)
    n_classes = max(logits.shape[1], 2)

    mask = None if mask is None else without_channel("mask", mask, pixels)
    if pixel_weight is not None:
        pixel_weight = without_channel("pixel_weight", pixel_weight, pixels)
    valid = valid_pixels(pixels, "target", mask, pixel_weight)

    probability = None
    if target.shape == logits.shape and not is_binary:
        label, valid, probability = _from_channels(target, logits, ignore_index, valid, soft_for)
    else:
        target = without_channel("target", target, pixels, shown=logits)
        if ignore_index is not None:
            valid = both(valid, is_other(target, ignore_index))
        if is_binary and target.is_floating_point():
            label, probability = _from_foreground(target, logits, valid, soft_for)
            if probability is not None and keep_binary:
                logits = _two_channels(logits)
        else:
            label = _from_indices(target, n_classes, valid)

    if valid is not None and pixel_weight is None and values_are_readable(valid):
        valid = None if bool(valid.all()) else valid  # nothing is ignored
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
    return PixelTarget(logits, label, slot, probability, valid, pixel_weight, n_classes)


def _two_channels(logits: Tensor) -> Tensor:
    """Return [0, z], the same model in two channels."""
    return torch.cat([torch.zeros_like(logits), logits], 1)


def check_not_swapped(name: str, prediction: object, target: object) -> None:
    """Refuse a label map in place of the prediction, by its type or its missing channels."""
    if not (isinstance(prediction, Tensor) and isinstance(target, Tensor)):
        return
    if not target.is_floating_point() or prediction.is_complex():
        return
    if prediction.is_nested or target.is_nested:  # without a shape; refused by their own check
        return
    without_channels = (*target.shape[:1], *target.shape[2:])
    lacks_channels = target.dim() > 2 and tuple(prediction.shape) == without_channels
    if not prediction.is_floating_point() or (lacks_channels and name == "logits"):
        raise _swapped(name, prediction, target)


def _check_values_not_swapped(logits: Tensor, target: Tensor) -> None:
    """Refuse a label map in place of the logits, by its values.

    Called for input that is refused anyway. `logits` are those after the contract, in which one
    channel has become two.
    """
    # zeros are the logits of a blank network
    if _is_label_map(logits) and bool(logits.any()) and not _is_label_map(target):
        raise _swapped("logits", logits, target)


def _swapped(name: str, prediction: Tensor, target: Tensor) -> TypeError:
    wanted = "before `target`, got a label map of"
    if not prediction.is_floating_point():
        wanted = "to be floating point, got"
    return TypeError(
        f"Expected `{name}` {wanted} {prediction.dtype} with a `target` of {target.dtype} and the "
        f"shape {tuple(target.shape)}, which look swapped; call the loss as loss({name}, target)."
    )


def _is_label_map(value: Tensor) -> bool:
    """Whether all values are whole numbers from 0 up, where values can be read."""
    if not values_are_readable(value) or value.numel() == 0:
        return False
    value = value.detach()
    return bool(((value >= 0) & (value == value.round())).all())


def check_are_logits(logits: Tensor) -> None:
    """Refuse logits that look like probabilities, where reading values is free.

    They do if all lie in [0, 1], and either sum to 1 over the channels or spread over at least a
    quarter of [0, 1] in at least 64 numbers. A constant may be a logit of a fresh network: it
    passes.
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
            f"look like probabilities; drop the network's last {last}, or pass "
            "`validate=False`."
        )


def without_channel(
    name: str, value: Tensor, pixels: Tensor, shown: Tensor | None = None
) -> Tensor:
    """View (B, 1, *spatial) as (B, *spatial).

    Args:
        name: name of the tensor in errors.
        value: the tensor.
        pixels: a tensor of the shape (B, *spatial).
        shown: the logits, where `value` is a target.
    """
    check_tensor(name, value)
    if value.dim() == pixels.dim() + 1 and value.shape[1] == 1:
        value = value.squeeze(1)
    if value.shape == pixels.shape:
        return value
    if shown is not None and value.dim() == pixels.dim() + 1:
        _check_values_not_swapped(shown, value)
    batch, *spatial = pixels.shape
    accepted = f"{(batch, *spatial)} or {(batch, 1, *spatial)}"
    if shown is not None:
        accepted = f"{(batch, *spatial)}, {(batch, 1, *spatial)} or {tuple(shown.shape)}"
    raise ValueError(
        f"Expected `{name}` of the shape {accepted}, got {tuple(value.shape)}"
        f"{_cure_of_shape(name, value, pixels, shown)}."
    )


def _cure_of_shape(name: str, value: Tensor, pixels: Tensor, shown: Tensor | None) -> str:
    """Return the cure of a channel dimension of the wrong size or in the wrong place."""
    batch, *spatial = pixels.shape
    if shown is not None and _are_stacked(shown, value):
        return (
            "; the logits have one dimension more than those of this target: if they are stacked "
            "outputs of deep supervision, call MONAI's DeepSupervisionLoss(loss) with "
            "list(torch.unbind(logits, 1))"
        )
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


def _are_stacked(logits: Tensor, target: Tensor) -> bool:
    """Whether logits (B, heads, C, *spatial) look like a stack of outputs for the target."""
    if logits.dim() < 5:
        return False
    batch, _, _, *spatial = logits.shape
    return tuple(target.shape) in ((batch, *spatial), (batch, 1, *spatial))


def _from_indices(target: Tensor, n_classes: int, valid: Tensor | None) -> Tensor:
    """Return indices of any type as int64; n_classes + 1 where illegal and not refused."""
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


def _from_foreground(
    target: Tensor, logits: Tensor, valid: Tensor | None, soft_for: str | None
) -> tuple[Tensor, Tensor | None]:
    """Return label and probability of a float target, the foreground's probability."""
    is_hard = (target == 0) | (target == 1)
    label = (target > 0.5).long()
    if values_are_readable(target):
        used = target if valid is None else target[valid]
        if not bool(((used >= 0) & (used <= 1)).all()):
            _check_values_not_swapped(logits, target)
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


def _from_channels(
    target: Tensor,
    logits: Tensor,
    ignore_index: int | None,
    valid: Tensor | None,
    soft_for: str | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return label, valid pixels and probability of a target with one channel for each class."""
    probability = target.float() if not target.is_floating_point() else target
    highest, label = probability.max(1)
    if ignore_index is not None:
        valid = both(valid, is_other(label, ignore_index))
    is_sound = (probability.sum(1) - 1).abs() <= SUM_TOLERANCE
    is_sound = is_sound & (probability.amin(1) >= 0)
    is_one_hot = is_sound & (highest == 1)
    if values_are_readable(target):
        is_fine = is_sound if valid is None else is_sound | ~valid
        if not bool(is_fine.all()):
            _check_values_not_swapped(logits, target)
            broken = probability.movedim(1, -1)[~is_fine][0]
            raise ValueError(
                "Expected `target` to hold probabilities that sum to 1 over the classes, got "
                f"{_numbers_text(broken)} at a pixel"
                f"{_cure_of_sums(probability)}."
            )
        if soft_for is not None:
            if not bool((is_one_hot if valid is None else is_one_hot | ~valid).all()):
                _check_takes_soft(soft_for)
            return label, valid, None
    else:
        label = torch.where(
            is_sound if soft_for is None else is_one_hot, label, logits.shape[1] + 1
        )
        if soft_for is not None:
            return label, valid, None
    return label, valid, probability


def _numbers_text(values: Tensor) -> str:
    """Return the numbers of a pixel as a list, the first ones of many classes."""
    shown = [f"{round(value, 4)}" for value in values[:_LONGEST_LIST].tolist()]
    return f"[{', '.join(shown)}{', ...' if len(values) > _LONGEST_LIST else ''}]"


def _cure_of_sums(target: Tensor) -> str:
    """Return the cure of a target in the shape of the logits that is no class probability."""
    if bool((target != target.round()).any()) or float(target.min()) < 0:
        return ""
    is_mask = float(target.max()) <= 1
    if target.dim() == 3 or not is_mask:
        cure = "; the logits lack the class dimension, (B, C, *spatial)"
        return f"{cure}: a binary network has logits.unsqueeze(1)" if is_mask else cure
    return (
        f"; logits {tuple(target.shape)} are read as {target.shape[1]} classes: if the channel is "
        "missing, use logits.unsqueeze(1); a multilabel target needs one call a channel, of "
        "binary logits: the mean of loss(logits[:, k:k+1], target[:, k:k+1])"
    )


def _check_takes_soft(soft_for: str | None) -> None:
    if soft_for is not None:
        raise ValueError(
            f"Expected `target` to hold one class for each pixel, got probabilities: {soft_for} "
            "has no formula for soft targets; use their argmax, or another loss."
        )
