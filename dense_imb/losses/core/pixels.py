"""Pixels that count, and their labels: masks, weights, ignored and illegal labels."""

from __future__ import annotations

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_floating,
    check_label_range,
    differs_from,
    expand_pixels,
    values_are_readable,
)


def valid_pixels(
    like: Tensor, like_name: str, mask: Tensor | None, pixel_weight: Tensor | None
) -> Tensor | None:
    """Return a mask of the pixels that count, in the shape of `like`; None if all do."""
    valid = None
    if mask is not None:
        valid = expand_pixels("mask", mask, like, like_name).bool()
    if pixel_weight is not None:
        check_floating("pixel_weight", pixel_weight)
        if values_are_readable(pixel_weight) and bool((pixel_weight < 0).any()):
            raise ValueError(
                f"Expected `pixel_weight` of at least 0, got {float(pixel_weight.min())}."
            )
        is_weighted = expand_pixels("pixel_weight", pixel_weight, like, like_name).bool()
        valid = both(valid, is_weighted)
    return valid


def both(valid: Tensor | None, more: Tensor) -> Tensor:
    """Return valid & more; None counts as True everywhere."""
    return more if valid is None else valid & more


def clean_label(
    name: str, label: Tensor, n_classes: int, ignore_index: int | None, valid: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Apply `ignore_index` and refuse illegal labels.

    If values cannot be read without waiting for an accelerator, an illegal label becomes
    n_classes + 1, which makes the loss NaN: no crash, and no silent number.
    """
    if label.dtype == torch.bool and ignore_index is None and n_classes == 2:
        return label, valid  # fast path for two classes
    if label.dtype not in (torch.int32, torch.int64):
        label = label.long()
    if ignore_index is not None:
        valid = both(valid, differs_from(label, ignore_index))
    if values_are_readable(label):
        check_label_range(name, label, n_classes, valid)
    else:
        label = torch.where((label < 0) | (label >= n_classes), n_classes + 1, label)
    return label, valid
