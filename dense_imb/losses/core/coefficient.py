"""Coefficients of the class means: class weights, their number K, and the power mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.groups import class_tensor, wide

if TYPE_CHECKING:
    from dense_imb.losses.core.balance import Balance


class Coefficients(NamedTuple):
    """Factors of the sums of errors, whose total is the loss."""

    of_class: Tensor  # (rows, C) float64
    of_frame: Tensor | None  # (rows, 1), of all valid pixels; None without a frame's weight

    def with_frame(self) -> Tensor:
        """Return the coefficient of a pixel of each class, if each is in one class."""
        return self.of_class if self.of_frame is None else self.of_class + self.of_frame

    def total(self, sums: dict[str, Tensor]) -> Tensor:
        """Return the loss of the sums of errors."""
        total = (self.of_class * sums["error"]).sum()
        if self.of_frame is not None:
            error = sums.get("frame_error", sums["error"])
            total = total + (self.of_frame * error.sum(1, keepdim=True)).sum()
        return total


def coefficients(sums: dict[str, Tensor], balance: Balance) -> Coefficients:
    """Return the coefficient of each row and class, and of the frame.

    Args:
        sums: numbers of each row and class, (rows, C). "count": pixels, or instances. "mass": sum
            of their weights, if not the count. "window": mass of a whole window of accumulation.
            "error": sum of errors, for a power. "pixels": pixels, where classes count instances.
            "frame", "frame_error": mass and error of the valid pixels, if those of the classes
            differ.
        balance: rule by which the class means combine.
    """
    count = sums["count"]
    mass = sums.get("window", sums.get("mass", count)).to(wide(count.device))
    # never mass > 0 for the counts of this call: a NaN pixel weight would hide the class
    is_present = mass > 0 if "window" in sums else count > 0
    # an instance's mean is floored, not the mean over instances
    has_floor = balance.min_count > 1 and "pixels" not in sums
    divisor = mass.clamp(min=balance.min_count) if has_floor else mass
    floored = divisor  # by its own mass, or `min_count`
    n_entries = None if balance.combine == "sum" else _n_entries(is_present, balance)
    if n_entries is not None:
        divisor = divisor * _per_class(n_entries, balance)
    if balance.weighs_by_size:  # infinity times 0 would be NaN in the gradient of the weights
        divisor = torch.where(is_present, divisor, 1.0)
    if balance.weight is None:
        coefficient = 1 / divisor
    else:
        coefficient = class_tensor(balance.weight, mass) / divisor
    if balance.weighs_by_size:
        coefficient = coefficient * relative_size(mass, is_present, balance)
    frame = None
    if balance.frame_weight > 0:
        frame_mass = sums.get("frame", mass).sum(1, keepdim=True).to(mass.dtype)
        frame = balance.frame_weight / frame_mass
        frame = frame if n_entries is None else frame / n_entries
    coefficient = torch.where(is_present, coefficient, 0.0)
    if frame is not None:
        frame = torch.where(is_present.any(1, keepdim=True), frame, 0.0)
    if balance.power != 1:
        coefficient, frame = _to_power(coefficient, frame, floored, sums, balance.power)
    if "window" in sums:  # pixels of a class that is absent from the window
        coefficient = torch.where((count > 0) & ~is_present, torch.nan, coefficient)
    if count.shape[0] > 1:
        n_rows = is_present.any(1).sum().clamp(min=1)
        coefficient = coefficient / n_rows
        frame = None if frame is None else frame / n_rows
    return Coefficients(coefficient, frame)


def _n_entries(is_present: Tensor, balance: Balance) -> Tensor:
    """Return K of the classes that combine by their mean, with the frame's entry; (rows, 1)."""
    is_entry = torch.ones_like(is_present) if balance.absent == "zero" else is_present
    if not isinstance(balance.combine, str):
        is_mean = class_tensor([entry == "mean" for entry in balance.combine], is_present)
        is_entry = is_entry & is_mean.bool()
    return (is_entry.sum(1, keepdim=True) + int(balance.frame_weight > 0)).clamp(min=1)


def _per_class(n_entries: Tensor, balance: Balance) -> Tensor:
    """Return K of each class: 1 for those that are added."""
    if isinstance(balance.combine, str):
        return n_entries
    is_mean = class_tensor([entry == "mean" for entry in balance.combine], n_entries)
    return torch.where(is_mean > 0, n_entries, 1)


def power_of(share: Tensor, power: float) -> Tensor:
    """Return share^power, with a gradient of 0 where the share is 0, not of infinity."""
    is_zero = share == 0
    return torch.where(is_zero, 0.0**power, torch.where(is_zero, 1.0, share).pow(power))


def relative_size(mass: Tensor, is_present: Tensor, balance: Balance) -> Tensor:
    """Return n_c^g over its mean over the present classes; (rows, C)."""
    share = mass / torch.where(is_present, mass, 0.0).sum(1, keepdim=True)
    size = balance.size_of(torch.where(is_present, share, 0.0))
    size = torch.where(is_present, size, 0.0)
    n_present = is_present.sum(1, keepdim=True).clamp(min=1)
    return size / (size.sum(1, keepdim=True) / n_present)


def _to_power(
    coefficient: Tensor,
    frame: Tensor | None,
    divisor: Tensor,
    sums: dict[str, Tensor],
    power: float,
) -> tuple[Tensor, Tensor | None]:
    """Turn the coefficients of the mean of the class means m into those of their power mean L.

        L = (sum_c v_c m_c^p)^(1/p),    coef_c = v_c / n_c (m_c / L)^(p - 1)

    L is homogeneous of degree 1 in m, so by Euler's theorem sum_c coef_c n_c m_c = L, and the
    constants coef_c give its gradient as well.
    """
    # a division by 0 would be NaN in the gradient of the mean, behind a where() as well
    divisor = torch.where(sums["count"] > 0, divisor, 1.0)
    mean, share = sums["error"] / divisor, coefficient * divisor
    if frame is not None:
        frame_mass = sums.get("frame", sums.get("mass", sums["count"])).sum(1, keepdim=True)
        frame_mass = frame_mass.to(divisor.dtype)
        frame_error = sums.get("frame_error", sums["error"]).sum(1, keepdim=True)
        frame_mass = torch.where(frame == 0, 1.0, frame_mass)
        mean = torch.cat([mean, frame_error / frame_mass], 1)
        share = torch.cat([share, frame * frame_mass], 1)
    factor = power_factor(mean, share, power)
    n_classes = coefficient.shape[1]
    coefficient = coefficient * factor[:, :n_classes]
    return coefficient, None if frame is None else frame * factor[:, n_classes:]


def power_factor(mean: Tensor, share: Tensor, power: float) -> Tensor:
    """Return (m / L)^(p - 1) of class means m, at least 0, in shares v; (rows, C).

        L = (sum_c v_c m_c^p)^(1/p) = sum_c v_c m_c (m_c / L)^(p - 1)

    It is 1 where L = 0, and for an infinite mean.
    """
    mean = _not_negative(mean, share, power)
    is_used = share != 0
    highest = torch.where(is_used, mean, 0.0).amax(1, keepdim=True).detach()
    is_extreme = (highest == 0) | highest.isinf()
    ratio = torch.where(
        is_extreme, (mean == highest).to(mean.dtype), mean / torch.where(is_extreme, 1.0, highest)
    )
    ratio = torch.where(is_used, ratio, 0.0)
    if math.isinf(power):  # the highest, or equal parts of several
        rise = torch.where(ratio.isnan(), torch.nan, (ratio == 1).to(ratio.dtype))
        total = (share * rise).sum(1, keepdim=True)
        return rise / torch.where(total == 0, 1.0, total)
    is_zero = ratio == 0  # whose slope may be infinite
    rise = torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, ratio).pow(power - 1))
    total = (share * rise * ratio).sum(1, keepdim=True)
    return rise / torch.where(total == 0, 1.0, total).pow(1 - 1 / power)


def _not_negative(mean: Tensor, share: Tensor, power: float) -> Tensor:
    """Refuse a negative mean, of which there is no power mean; NaN where it cannot be read."""
    is_negative = (mean < 0) & (share != 0)
    if values_are_readable(mean) and bool(is_negative.any()):
        raise ValueError(
            f"Expected errors whose class means are at least 0 with power={power:g}, got a mean of "
            f"{float(mean[is_negative][0]):.3g}; use power=1."
        )
    return torch.where(is_negative, torch.nan, mean)
