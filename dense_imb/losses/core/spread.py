"""Spreads: functions of all errors of a class or a neighbourhood, applied before the mean."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import widen_half


class Spreading(NamedTuple):
    """Pixels of an error map, as a spread is given them."""

    error: Tensor  # (B, *spatial), 0 where not valid
    slot: Tensor  # (B, *spatial) int64: the class, n_classes where not valid, above it if illegal
    n_classes: int
    weight: Tensor | None  # weight of each pixel in its mean, 0 where not valid; None if all are 1
    scope: str | None  # that of the balance; None for the plain mean over the call's pixels


class Spread:
    """Base class of spreads. A spread is a value: it compares, pickles and prints."""

    # whether the calls of a window of accumulation add up
    fits_windows: ClassVar[bool] = True

    def __call__(self, pixels: Spreading) -> Tensor:
        """Return the new error of each pixel, in the shape of the old."""
        raise NotImplementedError


def check_spread(spread: object) -> None:
    """Refuse an object that is not a spread; None leaves the errors as they are."""
    if spread is not None and not isinstance(spread, Spread):
        raise TypeError(
            "Expected `spread` to be Hardest(share) or WorstNeighbour(size), "
            f"got {spread!r} of type {type(spread).__name__}."
        )


def check_spreads_classes(spread: object, cover: object, per: str) -> None:
    """Refuse a spread over the cells of a cover, and over instances."""
    if spread is not None and (cover is not None or per == "instance"):
        what = "a cover" if cover is not None else 'per="instance"'
        raise ValueError(
            f"Expected no `spread` with {what}, got {spread!r}; it is defined for classes alone."
        )


def spread_errors(
    spread: Spread,
    error: Tensor,
    label: Tensor,
    n_classes: int,
    *,
    valid: Tensor | None,
    weight: Tensor | None,
    scope: str | None = None,
    class_count: object = None,
) -> Tensor:
    """Return the errors after a spread.

    Args:
        spread: the spread.
        error: error of each pixel.
        label: class of each pixel, bool or an index; any other number where not valid.
        n_classes: number of classes.
        valid: mask of the pixels that count; None if all do.
        weight: weight of each pixel, at least 0; None if all are 1.
        scope: scope of the balance; None for the plain mean.
        class_count: counts of a window of accumulation, which not every spread can serve.
    """
    if class_count is not None and not spread.fits_windows:
        raise ValueError(
            f"Expected no `class_count` with {spread!r}, got one: the hardest pixels of a window "
            "of gradient accumulation are not known before its end; drop `class_count`."
        )
    error, slot = widen_half(error), label.long()
    if valid is not None:
        error = torch.where(valid, error, 0.0)
        slot = torch.where(valid, slot, n_classes)
        if weight is not None:
            weight = torch.where(valid, weight, 0.0)
    return spread(Spreading(error, slot, n_classes, weight, scope))
