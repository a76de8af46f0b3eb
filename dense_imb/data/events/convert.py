"""From any `Source` to a hits file: what the values must be, and the sentence when they aren't."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

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
    """Write the events of a source to a hits file, batch by batch.

    Times become `time_scale * t + time_offset` and must then lie in 1 .. time_steps: 0 means no
    hit. Nothing is clipped, rounded or dropped on the way.

    Args:
        source: what a reader of `dense_imb.data.events.formats` gives.
        path: the hits file.
        width, height: of the frame, where the source doesn't know them.
        time_steps: T; by default the largest time, found by reading the source once more.
        x_mm, y_mm, t_ns: size of one step, stored.
        time_scale, time_offset: from the source's times to steps.
        binary_labels: label 1 for every label that is not 0, or not `noise_label`.
        noise_label: the label that means noise. It becomes 0, and the others become 1 and up in
            their order: the labels below move up by one where the source has a 0, and those above
            move down by one where it has none.
        overwrite, compression: as of `HitsWriter`.
        progress: show a bar.
    Returns:
        The closed writer, which knows how much it wrote.
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
            raise ValueError(
                f"Expected the `{name}` of the frame for the hit list {source.name}, got none; "
                f"declare it (--{name})."
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
        seen = np.zeros(256, np.bool_)
        for events in batches(time_steps, "find the labels"):
            seen[np.asarray([] if events.label is None else events.label, np.int64)] = True
        if not seen[noise_label]:
            listed = ", ".join(map(str, np.flatnonzero(seen))) or "no labels"
            raise ValueError(
                f"Expected hits of the noise label {noise_label} in {source.name}, got {listed}."
            )
        has_zero = bool(seen[0])
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
        raise ValueError(
            f"Expected labels of {source.name} that are whole numbers from 0 to 255, got "
            f"{label[wrong][0]}; if all but 0 is signal, make them one class "
            "(binary_labels=True, --binary-labels)."
        )
    return replace(events, label=label.astype(np.uint8))


def _renumbered(events: Events, noise: int, has_zero: bool) -> NDArray[np.uint8]:
    """The labels with noise as 0, and the others in their order from 1."""
    label = np.asarray(events.label, np.int64)
    signal = np.where(label < noise, label + has_zero, label - (not has_zero))
    return np.where(label == noise, 0, signal).astype(np.uint8)


def _check(events: Events, source: Source, first: int) -> None:
    """Refuse what does not fit the frame, with the option that would make it fit."""
    g = events.geometry
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
                "0 is kept for empty pixels: where times start lower, shift all of them, with "
                f"--time-offset {shift} say"
            )
        elif name == "t":
            cure = f"declare --time-steps of at least {math.ceil(column.max())} or a --time-scale"
        elif value < 0:
            cure = "number the pixels from 0"
        else:
            size = "width" if name == "x" else "height"
            cure = f"declare a --{size} of at least {int(column.max()) + 1}"
        raise ValueError(
            f"Expected `{name}` of {source.name} from {low} to {high}, got {value} in event "
            f"{event}; {cure}."
        )
