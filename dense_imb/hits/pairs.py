"""Pairs of hits that are close in time, found without comparing all hits of an event."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Sensors

_PAIRS = 1 << 16  # pairs of hits compared together; few enough for the cache


def axes_of(events: Events, radius: float, radius_t: float) -> list[Tensor]:
    """Return x, y (and z) and t of hits in float64, in units of the radii."""
    if isinstance(events.geometry, Sensors):
        position = list(events.position().to(torch.float64).unbind(1))
    else:
        position = [events.x.to(torch.float64), events.y.to(torch.float64)]
    t = events.t.to(torch.float64)
    if not bool(torch.isfinite(t).all()):
        raise ValueError("Expected `t` with finite times, got NaN or infinity.")
    return [*(axis / radius for axis in position), t / radius_t]


def sort_by_time(events: Events, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a key of hits that grows with event and time, sorted, and the order that sorts it.

    Args:
        events: events with at least one hit.
        t: (n_hits,) times in units of the radius, float64.
    """
    key = t - t.min()
    key += events.event_index() * (float(key.max()) + 4)
    key, order = key.sort()
    return key, order


def pairs_in_time(key: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all pairs of hits of one event that are at most 1 apart in time, in parts.

    Keys are rounded, so pairs up to 0.1 % further apart are among them.

    Args:
        key: sorted keys of hits, see `sort_by_time`.

    Yields:
        The indices of the two hits of each pair in the order of the keys.
    """
    # the later neighbours of a hit follow it without gaps
    number = torch.arange(len(key), device=key.device)
    n_behind = torch.searchsorted(key, key + 1.001, right=True) - number - 1
    end = n_behind.cumsum(0)
    n_parts = int(end[-1]) // _PAIRS + 1
    cut = torch.arange(1, n_parts, device=key.device) * _PAIRS
    bounds = [0, *torch.searchsorted(end, cut).tolist(), len(key)]
    for first, last in itertools.pairwise(bounds):
        count = n_behind[first:last]
        one = torch.repeat_interleave(number[first:last], count)
        before = torch.repeat_interleave(count.cumsum(0) - count, count)
        yield one, one + 1 + torch.arange(len(one), device=key.device) - before


def square_distance(axes: list[Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distance of pairs of hits, given by their indices."""
    square = (axes[0][one] - axes[0][other]) ** 2
    for axis in axes[1:]:
        square += (axis[one] - axis[other]) ** 2
    return square
