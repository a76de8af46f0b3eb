"""Placement of hits: pixels as they are, bins of coordinates in mm and ns, or sensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused, literal, option, refusal
from dense_imb.data.events.formats.source import Columns, Source, make_events
from dense_imb.data.events.sensors import METRES, PositionTable
from dense_imb.hits import Events, Geometry, Sensors

MOST_STEPS = 65536
_CURES = (
    "bin coordinates in mm or ns with {{bin={name}=WIDTH}}, or keep positions as a table of "
    "sensors with {{sensors=x,y,z}}"
)


@dataclass
class Axis:
    """Bins of one coordinate.

    Args:
        name: x, y or t.
        width: width of a bin, in the unit of the source.
        low: lower edge of the first bin; None puts the smallest value into its middle.
        high: upper edge of the last bin; None ends with the largest value.
    """

    name: str
    width: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        self.is_whole = self.high is not None  # known before the hits are read
        self.least, self.most = math.inf, -math.inf
        ends = [one for one in (self.low, self.high) if one is not None]
        if not (math.isfinite(self.width) and self.width > 0 and all(map(math.isfinite, ends))):
            raise refusal(f"Expected a bin of {self.name} with a width above 0, got {self.width}.")
        if len(ends) == 2 and ends[1] <= ends[0]:
            raise refusal(f"Expected bins of {self.name} that rise, got {ends[0]} to {ends[1]}.")

    def look(self, column: NDArray[Any]) -> None:
        if len(column):
            self.least = min(self.least, float(column.min()))
            self.most = max(self.most, float(column.max()))

    def edges(self) -> tuple[float, int]:
        """Return the lower edge of the first bin, and the number of bins."""
        least, most = (self.least, self.most) if self.most >= self.least else (0.0, 0.0)
        # the smallest value in the middle of its bin: a grid of this pitch has no value on an edge
        low = least - self.width / 2
        low = round(low, 2 - math.floor(math.log10(self.width))) if self.low is None else self.low
        if self.high is not None:
            return low, math.ceil((self.high - low) / self.width - 1e-9)
        return low, max(1, math.floor((most - low) / self.width) + 1)

    def text(self) -> str:
        """Return the bins as the option that repeats them."""
        low, count = self.edges()
        return f"{self.name}={self.width:.12g}:{low:.12g}:{low + count * self.width:.12g}"


def read_bins(words: list[str]) -> dict[str, Axis]:
    """Return the bins of coordinates from words like "x=1.5" and "t=0.5:-10:490".

    Example:
        >>> read_bins(["x=1.5", "t=0.5:-10:490"])["t"]
        Axis(name='t', width=0.5, low=-10.0, high=490.0)
    """
    axes: dict[str, Axis] = {}
    for word in (part for one in words for part in one.split(",") if part):
        name, _, rest = word.partition("=")
        try:
            width, *ends = (float(one) for one in rest.split(":"))
        except ValueError:
            width, ends = math.nan, [0.0] * 3
        if name not in ("x", "y", "t") or len(ends) > 2 or name in axes:
            raise Refused("{bin} like x=1.5 or t=0.5:0:500, once for each of x, y, t", repr(word))
        axes[name] = Axis(name, width, *ends)
    return axes


class GridPlacing:
    """Hits on a grid of pixels, perhaps binned.

    Args:
        source: source of the hits.
        size: width, height and time steps; None where bins or the largest time give them.
        axes: bins by coordinate.
        units: mm of a pixel in x and y, and ns of a step; None where unknown.
        unit: unit of binned x and y in the source: m, cm or mm.
    """

    def __init__(
        self,
        source: Source,
        size: Mapping[str, int | None],
        axes: Mapping[str, Axis],
        units: Mapping[str, float | None],
        unit: str,
    ) -> None:
        self.source, self.size, self.axes = source, dict(size), axes
        self.units = dict(units)
        self.largest = 1.0
        for axis in axes.values():
            name = {"x": "x_mm", "y": "y_mm", "t": "t_ns"}[axis.name]
            factor = 1.0 if axis.name == "t" else METRES[unit] * 1000
            if self.units.get(name) is None:
                self.units[name] = axis.width * factor
        self.unit = unit

    def look(self, columns: Columns) -> None:
        for axis in self.axes.values():
            self._refuse_nan(axis.name, columns)
            axis.look(columns.hit[axis.name])
        time = columns.hit["t"]
        if len(time) and "t" not in self.axes:
            self.largest = max(self.largest, float(np.nanmax(time)))

    def _refuse_nan(self, name: str, columns: Columns) -> None:
        column = columns.hit[name]
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            wrong = column[~np.isfinite(column)][0]
            raise ValueError(
                f"Expected finite numbers in `{name}` of {self.source.name}, got {wrong}; remove "
                "that hit."
            )

    def finish(self) -> None:
        """Fix the geometry, after all batches were looked at."""
        size: dict[str, int] = {}
        for axis_name, name in (("x", "width"), ("y", "height"), ("t", "time_steps")):
            declared = self.size[name]
            if axis_name in self.axes:
                count = self.axes[axis_name].edges()[1]
                if count > MOST_STEPS:
                    raise Refused(
                        f"at most {MOST_STEPS} bins of {axis_name}",
                        f"{count}, {self.axes[axis_name].text()}",
                        "take wider bins with {bin}"
                        + (", or times from the first hit of an event, {relative_times}"
                           if axis_name == "t" else ""),
                    )  # fmt: skip
                declared = count if declared is None else declared
            elif name == "time_steps" and declared is None:
                declared = min(max(1, math.ceil(self.largest)), MOST_STEPS)
            assert declared is not None
            size[name] = declared
        self.geometry = Geometry(
            size["width"],
            size["height"],
            size["time_steps"],
            *(self.units[name] for name in ("x_mm", "y_mm", "t_ns")),
        )

    def place(self, columns: Columns, first: int) -> Events:
        hit = dict(columns.hit)
        for name, axis in self.axes.items():
            self._refuse_nan(name, columns)
            hit[name] = self._binned(axis, hit[name], columns, first)
        for name in ("x", "y"):
            hit[name] = self._whole(name, hit[name], columns, first)
        events = make_events(self.geometry, replace(columns, hit=hit))
        check_grid(events, self.source.name, first)
        return events

    def _binned(
        self, axis: Axis, column: NDArray[Any], columns: Columns, first: int
    ) -> NDArray[np.int64]:
        low, count = axis.edges()
        index = np.floor((column - low) / axis.width).astype(np.int64)
        if axis.high is not None:  # the last edge belongs to the last bin
            index[(index == count) & (column <= axis.high)] = count - 1
        wrong = np.flatnonzero((index < 0) | (index >= count))
        if len(wrong):
            event = event_of(columns, int(wrong[0]), first)
            raise Refused(
                f"`{axis.name}` of {self.source.name} in the bins from {low:g} to "
                f"{low + count * axis.width:g}",
                f"{column[wrong[0]]:g} in event {event}",
                f"widen {{bin={literal(axis.text())}}}",
            )
        return index + (axis.name == "t")

    def _whole(self, name: str, column: NDArray[Any], columns: Columns, first: int) -> NDArray[Any]:
        if column.dtype.kind != "f":
            return column
        wrong = np.flatnonzero(np.isfinite(column) & (column != np.floor(column)))
        if len(wrong):
            raise Refused(
                f"whole numbers in `{name}` of {self.source.name}",
                f"{column[wrong[0]]:g} in event {event_of(columns, int(wrong[0]), first)}",
                _CURES.format(name=name),
            )
        return column if not np.isfinite(column).all() else column.astype(np.int64)

    def describe(self) -> list[str]:
        lines = []
        for axis in self.axes.values():
            low, count = axis.edges()
            unit = "ns" if axis.name == "t" else self.unit
            lines.append(
                f"{axis.name}: {count} bins of {axis.width:.12g} {unit} from {low:.12g} to "
                f"{low + count * axis.width:.12g} {unit}"
            )
        return lines

    def repeat(self) -> list[str]:
        """Return the words that give other files the same bins."""
        return [axis.text() for axis in self.axes.values()]


class SensorPlacing:
    """Hits of sensors: of a given table, or of one built from their positions.

    Args:
        source: source of the hits.
        table: table of sensors, or the columns that it is built from.
    """

    def __init__(self, source: Source, table: Sensors | PositionTable) -> None:
        self.source, self.table = source, table
        self.n_hits = 0

    def look(self, columns: Columns) -> None:
        self.n_hits += len(columns.hit["t"])
        if isinstance(self.table, PositionTable):
            self.table.add(columns.hit)

    def finish(self) -> None:
        """Fix the geometry, after all batches were looked at."""
        is_built = isinstance(self.table, PositionTable)
        self.geometry = (
            self.table.sensors() if isinstance(self.table, PositionTable) else self.table
        )
        if is_built and self.n_hits > 1000 and 2 * len(self.geometry) > self.n_hits:
            self.source.notes.append(
                f"{len(self.geometry):,} different positions for {self.n_hits:,} hits: these are "
                "no sensors but measured positions; {bin=x=WIDTH} bins them"
            )

    def place(self, columns: Columns, first: int) -> Events:
        hit = dict(columns.hit)
        if isinstance(self.table, PositionTable):
            hit["sensor"] = self.table.number(hit)
            hit = {name: one for name, one in hit.items() if name not in self.table.names}
        self._check(hit, columns, first)
        return make_events(self.geometry, replace(columns, hit=hit))

    def _check(self, hit: Mapping[str, NDArray[Any]], columns: Columns, first: int) -> None:
        sensor, time = hit["sensor"], hit["t"]
        wrong = np.flatnonzero(~((sensor >= 0) & (sensor < len(self.geometry))))
        if len(wrong):
            low, high = sensor.min(), sensor.max()
            cure = "give the whole table with {sensor_table=FILE}"
            if low >= 1 and high == len(self.geometry):
                cure = "sensors count from 0: subtract 1"
            raise Refused(
                f"`sensor` of {self.source.name} from 0 to {len(self.geometry) - 1}",
                f"{sensor[wrong[0]]} in event {event_of(columns, int(wrong[0]), first)}",
                cure,
            )
        if time.dtype.kind == "f" and not np.isfinite(time).all():
            hit_number = int(np.flatnonzero(~np.isfinite(time))[0])
            raise ValueError(
                f"Expected finite times in `t` of {self.source.name}, got {time[hit_number]} in "
                f"event {event_of(columns, hit_number, first)}; remove that hit."
            )

    def describe(self) -> list[str]:
        position = self.geometry.position
        extent = " x ".join(f"{size:.4g}" for size in np.ptp(position, axis=0))
        kind = "built from the positions of the hits" if isinstance(
            self.table, PositionTable) else "as given"  # fmt: skip
        return [f"table of {self.geometry.size_text()}, {extent} m, {kind}; times in ns"]

    def repeat(self) -> list[str]:
        """Return the words that give other files the same bins; none."""
        return []


def event_of(columns: Columns, hit: int, first: int) -> int:
    """Return the number of the event of a hit."""
    return first + int(np.searchsorted(columns.offset, hit, side="right")) - 1


def check_grid(events: Events, where: str, first: int) -> None:
    """Refuse hits outside the frame, and name the option that would make them fit.

    Args:
        events: batch of events on a grid.
        where: name of the source.
        first: number of the first event.
    """
    g = events.grid
    for name, low, high in (
        ("x", 0, g.width - 1),
        ("y", 0, g.height - 1),
        ("t", 1, g.time_steps),
    ):
        column = np.asarray(events.hit_columns()[name])
        if len(column) == 0 or (column.min() >= low and column.max() <= high):
            continue
        hit = int(np.flatnonzero(~((column >= low) & (column <= high)))[0])
        event = first + int(np.searchsorted(events.offset, hit, side="right")) - 1
        value = column[hit]
        raise Refused(
            f"`{name}` of {where} from {low} to {high}",
            f"{value} in event {event}",
            _cure_of(name, column, value),
        )


def _cure_of(name: str, column: NDArray[Any], value: Any) -> str:
    if not math.isfinite(value):
        return "remove that hit"
    if name == "t" and value < 1:
        shift = 1 - math.floor(float(column.min()))
        return (
            "0 means an empty pixel; shift all times, for example with "
            f"{option('time_offset', shift)}, or bin times in ns with {{bin=t=WIDTH}}"
        )
    if name == "t":
        least = math.ceil(column.max())
        wide = "or a {time_scale}, or bin times in ns with {bin=t=WIDTH}"
        if least > MOST_STEPS:
            return f"{wide.removeprefix('or ')}, from the first hit of an event {{relative_times}}"
        return f"declare {{time_steps}} of at least {least}, {wide}"
    if value < 0:
        return f"number the pixels from 0, or {_CURES.format(name=name)}"
    size = "width" if name == "x" else "height"
    return f"declare a {option(size)} of at least {int(column.max()) + 1}"


def batches_of(source: Source, scale: float, shift: float, is_relative: bool) -> Iterator[Columns]:
    """Read a source with its times scaled and shifted.

    Args:
        source: source of the hits.
        scale: factor of the times.
        shift: number added to the scaled times.
        is_relative: count times from the first hit of their event, before they are scaled.
    """
    for columns in source.read():
        time = np.asarray(columns.hit["t"])
        if time.dtype.kind == "b" or (time.dtype.kind == "u" and time.dtype.itemsize < 8):
            time = time.astype(np.int64)  # 255 + 1 is 256
        if is_relative and len(time):
            filled = columns.offset[:-1][np.diff(columns.offset) > 0]
            earliest = np.minimum.reduceat(time, filled)
            counts = np.diff(np.append(filled, len(time)))
            time = time - np.repeat(earliest, counts)
        if (scale, shift) != (1.0, 0.0):
            is_whole = scale == int(scale) and shift == int(shift) and time.dtype.kind in "iu"
            time = time * int(scale) + int(shift) if is_whole else time * scale + shift
        yield replace(columns, hit={**columns.hit, "t": time})
