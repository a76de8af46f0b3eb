"""Instance maps: the number of the object that each pixel belongs to, checked and bounded.

A map holds 0 for pixels of no instance and 1 .. R for the instances of an image. Numbers of
different images have nothing to do with each other.
"""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_choice,
    check_devices,
    check_tensor,
    is_plain_eager,
    values_are_readable,
)
from dense_imb.losses.core.target import without_channel

Per = Literal["pixel", "instance"]

_LARGEST = 2**31 - 1  # of int32
_warned: set[int] = set()  # bounds that a warning has named; 0 for uncovered foreground
_LEAST_COVER = 0.5  # fraction of the foreground pixels in an instance, below which a map is odd


class InstanceMapWarning(UserWarning):
    """An instance map that leaves pixels of the foreground without an instance."""


class InstanceMap(NamedTuple):
    """A checked instance map."""

    number: Tensor  # (B, *spatial) int32, from 0 to n_slots - 1
    n_slots: int  # R + 1, the same for every image
    is_cut: bool = False  # whether numbers beyond the bound became 0, which a warning has said


def instance_map(
    instance: Tensor, pixels: Tensor, *, max_instances: int | None, valid: Tensor | None = None
) -> InstanceMap:
    """Check the instance map of a call.

    Args:
        instance: integers, (B, *spatial) or (B, 1, *spatial).
        pixels: a tensor of the shape (B, *spatial).
        max_instances: see `bounded_instances`.
        valid: (B, *spatial), False at ignored pixels, whose numbers are not read.
    """
    instance = bare(instance)
    check_tensor("instance", instance)
    instance = without_channel("instance", instance, pixels)
    check_devices("logits", pixels, instance=instance)
    return bounded_instances(instance, max_instances=max_instances, valid=valid)


def bounded_instances(
    instance: Tensor, *, max_instances: int | None, valid: Tensor | None = None
) -> InstanceMap:
    """Check the numbers of an instance map whose shape is checked.

    Args:
        instance: integers, (B, *spatial); a negative number is refused where values can be read
            without waiting for an accelerator, and is 0 elsewhere.
        max_instances: largest number, R. Larger ones become 0, with a warning where values can be
            read. By default the map's own maximum, which an accelerator has to be waited for.
            Numbers beyond the pixels of an image, like hashes, are renumbered then.
        valid: False at ignored pixels, whose numbers are not read.
    """
    if instance.is_floating_point() or instance.is_complex() or instance.dtype == torch.bool:
        cure = "number its components" if instance.dtype == torch.bool else "call .long() on it"
        raise TypeError(
            f"Expected `instance` to be an integer map, got {instance.dtype}; {cure} first."
        )
    if instance.dtype not in (torch.int32, torch.int64):  # narrow types wrap in a comparison
        wide = instance.dtype in (torch.uint32, torch.uint64)
        instance = instance.to(torch.int64 if wide else torch.int32)
    if valid is not None:
        instance = torch.where(valid, instance, 0)
    if max_instances is None:
        return _bounded_by_itself(instance)
    if values_are_readable(instance) and instance.numel() > 0:
        low, high = (int(bound) for bound in torch.aminmax(instance))
        _check_not_negative(low)
        if high <= max_instances:
            return InstanceMap(instance.int(), max_instances + 1)
        _warn_of_more(instance, max_instances)
        return _within(instance, max_instances, is_cut=True)
    return _within(instance, max_instances)


def _within(instance: Tensor, max_instances: int, *, is_cut: bool = False) -> InstanceMap:
    """Return the map with 0 for numbers outside 0 .. max_instances."""
    within = (instance >= 0) & (instance <= max_instances)
    return InstanceMap(torch.where(within, instance, 0).int(), max_instances + 1, is_cut)


def check_per(per: str, max_instances: int | None) -> None:
    """Refuse an unknown `per`, and a bound of instances that are not there."""
    check_choice("per", per, get_args(Per))
    check_max_instances(max_instances)
    if max_instances is not None and per != "instance":
        raise ValueError(
            f'Expected per="instance" with max_instances={max_instances}, got {per!r}.'
        )


def check_instance_given(
    per: str, instance: object, loss: str = "The loss", cure: str = 'use per="instance"'
) -> None:
    """Refuse a call whose instance map is missing, or has no meaning.

    Args:
        per: option of the loss.
        instance: map of the call.
        loss: name of the loss, at the beginning of a sentence.
        cure: change of the loss that makes it take a map.
    """
    if per == "instance" and instance is None:
        raise ValueError(
            'Expected `instance` with per="instance", got none: call the loss as '
            "loss(prediction, target, instance=map)."
        )
    if per != "instance" and instance is not None:
        raise ValueError(f"{loss} takes no `instance`; drop it or {cure}.")


def check_max_instances(value: object) -> None:
    """Refuse a bound that is neither None nor a whole number of at least 1."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `max_instances` to be a whole number, got {value!r}.")
    if not 1 <= value < _LARGEST:
        raise ValueError(f"Expected `max_instances` from 1 to {_LARGEST - 1}, got {value}.")


def number_cells(label: Tensor, instances: InstanceMap, width: int) -> Tensor:
    """Number the cells (image, instance, label) of the pixels, (B, *spatial).

        cell = (image * n_slots + instance) * width + label

    Args:
        label: (B, *spatial), integers from 0 to width - 1.
        instances: map of the instances.
        width: number of different labels.
    """
    n_images, row = label.shape[0], instances.n_slots * width
    # int64 arithmetic on maps costs as much as a softmax
    dtype = torch.int32 if n_images * row <= _LARGEST else torch.int64
    cell = torch.add(label.to(dtype), instances.number.to(dtype), alpha=width)
    if n_images > 1:
        first = torch.arange(n_images, dtype=dtype, device=label.device) * row
        cell = cell.add_(first.view(-1, *[1] * (label.dim() - 1)))
    return cell


def _bounded_by_itself(instance: Tensor) -> InstanceMap:
    """Return the map with its own maximum as its bound."""
    if instance.device.type == "meta" or not is_plain_eager():
        raise ValueError(
            "Expected `max_instances` where the values of `instance` cannot be read "
            "(torch.compile, torch.export, torch.func, meta tensors), got none."
        )
    if instance.numel() == 0:
        return InstanceMap(instance.int(), 1)
    low, high = torch.stack(torch.aminmax(instance)).tolist()
    _check_not_negative(low)
    if high > instance.numel() // instance.shape[0]:
        flat = torch.cat([instance.new_zeros(1), instance.reshape(-1)])
        values, inverse = torch.unique(flat, return_inverse=True)
        return InstanceMap(inverse[1:].view_as(instance).int(), len(values))
    return InstanceMap(instance.int(), high + 1)


def _check_not_negative(lowest: int) -> None:
    if lowest < 0:
        raise ValueError(
            f"Expected `instance` numbers of at least 0, got {lowest}; pixels of no instance are "
            "0, and `mask` excludes pixels."
        )


def _warn_of_more(instance: Tensor, max_instances: int) -> None:
    """Warn once that a map holds more instances than its bound."""
    if max_instances in _warned:
        return
    _warned.add(max_instances)
    n_beyond = torch.unique(instance[instance > max_instances]).numel()
    numbers = "number" if n_beyond == 1 else "numbers"
    warnings.warn(
        f"`max_instances` is {max_instances}, and the map holds {n_beyond} larger instance "
        f"{numbers}, up to {int(instance.max())}: their pixels count as pixels of no instance. "
        "This is said once; raise max_instances.",
        InstanceMapWarning,
        stacklevel=2,
    )


def warn_of_uncovered(size: Tensor, instances: InstanceMap) -> None:
    """Warn once if less than half of the foreground of a batch belongs to an instance.

    Args:
        size: pixels of each (image, instance, class), (B, R + 1, C); class 0 is the background.
        instances: map that was counted.
    """
    if not values_are_readable(size) or instances.is_cut or 0 in _warned:
        return
    foreground = size.detach()[..., 1:].sum((0, 2))  # (R + 1,)
    total, uncovered = float(foreground.sum()), float(foreground[0])
    if not total - uncovered < _LEAST_COVER * total:
        return
    _warned.add(0)
    warnings.warn(
        f"{100 * (1 - uncovered / total):.0f} % of the foreground pixels have an instance; was "
        "the map flipped with the label? Crop, flip and shuffle both alike, or make the map of "
        "the label after that, with label_instances. This is said once.",
        InstanceMapWarning,
        stacklevel=2,
    )
