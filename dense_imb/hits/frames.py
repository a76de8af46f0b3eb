"""From hits to frames and back: which hit a pixel shows, and what a network is given of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.hits.events import Array, Events, Geometry

Rule = Literal["largest", "smallest", "count"]
RULES = ("largest", "smallest", "count")
TURNS = (1, 2, 4)
_AT_ONCE = 32
CHANNELS = {"gapped": 1, "hit": 1, "fourier": 2 * len(TURNS)}


@dataclass(frozen=True)
class Raster:
    """Frames of a batch of events, and which of their hits can be seen.

    Args:
        frame: (B, 1, H, W) float32 times, or numbers of hits; 0 where no hit is.
        is_visible: (n_hits,) bool, the one hit that each lit pixel shows.
        n_occluded: (B,) int64, hits of each event that lie behind another one.
    """

    frame: Tensor
    is_visible: Tensor
    n_occluded: Tensor


def rasterise(events: Events, rule: Rule = "largest") -> Raster:
    """Frames (B, 1, H, W) on the device of the events.

    A pixel shows its hit of the largest (or smallest) time; of hits at the same time, the
    first in the event. With `rule="count"` it holds the number of its hits, and the hit of the
    largest time is the visible one.

    Example:
        >>> x, y, t = np.array([[0, 0, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> raster = rasterise(events)
        >>> raster.frame.tolist(), raster.is_visible.tolist(), raster.n_occluded.tolist()
        ([[[[7.0, 0.0, 5.0]]]], [False, True, True], [1])
    """
    check_choice("rule", rule, RULES)
    events = events.torch(events.x.device) if events.is_torch else events.torch()
    size = events.geometry.height * events.geometry.width
    in_event = events.event_index()
    pixel = _pixel(events, in_event)
    is_visible = visible(events, rule)
    time = events.t.to(torch.float32)
    # one visible hit a pixel, so a sum is its time, to the bit
    added = torch.ones_like(time) if rule == "count" else time.masked_fill(~is_visible, 0.0)
    frame = torch.zeros(len(events) * size, device=pixel.device)
    frame.scatter_reduce_(0, pixel, added, "sum")
    n_occluded = torch.zeros_like(events.offset[1:])
    n_occluded.scatter_reduce_(0, in_event, (~is_visible).to(n_occluded.dtype), "sum")
    shape = (len(events), 1, events.geometry.height, events.geometry.width)
    return Raster(frame.reshape(shape), is_visible, n_occluded)


def visible(events: Events, rule: Rule = "largest") -> Tensor:
    """(n_hits,) bool, the hits that `rasterise` shows, without their frames."""
    check_choice("rule", rule, RULES)
    geometry = events.geometry
    size = geometry.height * geometry.width
    # times are positive, and bits of positive floats sort as the floats do; below them the
    # hit's number, last first, so that one scatter finds the first of the largest times
    if events.is_torch and events.x.device.type != "cpu":  # an accelerator takes all at once
        events = events.torch(events.x.device)
        time = events.t.to(torch.float32).view(torch.int32).to(torch.int64)
        number = torch.arange(events.n_hits, device=time.device)
        key = ((-time if rule == "smallest" else time) << 32) - number
        return _is_best(
            _pixel(events, events.event_index()), key, key.new_empty(len(events) * size)
        )
    events = events.numpy()  # on a few thousand hits its calls cost less than torch's
    _check_inside(events)
    scratch = torch.empty(min(_AT_ONCE, len(events)) * size, dtype=torch.int64)
    is_visible = torch.empty(events.n_hits, dtype=torch.bool)
    for start in range(0, len(events), _AT_ONCE):
        offset = np.asarray(events.offset[start : start + _AT_ONCE + 1], np.int64)
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
    """(n,) bool, whether a key is the largest of its pixel."""
    scratch.fill_(torch.iinfo(torch.int64).min).scatter_reduce_(0, pixel, key, "amax")
    return key == scratch.index_select(0, pixel)


def paint(events: Events, values: Tensor, is_visible: Tensor) -> Tensor:
    """Frames (B, C, H, W) with values (n_hits, C) of the visible hits, 0 elsewhere.

    They are laid out channels last, as convolutions on a CPU like them: a hit is one write.
    """
    events, geometry = events.torch(values.device), events.geometry
    place = _pixel(events, events.event_index())[is_visible]
    n_channels = values.shape[1]
    # (event, pixel, channel); each place is written once at most
    flat = values.new_zeros(len(events) * geometry.height * geometry.width, n_channels)
    flat[place] = values[is_visible]
    shape = (len(events), geometry.height, geometry.width, n_channels)
    return flat.reshape(shape).permute(0, 3, 1, 2)


def pixel_index(events: Events) -> Tensor:
    """(n_hits,) int64, place of each hit in the flattened batch of frames (B, H, W)."""
    events = events.torch(events.x.device) if events.is_torch else events.torch()
    return _pixel(events, events.event_index())


def hit_scores(score_map: Tensor, events: Events) -> Tensor:
    """The score of each hit, (n_hits,), from a score of each pixel; hits of one pixel share it.

    Args:
        score_map: (B, 1, H, W), one frame for each event.
        events: whose hits are looked up, on any device.
    Example:
        >>> x, y, t = np.array([[0, 0, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> hit_scores(torch.tensor([[[[0.5, 0.0, 0.25]]]]), events)
        tensor([0.5000, 0.5000, 0.2500])
    """
    shape = (len(events), 1, events.geometry.height, events.geometry.width)
    if tuple(score_map.shape) != shape:
        raise ValueError(
            f"Expected `score_map` in the shape {shape}, one pixel for each of the events' frames, "
            f"got {tuple(score_map.shape)}."
        )
    events = events.torch(score_map.device)
    return score_map.flatten()[_pixel(events, events.event_index())]


def _pixel(events: Events, in_event: Tensor) -> Tensor:
    """(n_hits,) place of each hit in the flattened batch of frames."""
    _check_inside(events)
    x: Tensor = events.x
    y: Tensor = events.y
    return (in_event * events.geometry.height + y) * events.geometry.width + x


def _check_inside(events: Events) -> None:
    """A coordinate outside would land in the next row or event, and nobody would know."""
    geometry = events.geometry
    for name, axis, size in (("x", events.x, geometry.width), ("y", events.y, geometry.height)):
        if events.n_hits and not (axis.min() >= 0 and axis.max() < size):
            low, high = int(axis.min()), int(axis.max())
            raise ValueError(
                f"Expected `{name}` from 0 to {size - 1}, got {low if low < 0 else high}."
            )


def gap(time: Tensor, time_steps: float, threshold: float = 0.5) -> Tensor:
    """Times scaled so that a hit stands clear of the empty pixels: 0 -> 0, (0, T] -> (r, 1].

        value = r + (1 - r) t / T   where t > 0

    Args:
        time: t, 0 where no hit is.
        time_steps: T.
        threshold: r, at least 0 and less than 1.
    Example:
        >>> gap(torch.tensor([0.0, 250.0, 1000.0]), 1000, threshold=0.5)
        tensor([0.0000, 0.6250, 1.0000])
    """
    _check_threshold(threshold)
    value = threshold + (1.0 - threshold) * (time / time_steps)
    return value.masked_fill(time <= 0, 0.0)  # a NaN stays one


def ungap(value: Tensor, time_steps: float, threshold: float = 0.5) -> Tensor:
    """The inverse of `gap`; all that is at most r becomes 0, no hit."""
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
    """What a network is given: frames (B, C, H, W) of the visible hits, 0 at empty pixels.

    Args:
        events: the hits.
        channels: any of "gapped" (time, see `gap`), "hit" (1 at a hit), "fourier"
            (sin and cos of 1, 2 and 4 turns of 2 pi t / T, so six channels).
        rule: which hit a shared pixel shows, "largest" or "smallest" time.
        threshold: r of `gap`.
    """
    check_choice("rule", rule, RULES[:2])
    for channel in channels:
        check_choice("channels", channel, CHANNELS)
    events = events.torch(events.x.device) if events.is_torch else events.torch()
    time = events.t.to(torch.float32)
    turn = (2 * math.pi / events.geometry.time_steps) * time
    columns: list[Tensor] = []
    for channel in channels:
        if channel == "gapped":
            columns.append(gap(time, events.geometry.time_steps, threshold))
        elif channel == "hit":
            columns.append(torch.ones_like(time))
        else:
            columns += [wave(n * turn) for n in TURNS for wave in (torch.sin, torch.cos)]
    if not columns:
        raise ValueError("Expected `channels` with at least one channel, got none.")
    return paint(events, torch.stack(columns, 1), visible(events, rule))


def frames_to_events(frame: Tensor, geometry: Geometry, label: Tensor | None = None) -> Events:
    """The hits of frames (B, 1, H, W) of times: pixels above 0, row by row.

    Args:
        frame: times, 0 where no hit is.
        geometry: the frame's size, which must fit.
        label: (B, 1, H, W) label of each pixel, where known.
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
    """(n_hits, 3) x, y and t, in pixels and time steps or in mm, mm and ns; pixel 0 is at 0."""
    check_choice("unit", unit, ("pixel", "physical"))
    step = steps(events.geometry) if unit == "physical" else (1.0, 1.0, 1.0)
    if events.is_torch:
        columns = (events.x, events.y, events.t)
        return torch.stack([c.to(torch.float64) * s for c, s in zip(columns, step, strict=True)], 1)
    return np.stack([events.x, events.y, events.t], 1).astype(np.float64) * step


def steps(geometry: Geometry) -> tuple[float, float, float]:
    """Size of a pixel in x and y in mm and of a time step in ns, which must be known."""
    size = (geometry.x_mm, geometry.y_mm, geometry.t_ns)
    if None in size:
        raise ValueError(
            "Expected `x_mm`, `y_mm` and `t_ns` of the geometry for physical units, got "
            f"{size}; give them with dataclasses.replace(geometry, x_mm=...)."
        )
    return size  # type: ignore[return-value]
