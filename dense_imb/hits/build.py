"""Events from columns in memory, checked once: arrays, tensors and awkward arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry, Sensors

Array = Any  # np.ndarray or torch.Tensor
_STARTS = ("event_id", "offset", "counts")


def from_arrays(
    geometry: Geometry | Sensors,
    *,
    event_id: Array = None,
    offset: Array = None,
    counts: Array = None,
    x: Array = None,
    y: Array = None,
    t: Array = None,
    sensor: Array = None,
    label: Array = None,
    **columns: Array,
) -> Events:
    """Make events from flat arrays of hits, and check units, order and offsets.

    `event_id`, `offset` or `counts` says which event a hit belongs to. Hits without order are
    sorted by `event_id`; hits of one event keep their order.

    Args:
        geometry: grid of pixels, or table of sensors.
        event_id: (n_hits,) number of the event of each hit, or (n_hits, k) for a key of k
            numbers such as run and event. It is kept as the event column `event_id`.
        offset: (n_events + 1,) first hit of each event, and the number of hits.
        counts: (n_events,) number of hits of each event.
        x: (n_hits,) pixel index in x, for a grid.
        y: (n_hits,) pixel index in y, for a grid.
        t: (n_hits,) time in steps, 1 .. T, for a grid; in ns for sensors.
        sensor: (n_hits,) row of each hit in the table of sensors.
        label: (n_hits,) label: 0 for noise, 1.. for signal classes; None if unknown.
        columns: further columns by name, with one row for each hit or for each event.

    Returns:
        Events of tensors if `t` is a tensor, else of NumPy arrays.

    Example:
        >>> frame = Geometry(width=88, height=128, time_steps=1000)
        >>> events = from_arrays(frame, event_id=[7, 3, 7], x=[1, 2, 3], y=[4, 5, 6],
        ...                      t=[500, 600, 700], charge=[0.5, 1.5, 2.5])
        >>> events.offset.tolist(), events.x.tolist(), events.event["event_id"].tolist()
        ([0, 1, 3], [2, 1, 3], [3, 7])
        >>> from_arrays(frame, counts=[2, 1], x=[1, 2, 3], y=[4, 5, 6], t=[1500.0, 1600.0, 1700.0])
        Traceback (most recent call last):
        ValueError: Expected `t` in steps from 1 to 1000, got times from 1500 to 1700; if they are
        in ns, divide them by the length of a step, or declare `time_steps=1700` or more.
    """
    device = t.device if isinstance(t, torch.Tensor) else None
    given = {"x": x, "y": y, "t": t, "sensor": sensor, "label": label}
    hit = _hit_columns(geometry, {n: _numpy(n, c) for n, c in given.items() if c is not None})
    n_hits = len(hit["t"])
    event: dict[str, NDArray[Any]] = {}
    order = None
    pairs = zip(_STARTS, (event_id, offset, counts), strict=True)
    starts = [name for name, value in pairs if value is not None]
    if len(starts) != 1:
        raise ValueError(
            "Expected one of `event_id`, `offset` and `counts`, got "
            f"{' and '.join(f'`{name}`' for name in starts) or 'none'}."
        )
    if event_id is not None:
        offset, order, event["event_id"] = _sorted_by(_numpy("event_id", event_id), n_hits)
    elif counts is not None:
        offset = _offset_from_counts(_whole("counts", _numpy("counts", counts)), n_hits)
    else:
        offset = _checked_offset(_whole("offset", _numpy("offset", offset)), n_hits)
    for name, column in columns.items():
        rows = _numpy(name, column, dims=None)
        if len(rows) not in (n_hits, len(offset) - 1):
            raise ValueError(
                f"Expected `{name}` with one row for each of the {n_hits} hits or "
                f"{len(offset) - 1} events, got {len(rows)}."
            )
        (hit if len(rows) == n_hits else event)[name] = rows
    if order is not None:
        hit = {name: column[order] for name, column in hit.items()}
    check_columns(geometry, hit)
    own = {name: hit.pop(name, None) for name in (*geometry.columns, "t", "label")}
    events = Events(geometry, offset, **own, hit=hit, event=event)
    return events if device is None else events.torch(device)


def check_columns(geometry: Geometry | Sensors, hit: Mapping[str, NDArray[Any]]) -> None:
    """Refuse coordinates and labels that do not fit the geometry, with the likely reason.

    Args:
        geometry: grid of pixels, or table of sensors.
        hit: columns x, y, t or sensor, t, and perhaps label.
    """
    for name in (*geometry.columns, "t", "label"):
        if name in hit:
            _check_finite(name, hit[name])
    if isinstance(geometry, Sensors):
        _check_sensors(hit["sensor"], len(geometry))
    else:
        _check_pixels(hit, geometry)
        _check_steps(hit["t"], geometry)
    if "label" in hit:
        _check_labels(hit["label"])


def _hit_columns(
    geometry: Geometry | Sensors, given: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the columns that the geometry needs, in whole numbers where they are indices."""
    needed = (*geometry.columns, "t")
    missing = [name for name in needed if name not in given]
    if missing:
        raise ValueError(
            f"Expected {', '.join(f'`{n}`' for n in needed)} for hits of {geometry.size_text()}, "
            f"got no `{missing[0]}`."
        )
    for name, column in given.items():
        if len(column) != len(given["t"]):
            raise ValueError(
                f"Expected `{name}` with one entry for each of the {len(given['t'])} hits, got "
                f"{len(column)}."
            )
        if name in (*geometry.columns, "label"):
            _check_finite(name, column)
            given[name] = _whole(name, column)
    return given


def _numpy(name: str, column: Any, dims: int | None = 1) -> NDArray[Any]:
    if isinstance(column, torch.Tensor):
        column = column.detach().cpu().numpy()
    rows = np.asarray(column)
    if rows.size == 0 and rows.dtype == np.float64 and not isinstance(column, np.ndarray):
        rows = rows.astype(np.int64)  # an empty list
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"Expected numbers in `{name}`, got {rows.dtype}.")
    if rows.ndim == 0 or (dims is not None and rows.ndim != dims and name != "event_id"):
        raise ValueError(f"Expected `{name}` in one dimension, got the shape {rows.shape}.")
    return rows


_FRACTIONS = {
    "x": "Coordinates in mm need pixels, `np.floor((x - x.min()) / pitch_mm)`, or `Sensors`.",
    "y": "Coordinates in mm need pixels, `np.floor((y - y.min()) / pitch_mm)`, or `Sensors`.",
}


def _whole(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as integers; refuse fractions."""
    if column.dtype.kind in "iu":
        return column
    if column.dtype.kind == "f":
        wrong = np.flatnonzero(column != np.floor(column))
        if len(wrong):
            raise ValueError(
                f"Expected whole numbers in `{name}`, got {column[wrong[0]]:g} at {wrong[0]}. "
                f"{_FRACTIONS.get(name, '')}".rstrip()
            )
    return column.astype(np.int64)


def _check_finite(name: str, column: NDArray[Any]) -> None:
    if column.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(column))
        if len(wrong):
            raise ValueError(
                f"Expected finite numbers in `{name}`, got {column[wrong[0]]} for hit {wrong[0]}, "
                f"and {len(wrong) - 1} more; remove these hits first."
            )


def _check_sensors(sensor: NDArray[Any], n_sensors: int) -> None:
    if not len(sensor) or (sensor.min() >= 0 and sensor.max() < n_sensors):
        return
    low, high = int(sensor.min()), int(sensor.max())
    cure = "look each number up in the list of sensors, or pass a table with all of them"
    if low >= 1 and high == n_sensors:
        cure = "they count from 1: subtract 1"
    wrong = sensor[(sensor < 0) | (sensor >= n_sensors)][0]
    raise ValueError(
        f"Expected `sensor` from 0 to {n_sensors - 1}, the rows of the table, got {wrong}; {cure}."
    )


def _check_pixels(hit: Mapping[str, NDArray[Any]], geometry: Geometry) -> None:
    sizes = {"x": ("width", geometry.width), "y": ("height", geometry.height)}
    highest = {name: int(hit[name].max(initial=0)) for name in sizes}
    for name, (size_name, size) in sizes.items():
        column = hit[name]
        if not len(column) or (column.min() >= 0 and column.max() < size):
            continue
        wrong = column[(column < 0) | (column >= size)][0]
        is_swapped = highest["x"] < geometry.height and highest["y"] < geometry.width
        if wrong < 0:
            cure = f"add {-int(column.min())}, so that the first pixel is 0"
        elif column.min() >= 1 and highest[name] == size:
            cure = "they count from 1: subtract 1"
        elif is_swapped:
            cure = "x and y are swapped, or the frame is"
        else:
            cure = f"declare `{size_name}={highest[name] + 1}` or more"
        raise ValueError(f"Expected `{name}` from 0 to {size - 1}, got {wrong}; {cure}.")


def _check_steps(time: NDArray[Any], geometry: Geometry) -> None:
    """Refuse times that are not in steps, 1 .. T."""
    steps = geometry.time_steps
    if not len(time) or (time.min() >= 1 and time.max() <= steps):
        return
    low, high = float(time.min()), float(time.max())
    divisor = "the length of a step" if geometry.t_ns is None else f"`t_ns`, {geometry.t_ns:g}"
    if high < 1 and low >= 0 and high > 0:
        cure = f"fractions are no steps: scale them, for example `1 + t * {steps - 1}`"
    elif low >= 0 and low < 1 and high <= steps - 1:
        cure = "0 means no hit, steps count from 1: add 1"
    elif low > steps:
        cure = (
            f"if they are in ns, divide them by {divisor}, or declare "
            f"`time_steps={math.ceil(high)}` or more"
        )
    elif low < 1:
        cure = f"shift them, for example `t + {1 - math.floor(low)}`"
    else:
        cure = f"declare `time_steps={math.ceil(high)}` or more, or divide times in ns by {divisor}"
    raise ValueError(
        f"Expected `t` in steps from 1 to {steps}, got times from {low:g} to {high:g}; {cure}."
    )


def _check_labels(label: NDArray[Any]) -> None:
    if len(label) and (label.min() < 0 or label.max() > 255):
        wrong = label[(label < 0) | (label > 255)][0]
        raise ValueError(
            f"Expected `label` from 0, noise, to 255, got {wrong}; number the classes of signal "
            "from 1, or pass `label > 0`."
        )


def _sorted_by(
    key: NDArray[Any], n_hits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[Any]]:
    """Return the offsets, the order of the hits (None if kept), and the key of each event."""
    if len(key) != n_hits or key.ndim > 2:
        raise ValueError(
            f"Expected `event_id` with one number for each of the {n_hits} hits, got the shape "
            f"{key.shape}; numbers of hits of each event are `counts`."
        )
    key = _whole("event_id", key)
    width = key.shape[1] if key.ndim == 2 else 1
    columns = list(key.reshape(n_hits, width).T)
    order = None
    if is_backwards(columns).any():
        order = np.lexsort(columns[::-1])  # stable
        key = key[order]
    rows = key.reshape(n_hits, width)
    is_first = np.append(True, (rows[1:] != rows[:-1]).any(1))[:n_hits]
    first = np.flatnonzero(is_first)
    return np.append(first, n_hits).astype(np.int64), order, key[first]


def is_backwards(columns: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Return where a row is less than the row before it, compared column by column.

    Args:
        columns: (n,) each, the most significant first.
    """
    less = np.zeros(max(len(columns[0]) - 1, 0), np.bool_)
    is_equal = ~less
    for column in columns:
        less |= is_equal & (column[1:] < column[:-1])
        is_equal &= column[1:] == column[:-1]
    return less


def _offset_from_counts(counts: NDArray[Any], n_hits: int) -> NDArray[np.int64]:
    if len(counts) and counts.min() < 0:
        raise ValueError(f"Expected `counts` of at least 0, got {counts.min()}.")
    total = int(counts.sum())
    if total != n_hits:
        is_offset = len(counts) > 1 and counts[0] == 0 and counts[-1] == n_hits
        cure = "they are offsets: pass `offset=`" if is_offset else "count the hits of each event"
        raise ValueError(
            f"Expected `counts` that add up to the number of hits, {n_hits}, got {total}; {cure}."
        )
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _checked_offset(offset: NDArray[Any], n_hits: int) -> NDArray[np.int64]:
    wanted = f"Expected `offset` to rise from 0 to the number of hits, {n_hits}"
    if not len(offset):
        raise ValueError(f"{wanted}, got none; for no events pass [0].")
    offset = offset.astype(np.int64)
    falls = np.flatnonzero(np.diff(offset) < 0)
    if offset[0] == 0 and offset[-1] == n_hits and not len(falls):
        return offset
    if int(offset.sum()) == n_hits:
        cure = "they are numbers of hits: pass `counts=`"
    elif len(falls):
        cure = "sort the hits by event, or pass `event_id=` for hits without order"
    elif offset[0] == 0 and offset[-1] < n_hits:
        cure = f"if the end of the last event is missing, append {n_hits}"
    elif offset[0] != 0 and offset[-1] == n_hits:
        cure = "if the first event begins with the first hit, put 0 in front"
    else:
        cure = "pass the hits of these events only"
    got = f"{offset[falls[0]]} then {offset[falls[0] + 1]}" if len(falls) else (
        f"{offset[0]} to {offset[-1]}"
    )  # fmt: skip
    raise ValueError(f"{wanted}, got {got}; {cure}.")
