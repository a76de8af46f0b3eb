"""Soft counts of classes, exact over processes and windows of gradient accumulation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.cells import ClassCells
from dense_imb.losses.core.groups import wide
from dense_imb.losses.core.overlap import Overlap
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.plain_sums import Request
from dense_imb.losses.core.sums import softmax_sums
from dense_imb.losses.core.target import PixelTarget


@dataclass(frozen=True, eq=False)
class WindowSums:
    """Sums of a loss over part of a window of gradient accumulation; they add up.

    Made by `loss.sums(...)`, without gradient, and given to each call of the loss as `window`.

    Args:
        made_for: the loss and its options, of which the sums are no others'.
        numbers: the sums of each part.
    """

    made_for: str
    numbers: tuple[Tensor, ...]

    def __add__(self, other: object) -> WindowSums:
        if isinstance(other, int) and other == 0:  # the start of sum()
            return self
        if not isinstance(other, WindowSums):
            return NotImplemented
        check_window(other, self.made_for)
        return WindowSums(
            self.made_for, tuple(a + b for a, b in zip(self.numbers, other.numbers, strict=True))
        )

    __radd__ = __add__


def check_window(window: Any, made_for: str) -> None:
    """Refuse a window that is no sum of this loss's `sums`."""
    if not isinstance(window, WindowSums):
        raise TypeError(
            f"Expected `window` to be a sum of loss.sums(...), got {type(window).__name__}; write "
            "sum(loss.sums(net(x), y) for x, y in window)."
        )
    if window.made_for != made_for:
        raise ValueError(
            f"Expected `window` to be made by {made_for}, got one of {window.made_for}; make it "
            "with the loss that it is given to."
        )


@dataclass(frozen=True, eq=False)
class ClassNumbers:
    """Sums of each row and class, (rows, C) in the wide type.

    A row is one image, or all of them.
    """

    predicted: Tensor  # P, sum of p over all pixels
    hit: Tensor  # H, sum of p over the pixels of the class
    mass: Tensor  # T, sum of the pixel weights of the class
    presence: Tensor  # not 0 where the class has a pixel
    errors: tuple[Tensor, ...] = ()  # L of each penalty

    def overlap(self) -> Overlap:
        """Return tp, fp, fn and tn, none of which is negative."""
        p, h, t = self.predicted, self.hit, self.mass
        n = t.sum(-1, keepdim=True)
        # differences of float32 sums may be -1e-9 near perfection
        return Overlap(h, *(part.clamp(min=0) for part in (p - h, t - h, n - p - t + h)))

    @property
    def checksum(self) -> Tensor:
        """A sum of all that depends on the logits."""
        return self.predicted.sum() + self.hit.sum()

    def without_errors(self) -> tuple[Tensor, ...]:
        """Return P, H, T, and the presence if it is no copy of T."""
        sums = (self.predicted, self.hit, self.mass)
        return sums if self.presence is self.mass else (*sums, self.presence)

    @classmethod
    def of(cls, sums: tuple[Tensor, ...]) -> ClassNumbers:
        """Invert `without_errors`."""
        predicted, hit, mass = sums[:3]
        return cls(predicted, hit, mass, sums[-1] if len(sums) > 3 else mass)

    def as_one_row(self) -> ClassNumbers:
        """Return the sums over all rows."""
        first = self.of(tuple(part.sum(0, keepdim=True) for part in self.without_errors()))
        return replace(first, errors=tuple(part.sum(0, keepdim=True) for part in self.errors))


def pixel_weights(pixels: PixelTarget) -> Tensor | None:
    """Return u of each pixel, (B, S), 0 where it does not count; None where all are 1."""
    if pixels.valid is None:
        return None
    weight = pixels.valid.to(pixels.logits.dtype)
    if pixels.pixel_weight is not None:
        weight = torch.where(pixels.valid, pixels.pixel_weight.to(weight.dtype), 0.0)
    return flat(weight)


def flat(value: Tensor) -> Tensor:
    """View (B, *spatial) as (B, S)."""
    return value.reshape(value.shape[0], math.prod(value.shape[1:]))


def flat_logits(pixels: PixelTarget) -> Tensor:
    """View (B, C, *spatial) as (B, C, S)."""
    z = pixels.logits
    return z.reshape(*z.shape[:2], math.prod(z.shape[2:]))


def class_overlap_sums(
    pixels: PixelTarget, *, by_image: bool, penalties: tuple[Penalty | None, ...] = ()
) -> ClassNumbers:
    """Return the sums of each class, of each image or of all together.

    Args:
        pixels: logits and target after the contract; the logits may have one channel.
        by_image: whether each image is a row.
        penalties: phi of wanted sums of errors; None is cross-entropy.
    """
    by_image = by_image and pixels.logits.shape[0] > 0
    weight = pixel_weights(pixels)
    if pixels.probability is not None:
        assert not penalties
        return _soft_sums(pixels, weight, by_image=by_image)
    label = flat(pixels.label)
    cells = ClassCells(label, pixels.n_classes, by_image, pixels.logits.dtype)
    request = Request(label, cells, (weight,), cells, penalties, weight)
    sums = softmax_sums(flat_logits(pixels), request)
    (mass,) = cells.sums([weight])
    predicted = sums.area[:, :, 0] if by_image else sums.area[:, :, 0].sum(0, keepdim=True)
    shape = (-1, pixels.n_classes)
    mass = mass.view(shape)
    return ClassNumbers(
        predicted,
        sums.own.view(shape) * legality(pixels),
        mass,
        mass,
        tuple(error.view(shape) for error in sums.errors),
    )


def legality(pixels: PixelTarget) -> Tensor | float:
    """Return NaN where a label is illegal and could not be refused, else 1."""
    if values_are_readable(pixels.slot):
        return 1.0
    return torch.where((pixels.slot > pixels.n_classes).any(), torch.nan, 1.0)


def _soft_sums(pixels: PixelTarget, weight: Tensor | None, *, by_image: bool) -> ClassNumbers:
    """Return the sums of probabilities t: H = (P + T - sum u |p - t|) / 2, best at p = t."""
    assert pixels.probability is not None
    p = flat_logits(pixels).softmax(1)
    t = pixels.probability.reshape(p.shape)
    parts = [p, t, (p - t).abs()]
    if weight is not None:
        parts = [part * weight.unsqueeze(1) for part in parts]
    predicted, mass, distance = (part.sum(-1).to(wide(p.device)) for part in parts)
    if not by_image:
        predicted, mass, distance = (
            part.sum(0, keepdim=True) for part in (predicted, mass, distance)
        )
    hit = (predicted + mass - distance) / 2
    cells = ClassCells(flat(pixels.label), pixels.n_classes, by_image, p.dtype)
    presence = cells.sums([weight])[0].view(mass.shape)
    return ClassNumbers(predicted, hit * legality(pixels), mass, presence)
