"""Convert any `Source` to a hits file, and refuse values that do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dense_imb.base.refusals import Refused, option
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import Source
from dense_imb.hits import Events, Geometry, HitsWriter

_MOST_STEPS = 65536


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
    binary_labels: bool = False,
    noise_label: int | None = None,
    overwrite: bool = False,
    compression: int | None = None,
    progress: bool = True,
) -> HitsWriter:
    """Write the events of a source to a hits file, in batches.

    Times become `time_scale * t + time_offset`, which must lie in 1 .. time_steps: 0 means no hit.
    Nothing is clipped, rounded or dropped.

    Args:
        source: result of a reader of `dense_imb.data.events.formats`.
        path: the hits file.
        width: width of the frame, if the source has none.
        height: height of the frame, if the source has none.
        time_steps: T; by default the largest time, for which the source is read once more.
        x_mm: width of a pixel in mm, stored in the file.
        y_mm: height of a pixel in mm, stored in the file.
        t_ns: duration of a time step in ns, stored in the file.
        time_scale: factor from the times of the source to steps.
        time_offset: added to the scaled times.
        binary_labels: write label 1 for every label except 0, or except `noise_label`.
        noise_label: label of noise in the source. It becomes 0, and the others become 1 and up in
            their order. Smaller labels move up by one if the source has a 0; larger labels move
            down by one if it has none.
        overwrite: replace a file that exists.
        compression: gzip level, 1 to 9.
        progress: show a bar.

    Returns:
        The closed writer, with the numbers of events and hits.

    Example:
        >>> import numpy as np, tempfile
        >>> from dense_imb.data.events.formats import frames_source
        >>> source = frames_source("two frames", np.array([[[0, 7, 0]], [[5, 0, 9]]]))
        >>> writer = to_hits(source, tempfile.mkdtemp() + "/a.h5", progress=False)
        >>> writer.n_events, writer.n_hits, writer.geometry.time_steps
        (2, 3, 9)
    """
    for name, declared, known in (
        ("width", width, source.width),
        ("height", height, source.height),
    ):
        if declared is None and known is None:
            raise Refused(
                f"the `{name}` of the frame for the hit list {source.name}",
                "none",
                f"declare it with {option(name)}",
            )
    if not (math.isfinite(time_scale) and time_scale > 0 and math.isfinite(time_offset)):
        raise ValueError(
            "Expected a `time_scale` above 0 and a finite `time_offset`, got "
            f"{time_scale} and {time_offset}."
        )
    if noise_label is not None and not 0 <= noise_label <= 255:
        raise ValueError(f"Expected `noise_label` from 0 to 255, got {noise_label}.")
    size = (width or source.width or 0, height or source.height or 0)

    has_zero = False  # among the labels of the source

    def batches(time_steps: int, action: str) -> Iterator[Events]:
        geometry = Geometry(*size, time_steps, x_mm, y_mm, t_ns)
        first = 0
        with tqdm(
            total=source.n_events, desc=action, unit="event", disable=not progress, leave=False
        ) as bar:
            for raw in source.batches(geometry):
                events = _rescaled(raw, time_scale, time_offset)
                _check(events, source, first)
                events = _labelled(events, source, binary_labels and noise_label is None)
                if noise_label is not None and action == "convert":
                    label = _renumbered(events, noise_label, has_zero)
                    label = label.clip(max=1) if binary_labels else label
                    events = replace(events, label=label)
                yield events
                bar.update(len(events))
                first += len(events)

    if time_steps is None and math.isfinite(source.largest_time or math.nan):
        time_steps = max(1, math.ceil((source.largest_time or 0) * time_scale + time_offset))
        time_steps = min(time_steps, _MOST_STEPS)  # the sentence about a time says more
    elif time_steps is None:
        largest = max((_largest(e.t) for e in batches(_MOST_STEPS, "find the times")), default=1)
        time_steps = max(1, math.ceil(largest))
    if noise_label is not None:
        is_present = np.zeros(256, np.bool_)
        for events in batches(time_steps, "find the labels"):
            is_present[np.asarray([] if events.label is None else events.label, np.int64)] = True
        if not is_present[noise_label]:
            listed = ", ".join(map(str, np.flatnonzero(is_present))) or "no labels"
            raise ValueError(
                f"Expected hits of the noise label {noise_label} in {source.name}, got {listed}."
            )
        has_zero = bool(is_present[0])
    geometry = Geometry(*size, time_steps, x_mm, y_mm, t_ns)
    writer = HitsWriter(path, geometry, overwrite=overwrite, compression=compression)
    with writer:
        for events in batches(time_steps, "convert"):
            writer.append(events)
    return writer


def _largest(time: NDArray[Any]) -> float:
    return float(time.max()) if len(time) else 1.0


def _rescaled(events: Events, scale: float, offset: float) -> Events:
    time = np.asarray(events.t)
    if time.dtype.kind == "b" or (time.dtype.kind == "u" and time.dtype.itemsize < 8):
        time = time.astype(np.int64)  # 255 + 1 is 256
    if (scale, offset) != (1.0, 0.0):
        is_whole = scale == int(scale) and offset == int(offset) and time.dtype.kind in "iu"
        time = time * int(scale) + int(offset) if is_whole else time * scale + offset
    return replace(events, t=time)


def _labelled(events: Events, source: Source, binary: bool) -> Events:
    if events.label is None:
        return events
    label = np.asarray(events.label)
    if binary:
        return replace(events, label=(label != 0).astype(np.uint8))
    wrong = ~((label >= 0) & (label <= 255) & (label == np.floor(label)))
    if wrong.any():
        raise Refused(
            f"labels of {source.name} that are whole numbers from 0 to 255",
            label[wrong][0],
            "if all but 0 is signal, make it one class with {binary_labels}",
        )
    return replace(events, label=label.astype(np.uint8))


def _renumbered(events: Events, noise: int, has_zero: bool) -> NDArray[np.uint8]:
    """Return the labels with noise as 0, and the others in their order from 1."""
    label = np.asarray(events.label, np.int64)
    signal = np.where(label < noise, label + has_zero, label - (not has_zero))
    return np.where(label == noise, 0, signal).astype(np.uint8)


def _check(events: Events, source: Source, first: int) -> None:
    """Refuse hits outside the frame, and name the option that would make them fit."""
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
        if not math.isfinite(value):
            cure = "remove that hit"
        elif name == "t" and value < 1:
            shift = 1 - math.floor(float(column.min()))
            cure = (
                "0 means an empty pixel; shift all times, for example with "
                f"{option('time_offset', shift)}"
            )
        elif name == "t":
            least = math.ceil(column.max())
            cure = f"declare {{time_steps}} of at least {least}, or a {{time_scale}}"
        elif value < 0:
            cure = "number the pixels from 0"
        else:
            size = "width" if name == "x" else "height"
            cure = f"declare a {option(size)} of at least {int(column.max()) + 1}"
        raise Refused(
            f"`{name}` of {source.name} from {low} to {high}", f"{value} in event {event}", cure
        )
