"""Flat arrays of hits and offsets in a .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dense_imb.base.files import decoding
from dense_imb.data.events.formats.frames import ArchiveMember, PathLike
from dense_imb.data.events.formats.mapping import (
    Names,
    further_columns,
    match_columns,
    missing_column,
    needed_columns,
)
from dense_imb.data.events.formats.source import Columns, Source, slices_of
from dense_imb.data.events.sensors import sensors_from_arrays
from dense_imb.hits.format import check_offset

_TABLE = ("sensor_position_m", "sensor_direction")


def has_flat_arrays(path: PathLike) -> bool:
    """Whether a .npz file has arrays `offset` and `t`."""
    with decoding(f"{path} to be a .npz archive"), zipfile.ZipFile(path) as archive:
        return {"offset.npy", "t.npy"} <= set(archive.namelist())


def npz_hits_source(
    path: PathLike,
    columns: Names | None = None,
    *,
    needed: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Source:
    """Read hits from flat arrays of a .npz file; they are held in memory.

    Args:
        path: the file.
        columns: names of `x`, `y`, `t`, `sensor`, `label` and `offset`, where they differ.
        needed: columns that place the hits; by default x, y and t, or sensor and t.
        keep: further arrays to keep, with an entry a hit or an event; by default all.

    Example:
        >>> import numpy as np, tempfile
        >>> from dense_imb.data.events.formats import npz_hits_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/hits.npz"
        >>> np.savez(path, x=[3, 5, 40], y=[4, 4, 90], t=[500, 505, 20], offset=[0, 2, 3])
        >>> next(npz_hits_source(path).batches(Geometry()))
        Events(2 events, 3 hits, 88 x 128 x 1000)
    """
    with decoding(f"{path} to be a .npz archive"), zipfile.ZipFile(path) as archive:
        names = [one.removesuffix(".npy") for one in archive.namelist() if one.endswith(".npy")]
    members = [ArchiveMember(Path(path), name) for name in names]
    fits = [one for one in members if one.dtype.kind in "biuf" and one.shape]
    arrays: dict[str, Any] = {one.key: one[: one.shape[0]] for one in fits}
    known = [*arrays]
    for name in keep or ():
        if name not in known:
            raise missing_column(str(path), name, known)
    chosen = match_columns(str(path), known, columns or {}, needed, ["offset"])
    needed = needed_columns(needed, chosen)
    place = chosen.pop("offset")
    starts = arrays[place]
    check_offset(starts, len(arrays[chosen["t"]]), f"{path} (`{place}`)")
    starts = starts.astype(np.int64)
    n_hits, n_events = int(starts[-1]), len(starts) - 1
    free = [n for n in known if n not in {*chosen.values(), place, *_TABLE}]
    free = [n for n in free if len(arrays[n]) in (n_hits, n_events)]
    places = {**chosen, **further_columns(free, chosen, keep, str(path))}
    hit = {n: one for n, one in places.items() if n in chosen or len(arrays[one]) == n_hits}
    event = {name: one for name, one in places.items() if name not in hit}
    sensors = None
    if _TABLE[0] in arrays:
        sensors = sensors_from_arrays(arrays[_TABLE[0]], arrays.get(_TABLE[1]), "m")
    for name in hit.values():
        if len(arrays[name]) != n_hits:
            raise ValueError(
                f"Expected `{name}` of {path} with one row for each of the {n_hits} hits, got "
                f"{len(arrays[name])}."
            )

    def read() -> Iterator[Columns]:
        for part in slices_of(starts):
            first, last = int(starts[part.start]), int(starts[part.stop])
            yield Columns(
                starts[part.start : part.stop + 1] - first,
                {name: arrays[one][first:last] for name, one in hit.items()},
                {name: arrays[one][part] for name, one in event.items()},
            )

    return Source(str(path), read, n_events=n_events, names=needed, sensors=sensors)
