"""Windows of hits that attend to each other: whole short events, overlapping parts of long ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ORDERS = ("time", "space", "space-time")
_BITS = 12  # of each coordinate along a Morton curve


@dataclass(frozen=True)
class Windows:
    """Hits that attend to each other in one layer.

    Args:
        shape: number of windows, and hits in a window.
        index: (n_windows, size) hit at each place; None if the hits lie there in order.
        place: (n_hits,) place of each hit in the flattened windows.
        mask: (n_windows, 1, 1, size) bool, places that hold a hit of the window; None if all do.
    """

    shape: tuple[int, int]
    index: Tensor | None = None
    place: Tensor | None = None
    mask: Tensor | None = None

    def gather(self, values: Tensor) -> Tensor:
        """Return (n_windows, size, ...) values of the hits at each place."""
        if self.index is None:
            return values.view(*self.shape, *values.shape[1:])
        return values.index_select(0, self.index.flatten()).view(*self.shape, *values.shape[1:])

    def scatter(self, values: Tensor) -> Tensor:
        """Return (n_hits, ...) values of each hit, from those of its place."""
        values = values.reshape(-1, *values.shape[2:])
        return values if self.place is None else values.index_select(0, self.place)


def plan_windows(
    place: Tensor, offset: Tensor, size: int, orders: Sequence[str], depth: int
) -> list[Windows]:
    """Return the windows of each layer.

    Events of at most `size` hits are one window, the same in every layer. Longer ones are cut in
    windows of `size` neighbours, which overlap a little, so that none is padded; every second
    layer of an order is shifted by half a window.

    Args:
        place: (n_hits, D) coordinates in one unit, time last.
        offset: (n_events + 1,) offsets of the events.
        size: hits of a window, at most.
        orders: orders of hits, in turn over the layers, see `ORDERS`.
        depth: number of layers.
    """
    count = offset.diff()
    longest = int(count.max()) if len(count) else 0
    if longest <= size:
        return [_whole_events(offset, count, max(longest, 1))] * depth
    sorted_by = {name: _sorted_hits(place, offset, name) for name in {*orders}}
    known: dict[tuple[str, bool], Windows] = {}
    layers = []
    for layer in range(depth):
        # every order comes plain, then every order shifted, and so on
        key = (orders[layer % len(orders)], bool(layer // len(orders) % 2))
        if key not in known:
            known[key] = _cut(offset, count, size, key[1], sorted_by[key[0]])
        layers.append(known[key])
    return layers


def _whole_events(offset: Tensor, count: Tensor, longest: int) -> Windows:
    """Return one window for each event, padded to the longest."""
    shape = (len(count), longest)
    if bool((count == longest).all()):
        return Windows(shape)
    within = torch.arange(longest, device=offset.device)
    is_hit = within < count[:, None]
    index = offset[:-1, None] + torch.minimum(within, (count[:, None] - 1).clamp(min=0))
    index = index.clamp(max=max(int(offset[-1]) - 1, 0))
    # a softmax over no key is NaN: an event without hits keeps a key, whose result nobody reads
    mask = is_hit | ((count == 0)[:, None] & (within == 0))
    return Windows(shape, index, is_hit.flatten().nonzero()[:, 0], mask[:, None, None])


def _cut(offset: Tensor, count: Tensor, size: int, is_shifted: bool, order: Tensor) -> Windows:
    """Return windows of `size` neighbours in an order of the hits."""
    n_windows = (count + size - 1) // size
    is_long = count > size
    n_windows = n_windows + (is_long & is_shifted)
    event = torch.repeat_interleave(n_windows)
    first = (n_windows.cumsum(0) - n_windows)[event]
    number = torch.arange(len(event), device=offset.device) - first
    n = count[event]
    room = (n - size).clamp(min=0)
    start = number * room // (n_windows[event] - 1).clamp(min=1)  # evenly spread
    if is_shifted:
        half = torch.minimum((number * size - size // 2).clamp(min=0), room)
        start = torch.where(is_long[event], half, start)
    within = start[:, None] + torch.arange(size, device=offset.device)
    is_hit = within < n[:, None]
    index = order[offset[event][:, None] + torch.minimum(within, n[:, None] - 1)]
    place = torch.empty(len(order), dtype=torch.long, device=offset.device)
    # a hit in two windows keeps the one where it lies deeper, whatever the device
    depth = torch.minimum(within - start[:, None], start[:, None] + size - 1 - within)
    at = is_hit.flatten().nonzero()[:, 0]
    at = at[depth.flatten()[at].argsort(stable=True)]
    hit = index.flatten()[at]
    place = _last_place(place, hit, at)
    return Windows(
        (len(event), size), index, place, None if bool(is_hit.all()) else is_hit[:, None, None]
    )


def _last_place(place: Tensor, hit: Tensor, at: Tensor) -> Tensor:
    """Set place[hit] = at, where the last of several entries for a hit wins."""
    rank = torch.arange(len(at), device=at.device)
    best = torch.full_like(place, -1).scatter_reduce_(0, hit, rank, "amax")
    return at[best]


def _sorted_hits(place: Tensor, offset: Tensor, order: str) -> Tensor:
    """Return the hits sorted by event, then along an order; ties do not depend on the input."""
    event = torch.repeat_interleave(offset.diff())
    keys = [_morton(place, event, len(offset) - 1)]  # last key first
    if order == "time":
        keys.append(place[:, -1])
    elif order == "space":
        keys = [place[:, -1], _morton(place[:, :-1], event, len(offset) - 1)]
    index = torch.arange(len(place), device=place.device)
    for key in (*keys, event):
        index = index[key[index].argsort(stable=True)]
    return index


def _morton(place: Tensor, event: Tensor, n_events: int) -> Tensor:
    """Return the index of each hit along a Morton curve through its event, (n_hits,) int64."""
    n_axes = place.shape[1]
    shape = (n_events, n_axes)
    where = event[:, None].expand(-1, n_axes)
    low = place.new_full(shape, torch.inf).scatter_reduce_(0, where, place, "amin")
    high = place.new_full(shape, -torch.inf).scatter_reduce_(0, where, place, "amax")
    span = (high - low).amax(1).clamp(min=1e-12)  # one unit for all axes
    bits = min(_BITS, 62 // n_axes)
    cell = ((place - low[event]) / span[event, None] * (2**bits - 1)).long()
    code = torch.zeros_like(event)
    for bit in range(bits):
        for axis in range(n_axes):
            code |= ((cell[:, axis] >> bit) & 1) << (bit * n_axes + axis)
    return code
