"""Split a hits file into several without leakage, and merge several into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import refuse_inputs
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.parts import assign_parts
from dense_imb.hits import Events, HitsFile, HitsFiles, HitsWriter, open_hits
from dense_imb.hits.reader import file_paths

_Hits = HitsFile | HitsFiles


def split_hits(
    hits: _Hits,
    parts: Mapping[PathLike, float],
    *,
    seed: int = 0,
    group: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[int]:
    """Split events among files. Each event goes to one file with all its columns; order is kept.

    Args:
        hits: result of `open_hits`.
        parts: path of each file, and its share of the events.
        seed: random seed of the split.
        group: column of the events, for example `run`; events with equal values go to one file.
        overwrite: replace files that exist.
        progress: show a bar.

    Returns:
        The number of events in each file.
    """
    number: NDArray[Any] = np.arange(len(hits))
    if group is not None:
        known = [name.removeprefix("/event/") for name in hits.columns if "/event/" in name]
        if not set(known) - {"offset"}:
            raise Refused(
                "a column of the events to group by",
                f"`{group}` and a file without any",
                "drop {group}, or let `dense-imb convert` keep such a column",
            )
        if group not in known or group == "offset":
            raise ValueError(
                f"Expected `group` to be a column of the events, one of "
                f"{sorted(set(known) - {'offset'})}, got {group!r}."
            )
        column = [np.asarray(events.event[group]) for events in hits.batches()]
        number = np.concatenate(column) if column else number
        if number.ndim != 1 or (number.dtype.kind == "f" and np.isnan(number).any()):
            raise ValueError(f"Expected `{group}` with one number for each event, got others.")
    part = assign_parts(number, [*parts.values()], seed)
    paths = [Path(path) for path in parts]
    refuse_inputs(paths, file_paths(hits))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(HitsWriter(path, hits.geometry, overwrite=overwrite))
            for path in paths
        ]
        bar = stack.enter_context(_bar(len(hits), "split", progress))
        first = 0
        for events in hits.batches():
            here = part[first : first + len(events)]
            for k, writer in enumerate(writers):
                if (here == k).any():
                    writer.append(_chosen(events, here == k))
            first += len(events)
            bar.update(len(events))
    return [writer.n_events for writer in writers]


def merge_hits(
    paths: Sequence[PathLike],
    target: PathLike,
    *,
    source_column: str | None = None,
    overwrite: bool = False,
    compression: int | None = None,
    progress: bool = True,
) -> HitsWriter:
    """Write the events of several files with the same geometry and columns to one file.

    Args:
        paths: files or patterns, in this order; one file is copied.
        target: file to write.
        source_column: name of a new column of the events with the number of their file, from 0.
        overwrite: replace a file that exists.
        compression: gzip level, 1 to 9.
        progress: show a bar.
    """
    with open_hits([*paths], in_memory=False) as hits:
        files = hits.files if isinstance(hits, HitsFiles) else [hits]
        refuse_inputs([target], file_paths(hits))
        if source_column is not None and f"/event/{source_column}" in hits.columns:
            raise ValueError(
                f"Expected a new name for the column of sources, got `{source_column}`, which the "
                "files have."
            )
        writer = HitsWriter(target, hits.geometry, overwrite=overwrite, compression=compression)
        with writer, _bar(len(hits), "merge", progress) as bar:
            for number, file in enumerate(files):
                # a file without events declares the columns too
                for events in file.batches() if len(file) else [file[:]]:
                    if source_column is not None:
                        source = np.full(len(events), number, np.uint32)
                        events = replace(events, event={**events.event, source_column: source})
                    writer.append(events)
                    bar.update(len(events))
    return writer


def _chosen(events: Events, is_chosen: NDArray[np.bool_]) -> Events:
    """Return some events with all their columns; `is_chosen` is (n_events,)."""
    hits = events.select(np.repeat(is_chosen, np.diff(events.offset)))
    offset = np.append(0, hits.offset[1:][is_chosen])
    event = {name: column[is_chosen] for name, column in events.event.items()}
    return replace(replace(hits, event={}).with_hits(offset, hits.hit_columns()), event=event)


def _bar(total: int, action: str, progress: bool) -> Any:
    return tqdm(total=total, desc=action, unit="event", disable=not progress, leave=False)
