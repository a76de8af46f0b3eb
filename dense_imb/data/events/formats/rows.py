"""Tables with one hit a row, and the number of its event in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused, literal
from dense_imb.data.events.formats import source as sources
from dense_imb.data.events.formats.source import Columns, Source
from dense_imb.hits.build import is_backwards

Table = dict[str, NDArray[Any]]
# columns that, when they vary inside an event, tell that events were merged
_RUNS = re.compile(
    r"(sub_?)?run|file|spill|burst|lumi|block|source|period|partition", re.IGNORECASE
)


class RowScan:
    """Order of the rows of a table, found before they are read.

    Args:
        key: columns that number the events, the most significant first.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self.key = key
        self.n_rows = self.n_bytes = self.n_blocks = self.n_backwards = 0
        self._last: list[NDArray[Any]] | None = None

    def feed(self, table: Table) -> None:
        """Look at the next rows."""
        columns = [table[name] for name in self.key]
        if not len(columns[0]):
            return
        self.n_rows += len(columns[0])
        self.n_bytes += sum(column.nbytes for column in table.values())
        if self._last is None:
            self.n_blocks += 1
        else:
            columns = [np.append(a, b) for a, b in zip(self._last, columns, strict=True)]
        self.n_backwards += int(is_backwards(columns).sum())
        self.n_blocks += int(_changes(columns).sum())
        self._last = [column[-1:] for column in columns]

    @property
    def in_order(self) -> bool:
        """Whether the rows are sorted by event."""
        return self.n_backwards == 0


def rows_source(
    name: str,
    tables: Callable[[], Iterator[Table]],
    scan: RowScan,
    *,
    names: tuple[str, ...],
    event_columns: Sequence[str] = (),
    by_block: bool = False,
    largest_time: float | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """Read events from tables with one hit a row.

    Rows in the order of their events are read in batches; others are sorted in memory. The last
    column of the key becomes the event column `event_id`, the others keep their names.

    Args:
        name: name of the source in errors.
        tables: function that reads the rows from the beginning, as columns by name.
        scan: order of these rows.
        names: columns that place the hits.
        event_columns: further columns with one value an event.
        by_block: every block of consecutive rows with one key is an event.
        largest_time: largest time, if known.
        notes: notes of the reader, see `Source`.
    """
    reader = _Rows(name, tables, scan, event_columns, by_block, names, notes)
    source = Source(name, reader.read, largest_time=largest_time, names=names)
    reader.notes = source.notes
    return source


def whole_key(where: str, name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of events as whole numbers; refuse fractions and NaN."""
    if column.ndim != 1 or (column.dtype.kind == "f" and (column != np.floor(column)).any()):
        raise ValueError(f"Expected one whole number a hit in `{name}` of {where}, got others.")
    return column.astype(np.int64) if column.dtype.kind in "bf" else column


class _Rows:
    def __init__(
        self,
        name: str,
        tables: Callable[[], Iterator[Table]],
        scan: RowScan,
        event_columns: Sequence[str],
        by_block: bool,
        names: Sequence[str],
        notes: Sequence[str],
    ) -> None:
        self.name, self.tables, self.scan = name, tables, scan
        self.event_columns, self.by_block = [*event_columns], by_block
        self.names = names
        self.notes: list[str] = []
        self.first_notes = notes
        self.n_events = 0
        self.n_varying: dict[str, int] = {}

    def read(self) -> Iterator[Columns]:
        self.notes[:] = self.first_notes
        self.n_events, self.n_varying = 0, {}
        n_joined = 0
        if self.by_block or self.scan.in_order:
            yield from self._in_order()
        else:
            table, n_joined = self._sorted()
            yield from self._sliced(table)
        self._note_merged(n_joined)

    def _in_order(self) -> Iterator[Columns]:
        """Yield whole events; the last event of a table waits for the next table."""
        rest: Table | None = None
        for table in self.tables():
            if rest is not None:
                table = {n: np.concatenate([rest[n], column]) for n, column in table.items()}
            first = self._first_rows(table)
            last = int(first[-1]) if len(first) else 0
            if last:
                yield self._events({n: column[:last] for n, column in table.items()}, first[:-1])
            rest = {name: column[last:] for name, column in table.items()}
        if rest is not None and len(rest[self.scan.key[0]]):
            yield self._events(rest, self._first_rows(rest))

    def _sorted(self) -> tuple[Table, int]:
        """Return all rows sorted by event, and the number of events out of several blocks."""
        needed = 3 * self.scan.n_bytes
        free = _free_memory()
        if free is not None and needed > free:
            raise Refused(
                f"rows of {self.name} in the order of their events, or {needed / 1e9:.1f} GB of "
                "memory to sort them",
                f"{free / 1e9:.1f} GB",
                "sort the rows by event first",
            )
        parts = [*self.tables()]
        table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        keys = [table[name] for name in self.scan.key]
        block = np.cumsum(np.append(0, _changes(keys)))
        order = np.lexsort(keys[::-1])  # stable
        table = {name: column[order] for name, column in table.items()}
        first, block = self._first_rows(table), block[order]
        ends = np.append(first[1:], len(block)) - 1
        return table, int((block[first] != block[ends]).sum())

    def _sliced(self, table: Table) -> Iterator[Columns]:
        first = self._first_rows(table)
        offset = np.append(first, len(table[self.scan.key[0]])).astype(np.int64)
        for part in sources.slices_of(offset):
            low, high = int(offset[part.start]), int(offset[part.stop])
            rows = {name: column[low:high] for name, column in table.items()}
            yield self._events(rows, first[part] - low)

    def _first_rows(self, table: Table) -> NDArray[np.int64]:
        keys = [table[name] for name in self.scan.key]
        if not len(keys[0]):
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.append(True, _changes(keys)))

    def _events(self, table: Table, first: NDArray[np.int64]) -> Columns:
        """Return whole events; their first rows are known."""
        table = dict(table)
        offset = np.append(first, len(table[self.scan.key[0]])).astype(np.int64)
        *others, last = self.scan.key
        event = {"event_id": table[last][first]}
        for name in self.event_columns:
            wrong = _varying(table[name], offset)
            if len(wrong):
                raise ValueError(
                    f"Expected one `{name}` for each event of {self.name}, got several in event "
                    f"{event['event_id'][wrong[0]]}; keep it with the hits."
                )
        for name in (*others, *self.event_columns):
            if name in table:
                event[name] = table.pop(name)[first]
        table.pop(last, None)
        for name, column in table.items():
            if _RUNS.search(name) and name not in self.names:
                self.n_varying[name] = self.n_varying.get(name, 0) + len(_varying(column, offset))
        self.n_events += len(first)
        return Columns(offset, table, event)

    def _note_merged(self, n_joined: int) -> None:
        key = self.scan.key[-1]
        for name, count in self.n_varying.items():
            if count:
                both = literal(",".join([*self.scan.key[:-1], name, key]))
                self.notes.append(
                    f"`{literal(name)}` varies inside {count:,} of {self.n_events:,} events of "
                    f"{literal(self.name)}: events with one number were merged; "
                    f"{{columns=event={both}}} keeps them apart"
                )
                return
        # shuffled rows go back half of the time, numbers that restart do so once a run
        if n_joined and self.scan.n_backwards * 4 <= self.scan.n_blocks:
            self.notes.append(
                f"`{literal(key)}` of {literal(self.name)} restarts {self.scan.n_backwards:,} "
                f"times: {n_joined:,} of {self.n_events:,} events were merged out of "
                f"{self.scan.n_blocks:,} blocks of rows; {{by_block}} keeps the blocks apart, or "
                f"{{columns=event=RUN,{literal(key)}}} with the column of the run"
            )


def _changes(columns: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Return where a row has another key than the row before it."""
    changes = np.zeros(max(len(columns[0]) - 1, 0), np.bool_)
    for column in columns:
        changes |= column[1:] != column[:-1]
    return changes


def _varying(column: NDArray[Any], offset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the events in which a column has several values; NaN equals NaN."""
    differs = column[1:] != column[:-1]
    if column.dtype.kind == "f":
        differs &= ~(np.isnan(column[1:]) & np.isnan(column[:-1]))
    if differs.ndim > 1:
        differs = differs.reshape(len(differs), -1).any(1)
    rows = np.flatnonzero(differs) + 1
    event = np.searchsorted(offset, rows, side="right") - 1
    return np.unique(event[offset[event] != rows])


def _free_memory() -> int | None:
    """Return the bytes of memory that are free, where the system says so."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
