"""Degradation of clean patterns into realistic events: thin, smear, lose hits, add noise.

It works on hits, before any frame is made. Random numbers depend on (seed, epoch, event) only,
see `dense_imb.base.random`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.random import Draws, between
from dense_imb.base.refusals import Refused
from dense_imb.hits.events import Events
from dense_imb.hits.frames import steps, visible
from dense_imb.hits.geometry import Geometry, Sensors, describe_difference
from dense_imb.hits.noise import (
    Floats,
    HotPixels,
    MeasuredNoise,
    Profile,
    SensorProfile,
    Uniform,
)
from dense_imb.hits.sensor_noise import event_spans

_MOST = 100_000_000  # hits kept or added in an event

Range = int | tuple[int, int]


class Purpose(IntEnum):
    """Purposes of the random numbers of a degradation; each purpose has its own numbers."""

    COUNTS = 1
    SIGNAL = 2
    SMEAR = 3
    PROFILE = 4
    NOISE = 5
    DETECTOR = 6


@dataclass(frozen=True)
class Degradation:
    """Settings of a degradation, in the order in which they are applied.

    Args:
        signal: signal hits to keep per event; a range (low, high), both included, draws a number
            for each event; None keeps all.
        choose_from: draw the kept hits from the lit "pixels", each with its largest time, or
            from all "hits", of which bright pixels have more.
        smear_x: standard deviation of the Gaussian smearing of signal hits in x, default 0.
        smear_y: the same in y.
        smear_t: the same in t.
        unit: unit of the smearing: "pixel" (pixels and time steps) or "physical" (mm and ns).
            Times of a table of sensors are in ns, and so is their smearing.
        edge: drop signal hits that leave the frame ("lose") or move them to its edge ("clamp").
        noise: noise hits to add per event, a number or a range.
        profiles: spatial profiles of the noise; each noise hit draws one by weight.
        dead_rows: y of rows without hits, noise included.
        dead_columns: x of columns without hits, noise included.

    Example:
        >>> from dense_imb.hits import Degradation, degrade, simulate
        >>> how = Degradation(signal=30, smear_x=1.5, smear_t=4.0, noise=(100, 200), dead_rows=[64])
        >>> how.noise
        (100, 200)
        >>> noisy = degrade(simulate("arc", 20, seed=1), how, seed=1)
        >>> int((noisy.y == 64).sum())
        0
    """

    signal: Range | None = None
    choose_from: Literal["pixels", "hits"] = "pixels"
    smear_x: float = 0.0
    smear_y: float = 0.0
    smear_t: float = 0.0
    unit: Literal["pixel", "physical"] = "pixel"
    edge: Literal["lose", "clamp"] = "lose"
    noise: Range = 0
    profiles: Sequence[Profile | SensorProfile | MeasuredNoise] = (Uniform(),)
    dead_rows: Sequence[int] = ()
    dead_columns: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_choice("choose_from", self.choose_from, ("pixels", "hits"))
        check_choice("unit", self.unit, ("pixel", "physical"))
        check_choice("edge", self.edge, ("lose", "clamp"))
        for name in ("smear_x", "smear_y", "smear_t"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("signal", "noise"):
            value = getattr(self, name)
            if value is not None:
                low, high = _ends(value)
                is_whole = all(math.isfinite(end) and int(end) == end for end in (low, high))
                if not is_whole or not 0 <= low <= high:
                    raise ValueError(
                        f"Expected `{name}` to be a whole number of hits or a range "
                        f"(low, high), got {value!r}."
                    )
                if high > _MOST:
                    raise Refused(f"{{{name}}} of at most {_MOST:,} hits an event", high)
        for profile in self.profiles:
            check_at_least("weight", profile.weight, 0)
        if not sum(profile.weight for profile in self.profiles) > 0:
            raise ValueError("Expected `profiles` with a sum of weights above 0, got 0.")


def degrade(
    events: Events,
    degradation: Degradation,
    *,
    seed: int,
    epoch: int = 0,
    event_index: ArrayLike | None = None,
) -> Events:
    """Degrade events; in each event the signal hits come before the new noise hits.

    Events of a table of sensors have no pixels: their hits hide nothing, and options of pixels
    are refused.

    In the result, `label` is 0 for noise and 1.. for signal. The column `is_occluded` is True for
    hits behind another one in their pixel (`rasterise` with the largest time). Hits labelled 0 on
    input are kept unchanged. Added noise has NaN or 0 in columns for which it has no value.

    Args:
        events: clean events; without labels, all hits are signal.
        degradation: settings.
        seed: seed of the random numbers.
        epoch: epoch of the random numbers, default 0.
        event_index: (n_events,) index of each event in its data set; by default, its index in
            the batch.
    Example:
        >>> from dense_imb.hits import simulate
        >>> clean = simulate("arc", 2, seed=1)
        >>> noisy = degrade(clean, Degradation(signal=30, noise=200), seed=1)
        >>> noisy.offset.tolist(), int((noisy.label > 0).sum())
        ([0, 230, 460], 60)
    """
    device = events.t.device if events.is_torch else None
    events = events.numpy()
    index = np.arange(len(events)) if event_index is None else np.asarray(event_index)
    if len(index) != len(events):
        raise ValueError(
            f"Expected `event_index` with one number for each of the {len(events)} events, "
            f"got {len(index)}."
        )
    if isinstance(events.geometry, Sensors):
        _check_for_sensors(degradation, events.geometry)
    draws = Draws(seed, epoch, index)
    amount = draws.uniform(Purpose.COUNTS, 1)
    signal = _smear(_thin(_labelled(events), degradation, draws, amount[0]), degradation, draws)
    span = np.stack(event_spans(events)) if isinstance(events.geometry, Sensors) else None
    noisy = _add_noise(signal, degradation, draws, amount[1], span)
    if len(degradation.dead_rows) or len(degradation.dead_columns):
        is_dead = np.isin(noisy.y, degradation.dead_rows)
        is_dead |= np.isin(noisy.x, degradation.dead_columns)
        noisy = noisy.select(~is_dead)
    hidden = ~visible(noisy).numpy()
    noisy = noisy.with_hits(noisy.offset, {**noisy.hit_columns(), "is_occluded": hidden})
    return noisy if device is None else noisy.torch(device)


def _check_for_sensors(degradation: Degradation, sensors: Sensors) -> None:
    """Refuse options that need a grid of pixels."""
    for name in ("smear_x", "smear_y", "dead_rows", "dead_columns"):
        if getattr(degradation, name):
            raise ValueError(
                f"`{name}` needs a grid of pixels, and these hits are of {sensors.size_text()}; "
                "drop it."
            )
    for profile in degradation.profiles:
        if not isinstance(profile, MeasuredNoise | SensorProfile):
            raise ValueError(
                f"Expected noise of sensors, Uniform, SensorNoise or MeasuredNoise, for hits of "
                f"{sensors.size_text()}, got {type(profile).__name__}, a profile of pixels."
            )


def _labelled(events: Events) -> Events:
    columns = events.hit_columns()
    columns.setdefault("label", np.ones(events.n_hits, np.uint8))
    return events.with_hits(events.offset, columns)


def _thin(events: Events, degradation: Degradation, draws: Draws, amount: Floats) -> Events:
    if degradation.signal is None:
        return events
    is_signal: NDArray[np.bool_] = np.asarray(events.label) != 0
    # indices of hits: few are kept, so columns are only read there
    candidate = np.flatnonzero(is_signal)
    noise = np.flatnonzero(~is_signal)
    if degradation.choose_from == "pixels":
        signal = events._pick(candidate) if len(noise) else events
        candidate = candidate[np.flatnonzero(visible(signal).numpy())]
    size = np.diff(np.searchsorted(candidate, events.offset))
    n_kept = between(amount, *_ends(degradation.signal))
    kept = candidate[np.flatnonzero(draws.choose(n_kept, size, Purpose.SIGNAL))]
    return events._pick(np.sort(np.concatenate([kept, noise])) if len(noise) else kept)


def _smear(events: Events, degradation: Degradation, draws: Draws) -> Events:
    width = np.array([degradation.smear_x, degradation.smear_y, degradation.smear_t])
    if not width.any():
        return events
    geometry, columns = events.geometry, events.hit_columns()
    if isinstance(geometry, Sensors):
        bounds = {"t": (2, -math.inf, math.inf)}
    else:
        if degradation.unit == "physical":
            width = width / steps(geometry)
        bounds = {
            "x": (0, 0, geometry.width - 1),
            "y": (1, 0, geometry.height - 1),
            "t": (2, 1, geometry.time_steps),
        }
    normal = draws.normal(Purpose.SMEAR, np.diff(events.offset))
    lost = np.zeros(events.n_hits, bool)
    is_signal = columns["label"] != 0
    for name, (axis, low, high) in bounds.items():
        old = columns[name]
        moved = old + width[axis] * normal[axis]
        if name != "t" or old.dtype.kind in "iu":
            moved = np.floor(moved + 0.5)
        moved = np.where(is_signal, moved, old)
        lost |= (moved < low) | (moved > high)
        columns[name] = np.clip(moved, low, high).astype(old.dtype)
    smeared = events.with_hits(events.offset, columns)
    return smeared.select(~lost) if degradation.edge == "lose" else smeared


def _add_noise(
    events: Events,
    degradation: Degradation,
    draws: Draws,
    amount: Floats,
    span: Floats | None,
) -> Events:
    count = between(amount, *_ends(degradation.noise))
    geometry, n_events, profiles = events.geometry, len(events), degradation.profiles
    in_event = np.repeat(np.arange(n_events), count)
    number = draws.uniform(Purpose.NOISE, count)
    # the fourth number of a hit chooses its profile
    share = np.cumsum([profile.weight for profile in profiles])
    which = np.searchsorted(share / share[-1], number[3], side="right")
    event_number = draws.uniform(Purpose.PROFILE, len(profiles))
    event_number = event_number.reshape(4, n_events, len(profiles))
    columns = {
        name: np.full(
            (len(in_event), *c.shape[1:]), math.nan if c.dtype.kind == "f" else 0, c.dtype
        )
        for name, c in events.hit_columns().items()
    }
    whole_t = events.t.dtype.kind in "iu"
    for j, profile in enumerate(profiles):
        hit = slice(None) if len(profiles) == 1 else np.flatnonzero(which == j)
        event = event_number[:, in_event[hit], j]
        if isinstance(profile, MeasuredNoise):
            _check_geometry(profile.events, geometry)
            source = profile.source(_rank(in_event[hit]), event)
            for name, column in profile.events.numpy().hit_columns().items():
                if name in columns and name != "label":
                    columns[name][hit] = column[source]
            continue
        if isinstance(geometry, Sensors):
            assert isinstance(profile, SensorProfile)
            assert span is not None
            places = span[:, in_event[hit]]
            sensor, t = profile.place_on_sensors(number[:3, hit], event, geometry, places)
            columns["sensor"][hit] = sensor
            columns["t"][hit] = np.floor(t) if whole_t else t
            continue
        assert isinstance(profile, Profile)
        detector = np.zeros((4, 0))
        if isinstance(profile, HotPixels) and isinstance(profile.pixels, int):
            detector = Draws(draws.seed, 0, [j]).uniform(Purpose.DETECTOR, profile.pixels)
        x, y, t = profile.place(number[:3, hit], event, geometry, detector)
        columns["x"][hit] = np.floor(x)
        columns["y"][hit] = np.floor(y)
        columns["t"][hit] = np.floor(t) + 1 if whole_t else np.clip(t + 0.5, 1, geometry.time_steps)
    n_before = np.diff(events.offset)
    offset = np.concatenate([[0], np.cumsum(n_before + count)]).astype(np.int64)
    # new indices of the old hits, and of the noise hits after them
    old = np.arange(events.n_hits) + np.repeat(offset[:-1] - events.offset[:-1], n_before)
    new = np.arange(len(in_event)) + np.repeat(np.cumsum(n_before), count)
    joined = {}
    for name, column in events.hit_columns().items():
        joined[name] = np.empty((int(offset[-1]), *column.shape[1:]), column.dtype)
        joined[name][old], joined[name][new] = column, columns[name]
    return events.with_hits(offset, joined)


def _rank(event: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each hit within its event; `event` must not decrease."""
    return np.arange(len(event)) - np.searchsorted(event, event)


def _ends(value: Range) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _check_geometry(events: Events, geometry: Geometry | Sensors) -> None:
    own = events.geometry
    is_equal = own == geometry
    if isinstance(own, Geometry) and isinstance(geometry, Geometry):
        is_equal = own.size == geometry.size  # units do not matter
    if not is_equal:
        wanted, got = describe_difference(geometry, own)
        raise ValueError(
            f"Expected measured noise of the geometry of the events, {wanted}, got {got}."
        )
