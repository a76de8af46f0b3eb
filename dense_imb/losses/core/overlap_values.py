"""Values of classes: 1 - index of their soft counts, and what classes without pixels add."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.coefficient import power_factor, relative_size
from dense_imb.losses.core.groups import class_tensor
from dense_imb.losses.core.instance_overlap import InstanceNumbers
from dense_imb.losses.core.overlap import Matthews, Overlap
from dense_imb.losses.core.overlap_sums import ClassNumbers

_ROUNDING = 1e-5

IndexFunction = Callable[[Overlap], Tensor]


class ClassValues(NamedTuple):
    """The value of each row and counted class; a joint index has one value for all classes."""

    value: Tensor  # (rows, K)
    is_present: Tensor  # (rows, K), whether the class has a pixel or an instance
    is_entry: Tensor  # (rows, K), whether it counts in the mean over the classes
    size: Tensor  # (rows, K), pixels of the class, or instances


@dataclass(frozen=True)
class Formula:
    """(1 - index)^gamma of classes and instances.

    Args:
        index: function of an `Overlap`.
        gamma: power of 1 - index, above 0.
        absent: "rate", "index", "zero" or "skip", see `Balance`.
        first: the first class that counts.
    """

    index: IndexFunction
    gamma: float
    absent: str
    first: int

    @property
    def is_joint(self) -> bool:
        return bool(getattr(self.index, "is_joint", False))

    def class_values(self, numbers: ClassNumbers) -> ClassValues:
        """Return the values of the classes of each row."""
        counts = Overlap(*(part[:, self.first :] for part in numbers.overlap()))
        is_present = numbers.presence[:, self.first :] != 0
        size = numbers.mass[:, self.first :]
        if self.is_joint:
            is_present, size = is_present.any(-1, keepdim=True), size.sum(-1, keepdim=True)
        if values_are_readable(is_present) and bool(is_present.all()):
            return ClassValues(self._loss_of(counts, None), is_present, is_present, size)
        n = numbers.mass.sum(-1, keepdim=True)
        is_frame = (numbers.presence != 0).any(-1, keepdim=True)  # with a pixel that counts
        value = self._loss_of(counts, is_present)
        value = torch.where(is_present, value, self._absent_value(counts, n, is_frame))
        is_entry = is_present if self.absent == "skip" else is_frame.expand_as(is_present)
        return ClassValues(value, is_present, is_entry, size)

    def instance_sums(self, numbers: InstanceNumbers) -> tuple[Tensor, Tensor]:
        """Return the sum of the instances' values and their number, (B, C - first) each.

        An image without instances of a class counts as one instance, unless they are skipped.
        """
        is_instance = numbers.owner > 0
        value = torch.where(is_instance, self._loss_of(numbers.overlap, is_instance), 0.0)
        zero = torch.zeros_like(numbers.false_alarms.tp)
        total = zero.scatter_add(1, numbers.owner, value)[:, self.first :]
        n = zero.scatter_add(1, numbers.owner, is_instance.to(zero.dtype))[:, self.first :]
        if self.absent in ("rate", "index"):
            alarms = Overlap(*(part[:, self.first :] for part in numbers.false_alarms))
            is_missing = (n == 0) & numbers.is_frame
            mass = numbers.mass_of_image
            rate = self._absent_value(alarms, mass, numbers.is_frame)
            total = total + torch.where(is_missing, rate, 0.0)
            n = n + is_missing
        return total, n

    def _loss_of(self, counts: Overlap, is_present: Tensor | None) -> Tensor:
        """Return (1 - index)^gamma; 0 / 0 of absent classes is neither made nor differentiated.

        A formula that saw an absent class would leave a NaN in the gradient behind a where().

        Args:
            counts: soft counts of each class.
            is_present: whether the class has a pixel; None where all have.
        """
        if is_present is not None:
            counts = Overlap(*(torch.where(is_present, part, 1.0) for part in counts))
        index = self.index(counts)
        _check_index(index, counts, is_joint=self.is_joint)
        if self.is_joint:
            index = index.unsqueeze(-1)
        if self.gamma == 1:
            return 1 - index
        _check_at_most_one(index, self.index, self.gamma)
        # above 0, where a power below 1 has an infinite slope
        return (1 - index).clamp(min=torch.finfo(index.dtype).eps) ** self.gamma

    def _absent_value(self, counts: Overlap, n: Tensor, is_frame: Tensor) -> Tensor:
        """Return the value of a class without pixels, (rows, K)."""
        if self.absent == "index":
            return self._loss_of(counts, is_frame)
        rate = (counts.tp + counts.fp) / torch.where(n == 0, 1.0, n)
        rate = rate.sum(-1, keepdim=True) if self.is_joint else rate
        return rate if self.absent == "rate" else torch.zeros_like(rate)


def _check_index(index: object, counts: Overlap, *, is_joint: bool) -> None:
    """Refuse an index of another shape or type, and NaN of finite counts where reading is free."""
    wanted = counts.tp.shape[:1] if is_joint else counts.tp.shape
    if not isinstance(index, Tensor) or index.shape != wanted or not index.is_floating_point():
        got: object = type(index).__name__
        if isinstance(index, Tensor):
            got = tuple(index.shape) if index.shape != wanted else index.dtype
        what = "one number for all classes" if is_joint else "one number for each class"
        raise ValueError(
            f"Expected `index` to return {what}, in the shape {tuple(wanted)}, got {got}; "
            "compute it elementwise from tp, fp, fn and tn."
        )
    if not values_are_readable(index) or math.isfinite(float(index.detach().sum())):
        return
    parts = torch.stack([part.detach() for part in counts], -1)  # (rows, K, 4)
    is_clean = parts.isfinite().flatten(index.dim()).all(-1)  # a NaN of the network passes
    is_wrong = is_clean & ~index.isfinite()
    if not bool(is_wrong.any()):
        return
    first = tuple(is_wrong.nonzero()[0].tolist())
    got_counts = ", ".join(
        f"{name}={_brief(part)}"
        for name, part in zip(Overlap._fields, parts[first].unbind(-1), strict=True)
    )
    raise ValueError(
        f"Expected `index` to be finite for finite counts, got {float(index.detach()[first])} for "
        f"{got_counts}; add a small number to its denominator."
    )


def _check_at_most_one(index: Tensor, function: IndexFunction, gamma: float) -> None:
    """Refuse an index above 1, of which 1 - index has no power, where reading is free."""
    # a large `smooth` takes Matthews above 1
    if isinstance(function, Matthews) or not values_are_readable(index) or index.numel() == 0:
        return
    highest = float(index.detach().max())
    if highest > 1 + _ROUNDING:  # NaN is the network's to show
        raise ValueError(
            f"Expected `index` of at most 1 with gamma={gamma:g}, got {highest:.4g}; divide it by "
            "its largest value, or use gamma=1."
        )


def _brief(counts: Tensor) -> str:
    """Write one count, or those of all classes."""
    if counts.dim() == 0:
        return f"{float(counts):.4g}"
    return f"({', '.join(f'{count:.4g}' for count in counts.tolist())})"


def combine_classes(values: ClassValues, balance: Balance, first: int) -> Tensor:
    """Return the sum of the rows' losses and the number of rows that have one, (2,).

    Args:
        values: value of each row and class.
        balance: weights of the classes, and how they combine.
        first: the first class that counts.
    """
    value = values.value
    is_mean_of_all = (balance.weight, balance.combine, balance.power, balance.count_power) == (
        None, "mean", 1, 0,
    )  # fmt: skip
    are_all = values.is_entry is values.is_present and values_are_readable(value)
    if is_mean_of_all and value.shape[0] == 1 and are_all and bool(values.is_entry.all()):
        return torch.stack([value.mean(), torch.ones_like(value[0, 0])])
    coefficient = values.is_entry.to(value.dtype)
    if balance.weight is not None:
        coefficient = coefficient * class_tensor(balance.weight[first:], value)
    if balance.combine != "sum":
        is_mean = torch.ones_like(values.is_entry)
        if not isinstance(balance.combine, str):
            marks = [float(entry == "mean") for entry in balance.combine[first:]]
            is_mean = (class_tensor(marks, value) > 0).expand_as(values.is_entry)
        k = (values.is_entry & is_mean).sum(-1, keepdim=True).clamp(min=1)
        coefficient = coefficient / torch.where(is_mean, k, 1)
    if balance.weighs_by_size:
        size = relative_size(values.size, values.is_present, balance)
        coefficient = coefficient * torch.where(values.is_present, size, 1.0)
    value = torch.where(values.is_entry, value, 0.0)
    if balance.power != 1:
        value = value.clamp(min=0)  # rounding may leave -1e-16
        coefficient = coefficient * power_factor(value, coefficient, balance.power)
    n_rows = values.is_entry.any(-1).sum().to(value.dtype)
    return torch.stack([(value * coefficient).sum(), n_rows])
