"""Convert any `Source` to a hits file, and refuse values that do not fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, in_python, option, refusal, render
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import Columns, Source
from dense_imb.data.events.placing import (
    MOST_STEPS,
    Axis,
    GridPlacing,
    SensorPlacing,
    batches_of,
)
from dense_imb.data.events.sensors import PositionTable
from dense_imb.hits import Events, HitsWriter, Sensors


def to_hits(
    source: Source,
    path: PathLike,
    *,
    width: int | None = None,
    height: int | None = None,
    time_steps: int | None = None,
    x_mm: float | None = None,
    y_mm: float | None = None,
    t_ns: float | None = None,
    time_scale: float = 1.0,
    time_offset: float = 0.0,
    relative_times: bool = False,
    bin: Mapping[str, Axis] | None = None,
    sensors: Sensors | PositionTable | None = None,
    unit: str = "mm",
    binary_labels: bool = False,
    noise_label: int | None = None,
    overwrite: bool = False,
    compression: int | None = None,
    progress: bool = True,
    on_note: Callable[[str], None] | None = None,
) -> Converted:
    """Write the events of a source to a hits file, in batches.

    Times become `time_scale * t + time_offset`. On a grid they must lie in 1 .. time_steps: 0
    means no hit. Nothing is clipped, rounded or dropped; only `bin` rounds, to whole bins.

    Args:
        source: result of a reader of `dense_imb.data.events.formats`.
        path: the hits file.
        width: width of the frame, if the source has none.
        height: height of the frame, if the source has none.
        time_steps: T; by default the largest time, for which the source is read once more.
        x_mm: width of a pixel in mm, stored in the file.
        y_mm: height of a pixel in mm, stored in the file.
        t_ns: duration of a time step in ns, stored in the file.
        time_scale: factor from the times of the source to steps, or to ns for sensors.
        time_offset: added to the scaled times.
        relative_times: count times from the first hit of their event.
        bin: bins of x, y, t by name, for coordinates in mm and ns; `read_bins` makes them.
        sensors: table of sensors, or the columns to build it from; by default the source's.
        unit: unit of binned coordinates: m, cm or mm.
        binary_labels: write label 1 for every label except 0, or except `noise_label`.
        noise_label: label of noise in the source. It becomes 0, and the others become 1 and up in
            their order. Smaller labels move up by one if the source has a 0; larger labels move
            down by one if it has none.
        overwrite: replace a file that exists.
        compression: gzip level, 1 to 9.
        progress: show a bar.
        on_note: gets a sentence about merged events and the like, with options in braces; by
            default it is a warning.

    Returns:
        Numbers of events and hits, the geometry, and lines for a summary.

    Example:
        >>> import numpy as np, tempfile
        >>> from dense_imb.data.events.formats import frames_source
        >>> source = frames_source("two frames", np.array([[[0, 7, 0]], [[5, 0, 9]]]))
        >>> done = to_hits(source, tempfile.mkdtemp() + "/a.h5", progress=False)
        >>> done.n_events, done.n_hits, done.geometry.time_steps
        (2, 3, 9)
    """
    if not (math.isfinite(time_scale) and time_scale > 0 and math.isfinite(time_offset)):
        raise ValueError(
            "Expected a `time_scale` above 0 and a finite `time_offset`, got "
            f"{time_scale} and {time_offset}."
        )
    if noise_label is not None and not 0 <= noise_label <= 255:
        raise ValueError(f"Expected `noise_label` from 0 to 255, got {noise_label}.")
    size = {"width": width, "height": height, "time_steps": time_steps}
    units = {"x_mm": x_mm, "y_mm": y_mm, "t_ns": t_ns}
    placing = _placing(source, sensors, bin or {}, size, units, unit)
    labels = _Labels(source, binary_labels, noise_label)

    def columns_of(action: str) -> Iterator[Columns]:
        with tqdm(
            total=source.n_events, desc=action, unit="event", disable=not progress, leave=False
        ) as bar:
            for columns in batches_of(source, time_scale, time_offset, relative_times):
                yield columns
                bar.update(len(columns))

    is_known = _fix_steps(source, placing, time_scale, time_offset, relative_times)
    types = _Types()
    if not is_known or noise_label is not None or source.n_parts > 1:
        for columns in columns_of("look at the hits"):
            placing.look(columns)
            labels.look(columns)
            types.look(columns)
    placing.finish()
    labels.finish()
    notes = [*source.notes]
    writer = HitsWriter(path, placing.geometry, overwrite=overwrite, compression=compression)
    names: tuple[list[str], list[str], bool] = [], [], True
    with writer:
        for columns in columns_of("convert"):
            events = placing.place(types.change(columns), writer.n_events)
            events = labels.change(events)
            writer.append(events)
            names = [*events.hit], [*events.event], events.label is not None
    for note in dict.fromkeys([*notes, *source.notes]):
        if on_note is None:
            warnings.warn(f"{render(note, in_python)}.", stacklevel=2)
        else:
            on_note(f"{note}.")
    return Converted(writer, placing, *names)


class Converted:
    """Result of a conversion.

    Args:
        writer: closed writer of the hits file.
        placing: way in which the hits got their geometry.
        hit_names: further columns of hits.
        event_names: further columns of events.
        has_labels: whether the hits have labels.
    """

    def __init__(
        self,
        writer: HitsWriter,
        placing: GridPlacing | SensorPlacing,
        hit_names: list[str],
        event_names: list[str],
        has_labels: bool,
    ) -> None:
        self.hit_names, self.event_names, self.has_labels = hit_names, event_names, has_labels
        self.n_events, self.n_hits = writer.n_events, writer.n_hits
        self.geometry, self.path = placing.geometry, writer.path
        self.lines, self.bins = placing.describe(), placing.repeat()

    def __repr__(self) -> str:
        return f"Converted({self.path.name!r}, {self.n_events:,} events, {self.n_hits:,} hits)"


def _placing(
    source: Source,
    sensors: Sensors | PositionTable | None,
    axes: Mapping[str, Axis],
    size: dict[str, int | None],
    units: dict[str, float | None],
    unit: str,
) -> GridPlacing | SensorPlacing:
    """Return the way to place the hits of a source; refuse options that do not go with it."""
    if sensors is None and "sensor" in source.names:
        sensors = source.sensors
        if sensors is None:
            raise Refused(
                f"a table of the sensors of {source.name}", "none", "add {sensor_table=FILE}"
            )
    if sensors is not None:
        for name, value in {**size, **units}.items():
            if value is not None:
                raise refusal(f"{option(name)} is for a grid of pixels, not for sensors; drop it.")
        if axes:
            raise refusal("{bin} makes a grid of pixels, {sensors} a table; choose one.")
        return SensorPlacing(source, sensors)
    for axis, name, stored in (("x", "width", source.width), ("y", "height", source.height)):
        size[name] = stored if size[name] is None else size[name]
        if size[name] is None and axis not in axes:
            raise Refused(
                f"the `{name}` of the frame for the hit list {source.name}",
                "none",
                f"declare it with {option(name)}, or bin coordinates in mm with "
                f"{{bin={axis}=WIDTH}}",
            )
    return GridPlacing(source, size, axes, units, unit)


def _fix_steps(
    source: Source,
    placing: GridPlacing | SensorPlacing,
    scale: float,
    shift: float,
    is_relative: bool,
) -> bool:
    """Fix the geometry where it is known before the hits are read, and return whether it is."""
    if isinstance(placing, SensorPlacing):
        return isinstance(placing.table, Sensors)
    if not all(axis.is_whole for axis in placing.axes.values()):
        return False
    if placing.size["time_steps"] is not None or "t" in placing.axes:
        return True
    if is_relative or not math.isfinite(source.largest_time or math.nan):
        return False
    placing.largest = min((source.largest_time or 0) * scale + shift, MOST_STEPS)
    return True


class _Types:
    """Types of columns that fit all of several sources."""

    def __init__(self) -> None:
        self.hit: dict[str, np.dtype[Any]] = {}
        self.event: dict[str, np.dtype[Any]] = {}

    def look(self, columns: Columns) -> None:
        for types, given in ((self.hit, columns.hit), (self.event, columns.event)):
            for name, column in given.items():
                types[name] = np.result_type(types.get(name, column.dtype), column.dtype)

    def change(self, columns: Columns) -> Columns:
        hit = {n: c.astype(self.hit.get(n, c.dtype), copy=False) for n, c in columns.hit.items()}
        event = {
            n: c.astype(self.event.get(n, c.dtype), copy=False) for n, c in columns.event.items()
        }
        return Columns(columns.offset, hit, event)


class _Labels:
    """Change of labels: to one class, or with another number for noise."""

    def __init__(self, source: Source, is_binary: bool, noise: int | None) -> None:
        self.source, self.is_binary, self.noise = source, is_binary, noise
        self.is_present = np.zeros(256, np.bool_)

    def look(self, columns: Columns) -> None:
        if self.noise is not None and "label" in columns.hit:
            self.is_present[self._checked(columns.hit["label"])] = True

    def finish(self) -> None:
        if self.noise is not None and not self.is_present[self.noise]:
            listed = ", ".join(map(str, np.flatnonzero(self.is_present))) or "no labels"
            raise ValueError(
                f"Expected hits of the noise label {self.noise} in {self.source.name}, got "
                f"{listed}."
            )

    def change(self, events: Events) -> Events:
        if events.label is None:
            return events
        given = np.asarray(events.label)
        if self.is_binary and self.noise is None:
            return replace(events, label=(given != 0).astype(np.uint8))
        label = self._checked(given)
        if self.noise is not None:
            label = self._renumbered(label)
            label = label.clip(max=1) if self.is_binary else label
        return replace(events, label=label)

    def _checked(self, label: NDArray[Any]) -> NDArray[np.uint8]:
        wrong = ~((label >= 0) & (label <= 255) & (label == np.floor(label)))
        if wrong.any():
            raise Refused(
                f"labels of {self.source.name} that are whole numbers from 0 to 255",
                label[wrong][0],
                "if all but 0 is signal, make it one class with {binary_labels}",
            )
        return np.asarray(label).astype(np.uint8)

    def _renumbered(self, small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the labels with noise as 0, and the others in their order from 1."""
        assert self.noise is not None
        label, has_zero = small.astype(np.int64), bool(self.is_present[0])
        signal = np.where(label < self.noise, label + has_zero, label - (not has_zero))
        return np.where(label == self.noise, 0, signal).astype(np.uint8)
