"""Write hits as tables for other programs: CSV, ROOT, parquet, .npz arrays."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import check_space, refuse_existing, refuse_inputs, write_whole
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import RefusedFile
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.records import import_parquet, local_place
from dense_imb.data.events.formats.root import import_uproot
from dense_imb.data.events.formats.source import BATCH_HITS
from dense_imb.hits import Events, HitsFile, HitsFiles, Sensors, to_awkward
from dense_imb.hits.jagged import import_awkward
from dense_imb.hits.reader import file_paths

_Hits = HitsFile | HitsFiles
_AXES = ("x", "y", "z", "dx", "dy", "dz")


def to_table(
    hits: _Hits, path: PathLike, *, overwrite: bool = False, progress: bool = True
) -> list[str]:
    """Write hits in the format that the suffix names.

    CSV has one hit a row and the number of its event, ROOT and parquet one event an entry, .npz
    flat arrays and `offset`. Columns of events are repeated in each row of a CSV file. A table of
    sensors becomes arrays of the .npz file, or a second file `NAME_sensors.csv` in metres.

    Args:
        hits: result of `open_hits`.
        path: .csv, .root, .parquet or .npz.
        overwrite: replace files that exist.
        progress: show a bar.

    Returns:
        Notes about what the format does not hold, and about the second file.
    """
    path = Path(path)
    writers: dict[str, Callable[..., list[str]]] = {
        ".csv": _write_csv,
        ".root": _write_root,
        ".parquet": _write_parquet,
        ".npz": _write_npz,
    }
    if path.suffix not in writers:
        raise ValueError(
            f"Expected {path} to end in {', '.join(writers)}, got {path.suffix or 'nothing'!r}."
        )
    refuse_existing(path, overwrite)
    geometry = hits.geometry
    beside = sensors_path(path) if isinstance(geometry, Sensors) else None
    if beside is not None and beside.exists() and not overwrite:
        raise RefusedFile(
            f"no file at {beside}", "one", "choose another name or overwrite it with {overwrite}"
        )
    refuse_inputs([path, *([] if beside is None else [beside])], file_paths(hits))

    def batches(action: str = "write") -> Iterator[Events]:
        with tqdm(
            total=len(hits), desc=action, unit="event", disable=not progress, leave=False
        ) as bar:
            size = max(1, min(1024, BATCH_HITS * len(hits) // max(hits.n_hits, 1)))
            for events in hits.batches(size) if len(hits) else [hits[:]]:
                yield events.numpy()
                bar.update(len(events))

    notes = writers[path.suffix](path, hits, batches)
    if beside is not None and isinstance(geometry, Sensors):
        _write_sensors(beside, geometry)
        notes.append(f"{beside}: {geometry.size_text()}, positions in metres")
    return notes


def sensors_path(path: Path) -> Path | None:
    """Return the second file for a table of sensors; None where the format holds it."""
    if path.suffix in (".csv", ".parquet", ".root"):
        return path.with_name(f"{path.stem}_sensors.csv")
    return None


def _write_csv(path: Path, hits: _Hits, batches: Callable[..., Iterator[Events]]) -> list[str]:
    is_key = _numbers_events(batches) if "/event/event_id" in hits.columns else False
    n_empty = 0

    def write(partial: Path) -> None:
        nonlocal n_empty
        first = 0
        with partial.open("w", encoding="ascii") as file:
            for events in batches():
                table = _rows(events, first, is_key)
                if first == 0:
                    file.write(",".join(table) + "\n")
                check_space(partial, 20 * len(table) * events.n_hits)
                _write_rows(file, table)
                n_empty += int((np.diff(events.offset) == 0).sum())
                first += len(events)

    write_whole(path, write)
    return [f"{n_empty:,} events without hits are not in {path.name}, which has one hit a row"] * (
        n_empty > 0
    )


def _numbers_events(batches: Callable[..., Iterator[Events]]) -> bool:
    """Whether the column `event_id` rises, so that it can number the events."""
    last = None
    for events in batches("look at the events"):
        number = np.asarray(events.event["event_id"])
        if number.ndim != 1 or number.dtype.kind not in "iu":
            return False
        ends = number if last is None else np.append(last, number)
        if (ends[1:] <= ends[:-1]).any():
            return False
        last = number[-1:]
    return True


def _rows(events: Events, first: int, is_key: bool) -> dict[str, NDArray[Any]]:
    """Return the columns of a CSV file, by name."""
    index = events.event_index()
    event = dict(events.event)
    number = event.pop("event_id") if is_key else first + np.arange(len(events))
    table: dict[str, NDArray[Any]] = {"event": np.asarray(number)[index]}
    columns = {
        **events.hit_columns(),
        **{f"event_{n}" if n in events.hit_columns() else n: c[index] for n, c in event.items()},
    }
    return {**table, **_flat_columns(columns)}


def _write_rows(file: IO[str], table: dict[str, NDArray[Any]]) -> None:
    texts = []
    for column in table.values():
        whole = column.dtype.kind == "b"
        # the shortest text that is exact when read again
        texts.append((column.astype(np.uint8) if whole else column).astype("U").tolist())
    file.writelines(f"{','.join(row)}\n" for row in zip(*texts, strict=True))


def _write_root(path: Path, hits: _Hits, batches: Callable[..., Iterator[Events]]) -> list[str]:
    uproot, awkward = import_uproot("write"), import_awkward()

    def write(partial: Path) -> None:
        # uproot would take a name with colons for an address
        with partial.open("w+b") as opened, uproot.recreate(opened) as file:
            tree = None
            for events in batches():
                array = to_awkward(_flat(events))
                lists = {n: array[n] for n in array.fields if array[n].ndim == 2}
                block = {n: array[n] for n in array.fields if n not in lists}
                block["hits"] = awkward.zip(lists)
                if tree is None:
                    tree = file.mktree(
                        "events",
                        {name: column.type.content for name, column in block.items()},
                        counter_name=lambda outer: "n_hits",
                        field_name=lambda outer, inner: inner if outer else f"{outer}{inner}",
                    )
                check_space(partial, sum(c.nbytes for c in _flat(events).hit_columns().values()))
                tree.extend(block)

    write_whole(path, write)
    return []


def _flat(events: Events) -> Events:
    """Return events whose columns of several numbers are columns of one each."""
    hit = _flat_columns(events.hit_columns())
    return replace(
        replace(events, event={}).with_hits(events.offset, hit), event=_flat_columns(events.event)
    )


def _flat_columns(columns: Any) -> dict[str, NDArray[Any]]:
    flat: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        if column.ndim == 1:
            flat[name] = column
        else:
            rows = column.reshape(len(column), math.prod(column.shape[1:]))
            flat |= {f"{name}_{k}": rows[:, k] for k in range(rows.shape[1])}
    return flat


def _write_parquet(path: Path, hits: _Hits, batches: Callable[..., Iterator[Events]]) -> list[str]:
    awkward = import_parquet("write")

    def write(partial: Path) -> None:
        arrays = (to_awkward(_flat(events)) for events in batches())
        awkward.to_parquet_row_groups(arrays, local_place(partial))

    write_whole(path, write)
    return []


def _write_npz(path: Path, hits: _Hits, batches: Callable[..., Iterator[Events]]) -> list[str]:
    geometry = hits.geometry
    table: dict[str, NDArray[Any]] = {}
    if isinstance(geometry, Sensors):
        table["sensor_position_m"] = geometry.position
        if geometry.direction is not None:
            table["sensor_direction"] = geometry.direction

    def write(partial: Path) -> None:
        parts = [*batches()]
        first = np.cumsum([0, *(events.n_hits for events in parts)])
        offset = [events.offset[:-1] + start for events, start in zip(parts, first, strict=False)]
        arrays: dict[str, NDArray[Any]] = {
            "offset": np.append(np.concatenate(offset), first[-1]).astype(np.int64)
        }
        for name in parts[0].hit_columns():
            arrays[name] = np.concatenate([events.hit_columns()[name] for events in parts])
        for name in parts[0].event:
            key = f"event_{name}" if name in arrays else name
            arrays[key] = np.concatenate([events.event[name] for events in parts])
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in {**arrays, **table}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_whole(path, write)
    return []


def _write_sensors(path: Path, sensors: Sensors) -> None:
    columns = {name: sensors.position[:, k] for k, name in enumerate(_AXES[: sensors.n_axes])}
    if sensors.direction is not None:
        names = _AXES[3 : 3 + sensors.n_axes]
        columns |= {name: sensors.direction[:, k] for k, name in enumerate(names)}

    def write(partial: Path) -> None:
        with partial.open("w", encoding="ascii") as file:
            table: dict[str, NDArray[Any]] = {"sensor": np.arange(len(sensors)), **columns}
            file.write(",".join(table) + "\n")
            _write_rows(file, table)

    write_whole(path, write)
