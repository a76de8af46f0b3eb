"""Blocks of records as awkward arrays: ROOT trees, parquet files, arrays in memory.

An entry is an event with lists of hits, or one hit.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import decoding
from dense_imb.base.refusals import refusal
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.mapping import (
    Names,
    find_column,
    further_columns,
    key_names,
    match_columns,
    needed_columns,
    resolve_column,
)
from dense_imb.data.events.formats.rows import RowScan, Table, rows_source, whole_key
from dense_imb.data.events.formats.source import Columns, Source
from dense_imb.hits.jagged import awkward_leaves, import_awkward

Kind = Literal["list", "number", "other"]
Blocks = Callable[[Sequence[str]], Iterator[Any]]


def kind_of(column: Any) -> Kind:
    """Return whether a column has a list of numbers an entry, one number, or anything else."""
    awkward = import_awkward()
    flat: Any = column
    if column.ndim == 2:
        flat = awkward.flatten(column, axis=1)
    if column.ndim > 2 or column.fields or flat.ndim != 1:
        return "other"
    try:
        is_numeric = awkward.to_numpy(flat, allow_missing=False).dtype.kind in "biuf"
    except (ValueError, TypeError):
        return "other"
    return ("list" if column.ndim == 2 else "number") if is_numeric else "other"


def records_source(
    name: str,
    blocks: Blocks,
    kinds: Mapping[str, Kind],
    columns: Names | None = None,
    *,
    needed: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    event_columns: Sequence[str] = (),
    by_block: bool = False,
    n_entries: int | None = None,
) -> Source:
    """Read hits from records: lists of hits an event, or one hit a record.

    Args:
        name: name of the source in errors.
        blocks: function that reads columns of these names from the beginning, as awkward arrays.
        kinds: kind of each column by name.
        columns: names of `x`, `y`, `t`, `sensor`, `label`, and of `event` where a record is a hit.
        needed: columns that place the hits; by default x, y and t, or sensor and t.
        keep: further columns; lists are kept with the hits, numbers with the events. By default
            all.
        event_columns: where a record is a hit, columns with one value an event.
        by_block: where a record is a hit, every block of one event number is an event.
        n_entries: number of records, if known.
    """
    columns = columns or {}
    known = [*kinds]
    keep = None if keep is None else [resolve_column(name, one, known) for one in keep]
    event_columns = [resolve_column(name, one, known) for one in event_columns]
    chosen = match_columns(name, known, columns, needed)
    needed = needed_columns(needed, chosen)
    if kinds[chosen["t"]] == "number":
        first = find_column("event", known)
        if "event" not in columns and first is None:
            match_columns(name, known, columns, needed, ["event"])  # refuses
        key = key_names(columns) if "event" in columns else [str(first)]
        key = [resolve_column(name, one, known) for one in key]
        return _rows(name, blocks, kinds, chosen, key, needed, keep, event_columns, by_block)
    if event_columns:
        raise refusal(
            "{event_columns} is for records of one hit; numbers beside lists of hits are kept with "
            "the events anyway."
        )
    numbers = [place for place, kind in kinds.items() if kind != "other"]
    free = [place for place in numbers if place not in chosen.values()]
    places = {**chosen, **further_columns(free, chosen, keep, name)}
    reader = _Lists(name, blocks, kinds, places, {*chosen}, keep is not None)
    source = Source(name, reader.read, n_events=n_entries, names=needed)
    reader.source = source
    return source


class _Lists:
    """Reader of records with lists of hits."""

    source: Source

    def __init__(
        self,
        name: str,
        blocks: Blocks,
        kinds: Mapping[str, Kind],
        places: dict[str, str],
        chosen: set[str],
        is_strict: bool,
    ) -> None:
        self.name, self.blocks, self.kinds, self.places = name, blocks, kinds, places
        self.chosen, self.is_strict = chosen, is_strict
        for ours in chosen:
            if kinds[places[ours]] != "list":
                raise ValueError(
                    f"Expected an array an event in branch `{places[ours]}` of {name}, got "
                    f"{'one number' if kinds[places[ours]] == 'number' else 'others'}."
                )
        for place in places.values():
            if kinds[place] == "other":
                raise ValueError(f"Expected numbers in branch `{place}` of {name}, got others.")
        self.dropped: set[str] = set()
        self.kept: set[str] = set()

    def read(self) -> Iterator[Columns]:
        self.source.notes.clear()
        for block in self.blocks([*dict.fromkeys(self.places.values())]):
            yield self._columns(block)
        if self.dropped:
            self.source.notes.append(
                f"left out of {self.name}: {', '.join(sorted(self.dropped))}, lists of another "
                "length than the hits"
            )

    def _columns(self, block: Any) -> Columns:
        awkward = import_awkward()
        place = self.places["t"]
        count = awkward.to_numpy(awkward.num(pick(block, place), axis=1))
        hit: dict[str, NDArray[Any]] = {}
        event: dict[str, NDArray[Any]] = {}
        for name, branch in self.places.items():
            column = pick(block, branch)
            if self.kinds[branch] == "number":
                event[name] = awkward.to_numpy(column)
            elif np.array_equal(awkward.num(column, axis=1), count):
                if name not in self.dropped:
                    self.kept.add(name)
                    hit[name] = awkward.to_numpy(awkward.flatten(column, axis=1))
            elif name in self.chosen or self.is_strict or name in self.kept:
                raise ValueError(
                    f"Expected as many entries in branch `{branch}` of {self.name} as in "
                    f"`{place}` for each event, got others; leave it out of the columns to keep."
                )
            else:
                self.dropped.add(name)
        return Columns(np.concatenate([[0], np.cumsum(count)]).astype(np.int64), hit, event)


def _rows(
    name: str,
    blocks: Blocks,
    kinds: Mapping[str, Kind],
    chosen: dict[str, str],
    key: list[str],
    needed: tuple[str, ...],
    keep: Sequence[str] | None,
    event_columns: Sequence[str],
    by_block: bool,
) -> Source:
    awkward = import_awkward()
    used = {*chosen.values(), *key, *event_columns}
    free = [one for one, kind in kinds.items() if kind == "number" and one not in used]
    taken = {*chosen, *key, *event_columns, "event_id"}
    places = {**chosen, **further_columns(free, taken, keep, name)}
    places |= {one: one for one in (*key, *event_columns)}
    for place in places.values():
        if kinds[place] != "number":
            raise ValueError(f"Expected one number an entry in `{place}` of {name}, got others.")

    def tables(places: Mapping[str, str] = places) -> Iterator[Table]:
        for block in blocks([*dict.fromkeys(places.values())]):
            table = {ours: awkward.to_numpy(pick(block, one)) for ours, one in places.items()}
            yield {n: whole_key(name, n, c) if n in key else c for n, c in table.items()}

    scan = RowScan(key)
    for table in tables({one: one for one in key}):
        scan.feed(table)
    scan.n_bytes = 8 * scan.n_rows * len(places)
    return rows_source(
        name, tables, scan, names=needed, event_columns=event_columns, by_block=by_block
    )


def pick(block: Any, name: str) -> Any:
    """Return a column of a block by name; `pad.x` may be a field of a record."""
    if name in block.fields:
        return block[name]
    head, _, tail = name.partition(".")
    while tail:
        if head in block.fields:
            return pick(block[head], tail)
        part, _, tail = tail.partition(".")
        head = f"{head}.{part}"
    return block[name if name in block.fields else name.rpartition("/")[2]]


def parquet_source(path: PathLike, columns: Names | None = None, **options: Any) -> Source:
    """Read hits from a parquet file, by row groups.

    Args:
        path: the file.
        columns: see `records_source`.
        options: see `records_source`.

    Example:
        >>> import awkward, tempfile
        >>> from dense_imb.data.events.formats import parquet_source
        >>> from dense_imb.hits import Geometry
        >>> path, hits = tempfile.mkdtemp() + "/run.parquet", awkward.Array([[3, 5], [40]])
        >>> _ = awkward.to_parquet(awkward.zip({"x": hits, "y": hits, "t": 10 * hits}, 1), path)
        >>> next(parquet_source(path).batches(Geometry())).t.tolist()
        [30, 50, 400]
    """
    awkward = import_parquet("read")
    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected a parquet file at {path}, got none.")
    place = glob.escape(local_place(path))  # or awkward reads all files that match
    with decoding(f"{path} to be a parquet file"):
        meta = awkward.metadata_from_parquet(place)
        n_groups = int(meta["num_row_groups"])
        n_entries = int(meta["num_rows"])
        first = awkward.from_parquet(place, row_groups=[0] if n_groups else None)
    kinds = {name: kind_of(leaf) for name, leaf in awkward_leaves(first).items()}

    def blocks(names: Sequence[str]) -> Iterator[Any]:
        for group in range(n_groups):
            with decoding(f"{path} to be a parquet file"):
                block = awkward.from_parquet(place, row_groups=[group])
            yield block

    return records_source(str(path), blocks, kinds, columns, n_entries=n_entries, **options)


def local_place(path: PathLike) -> str:
    """Return a path that awkward and uproot take for a file, not for an address."""
    place = os.path.abspath(path)
    if "::" in place:
        raise ValueError(
            f"Expected a path without `::`, which uproot and awkward take for an address, got "
            f"{place}; rename it."
        )
    return place


def import_parquet(action: str) -> Any:
    """Return awkward, or say how to install what it needs for parquet."""
    try:
        import awkward
        import pyarrow.parquet  # noqa: F401
    except ImportError as problem:
        raise ImportError(
            f"Expected awkward and pyarrow to {action} parquet, got none; "
            "pip install 'dense-imb[parquet]'."
        ) from problem
    return awkward
