"""Hit lists as text: CSV with a header, and the ASCII frames of Timepix detectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import BATCH_HITS, Source, make_events
from dense_imb.hits import Events, Geometry

_LONGEST_LINE = 1 << 16  # a "line" of gigabytes is another format
_EXACT = 2.0**53  # whole numbers from here on need more than a double
_FRAMES = 64  # in a batch
_Table = dict[str, NDArray[Any]]


def csv_source(
    path: PathLike, columns: Mapping[str, str] | None = None, event_columns: Sequence[str] = ()
) -> Source:
    """Read hits from a table with a header line and one hit a row.

    Rows are sorted by event number, which becomes the event column `event_id`. Further columns
    are kept with the hits. The file is read twice, first for the types of its columns.

    Args:
        path: text with columns between commas, semicolons, tabs or blanks.
        columns: names of `event`, `x`, `y`, `t` and `label` in this file, where they differ.
        event_columns: further columns with one value an event, for example `run`.
    """
    table = _CSV(Path(path), dict(columns or {}), list(event_columns))
    return Source(str(path), table.batches, largest_time=table.largest_time)


class _CSV:
    """CSV file of hits: header, types of the columns, and rows in chunks."""

    def __init__(self, path: Path, columns: dict[str, str], event_columns: list[str]) -> None:
        self.path = path
        with self._open() as file:
            header = file.readline(_LONGEST_LINE).lstrip("#").strip()
        if not header:
            raise ValueError(
                f"Expected a header line with the names of the columns in {path}, got none; the "
                "file is empty or begins with an empty line."
            )
        self.delimiter = next((mark for mark in ",;\t" if mark in header), None)
        named = [name.strip().strip('"') for name in header.split(self.delimiter)]
        ours = {columns.get(name, name): name for name in ("event", "x", "y", "t", "label")}
        unknown = sorted(columns.keys() - {"event", "x", "y", "t", "label"})
        missing = [name for name in ours if name not in named and ours[name] != "label"]
        missing += [columns["label"]] if columns.get("label", named[0]) not in named else []
        missing += [name for name in event_columns if name not in named]
        if missing or unknown:
            raise Refused(
                f"columns event, x, y, t and perhaps label in {path}",
                f"{', '.join(named)[:200]}, without {', '.join(missing) or unknown[0]}",
                "name them with {columns}, for example x=NAME",
            )
        self.names = [ours.get(name, name) for name in named]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"Expected each column of {path} once, got {', '.join(self.names)}.")
        self.event_columns = event_columns
        self.types = np.dtype([(name, "f8") for name in self.names])
        self.types = self._find_types()

    def _open(self) -> IO[str]:
        return open(self.path, encoding="utf-8-sig", errors="replace")

    def _find_types(self) -> np.dtype[Any]:
        is_whole = dict.fromkeys(self.names, True)
        largest = dict.fromkeys(self.names, 0.0)
        self.largest_time: float | None = None
        for table in self._tables():
            self.largest_time = max(self.largest_time or 0.0, float(table["t"].max()))
            for name, column in table.items():
                is_whole[name] &= bool((column == np.floor(column)).all())
                largest[name] = max(largest[name], float(np.abs(column).max()))
        for name in ("event", "x", "y", "label", *self.event_columns):
            if not is_whole.get(name, True):
                raise ValueError(
                    f"Expected whole numbers in column `{name}` of {self.path}, got others."
                )
        is_whole = {name: whole and largest[name] < 2.0**63 for name, whole in is_whole.items()}
        # text like 12.0 is a whole number too, which only a double reads
        self._cast = [name for name in self.names if is_whole[name] and largest[name] < _EXACT]
        exact = {n for n in self.names if is_whole[n] and largest[n] >= _EXACT}
        return np.dtype([(name, "i8" if name in exact else "f8") for name in self.names])

    def _tables(self) -> Iterator[_Table]:
        """Yield the rows in chunks, as columns by name."""
        first = 2  # line of the file, counted from 1
        with self._open() as file:
            file.readline(_LONGEST_LINE)
            lines = _lines(file, self.path)
            while rows := list(islice(lines, BATCH_HITS)):
                filled = [row for row in rows if not row.isspace()]
                try:
                    table = np.zeros(0, self.types) if not filled else np.loadtxt(
                        filled, self.types, delimiter=self.delimiter, ndmin=1,
                        comments=None, quotechar='"',
                    )  # fmt: skip
                except ValueError as problem:
                    wrong = next((k for k, row in enumerate(rows) if self._is_wrong(row)), 0)
                    raise ValueError(
                        f"Expected {len(self.names)} numbers in each row of {self.path}, got "
                        f"{rows[wrong].strip()[:80]!r} in line {first + wrong}."
                    ) from problem
                first += len(rows)
                if len(table):
                    yield {name: table[name] for name in self.names}

    def _is_wrong(self, row: str) -> bool:
        values = row.replace('"', "").split(self.delimiter)
        try:
            return not row.isspace() and len([float(v) for v in values]) != len(self.names)
        except ValueError:
            return True

    def batches(self, geometry: Geometry) -> Iterator[Events]:
        """Yield whole events; the last event of a chunk waits for the next chunk."""
        rest: _Table | None = None
        for table in self._tables():
            for name in self._cast:
                table[name] = table[name].astype(np.int64)
            if rest is not None:
                table = {n: np.concatenate([rest[n], column]) for n, column in table.items()}
            event = table["event"]
            backwards = np.flatnonzero(np.diff(event) < 0)
            if len(backwards):
                row = int(backwards[0])
                raise ValueError(
                    f"Expected `event` of {self.path} never to decrease, got {event[row + 1]} "
                    f"after {event[row]}; sort the rows by event."
                )
            last = int(np.searchsorted(event, event[-1]))
            if last:
                yield self._events(geometry, {n: column[:last] for n, column in table.items()})
            rest = {name: column[last:] for name, column in table.items()}
        if rest is not None:
            yield self._events(geometry, rest)

    def _events(self, geometry: Geometry, table: _Table) -> Events:
        number = table.pop("event")
        first = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
        offset = np.append(first, len(number)).astype(np.int64)
        event = {"event_id": number[first]}
        for name in self.event_columns:
            column = table.pop(name)
            event[name] = column[first]
            differs = np.flatnonzero(column != np.repeat(event[name], np.diff(offset)))
            if len(differs):
                raise ValueError(
                    f"Expected one `{name}` for each event of {self.path}, got several in event "
                    f"{number[differs[0]]}; keep it with the hits."
                )
        return make_events(geometry, offset, table, event)


def timepix_source(folder: PathLike, pattern: str = "*.txt") -> Source:
    """Read Timepix frames in ASCII xyC: a file a frame, `X<tab>Y<tab>C` rows, no header.

    C, a time or the time over threshold, becomes t. The detector has 256 x 256 pixels by default.
    An empty file is a frame without hits.

    Args:
        folder: folder of the files, or one file.
        pattern: use only the files that match it.
    """
    root = Path(folder)
    files = sorted(root.glob(pattern)) if root.is_dir() else [root]
    paths = [path for path in files if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise ValueError(f"Expected frames that match {pattern} in {folder}, got none.")

    def batches(geometry: Geometry) -> Iterator[Events]:
        for start in range(0, len(paths), _FRAMES):
            frames = [_read_xyc(path) for path in paths[start : start + _FRAMES]]
            offset = np.cumsum([0, *map(len, frames)])
            x, y, t = np.concatenate(frames).T
            yield make_events(geometry, offset, {"x": x, "y": y, "t": t}, {})

    return Source(str(folder), batches, 256, 256, len(paths))


def _read_xyc(path: Path) -> NDArray[np.int64]:
    with path.open(encoding="ascii", errors="replace") as file:
        rows = [line.split() for line in _lines(file, path) if not line.isspace()]
    try:
        frame = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    except ValueError:
        wrong = next(row for row in rows if len(row) != 3 or not all(v.isdigit() for v in row))
        raise Refused(
            f"rows of three whole numbers, X, Y and C, in {path}",
            f"{' '.join(wrong)[:60]!r}",
            "leave other files out with {pattern}",
        ) from None
    return frame


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"Expected lines of text in {path}, got one that never ends.")
        yield line
