"""Hit lists as text: CSV with a header, and the ASCII frames of Timepix detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.mapping import (
    Names,
    further_columns,
    key_names,
    match_columns,
    missing_column,
    needed_columns,
)
from dense_imb.data.events.formats.rows import RowScan, Table, rows_source
from dense_imb.data.events.formats.source import BATCH_HITS, Columns, Source

_LONGEST_LINE = 1 << 16  # a "line" of gigabytes is another format
_EXACT = 2.0**53  # whole numbers from here on need more than a double
_FRAMES = 64  # in a batch


def csv_source(
    path: PathLike,
    columns: Names | None = None,
    event_columns: Sequence[str] = (),
    *,
    needed: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    by_block: bool = False,
    progress: bool = False,
) -> Source:
    """Read hits from a table with a header line and one hit a row.

    The event number becomes the event column `event_id`. Rows in the order of their events are
    read in batches, others are sorted in memory. The file is read twice, first for the types of
    its columns.

    Args:
        path: text with columns between commas, semicolons, tabs or blanks.
        columns: names of `event`, `x`, `y`, `t`, `sensor` and `label` in this file, where they
            differ. `event` may have several: {"event": ["run", "event"]}.
        event_columns: further columns with one value an event, for example `run`.
        needed: columns that place the hits; by default x, y and t, or sensor and t.
        keep: further columns to keep with the hits; by default all.
        by_block: every block of consecutive rows with one event number is an event.
        progress: show a bar while the types of the columns are found.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.data.events.formats import csv_source
        >>> from dense_imb.hits import Geometry
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "hits.csv"
        >>> _ = path.write_text("event,col,row,t\\n0,3,4,500\\n0,5,4,505\\n1,40,90,20\\n")
        >>> source = csv_source(path, {"x": "col", "y": "row"})
        >>> [(len(batch), batch.x.tolist()) for batch in source.batches(Geometry())]
        [(1, [3, 5]), (1, [40])]
    """
    table = _CSV(Path(path), columns or {}, list(event_columns), needed, keep, progress)
    return rows_source(
        str(path),
        table.tables,
        table.scan,
        names=table.needed,
        event_columns=event_columns,
        by_block=by_block,
        largest_time=table.largest_time,
        notes=[f"left out of {literal(path)}: {literal(', '.join(table.text))}, text"]
        if table.text
        else [],
    )


class _CSV:
    """CSV file of hits: header, types of the columns, and rows in chunks."""

    def __init__(
        self,
        path: Path,
        columns: Names,
        event_columns: list[str],
        needed: Sequence[str] | None,
        keep: Sequence[str] | None,
        progress: bool,
    ) -> None:
        self.path = path
        with self._open() as file:
            header = file.readline(_LONGEST_LINE).lstrip("#").strip()
            first_row = file.readline(_LONGEST_LINE)
        if not header:
            raise ValueError(
                f"Expected a header line with the names of the columns in {path}, got none; the "
                "file is empty or begins with an empty line."
            )
        self.delimiter = next((mark for mark in ",;\t" if mark in header), None)
        self.names = [name.strip().strip('"') for name in header.split(self.delimiter)]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"Expected each column of {path} once, got {', '.join(self.names)}.")
        key = key_names(columns)
        chosen = match_columns(
            str(path), self.names, columns, needed, [] if "event" in columns else ["event"]
        )
        chosen.pop("event", None)
        for name in (*key, *event_columns, *(keep or ())):
            if name not in self.names:
                raise missing_column(str(path), name, self.names)
        self.needed = needed_columns(needed, chosen)
        self.ours = {theirs: ours for ours, theirs in chosen.items()}
        used = {*self.ours, *key, *event_columns, *(keep or ())}
        self.text = [name for name in self._text_columns(first_row) if name not in used]
        used.update(self.text)
        further = [name for name in self.names if name not in used]
        taken = {*chosen, *key, *event_columns, "event_id"}
        places = further_columns(further, taken, keep, str(path))
        # binned or scaled as one of ours, and kept as it is beside that
        self.copies = {name: theirs for name, theirs in places.items() if theirs in self.ours}
        self.ours |= {t: name for name, t in places.items() if name not in self.copies}
        self.ours |= {name: name for name in (*event_columns, *key)}
        self.whole = [*key, *(chosen[one] for one in ("label", "sensor") if one in chosen)]
        self.scan = RowScan(key)
        self.read = [name for name in self.names if name not in self.text]
        self.types = np.dtype([(name, "f8") for name in self.read])
        with tqdm(desc="look at the rows", unit="row", disable=not progress, leave=False) as bar:
            self.types = self._find_types(bar.update)

    def _open(self) -> IO[str]:
        return open(self.path, encoding="utf-8-sig", errors="replace")

    def _text_columns(self, row: str) -> list[str]:
        """Return the columns that hold text in the first row."""
        values = self._split(row)
        if len(values) != len(self.names):
            return []
        return [
            name for name, value in zip(self.names, values, strict=True) if not _is_number(value)
        ]

    def _split(self, row: str) -> list[str]:
        return row.strip("\r\n").replace('"', "").split(self.delimiter)

    def _find_types(self, advance: Callable[[int], object]) -> np.dtype[Any]:
        is_whole = dict.fromkeys(self.read, True)
        largest = dict.fromkeys(self.read, 0.0)
        time = next(theirs for theirs, ours in self.ours.items() if ours == "t")
        self.largest_time: float | None = None
        for table in self._tables():
            self.largest_time = max(self.largest_time or 0.0, float(table[time].max()))
            self.scan.feed(table)
            advance(len(table[time]))
            for name, column in table.items():
                is_whole[name] &= bool((column == np.floor(column)).all())
                largest[name] = max(largest[name], float(np.abs(column).max()))
        for name in self.whole:
            if not is_whole[name]:
                raise ValueError(
                    f"Expected whole numbers in column `{name}` of {self.path}, got others."
                )
        is_whole = {name: whole and largest[name] < 2.0**63 for name, whole in is_whole.items()}
        # text like 12.0 is a whole number too, which only a double reads
        self._cast = [name for name in self.read if is_whole[name] and largest[name] < _EXACT]
        exact = {n for n in self.read if is_whole[n] and largest[n] >= _EXACT}
        return np.dtype([(name, "i8" if name in exact else "f8") for name in self.read])

    def tables(self) -> Iterator[Table]:
        """Yield the rows in chunks, with our names of the columns."""
        for table in self._tables():
            for name in self._cast:
                table[name] = table[name].astype(np.int64)
            copies = {name: table[theirs].copy() for name, theirs in self.copies.items()}
            yield {**{ours: table[theirs] for theirs, ours in self.ours.items()}, **copies}

    def _tables(self) -> Iterator[Table]:
        """Yield the rows in chunks, as columns by name."""
        places = [self.names.index(name) for name in self.read] if self.text else None
        first = 2  # line of the file, counted from 1
        with self._open() as file:
            file.readline(_LONGEST_LINE)
            lines = _lines(file, self.path)
            while rows := list(islice(lines, BATCH_HITS)):
                filled = [row for row in rows if not row.isspace()]
                try:
                    table = np.zeros(0, self.types) if not filled else np.loadtxt(
                        filled, self.types, delimiter=self.delimiter, ndmin=1,
                        comments=None, quotechar='"', usecols=places,
                    )  # fmt: skip
                except ValueError as problem:
                    wrong = next((k for k, row in enumerate(rows) if self._is_wrong(row)), 0)
                    raise ValueError(
                        f"Expected {len(self.names)} numbers in each row of {self.path}, got "
                        f"{rows[wrong].strip()[:80]!r} in line {first + wrong}."
                    ) from problem
                first += len(rows)
                if len(table):
                    yield {name: table[name] for name in self.read}

    def _is_wrong(self, row: str) -> bool:
        values = self._split(row)
        if row.isspace() or len(values) != len(self.names):
            return not row.isspace()
        return not all(
            _is_number(value)
            for name, value in zip(self.names, values, strict=True)
            if name not in self.text
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def timepix_source(folder: PathLike, pattern: str = "*.txt") -> Source:
    """Read Timepix frames in ASCII xyC: a file a frame, `X<tab>Y<tab>C` rows, no header.

    C, a time or the time over threshold, becomes t. The detector has 256 x 256 pixels by default.
    An empty file is a frame without hits.

    Args:
        folder: folder of the files, or one file.
        pattern: use only the files that match it.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.data.events.formats import timepix_source
        >>> from dense_imb.hits import Geometry
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "frame1.txt").write_text("3\\t4\\t120\\n5\\t4\\t80\\n")
        >>> source = timepix_source(folder)
        >>> next(source.batches(Geometry(256, 256, 11_810))).t.tolist()
        [120, 80]
    """
    root = Path(folder)
    files = sorted(root.glob(pattern)) if root.is_dir() else [root]
    paths = [path for path in files if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise ValueError(f"Expected frames that match {pattern} in {folder}, got none.")

    def read() -> Iterator[Columns]:
        for start in range(0, len(paths), _FRAMES):
            frames = [_read_xyc(path) for path in paths[start : start + _FRAMES]]
            offset = np.cumsum([0, *map(len, frames)])
            x, y, t = np.concatenate(frames).T
            yield Columns(offset, {"x": x, "y": y, "t": t}, {})

    return Source(str(folder), read, 256, 256, len(paths))


def _read_xyc(path: Path) -> NDArray[np.int64]:
    with path.open(encoding="ascii", errors="replace") as file:
        rows = [line.split() for line in _lines(file, path) if not line.isspace()]
    try:
        frame = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    except (ValueError, OverflowError):
        wrong = next(row for row in rows if len(row) != 3 or not all(map(_is_count, row)))
        raise Refused(
            f"rows of three whole numbers, X, Y and C, in {path}",
            f"{' '.join(wrong)[:60]!r}",
            "leave other files out with {pattern}",
        ) from None
    return frame


def _is_count(text: str) -> bool:
    """Whether a text is a whole number of at most 18 digits, as 64 bits hold them."""
    return text.isdecimal() and len(text) <= 18


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"Expected lines of text in {path}, got one that never ends.")
        yield line
