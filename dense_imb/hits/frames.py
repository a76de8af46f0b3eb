"""Conversion of hits to frames and back: visible hits, input channels, scores per hit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.base.refusals import Refused
from dense_imb.hits.events import Array, Events
from dense_imb.hits.geometry import Geometry, Sensors

Rule = Literal["largest", "smallest", "count"]
RULES = ("largest", "smallest", "count")
TURNS = (1, 2, 4)
_AT_ONCE, _PIXELS_AT_ONCE = 32, 1 << 22  # events and pixels whose visible hits are sought together
LARGEST = 1 << 28  # pixels of a frame; a hits file may declare more
CHANNELS = {"gapped": 1, "hit": 1, "fourier": 2 * len(TURNS)}


@dataclass(frozen=True)
class Raster:
    """Frames of a batch of events, and the visibility of their hits.

    Args:
        frame: (B, 1, H, W) float32 times, or numbers of hits; 0 for empty pixels.
        is_visible: (n_hits,) bool, True for the one hit that each lit pixel shows.
        n_occluded: (B,) int64, hits of each event that lie behind another hit.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Events, Geometry, rasterise
        >>> x, t = np.array([0, 0, 2]), np.array([4, 7, 5])
        >>> raster = rasterise(Events(Geometry(3, 1, 9), np.array([0, 3]), x, 0 * x, t))  # a Raster
        >>> raster.is_visible, raster.n_occluded  # the hit of t = 4 lies behind that of t = 7
        (tensor([False,  True,  True]), tensor([1]))
    """

    frame: Tensor
    is_visible: Tensor
    n_occluded: Tensor

    def __repr__(self) -> str:
        n_visible, n_hits = int(self.is_visible.sum()), len(self.is_visible)
        shape = " x ".join(map(str, self.frame.shape))
        return f"Raster({shape}, {n_visible} of {n_hits} hits visible)"


def rasterise(events: Events, rule: Rule = "largest") -> Raster:
    """Return the frames (B, 1, H, W) of events, on their device.

    A pixel shows its hit with the largest (or smallest) time; of equal times, the first hit.

    Args:
        events: events to convert.
        rule: "largest" or "smallest" time; or "count", the number of hits of each pixel, with
            the hit of the largest time visible.

    Example:
        >>> x, y, t = np.array([[0, 0, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> raster = rasterise(events)
        >>> raster.frame.tolist(), raster.is_visible.tolist(), raster.n_occluded.tolist()
        ([[[[7.0, 0.0, 5.0]]]], [False, True, True], [1])
    """
    check_choice("rule", rule, RULES)
    events = events.tensors()
    size = events.grid.height * events.grid.width
    in_event = events.event_index()
    pixel = _pixel(events, in_event)
    is_visible = visible(events, rule)
    time = events.t.to(torch.float32)
    # with one visible hit per pixel, the sum is exactly its time
    added = torch.ones_like(time) if rule == "count" else time.masked_fill(~is_visible, 0.0)
    frame = torch.zeros(len(events) * size, device=pixel.device)
    frame.scatter_reduce_(0, pixel, added, "sum")
    n_occluded = torch.zeros_like(events.offset[1:])
    n_occluded.scatter_reduce_(0, in_event, (~is_visible).to(n_occluded.dtype), "sum")
    shape = (len(events), 1, events.grid.height, events.grid.width)
    return Raster(frame.reshape(shape), is_visible, n_occluded)


def visible(events: Events, rule: Rule = "largest") -> Tensor:
    """Return whether `rasterise` shows each hit, (n_hits,) bool, without making frames.

    Hits of a table of sensors hide nothing: all are visible.
    """
    check_choice("rule", rule, RULES)
    if isinstance(events.geometry, Sensors):
        return torch.ones(events.n_hits, dtype=torch.bool, device=events.tensors().t.device)
    geometry = events.geometry
    size = geometry.height * geometry.width
    # The bits of positive floats sort like the floats. The key holds the time in its upper bits
    # and minus the index of the hit in the lower ones, so its maximum is the first of the hits
    # with the largest time, found in one scatter.
    if events.is_torch and events.t.device.type != "cpu":  # an accelerator handles all at once
        events = events.torch(events.t.device)
        time = events.t.to(torch.float32).view(torch.int32).to(torch.int64)
        number = torch.arange(events.n_hits, device=time.device)
        key = ((-time if rule == "smallest" else time) << 32) - number
        return _is_best(
            _pixel(events, events.event_index()), key, key.new_empty(len(events) * size)
        )
    events = events.numpy()  # for a few thousand hits, NumPy's calls are faster than torch's
    _check_inside(events)
    at_once = max(1, min(_AT_ONCE, len(events), _PIXELS_AT_ONCE // size))
    scratch = torch.empty(at_once * size, dtype=torch.int64)
    is_visible = torch.empty(events.n_hits, dtype=torch.bool)
    for start in range(0, len(events), at_once):
        offset = np.asarray(events.offset[start : start + at_once + 1], np.int64)
        part = slice(int(offset[0]), int(offset[-1]))
        pixel = np.repeat(geometry.height * np.arange(len(offset) - 1), np.diff(offset))
        pixel += np.asarray(events.y[part], np.int64)
        pixel *= geometry.width
        pixel += np.asarray(events.x[part], np.int64)
        bits = events.t[part].astype(np.float32).view(np.int32).astype(np.int64)
        if rule == "smallest":
            np.negative(bits, out=bits)
        bits <<= 32
        bits -= np.arange(len(bits))
        is_visible[part] = _is_best(torch.from_numpy(pixel), torch.from_numpy(bits), scratch)
    return is_visible


def _is_best(pixel: Tensor, key: Tensor, scratch: Tensor) -> Tensor:
    """Return whether each key is the largest of its pixel, (n,) bool."""
    scratch.fill_(torch.iinfo(torch.int64).min).scatter_reduce_(0, pixel, key, "amax")
    return key == scratch.index_select(0, pixel)


def paint(events: Events, values: Tensor, is_visible: Tensor) -> Tensor:
    """Return frames (B, C, H, W) with the values of the visible hits, 0 elsewhere.

    The memory layout is channels last, which is faster for convolutions on a CPU.

    Args:
        events: events to draw.
        values: (n_hits, C) values.
        is_visible: (n_hits,) bool, at most one hit per pixel.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.hits import Events, Geometry, paint
        >>> x = np.array([0, 2])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 2]), x, 0 * x, x + 1)
        >>> charge = torch.tensor([[1.5], [2.5]])
        >>> paint(events, charge, torch.tensor([True, True]))
        tensor([[[[1.5000, 0.0000, 2.5000]]]])
    """
    events, geometry = events.torch(values.device), events.grid
    pixel = _pixel(events, events.event_index())[is_visible]
    n_channels = values.shape[1]
    flat = values.new_zeros(len(events) * geometry.height * geometry.width, n_channels)
    flat[pixel] = values[is_visible]
    shape = (len(events), geometry.height, geometry.width, n_channels)
    return flat.reshape(shape).permute(0, 3, 1, 2)


def pixel_index(events: Events) -> Tensor:
    """Return the index of each hit in the flattened batch of frames (B, H, W), (n_hits,) int64."""
    events = events.tensors()
    return _pixel(events, events.event_index())


def hit_scores(score_map: Tensor, events: Events) -> Tensor:
    """Return the score of each hit, (n_hits,), from a score of each pixel.

    Args:
        score_map: (B, 1, H, W) scores, one frame per event.
        events: events of the hits, on any device.
    Example:
        >>> x, y, t = np.array([[0, 0, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> hit_scores(torch.tensor([[[[0.5, 0.0, 0.25]]]]), events)
        tensor([0.5000, 0.5000, 0.2500])
    """
    shape = (len(events), 1, events.grid.height, events.grid.width)
    if tuple(score_map.shape) != shape:
        raise ValueError(
            f"Expected `score_map` in the shape {shape}, one frame per event, "
            f"got {tuple(score_map.shape)}."
        )
    events = events.torch(score_map.device)
    return score_map.flatten()[_pixel(events, events.event_index())]


def _pixel(events: Events, in_event: Tensor) -> Tensor:
    """Return the index of each hit in the flattened batch of frames (B, H, W)."""
    _check_inside(events)
    x: Tensor = events.x
    y: Tensor = events.y
    return (in_event * events.grid.height + y) * events.grid.width + x


def _check_inside(events: Events) -> None:
    """Refuse hits outside the frame, which would silently land in the next row or event.

    Frames that would take all memory are refused, too.
    """
    geometry = events.grid
    if geometry.width * geometry.height > LARGEST:
        raise Refused(
            f"frames of at most {LARGEST:,} pixels",
            f"{geometry.width} x {geometry.height}",
            "bin the coordinates of the hits",
        )
    for name, axis, size in (("x", events.x, geometry.width), ("y", events.y, geometry.height)):
        if events.n_hits and not (axis.min() >= 0 and axis.max() < size):
            low, high = int(axis.min()), int(axis.max())
            raise ValueError(
                f"Expected `{name}` from 0 to {size - 1}, got {low if low < 0 else high}."
            )


def gap(time: Tensor, time_steps: float, threshold: float = 0.5) -> Tensor:
    """Scale times with a gap between empty pixels and hits: 0 -> 0, (0, T] -> (r, 1].

        value = r + (1 - r) t / T   for t > 0

    Args:
        time: t, 0 for empty pixels.
        time_steps: T.
        threshold: r, at least 0 and below 1, default 0.5.
    Example:
        >>> gap(torch.tensor([0.0, 250.0, 1000.0]), 1000, threshold=0.5)
        tensor([0.0000, 0.6250, 1.0000])
    """
    _check_threshold(threshold)
    value = threshold + (1.0 - threshold) * (time / time_steps)
    return value.masked_fill(time <= 0, 0.0)  # NaN is kept


def ungap(value: Tensor, time_steps: float, threshold: float = 0.5) -> Tensor:
    """Invert `gap`; values up to r become 0, an empty pixel.

    Example:
        >>> import torch
        >>> from dense_imb.hits import gap, ungap
        >>> value = gap(torch.tensor([0.0, 250.0, 1000.0]), 1000)
        >>> ungap(value, 1000)
        tensor([   0.,  250., 1000.])
    """
    _check_threshold(threshold)
    time = (value - threshold) / (1.0 - threshold) * time_steps
    return time.masked_fill(value <= threshold, 0.0)


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(f"Expected `threshold` at least 0 and below 1, got {threshold}.")


def encode(
    events: Events,
    channels: Sequence[str] = ("gapped", "hit", "fourier"),
    *,
    rule: Rule = "largest",
    threshold: float = 0.5,
) -> Tensor:
    """Return the input of a network: frames (B, C, H, W) of the visible hits, 0 elsewhere.

    Args:
        events: events to encode.
        channels: any of "gapped" (time, see `gap`), "hit" (1 at a hit) and "fourier"
            (sin and cos of n 2 pi t / T for n = 1, 2, 4: six channels).
        rule: visible hit of a pixel: "largest" or "smallest" time.
        threshold: r of `gap`, default 0.5.

    Example:
        >>> from dense_imb.hits import encode, simulate
        >>> arcs = simulate("arc", 2, seed=1)
        >>> encode(arcs).shape, encode(arcs, ["hit"]).shape
        (torch.Size([2, 8, 128, 88]), torch.Size([2, 1, 128, 88]))
    """
    check_choice("rule", rule, RULES[:2])
    for channel in channels:
        check_choice("channels", channel, CHANNELS)
    events = events.tensors()
    time = events.t.to(torch.float32)
    turn = (2 * math.pi / events.grid.time_steps) * time
    columns: list[Tensor] = []
    for channel in channels:
        if channel == "gapped":
            columns.append(gap(time, events.grid.time_steps, threshold))
        elif channel == "hit":
            columns.append(torch.ones_like(time))
        else:
            columns += [wave(n * turn) for n in TURNS for wave in (torch.sin, torch.cos)]
    if not columns:
        raise ValueError("Expected `channels` with at least one channel, got none.")
    return paint(events, torch.stack(columns, 1), visible(events, rule))


def frames_to_events(frame: Tensor, geometry: Geometry, label: Tensor | None = None) -> Events:
    """Return the hits of frames: their pixels above 0, row by row.

    Args:
        frame: (B, 1, H, W) times, 0 for empty pixels.
        geometry: size of the frames.
        label: (B, 1, H, W) label of each pixel; None if unknown.

    Example:
        >>> import torch
        >>> from dense_imb.hits import Geometry, frames_to_events
        >>> events = frames_to_events(torch.tensor([[[[7.0, 0.0, 5.0]]]]), Geometry(3, 1, 9))
        >>> events.x, events.t
        (tensor([0, 2]), tensor([7., 5.]))
    """
    shape = (1, geometry.height, geometry.width)
    if tuple(frame.shape[1:]) != shape:
        raise ValueError(f"Expected `frame` in the shape (B, *{shape}), got {tuple(frame.shape)}.")
    if not bool(torch.isfinite(frame).all()):
        raise ValueError("Expected `frame` with finite times, got NaN or infinity.")
    is_hit = frame > 0
    _, _, y, x = is_hit.nonzero(as_tuple=True)
    count = is_hit.flatten(1).sum(1)
    offset = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Events(geometry, offset, x, y, frame[is_hit], None if label is None else label[is_hit])


def points(events: Events, unit: Literal["pixel", "physical"] = "pixel") -> Array:
    """Return x, y and t of each hit, (n_hits, 3).

    Args:
        events: events of the hits.
        unit: "pixel" for pixels and time steps, "physical" for mm, mm and ns. Pixel 0 is at 0.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Events, Geometry, points
        >>> frame = Geometry(88, 128, 1000, x_mm=0.5, y_mm=0.5, t_ns=25.0)
        >>> events = Events(frame, np.array([0, 1]), np.array([10]), np.array([20]), np.array([4]))
        >>> points(events), points(events, "physical")
        (array([[10., 20.,  4.]]), array([[  5.,  10., 100.]]))
    """
    check_choice("unit", unit, ("pixel", "physical"))
    step = steps(events.grid) if unit == "physical" else (1.0, 1.0, 1.0)
    if events.is_torch:
        columns = (events.x, events.y, events.t)
        return torch.stack([c.to(torch.float64) * s for c, s in zip(columns, step, strict=True)], 1)
    return np.stack([events.x, events.y, events.t], 1).astype(np.float64) * step


def steps(geometry: Geometry) -> tuple[float, float, float]:
    """Return the size of a pixel in mm, in x and y, and of a time step in ns."""
    size = (geometry.x_mm, geometry.y_mm, geometry.t_ns)
    if None in size:
        raise ValueError(
            "Expected `x_mm`, `y_mm` and `t_ns` of the geometry for physical units, got "
            f"{size}; give them with dataclasses.replace(geometry, x_mm=...)."
        )
    return size  # type: ignore[return-value]
