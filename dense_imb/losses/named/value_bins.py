"""Bins of target values, and how much each counts: by its size, or as its neighbours do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_choice,
    check_n_entries,
    check_tensor,
    class_numbers,
)
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.coefficient import power_of
from dense_imb.losses.core.groups import class_tensor

_KERNELS = ("gaussian", "triang", "laplace")
_FEW_EDGES = 32
_OPTIONS = tuple(field.name for field in fields(Balance))  # listed here: torch.compile cannot


@dataclass(frozen=True)
class Kernel:
    """A symmetric kernel that smooths the counts of neighbouring bins, 1 at its centre.

        gaussian: exp(-d^2 / 2 sigma^2)    triang: 1 - |d| / (h + 1)    laplace: exp(-|d| / sigma)

    d is a distance in bins, up to h = (size - 1) / 2. The tails of "gaussian" beyond the window
    are folded back into it, as in the published code.

    Args:
        name: "gaussian", "triang" or "laplace".
        size: number of bins in the window, odd.
        sigma: width in bins; "triang" has none.

    Example:
        >>> Kernel("triang", 3).window()
        (0.5, 1.0, 0.5)
    """

    name: str = "gaussian"
    size: int = 5
    sigma: float = 2.0

    def __post_init__(self) -> None:
        check_choice("kernel", self.name, _KERNELS)
        if isinstance(self.size, bool) or not isinstance(self.size, int):
            raise TypeError(f"Expected `size` to be a whole number of bins, got {self.size!r}.")
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"Expected `size` to be odd and at least 1, got {self.size}.")
        if not (0 < self.sigma < math.inf):
            raise ValueError(f"Expected `sigma` above 0, got {self.sigma}.")

    def window(self) -> tuple[float, ...]:
        """Return the `size` numbers of the kernel."""
        half = self.size // 2
        values = [self._at(offset) for offset in range(-half, half + 1)]
        return tuple(value / values[half] for value in values)

    def _at(self, offset: int) -> float:
        if self.name == "triang":
            return 1 - abs(offset) / (self.size // 2 + 1)
        if self.name == "laplace":
            return math.exp(-abs(offset) / self.sigma)
        reach = int(4 * self.sigma + 0.5)
        first = -reach + (offset + reach) % self.size  # of the places that fold onto this one
        return math.fsum(
            math.exp(-0.5 * (place / self.sigma) ** 2)
            for place in range(first, reach + 1, self.size)
        )

    def smooth(self, count: Tensor) -> Tensor:
        """Return the sum over the neighbours of each bin in its last dimension."""
        half = self.size // 2
        neighbours = F.pad(count, (half, half)).unfold(-1, self.size, 1)
        return (neighbours * class_tensor(self.window(), count).to(count.dtype)).sum(-1)


@dataclass(frozen=True)
class _SmoothedBalance(Balance):
    """A balance of bins that are as frequent as their neighbours make them."""

    inverse_power: float = 1
    kernel: Kernel | None = None  # never; torch 2.10 traces no default that is an object

    @property
    def weighs_by_size(self) -> bool:
        return True

    def size_of(self, share: Tensor) -> Tensor:
        assert self.kernel is not None
        smooth = self.kernel.smooth(power_of(share, self.inverse_power))
        return share / torch.where(smooth == 0, 1.0, smooth)


@dataclass(frozen=True)
class ValueBins:
    """Classes by the value of the target: below the first edge, between two edges, above the last.

        class = number of edges e with e <= target

    A bin of n_b pixels counts by the weight v_b, whatever its size with the power 1:

        loss = sum_b  v_b  *  mean over the pixels of bin b of error,    v_b ~ n_b^(1 - power)

    This is `Balance(count_power=1 - power)`. With a kernel, a bin is as frequent as its neighbours
    make it (label distribution smoothing, Yang et al. 2021): v_b ~ n_b / (kernel * n^power)_b.

    Args:
        edges: increasing numbers.
        power: from 0, the plain mean over all pixels, to 1, where all bins count the same. At 1/2
            a pixel counts by 1 / sqrt(n_b).
        kernel: `Kernel`, or its name: "gaussian", "triang" or "laplace". By default none.

    Example:
        >>> ValueBins([1.0, 10.0])(torch.zeros(4), torch.tensor([0.0, 1.0, 9.0, 10.0]))
        tensor([0, 1, 1, 2], dtype=torch.int32)
    """

    edges: Sequence[float]
    power: float = 1
    kernel: Kernel | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:  # NaN included
            raise ValueError(
                f"Expected `power` between 0 (plain mean) and 1 (balanced), got {self.power}."
            )
        if isinstance(self.kernel, str):
            object.__setattr__(self, "kernel", Kernel(self.kernel))
        elif self.kernel is not None and not isinstance(self.kernel, Kernel):
            raise TypeError(f"Expected `kernel` to be a Kernel or its name, got {self.kernel!r}.")
        edges = tuple(float(edge) for edge in self.edges)
        if not edges or not all(math.isfinite(edge) for edge in edges):
            raise ValueError(f"Expected `edges` to hold one finite number or more, got {edges}.")
        for lower, upper in itertools.pairwise(edges):
            if not lower < upper:
                raise ValueError(f"Expected `edges` to increase, got {lower:g} before {upper:g}.")
        object.__setattr__(self, "edges", edges)

    @property
    def n_classes(self) -> int:
        return len(self.edges) + 1

    @property
    def _kernel(self) -> Kernel | None:
        assert not isinstance(self.kernel, str)  # a name has become a kernel
        return self.kernel

    @classmethod
    def from_quantiles(
        cls, sample: Tensor, n_bins: int, power: float = 1, kernel: Kernel | str | None = None
    ) -> ValueBins:
        """Return bins that hold equal numbers of a sample's values, as far as its values allow.

        Edges that coincide become one. A lowest value that fills the first bins, like the 0 of
        empty pixels, keeps a bin to itself.

        Example:
            >>> ValueBins.from_quantiles(torch.arange(101.0), 4).edges
            (25.0, 50.0, 75.0)
        """
        check_tensor("sample", sample)
        check_at_least("n_bins", n_bins, 2)
        values = sample.detach().flatten().double().cpu()
        if values.numel() == 0 or not bool(values.isfinite().all()):
            raise ValueError(
                "Expected `sample` to hold one finite value or more, got "
                f"{values.numel()} values, {int((~values.isfinite()).sum())} of them not finite."
            )
        ordered = values.sort().values
        above_lowest = ordered[ordered > ordered[0]]
        if len(above_lowest) == 0:
            raise ValueError(
                f"Expected `sample` to hold different values, got only {float(ordered[0]):g}."
            )
        # torch.quantile refuses more than 2^24 values
        position = torch.arange(1, n_bins, dtype=torch.float64) / n_bins * (len(ordered) - 1)
        lower = position.floor().long()
        upper = (lower + 1).clamp(max=len(ordered) - 1)
        edges = torch.lerp(ordered[lower], ordered[upper], position - lower)
        distinct = torch.unique(edges.where(edges > ordered[0], above_lowest[0])).tolist()
        return cls(distinct, power, kernel)

    def weigh(self, balance: Balance) -> Balance:
        """Return a balance that also holds the weights of the bins."""
        if self.power == 1 and self.kernel is None:
            return balance
        if balance.count_power != 0:
            raise ValueError(
                "Expected the weights of the bins once, got ValueBins with a power or a kernel "
                f"and count_power={balance.count_power:g}; drop one of them."
            )
        options = {name: getattr(balance, name) for name in _OPTIONS}
        kernel = self._kernel
        if kernel is None:
            return Balance(**{**options, "count_power": 1 - self.power})
        return _SmoothedBalance(**options, inverse_power=self.power, kernel=kernel)

    def weights(self, counts: Any, *, clip: tuple[float, float] | None = None) -> tuple[float, ...]:
        """Return the weights of pixels that follow from the counts of a whole training set.

            w_b ~ 1 / (kernel * n^power)_b,    scaled to a mean of 1 over the counted pixels

        They are for the plain mean, ValueBins(edges, power=0) with Balance(weight=weights), the
        published form of label distribution smoothing. Without them, the counts are the batch's.

        Args:
            counts: number of pixels of each bin, or a `ClassStatistics`.
            clip: lower and upper bound of n^power; (5, 1000) in the published code at power=1.

        Example:
            >>> ValueBins([1.0, 2.0], power=0.5).weights([16, 4, 1])
            (0.75, 1.5, 3.0)
        """
        n = class_numbers("counts", getattr(counts, "class_counts", counts))
        check_n_entries("counts", n, self.n_classes)
        count = torch.tensor(n, dtype=torch.float64)
        if not float(count.sum()) > 0:
            raise ValueError("Expected `counts` of some pixels, got 0 in every bin.")
        size = count.pow(self.power)
        if clip is not None:
            size = size.clamp(*clip)
        kernel = self._kernel
        if kernel is not None:
            size = kernel.smooth(size)
        empty = (size == 0).nonzero().flatten().tolist()
        if empty:
            cure = "a kernel" if kernel is None else "a wider kernel"
            raise ValueError(
                f"Expected `counts` above 0, got 0 in bin {', '.join(map(str, empty))}; merge "
                f"empty bins with their neighbours, or pass {cure}."
            )
        weight = 1 / size
        return tuple((weight * (count.sum() / (count * weight).sum())).tolist())

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        value = target if target.is_floating_point() else target.float()
        if torch.compiler.is_compiling() and len(self.edges) <= _FEW_EDGES:
            label = torch.zeros_like(value, dtype=torch.int32)
            for edge in self.edges:  # a vector loop, no search
                label = label + (value >= edge).int()
            return label
        edges = class_tensor(self.edges, value).to(value.dtype)
        return torch.bucketize(value.contiguous(), edges, out_int32=True, right=True)
