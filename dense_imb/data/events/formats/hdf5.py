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
from dense_imb.data.events.formats.frames import PathLike, choose_key, frames_source
from dense_imb.data.events.formats.source import BATCH_BYTES, BATCH_HITS, Source, events_of
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
    """Hits in flat arrays, with an array of offsets: event i owns offset[i] .. offset[i + 1] - 1.

    Args:
        path: the file.
        x, y, t, offset, label: paths of the arrays, "photon/t" say.
        keep: paths of further arrays, one entry a hit or an event, kept under their last names.
    """
    wanted = {"x": x, "y": y, "t": t, **({} if label is None else {"label": label})}
    of_event: dict[str, str] = {}
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
            if name in wanted or name in of_event or name == "offset":
                raise ValueError(f"Expected kept columns of other names, got `{name}` twice.")
            if n_rows == len(starts) - 1 and (n_rows != n_hits or beside_offset):
                of_event[name] = place
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
                found = {}
                for name, place in places.items():
                    with reading(Path(path), place):
                        found[name] = known[place.strip("/")][first:last]
                return found

            start = 0
            while start < len(starts) - 1:
                stop = int(np.searchsorted(starts, starts[start] + BATCH_HITS, side="right")) - 1
                stop = max(start + 1, stop)
                first, last = int(starts[start]), int(starts[stop])
                yield events_of(
                    geometry,
                    starts[start : stop + 1] - first,
                    read(wanted, first, last),
                    read(of_event, start, stop),
                )
                start = stop

    return Source(str(path), batches, n_events=len(starts) - 1)


def hdf5_frames_source(path: PathLike, key: str | None = None, labels: str | None = None) -> Source:
    """Frames in a data set (N, H, W) or (N, 1, H, W), and their labels in another."""
    with open_datasets(path) as known:
        dense = [name for name, dataset in known.items() if dataset.ndim >= 3]
        if not dense:
            listed = ", ".join(
                f"`{name}` of {' x '.join(map(str, known[name].shape))}" for name in [*known][:20]
            )
            raise ValueError(
                f"Expected a data set of frames (N, H, W) in {path}, got "
                f"{listed or 'no data set at all'}{', ..' if len(known) > 20 else ''}; where hits "
                "lie in flat arrays, name them with --x --y --t --offset."
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
    """Rows of a data set; the file is opened for each block, and is closed between them."""

    def __init__(self, path: PathLike, place: str, dataset: Any) -> None:
        self.path, self.place = path, place
        self.shape, self.dtype = dataset.shape, dataset.dtype
        # a chunk of many frames is unpacked once, unless it is too large to be held
        rows = dataset.chunks[0] if dataset.chunks else 1
        frame = 8 * math.prod(dataset.shape[1:])
        self.n_at_once = rows if rows * frame <= 32 * BATCH_BYTES else 1

    def __getitem__(self, rows: slice) -> Any:
        with open_datasets(self.path) as known, reading(Path(self.path), self.place):
            return known[self.place][rows]
