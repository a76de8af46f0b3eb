"""The hits file format: HDF5, version 1 for a grid of pixels, version 2 for a table of sensors.

    /             attributes: format = "dense-imb-hits", format_version, creator, content_hash;
                  strings have fixed length (np.bytes_ makes them).
                  Version 1: width, height, time_steps, x_mm, y_mm, t_ns (size of one step, if
                  known). Version 2: geometry = "sensors".
                  Denoised files also have scorer (its name) and masking (JSON: the operating
                  point, whether the file holds kept hits only, and digests of scorer and source)
    /event/offset uint64 (n_events + 1,): event i has the hits offset[i] .. offset[i + 1] - 1
    /event/...    further columns, one row per event: run, event id
    /hit/label    uint8, optional: 0 for noise, 1.. for signal classes
    /hit/score /hit/keep   float32 and bool, in denoised files
    /hit/class    uint8, in files denoised by a network of classes: the most probable one
    /hit/...      further columns, one row per hit: charge

Version 1, a grid of pixels:

    /hit/x /hit/y uint16, 0 .. width - 1 and 0 .. height - 1
    /hit/t        uint16 or float32, 1 .. time_steps

Version 2, a table of sensors:

    /hit/sensor   uint32, row in the table, 0 .. n_sensors - 1
    /hit/t        float32 or float64, finite, in ns, best counted from the start of the event
    /sensor/position    float32 (n_sensors, 2 or 3), in metres
    /sensor/direction   float32 (n_sensors, 2 or 3), optional: vectors that sensors look along

A time keeps the type it is given in. float32 resolves 0.001 ns in events of 10 us, which is
enough for most detectors, and 1 ns only up to 16 ms. Times of longer events, or counted from the
start of a run, need float64.

Further columns are bool, integer or floating point, (n, ...). A file may have no events, and an
event no hits or no signal. Further data sets of `/sensor` are hashed, and not read.

`content_hash` is JSON, {"/hit/x": digest, ...}. A digest is a hexadecimal blake2b of 16 bytes. It
hashes the line "<path> <dtype> <shape of a row>\\n", such as "/hit/x <u2 ()", and then the rows,
little endian in C order. The digest under "/" hashes the attributes above, as JSON with sorted
keys. Chunks and compression do not change the hash. It detects flipped bits, not deliberate
changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import UnreadableFileError
from dense_imb.hits.geometry import Geometry, Sensors

FORMAT = "dense-imb-hits"
ATTRIBUTES = (
    *("format", "format_version", "width", "height", "time_steps"),
    *("x_mm", "y_mm", "t_ns", "creator", "content_hash"),
    *("scorer", "masking"),
)
FURTHER_ATTRIBUTES = ("scorer", "masking")  # attributes that a caller of the writer may set
_COMMON: dict[str, tuple[np.dtype[Any], ...]] = {
    "/event/offset": (np.dtype("<u8"),),
    "/hit/label": (np.dtype("u1"),),
    "/hit/score": (np.dtype("<f4"),),
    "/hit/keep": (np.dtype("?"),),
}


@dataclass(frozen=True)
class Layout:
    """Data sets of one version of the format.

    Args:
        version: number of the version.
        groups: groups of the file.
        required: data sets that each file has, by path.
        dtypes: types that data sets may have, by path; the writer prefers the first.
    """

    version: int
    groups: tuple[str, ...]
    required: tuple[str, ...]
    dtypes: Mapping[str, tuple[np.dtype[Any], ...]]


GRID = Layout(
    version=1,
    groups=("event", "hit"),
    required=("/event/offset", "/hit/x", "/hit/y", "/hit/t"),
    dtypes={
        **_COMMON,
        "/hit/x": (np.dtype("<u2"),),
        "/hit/y": (np.dtype("<u2"),),
        "/hit/t": (np.dtype("<u2"), np.dtype("<f4")),
    },
)
SENSORS = Layout(
    version=2,
    groups=("event", "hit", "sensor"),
    required=("/event/offset", "/hit/sensor", "/hit/t", "/sensor/position"),
    dtypes={
        **_COMMON,
        "/hit/sensor": (np.dtype("<u4"),),
        "/hit/t": (np.dtype("<f4"), np.dtype("<f8")),
        "/sensor/position": (np.dtype("<f4"),),
        "/sensor/direction": (np.dtype("<f4"),),
    },
)
LAYOUTS = {layout.version: layout for layout in (GRID, SENSORS)}


def layout_of(geometry: Geometry | Sensors) -> Layout:
    """Return the layout of the files of a geometry."""
    return SENSORS if isinstance(geometry, Sensors) else GRID


class HitsFileError(UnreadableFileError):
    """Error for a file that is not a hits file, or is damaged or unsafe.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.hits import HitsFile, HitsFileError
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "hits.h5"
        >>> _ = path.write_text("event,x,y,t")
        >>> try:
        ...     HitsFile(path)
        ... except HitsFileError:
        ...     print("no hits file")
        no hits file
    """


def check_dtype(
    path: str, dtype: np.dtype[Any], shape: tuple[int, ...], where: str, layout: Layout
) -> None:
    """Refuse a column whose type or shape is not the one of the format.

    Args:
        path: path of the data set in the file, such as "/hit/x".
        dtype: type of its values.
        shape: shape of the data set.
        where: name of the file for the error message.
        layout: layout of the file.
    """
    known = layout.dtypes.get(path)
    n_axes = 2 if path.startswith("/sensor/") else 1
    if known is not None and (dtype not in known or len(shape) != n_axes):
        listed = " or ".join(str(choice) for choice in known)
        raise HitsFileError(
            f"Expected `{path}` of {where} in {('one dimension', 'rows')[n_axes - 1]} of {listed}, "
            f"got {dtype} of shape {shape}; convert it."
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not shape or dtype.byteorder == ">":
        raise HitsFileError(
            f"Expected `{path}` of {where} to hold rows of bool, integer or floating numbers of "
            f"at most 8 bytes, little endian, got {dtype} of shape {shape}; convert it or omit it."
        )


def check_offset(offset: NDArray[Any], n_hits: int, where: str) -> None:
    """Refuse offsets that do not rise from 0 to the number of hits."""
    if len(offset) == 0 or offset[0] != 0:
        first = offset[0] if len(offset) else "none"
        raise HitsFileError(
            f"Expected `/event/offset` of {where} to begin with 0, got {first}; write it again."
        )
    backwards = np.flatnonzero(offset[1:] < offset[:-1])
    if len(backwards):
        event = int(backwards[0])
        raise HitsFileError(
            f"Expected `/event/offset` of {where} never to decrease, got {offset[event]} then "
            f"{offset[event + 1]} in event {event}; write it again."
        )
    if offset[-1] != n_hits:
        raise HitsFileError(
            f"Expected `/event/offset` of {where} to end with the number of hits, {n_hits}, "
            f"got {offset[-1]} after event {len(offset) - 2}; write it again."
        )


def check_hits(
    columns: Mapping[str, NDArray[Any]],
    geometry: Geometry | Sensors,
    offset: NDArray[Any],
    where: str,
    first: int = 0,
) -> None:
    """Refuse hits outside the frame or the table of sensors, and times that are not finite.

    Args:
        columns: x, y and t, or sensor and t, of consecutive hits.
        geometry: size of the frame, or table of sensors.
        offset: offsets of all events.
        where: name of the file for the error message.
        first: index of the first hit in `columns`, default 0.
    """
    for name, (low, high, wanted, cure) in _bounds(geometry).items():
        column = columns[name]
        # min and max propagate NaN, and allocate no array
        if len(column) == 0 or (column.min() >= low and column.max() <= high):
            continue
        hit = int(np.flatnonzero(~((column >= low) & (column <= high)))[0])
        event = int(np.searchsorted(offset, first + hit, side="right")) - 1
        raise HitsFileError(
            f"Expected `/hit/{name}` of {where} {wanted}, got {column[hit]} in event "
            f"{event} (hit {first + hit}); {cure}."
        )


def _bounds(geometry: Geometry | Sensors) -> dict[str, tuple[float, float, str, str]]:
    """Return the least and the largest value of each column, both in words, and the cure."""
    if isinstance(geometry, Sensors):
        last, most = len(geometry) - 1, float(np.finfo(np.float32).max)
        cure = "drop the hit or add its sensor to the table"
        return {
            "sensor": (0, last, f"from 0 to {last}", cure),
            "t": (-most, most, "as finite numbers", "drop the hit or give it a time in ns"),
        }
    bounds = {
        "x": (0, geometry.width - 1),
        "y": (0, geometry.height - 1),
        "t": (1, geometry.time_steps),
    }
    cure = "drop the hit or declare a larger frame"
    return {
        name: (low, high, f"from {low} to {high}", cure) for name, (low, high) in bounds.items()
    }


class ContentHash:
    """Running hash of a data set."""

    def __init__(self, path: str, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._hash.update(f"{path} {dtype.newbyteorder('<').str} {row}\n".encode())

    def update(self, rows: NDArray[Any]) -> None:
        if rows.size:  # an empty array has no buffer
            little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
            self._hash.update(np.ascontiguousarray(little).view(np.uint8).data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def attributes_digest(attributes: Mapping[str, object]) -> str:
    """Return the hash of the root attributes without `content_hash`."""
    text = json.dumps(dict(attributes), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def rows_that_fit(n_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return the number of rows of a data set that fit into `n_bytes`, at least 1."""
    row = dtype.itemsize * int(np.prod(shape[1:], dtype=object))
    return max(1, n_bytes // max(1, row))
