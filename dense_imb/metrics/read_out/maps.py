"""Monotone maps of values: piecewise-linear ones, and the inverse of ACB-MSE."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_finite, check_n_entries, widen_half
from dense_imb.losses.core.natural import value_probability


@dataclass(frozen=True)
class PiecewiseMap:
    """Linear between knots, constant beyond the first and the last; without knots the identity.

    Args:
        knots: rising predictions.
        values: value at each knot; none is below the one before it.

    Example:
        >>> PiecewiseMap((0.0, 0.5, 1.0), (0.0, 0.1, 2.0))(torch.tensor([-1.0, 0.25, 0.75, 3.0]))
        tensor([0.0000, 0.0500, 1.0500, 2.0000])
    """

    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    # made once: torch.export keeps it as a constant
    _table: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_n_entries("values", self.values, len(self.knots))
        if len(self.knots) == 1:
            raise ValueError("Expected `knots` of two numbers or more, or none, got one.")
        for number in (*self.knots, *self.values):
            check_finite("knots", number)
        for low, high in itertools.pairwise(self.knots):
            if not low < high:
                raise ValueError(f"Expected `knots` to rise, got {low:g} before {high:g}.")
        for low, high in itertools.pairwise(self.values):
            if low > high:
                raise ValueError(f"Expected `values` not to fall, got {low:g} before {high:g}.")
        table = torch.tensor([self.knots, self.values], dtype=torch.float64)
        object.__setattr__(self, "_table", table)

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return not self.knots

    def __call__(self, prediction: Tensor) -> Tensor:
        p = widen_half(prediction)
        if not self.knots:
            return p
        x, y = self._table.to(p.device, p.dtype).unbind(0)
        p = p.clamp(self.knots[0], self.knots[-1])
        i = torch.bucketize(p.contiguous(), x, right=True) - 1
        i = i.clamp(0, len(self.knots) - 2)  # NaN has the last segment, and stays NaN
        low, high = y[i], y[i + 1]
        part = (p - x[i]) / (x[i + 1] - x[i])
        return low + (high - low) * part

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for strict JSON."""
        return {"map": "piecewise", "knots": list(self.knots), "values": list(self.values)}

    def describe(self) -> str:
        """Return the map in a few words."""
        return f"{len(self.knots)} knots" if self.knots else "identity"


@dataclass(frozen=True)
class OddsMap:
    """Exact inverse of squared errors with class weights, for targets of 0 and one other value.

        f = p / value, cut to [0, 1];   result = value (f / a_1) / (f / a_1 + (1 - f) / a_0)

    Args:
        weight: a_0 and a_1, weight of an empty pixel and of a hit in the loss.
        value: value of every hit.

    Example:
        >>> OddsMap((1.0, 99.0))(torch.tensor([0.0, 0.5, 0.99, 1.0]))
        tensor([0.0000, 0.0100, 0.5000, 1.0000])
    """

    weight: tuple[float, float]
    value: float = 1.0

    def __post_init__(self) -> None:
        check_n_entries("weight", self.weight, 2)
        for name, number in (*(("weight", one) for one in self.weight), ("value", self.value)):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"Expected `{name}` above 0, got {number:g}.")

    is_identity = False

    def __call__(self, prediction: Tensor) -> Tensor:
        return self.value * value_probability(prediction / self.value, self.weight)

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for strict JSON."""
        return {"map": "odds", "weight": list(self.weight), "value": self.value}

    def describe(self) -> str:
        """Return the map in a few words."""
        return f"exact inverse, hits weigh {self.weight[1] / self.weight[0]:.4g} times as much"


ValueMap = PiecewiseMap | OddsMap


def map_from_json(stored: dict[str, Any]) -> ValueMap:
    """Return the map of a dictionary from `as_json`."""
    if stored["map"] == "odds":
        empty, hit = map(float, stored["weight"])
        return OddsMap((empty, hit), float(stored["value"]))
    if stored["map"] != "piecewise":
        raise ValueError(f"Expected `map` to be 'piecewise' or 'odds', got {stored['map']!r}.")
    knots, values = (tuple(map(float, stored[name])) for name in ("knots", "values"))
    return PiecewiseMap(knots, values)
