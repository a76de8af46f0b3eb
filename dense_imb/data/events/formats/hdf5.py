"""HDF5 files of other programs: flat arrays with offsets, and dense frames.

Dangerous files are refused before data is read, see `dense_imb.base.hdf5`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dense_imb.base.hdf5 import list_datasets, open_file, read_attributes, reading
from dense_imb.base.refusals import Refused
from dense_imb.data.events.formats.frames import PathLike, choose_key, frames_source
from dense_imb.data.events.formats.source import BATCH_BYTES, BATCH_HITS, Source, make_events
from dense_imb.hits import Events, Geometry
from dense_imb.hits.format import FORMAT, check_offset


@contextmanager
def open_datasets(path: PathLike) -> Iterator[dict[str, Any]]:
    """Open a file and give its data sets by path, after checking that none is dangerous."""
    place = Path(path)
    with open_file(place) as file:
        yield list_datasets(file, place)


def is_hits_file(path: PathLike) -> bool:
    """Whether an HDF5 file has the attribute `format` of hits files; it may be damaged."""
    place = Path(path)
    with open_file(place) as file, reading(place, "attributes"):
        return read_attributes(file, place, ("format",)).get("format") == FORMAT


def hdf5_hits_source(
    path: PathLike,
    *,
    x: str,
    y: str,
    t: str,
    offset: str,
    label: str | None = None,
    keep: Sequence[str] = (),
) -> Source:
    """Read hits from flat arrays: event i has the hits offset[i] .. offset[i + 1] - 1.

    Args:
        path: the file.
        x: path of the array of columns, for example "photon/x".
        y: path of the array of rows.
        t: path of the array of times.
        offset: path of the array of offsets.
        label: path of the array of labels.
        keep: paths of further arrays with an entry a hit or an event; the last part of the path
            becomes the name.
    """
    wanted = {"x": x, "y": y, "t": t, **({} if label is None else {"label": label})}
    event_places: dict[str, str] = {}
    with open_datasets(path) as known:
        for place in (*wanted.values(), offset, *keep):
            if place.strip("/") not in known:
                raise ValueError(
                    f"Expected a data set `{place}` in {path}, got only {', '.join(known)}."
                )
            column = known[place.strip("/")]
            if column.dtype.kind not in "biuf" or column.ndim == 0:
                raise ValueError(f"Expected rows of numbers in `{place}` of {path}, got others.")
        rows = known[offset.strip("/")]
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise ValueError(
                f"Expected whole numbers in one dimension in `{offset}` of {path}, got "
                f"{rows.dtype} of shape {rows.shape}."
            )
        with reading(Path(path), offset):
            starts = rows[:]
        n_hits = len(known[x.strip("/")])
        check_offset(starts, n_hits, f"{path} (`{offset}`)")
        starts = starts.astype(np.int64)
        for place in keep:
            name, n_rows = place.strip("/").split("/")[-1], len(known[place.strip("/")])
            beside_offset = (
                place.strip("/").rpartition("/")[0] == offset.strip("/").rpartition("/")[0]
            )
            if name in wanted or name in event_places or name == "offset":
                raise ValueError(f"Expected kept columns of other names, got `{name}` twice.")
            if n_rows == len(starts) - 1 and (n_rows != n_hits or beside_offset):
                event_places[name] = place
            else:
                wanted[name] = place
        for place in wanted.values():
            if len(known[place.strip("/")]) != n_hits:
                raise ValueError(
                    f"Expected `{place}` of {path} with one row for each of the {n_hits} hits or "
                    f"{len(starts) - 1} events, got {len(known[place.strip('/')])}."
                )

    def batches(geometry: Geometry) -> Iterator[Events]:
        with open_datasets(path) as known:

            def read(places: dict[str, str], first: int, last: int) -> dict[str, Any]:
                columns = {}
                for name, place in places.items():
                    with reading(Path(path), place):
                        columns[name] = known[place.strip("/")][first:last]
                return columns

            start = 0
            while start < len(starts) - 1:
                stop = int(np.searchsorted(starts, starts[start] + BATCH_HITS, side="right")) - 1
                stop = max(start + 1, stop)
                first, last = int(starts[start]), int(starts[stop])
                yield make_events(
                    geometry,
                    starts[start : stop + 1] - first,
                    read(wanted, first, last),
                    read(event_places, start, stop),
                )
                start = stop

    return Source(str(path), batches, n_events=len(starts) - 1)


def hdf5_frames_source(path: PathLike, key: str | None = None, labels: str | None = None) -> Source:
    """Read frames from a data set (N, H, W) or (N, 1, H, W), and labels from another."""
    with open_datasets(path) as known:
        dense = [name for name, dataset in known.items() if dataset.ndim >= 3]
        if not dense:
            listed = ", ".join(
                f"`{name}` of {' x '.join(map(str, known[name].shape))}" for name in [*known][:20]
            )
            raise Refused(
                f"a data set of frames (N, H, W) in {path}",
                f"{listed or 'no data set at all'}{', ..' if len(known) > 20 else ''}",
                "name flat arrays of hits with {x}, {y}, {t} and {offset}",
            )
        key = choose_key(path, dense, key and key.strip("/"), [labels and labels.strip("/")])
        frames = _Frames(path, key, known[key])
        if labels is not None:
            labels = choose_key(path, dense, labels.strip("/"))
            return frames_source(
                f"{key} of {path}", frames, _Frames(path, labels, known[labels]), frames.n_at_once
            )
    return frames_source(f"{key} of {path}", frames, None, frames.n_at_once)


class _Frames:
    """Rows of a data set; the file is open only while a block is read."""

    def __init__(self, path: PathLike, place: str, dataset: Any) -> None:
        self.path, self.place = path, place
        self.shape, self.dtype = dataset.shape, dataset.dtype
        # a chunk of many frames is unpacked once, unless it is too large for the memory
        rows = dataset.chunks[0] if dataset.chunks else 1
        frame = 8 * math.prod(dataset.shape[1:])
        self.n_at_once = rows if rows * frame <= 32 * BATCH_BYTES else 1

    def __getitem__(self, rows: slice) -> Any:
        with open_datasets(self.path) as known, reading(Path(self.path), self.place):
            return known[self.place][rows]
