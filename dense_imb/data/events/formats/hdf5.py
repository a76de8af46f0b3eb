"""HDF5 files of other programs: flat arrays with offsets, and dense frames.

Dangerous files are refused before data is read, see `dense_imb.base.hdf5`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.hdf5 import list_datasets, open_file, read_attributes, reading
from dense_imb.base.refusals import Refused, refusal
from dense_imb.data.events.formats.frames import PathLike, choose_key, frames_source
from dense_imb.data.events.formats.mapping import (
    Names,
    find_column,
    further_columns,
    key_names,
    last_part,
    match_columns,
    needed_columns,
    resolve_column,
    similar_column,
)
from dense_imb.data.events.formats.rows import RowScan, Table, rows_source, whole_key
from dense_imb.data.events.formats.source import (
    BATCH_BYTES,
    BATCH_HITS,
    Columns,
    Source,
    slices_of,
)
from dense_imb.hits import Sensors
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
    columns: Names | None = None,
    *,
    needed: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    event_columns: Sequence[str] = (),
    by_block: bool = False,
    unit: str | None = None,
) -> Source:
    """Read hits from flat arrays, with offsets or with the number of the event of each hit.

    With offsets, event i has the hits offset[i] .. offset[i + 1] - 1. A table of compound rows
    counts as one array a field. A data set `position` (n, 2 or 3) beside hits of sensors is their
    table.

    Args:
        path: the file.
        columns: paths of `x`, `y`, `t`, `sensor`, `label`, and of `offset` or `event`, where the
            last part of the path is another: {"x": "photon/col", "offset": "event/first"}.
        needed: columns that place the hits; by default x, y and t, or sensor and t.
        keep: paths of further arrays with an entry a hit or an event; the last part of the path
            becomes the name. By default all.
        event_columns: arrays of hits with one value an event, which become columns of events.
        by_block: every block of consecutive hits with one event number is an event.
        unit: unit of the table's positions, m, cm or mm, where its name does not end with it.

    Example:
        >>> import h5py, tempfile
        >>> from dense_imb.data.events.formats import hdf5_hits_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/hits.h5"
        >>> with h5py.File(path, "w") as file:
        ...     file["photon/col"], file["photon/row"] = [3, 5], [4, 4]
        ...     file["photon/t"], file["photon/event"] = [500, 505], [0, 1]
        >>> source = hdf5_hits_source(path, {"x": "photon/col", "y": "photon/row"})
        >>> [batch.t.tolist() for batch in source.batches(Geometry())]
        [[500], [505]]
    """
    columns = columns or {}
    with open_datasets(path) as datasets:
        known = _arrays(datasets)
        if not known:
            raise ValueError(f"Expected arrays of numbers in {path}, got none.")
        start = _start_of(columns, [*known])
        also = [] if start in columns else [start]
        columns = {ours: _bare(theirs) for ours, theirs in columns.items()}
        for place in columns.values():
            if isinstance(place, str) and place in datasets and place not in known:
                raise ValueError(f"Expected rows of numbers in `{place}` of {path}, got others.")
        if keep is not None:
            keep = [resolve_column(str(path), place, [*known]) for place in keep]
        flat = [name for name, array in known.items() if array.ndim == 1]
        chosen = match_columns(str(path), [*known], columns, needed, also, flat)
        needed = needed_columns(needed, chosen)
        sensors = _sensors_in(path, known, unit) if "sensor" in needed else None
        file = _Flat(path, str(path), known)
        if start == "event":
            first = chosen.pop("event", None)
            key = key_names(columns) if first is None else [first]
            return file.by_event(chosen, key, needed, keep, event_columns, by_block, sensors)
        return file.by_offset(chosen, needed, keep, event_columns, sensors)


def _start_of(columns: Names, known: list[str]) -> str:
    """Return whether the numbers of events or offsets say where an event begins."""
    for given in (columns, {name: find_column(name, known) for name in ("offset", "event")}):
        for name in ("event", "offset") if given is columns else ("offset", "event"):
            if given.get(name) is not None:
                return name
    is_near = [similar_column(name, known) is not None for name in ("offset", "event")]
    return "event" if is_near == [False, True] else "offset"


@dataclass(frozen=True)
class _Array:
    """A data set, or a field of one."""

    place: str
    field: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def _arrays(datasets: dict[str, Any]) -> dict[str, _Array]:
    """Return the arrays of numbers of a file by path; fields of compound rows are arrays."""
    arrays = {}
    for place, dataset in datasets.items():
        if dataset.ndim == 0:
            continue
        for field, (dtype, *_) in (dataset.dtype.fields or {}).items():
            if dtype.base.kind in "biuf":
                shape = (*dataset.shape, *dtype.shape)
                arrays[f"{place}/{field}"] = _Array(place, field, dtype.base, shape)
        if dataset.dtype.kind in "biuf":
            arrays[place] = _Array(place, None, dataset.dtype, dataset.shape)
    return arrays


def _bare(place: Any) -> Any:
    return place.strip("/") if isinstance(place, str) else [one.strip("/") for one in place]


class _Flat:
    """Flat arrays of a file."""

    def __init__(self, path: PathLike, name: str, known: dict[str, _Array]) -> None:
        self.path, self.name, self.known = Path(path), name, known

    def read(
        self, datasets: dict[str, Any], places: Mapping[str, str], first: int, last: int
    ) -> dict[str, Any]:
        columns = {}
        for name, place in places.items():
            array = self.known[place]
            with reading(self.path, place):
                rows = datasets[array.place]
                columns[name] = (rows if array.field is None else rows.fields(array.field))[
                    first:last
                ]
        return columns

    def by_offset(
        self,
        chosen: dict[str, str],
        needed: tuple[str, ...],
        keep: Sequence[str] | None,
        event_columns: Sequence[str],
        sensors: Sensors | None,
    ) -> Source:
        if event_columns:
            raise refusal(
                "{event_columns} is for hits with the number of their event; arrays with an entry "
                "an event are kept anyway."
            )
        place = chosen.pop("offset")
        starts = self._offsets(place, len(self.known[chosen[needed[0]]]))
        n_hits, n_events = int(starts[-1]), len(starts) - 1
        beside = place.rpartition("/")[0]
        in_group = {n for n, a in self.known.items() if n.rpartition("/")[0] == beside}
        fits = [
            name
            for name, array in self.known.items()
            if len(array) in (n_hits, n_events) and name not in {*chosen.values(), place}
            and not (sensors is not None and last_part(name).startswith(_TABLE))
        ]  # fmt: skip
        places = further_columns(fits, chosen, keep, self.name)
        event_places = {
            name: one
            for name, one in places.items()
            if len(self.known[one]) == n_events and (n_events != n_hits or one in in_group)
        }
        hit_places = {n: one for n, one in {**chosen, **places}.items() if n not in event_places}
        for one in hit_places.values():
            if len(self.known[one]) != n_hits:
                raise ValueError(
                    f"Expected `{one}` of {self.name} with one row for each of the {n_hits} hits "
                    f"or {n_events} events, got {len(self.known[one])}."
                )

        def read() -> Iterator[Columns]:
            with open_datasets(self.path) as datasets:
                for part in slices_of(starts):
                    first, last = int(starts[part.start]), int(starts[part.stop])
                    yield Columns(
                        starts[part.start : part.stop + 1] - first,
                        self.read(datasets, hit_places, first, last),
                        self.read(datasets, event_places, part.start, part.stop),
                    )

        return Source(self.name, read, n_events=n_events, names=needed, sensors=sensors)

    def _offsets(self, place: str, n_hits: int) -> NDArray[np.int64]:
        rows = self.known[place]
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise ValueError(
                f"Expected whole numbers in one dimension in `{place}` of {self.name}, got "
                f"{rows.dtype} of shape {rows.shape}."
            )
        with open_datasets(self.path) as datasets:
            starts = self.read(datasets, {"offset": place}, 0, len(rows))["offset"]
        check_offset(starts, n_hits, f"{self.name} (`{place}`)")
        return np.asarray(starts).astype(np.int64)

    def by_event(
        self,
        chosen: dict[str, str],
        key: list[str],
        needed: tuple[str, ...],
        keep: Sequence[str] | None,
        event_columns: Sequence[str],
        by_block: bool,
        sensors: Sensors | None,
    ) -> Source:
        known = [*self.known]
        key = [resolve_column(self.name, one, known) for one in key]
        event_columns = [resolve_column(self.name, one, known) for one in event_columns]
        n_hits = len(self.known[chosen["t"]])
        used = {*chosen.values(), *key, *event_columns}
        fits = [n for n, array in self.known.items() if len(array) == n_hits and n not in used]
        names = {one: last_part(one) for one in (*key, *event_columns)}
        taken = {*chosen, *names.values(), "event_id"}
        places = further_columns(fits, taken, keep, self.name)
        keys = {names[one]: one for one in key}
        hit_places = {**chosen, **places, **{names[one]: one for one in (*key, *event_columns)}}
        for one in hit_places.values():
            if len(self.known[one]) != n_hits:
                raise ValueError(
                    f"Expected `{one}` of {self.name} with one row for each of the {n_hits} hits, "
                    f"got {len(self.known[one])}."
                )

        def tables(places: Mapping[str, str] = hit_places) -> Iterator[Table]:
            with open_datasets(self.path) as datasets:
                for first in range(0, n_hits, BATCH_HITS):
                    table = self.read(datasets, places, first, min(first + BATCH_HITS, n_hits))
                    yield {n: whole_key(self.name, n, c) if n in keys else c
                           for n, c in table.items()}  # fmt: skip

        scan = RowScan([names[one] for one in key])
        for table in tables(keys):
            scan.feed(table)
        scan.n_bytes = n_hits * sum(self.known[one].dtype.itemsize for one in hit_places.values())
        source = rows_source(
            self.name,
            tables,
            scan,
            names=needed,
            event_columns=[names[one] for one in event_columns],
            by_block=by_block,
        )
        source.sensors = sensors
        return source


_TABLE = ("position", "direction")


def _sensors_in(
    path: PathLike, known: dict[str, _Array], default_unit: str | None
) -> Sensors | None:
    """Return the table of sensors of a file: `position` and perhaps `direction`, if it is alone."""
    from dense_imb.data.events.sensors import sensors_from_arrays, unit_of_name

    by_kind = {
        kind: [
            one for one, array in known.items()
            if array.ndim == 2 and array.shape[1] in (2, 3) and last_part(one).startswith(kind)
        ]
        for kind in _TABLE
    }  # fmt: skip
    places = by_kind["position"]
    unit = (unit_of_name(places[0]) or default_unit) if len(places) == 1 else None
    if unit is None:
        return None
    directions = by_kind["direction"][:1]
    flat = _Flat(path, str(path), known)
    with open_datasets(path) as datasets:
        wanted = dict(zip(_TABLE, (places[0], *directions), strict=False))
        table = flat.read(datasets, wanted, 0, len(known[places[0]]))
    return sensors_from_arrays(table["position"], table.get("direction"), unit)


def has_frames(path: PathLike) -> bool:
    """Whether an HDF5 file has a data set of three or more dimensions."""
    with open_datasets(path) as known:
        return any(dataset.ndim >= 3 for dataset in known.values())


def hdf5_frames_source(path: PathLike, key: str | None = None, labels: str | None = None) -> Source:
    """Read frames from a data set (N, H, W) or (N, 1, H, W), and labels from another.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb.data.events.formats import hdf5_frames_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/frames.h5"
        >>> with h5py.File(path, "w") as file:
        ...     file["frames"] = np.array([[[0, 7, 0]], [[5, 0, 9]]])
        >>> next(hdf5_frames_source(path).batches(Geometry(3, 1, 9))).t.tolist()
        [7, 5, 9]
    """
    with open_datasets(path) as known:
        dense = [name for name, dataset in known.items() if dataset.ndim >= 3]
        if not dense:
            listed = ", ".join(
                f"`{name}` of {' x '.join(map(str, known[name].shape))}" for name in [*known][:20]
            )
            raise Refused(
                f"a data set of frames (N, H, W) in {path}",
                f"{listed or 'no data set at all'}{', ..' if len(known) > 20 else ''}",
                "name flat arrays of hits with {columns=x=PATH,y=PATH,t=PATH,offset=PATH}",
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
