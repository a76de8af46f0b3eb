"""Isotonic regression on binned data, and squared errors of maps that are linear in each bin.

With the moments of a bin (see `ReadOutTally.moments`) and a map whose gain over the prediction is
h(p) = read_out(p) - p = c + d u, the squared error is sum (h - r)^2, in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dense_imb.metrics.read_out.maps import PiecewiseMap

_HALVINGS = 20


def isotonic(mean: Tensor, weight: Tensor) -> Tensor:
    """Return the rising numbers nearest to `mean` in weighted squares: pool adjacent violators.

    Example:
        >>> isotonic(torch.tensor([1.0, 3.0, 2.0, 4.0]), torch.ones(4))
        tensor([1.0000, 2.5000, 2.5000, 4.0000], dtype=torch.float64)
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, mass in zip(mean.tolist(), weight.tolist(), strict=True):
        block = (value, mass, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before, n_before, length = blocks.pop()
            total = n_before + block[1]
            pooled = before + (block[0] - before) * (block[1] / total)
            block = (pooled, total, length + block[2])
        blocks.append(block)
    values = torch.tensor([block[0] for block in blocks], dtype=torch.float64)
    return values.repeat_interleave(torch.tensor([block[2] for block in blocks]))


def fitted_map(moments: Tensor, edges: Tensor, min_pixels: int) -> PiecewiseMap:
    """Return the monotone map of the mean target by prediction.

    Args:
        moments: sums over the bins with pixels, (6, n_bins).
        edges: lower and upper edges of these bins, (2, n_bins).
        min_pixels: smallest number of pixels of a mean.
    """
    if moments.shape[1] == 0:
        return PiecewiseMap()
    group = _groups(moments[0], min_pixels)
    n_groups = int(group[-1]) + 1
    n, prediction, residual = (
        torch.zeros(n_groups, dtype=torch.float64).index_add_(0, group, part)
        for part in (moments[0], moments[1] + moments[0] * edges[0], moments[3])
    )
    x, y = prediction / n, isotonic((prediction + residual) / n, n)
    # knots at the ends of the groups, so that the map is linear in each bin
    first = torch.searchsorted(group, torch.arange(n_groups))
    last = torch.searchsorted(group, torch.arange(n_groups), right=True) - 1
    knots = torch.unique(torch.cat([edges[0, first], edges[1, last]]))
    values = _interpolated(knots, x, y)
    at = torch.searchsorted(knots, edges[0], right=True) - 1
    slope = values.diff() / knots.diff()
    lower = values[at] + slope[at] * (edges[0] - knots[at])
    ends = torch.stack([lower, lower + slope[at] * (edges[1] - edges[0])])
    share = _share_of_map(moments, edges, ends)
    values = torch.lerp(knots, values, share) if share < 1 else values
    values = values.cummax(0).values  # rounding
    is_needed = _is_needed(values)
    return PiecewiseMap(tuple(knots[is_needed].tolist()), tuple(values[is_needed].tolist()))


def _groups(n: Tensor, least: int) -> Tensor:
    """Return the number of the group of each bin: neighbours with `least` pixels together."""
    numbers, number, total = [], 0, 0.0
    for count in n.tolist():
        if total >= least:
            number, total = number + 1, 0.0
        numbers.append(number)
        total += count
    group = torch.tensor(numbers)
    if total < least and number > 0:  # too few are left
        group = group.clamp(max=number - 1)
    return group


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the line through (x, y) at some points, constant beyond its ends."""
    if len(x) == 1:
        return y.expand(len(at)).clone()
    i = (torch.searchsorted(x, at, right=True) - 1).clamp(0, len(x) - 2)
    part = ((at - x[i]) / (x[i + 1] - x[i])).clamp(0, 1)
    return torch.lerp(y[i], y[i + 1], part)


def _is_needed(values: Tensor) -> Tensor:
    """Whether each knot is an end or differs from a neighbour."""
    is_needed = torch.ones(len(values), dtype=torch.bool)
    is_needed[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
    return is_needed


def _gain(edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return c and d of h = c + d u in each bin, from the map's values at the edges."""
    c = ends[0] - edges[0]
    return c, (ends[1] - edges[1] - c) / (edges[1] - edges[0])


def squared_error(moments: Tensor, edges: Tensor, ends: Tensor) -> float:
    """Return the sum of squared errors of a map with the values `ends` at the edges."""
    square, product = _squares(moments, edges, ends)
    return max(float(square - 2 * product + moments[5].sum()), 0.0)


def _squares(moments: Tensor, edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of h^2 and of h r."""
    c, d = _gain(edges, ends)
    n, u, u2, r, ru, _ = moments
    return (c * c * n + 2 * c * d * u + d * d * u2).sum(), (c * r + d * ru).sum()


def _share_of_map(moments: Tensor, edges: Tensor, ends: Tensor) -> float:
    """Return how far to go from the prediction to the map: 1, or less where that is too far.

    The squared error of p + share h is a parabola in the share. Between bins and at the ends the
    map is not quite the least-squares one, which matters for predictions that are nearly right.
    """
    square, product = _squares(moments, edges, ends)
    if 2 * product >= square:
        return 1.0
    return float((product / square).clamp(0, 1))


def lit_after(moments: Tensor, edges: Tensor, ends: Tensor, level: float) -> int:
    """Return the number of pixels that a map lifts above the level.

    A bin in which the map crosses the level counts with the part of its width above it.
    """
    rise = ends[1] - ends[0]
    part = torch.where(rise > 0, (ends[1] - level) / rise.clamp(min=1e-300), ends[1] > level)
    return round(float((moments[0] * part.clamp(0, 1)).sum()))


def level_of_count(moments: Tensor, edges: Tensor, ends: Tensor, n_lit: int) -> float:
    """Return the level above which a map has about `n_lit` pixels."""
    bottom, top = float(ends[0].min()), float(ends[1].max())
    low, high = bottom - (top - bottom or 1.0), top
    for _ in range(_HALVINGS):  # float32 still tells the levels apart
        middle = (low + high) / 2
        if lit_after(moments, edges, ends, middle) > n_lit:
            low = middle
        else:
            high = middle
    n_low, n_high = (lit_after(moments, edges, ends, level) for level in (low, high))
    return low if n_low - n_lit < n_lit - n_high else high
