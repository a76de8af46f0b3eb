"""Writing of hits files: in chunks, and atomically."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from dense_imb import __version__
from dense_imb.base.checks import check_choice
from dense_imb.base.files import refuse_existing, temporary_path
from dense_imb.hits.events import Events
from dense_imb.hits.format import (
    FORMAT,
    FURTHER_ATTRIBUTES,
    ContentHash,
    attributes_digest,
    check_dtype,
    check_hits,
    check_offset,
    layout_of,
    rows_that_fit,
)
from dense_imb.hits.geometry import Geometry, Sensors, describe_difference

_HIT_ROWS, _EVENT_ROWS = 16384, 4096  # rows per chunk: 32 kB, small against HDF5's chunk cache
_BUFFER_BYTES = 4 << 20  # collected before each write, so that small batches are cheap
_KEEP_SIZE = 1  # fallocate's FALLOC_FL_KEEP_SIZE


class HitsWriter:
    """Writer of a hits file (see `dense_imb.hits.format`), batch by batch.

    The file is written under a temporary name next to `path`, and renamed when the `with` block
    ends without an exception. After an exception the temporary file is removed, and an older
    `path` is unchanged. Space is reserved before each write, since HDF5 can crash on a full disk.

    Args:
        path: path of the file; its folder must exist.
        geometry: geometry of every batch, a grid of pixels or a table of sensors.
        overwrite: replace an existing file.
        locking: h5py's file locking; pass False if a network file system has no locks.
        estimated_bytes: refuse to start with less free space than this; None does not check.
        compression: gzip level, 1 to 9, None for no compression. Single events are then slow to
            read from a file that is not in memory, since each read unpacks whole chunks.
        attributes: texts to store with the geometry, by name: "scorer", "masking".
    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "tof.h5"
        >>> frame = Geometry(width=88, height=128, time_steps=1000)
        >>> one = Events(frame, np.array([0, 2]), np.array([3, 4]), np.array([5, 6]),
        ...              np.array([500, 700]))
        >>> with HitsWriter(path, frame) as writer:
        ...     for _ in range(3):
        ...         writer.append(one)
        >>> writer.n_events, writer.n_hits
        (3, 6)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        geometry: Geometry | Sensors,
        *,
        overwrite: bool = False,
        locking: bool | str | None = None,
        estimated_bytes: int | None = None,
        compression: int | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        if compression is not None and not 1 <= compression <= 9:
            raise ValueError(f"Expected `compression` from 1 to 9, got {compression}.")
        self.compression = compression
        self.path = Path(os.path.realpath(path))  # of a link, replace its target
        self.geometry = geometry
        self._layout = layout_of(geometry)
        self.overwrite = overwrite
        self.locking = locking
        self.attributes = dict(attributes or {})
        for name, value in self.attributes.items():
            check_choice("attributes", name, FURTHER_ATTRIBUTES)
            if not value or "\0" in value:  # strings of fixed length end at the first "\0"
                raise ValueError(f"Expected `{name}` to be a text, got {value!r}.")
        self.n_events = self.n_hits = 0
        self._problem: BaseException | None = None
        self._file: Any = None
        self._columns: dict[str, _Column] = {}
        refuse_existing(self.path, self.overwrite)
        self._temporary = temporary_path(self.path)
        free = shutil.disk_usage(self.path.parent).free
        if estimated_bytes is not None and free < estimated_bytes:
            raise _no_space(self.path, estimated_bytes)

    def __repr__(self) -> str:
        return f"HitsWriter({self.path.name!r}, {self.n_events:,} events, {self.n_hits:,} hits)"

    def __enter__(self) -> Self:
        if self._file is not None or self._problem is not None or self.n_events:
            raise ValueError("Expected a fresh HitsWriter for each file, got one used before.")
        try:
            self._open()
        except BaseException:  # Ctrl-C too, since `__exit__` is not called then
            self._abandon()
            raise
        return self

    def _open(self) -> None:
        # "v110" has checksums of all metadata, and an index that grows with the file
        try:
            self._file = h5py.File(
                self._temporary,
                "x",
                libver=("v110", "v110"),
                locking=self.locking,
                track_order=False,
            )
            self._descriptor = os.open(self._temporary, os.O_RDWR)
        except OSError as problem:  # the text of HDF5 is hard to understand
            reason = os.strerror(problem.errno) if problem.errno else " ".join(str(problem).split())
            raise OSError(
                problem.errno or errno.EIO,
                f"Expected a folder to write {self.path.name} to, got {self.path.parent}: {reason}",
            ) from problem

    def _abandon(self) -> None:
        """Remove what `_open` has made so far."""
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):  # a full disk leaves an empty file
            self._temporary.unlink()

    def append(self, events: Events) -> None:
        """Append a batch; a refused batch does not change the file."""
        if self._file is None:
            raise ValueError("Expected `append` inside `with HitsWriter(...) as writer:`.")
        if events.geometry != self.geometry:
            wanted, got = describe_difference(self.geometry, events.geometry)
            raise ValueError(
                f"Expected events of the geometry of {self.path}, {wanted}, got {got}; write them "
                "to a file of their own."
            )
        events = events.numpy()
        where = f"the batch for {self.path}"
        offset = np.asarray(events.offset)
        check_offset(offset, events.n_hits, where)
        check_hits(events.hit_columns(), self.geometry, offset, where)
        end = offset[1:].astype(np.uint64) + np.uint64(self.n_hits)
        rows = {"/event/offset": end if self._columns else np.insert(end, 0, 0)}
        rows |= {f"/hit/{name}": column for name, column in events.hit_columns().items()}
        for name, column in events.event.items():
            if name == "offset":
                raise ValueError("An event column must not have the name `offset`; rename it.")
            rows[f"/event/{name}"] = column
        known = {path for path in self._columns if not path.startswith("/sensor/")}
        if known and rows.keys() != known:
            raise ValueError(
                f"Expected the columns of the first batch, {sorted(known)}, got {sorted(rows)}."
            )
        if not known:
            rows |= _tables(self.geometry)
        converted = {path: self._convert(path, np.asarray(column)) for path, column in rows.items()}
        try:
            if not self._columns:
                self._create(converted)
            for path, column in converted.items():
                self._columns[path].pending.append(column)
            self.n_events += len(events)
            self.n_hits += events.n_hits
            if sum(column.pending_bytes for column in self._columns.values()) > _BUFFER_BYTES:
                self._flush()
        except BaseException as problem:
            self._problem = problem
            raise

    def _convert(self, path: str, column: NDArray[Any]) -> NDArray[Any]:
        """Convert a column to its type in the file; refuse changes other than float rounding."""
        name = path.split("/", 2)[2]
        if not name or "/" in name or name == "." or "\0" in name:
            raise ValueError(f"Expected the name of a column without slashes, got {name!r}.")
        if path in self._columns:
            dtype = self._columns[path].dtype
        elif path == "/hit/t":
            dtype = _time_dtype(column.dtype, self.geometry)
        elif path in self._layout.dtypes:
            dtype = self._layout.dtypes[path][0]
        else:
            dtype = column.dtype.newbyteorder("<")
        check_dtype(path, dtype, column.shape, f"the batch for {self.path}", self._layout)
        with np.errstate(all="ignore"):
            converted = column.astype(dtype)  # a copy, since the caller may reuse its arrays
        exact = dtype.kind == column.dtype.kind == "f" or np.array_equal(converted, column)
        row = self._columns[path].row if path in self._columns else column.shape[1:]
        if not exact or column.shape[1:] != row:
            raise ValueError(
                f"Expected `{path}` to fit {dtype} rows of shape {row} as {self.path} has them, "
                f"got {column.dtype} rows of shape {column.shape[1:]}; convert them first."
            )
        return converted

    def _create(self, columns: dict[str, NDArray[Any]]) -> None:
        made = {path: _Column(path, rows.dtype, rows.shape[1:]) for path, rows in columns.items()}
        self._reserve(made)
        for column in made.values():
            column.create(self._file, self.compression)
        self._columns = made

    def _reserve(self, columns: dict[str, _Column]) -> None:
        """Reserve disk space before HDF5 needs it, since HDF5 can crash on a full disk."""
        data = sum(column.stored_bytes for column in columns.values())
        # with a generous estimate of the metadata
        needed = data + data // 64 + (64 << 10) + 1024 * len(columns)
        longest = _longest_file()
        if longest is not None and longest < needed:  # fallocate ignores this limit
            raise _too_long(self.path, needed, longest)
        try:
            _fallocate(self._descriptor, needed)
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _no_space(self.path, needed) from problem
            # this file system cannot reserve space: only check that it is free now
            missing = needed - os.fstat(self._descriptor).st_blocks * 512
            if shutil.disk_usage(self.path.parent).free < missing:
                raise _no_space(self.path, needed) from None

    def _flush(self) -> None:
        self._reserve(self._columns)
        for column in self._columns.values():
            column.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if problem is None:
                if self._problem is not None:  # caught by the caller, but the file is incomplete
                    raise self._problem
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if not self._columns:
            none = np.zeros(0, np.uint16)
            columns: dict[str, Any] = dict.fromkeys((*self.geometry.columns, "t"), none)
            self.append(Events(self.geometry, np.zeros(1, np.int64), **columns))
        self._flush()
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": self._layout.version,
            "creator": f"dense_imb {__version__}",
            **_geometry_attributes(self.geometry),
            **self.attributes,
        }
        digests = {path: column.digest.hexdigest() for path, column in self._columns.items()}
        digests["/"] = attributes_digest(attributes)
        for name, value in {**attributes, "content_hash": json.dumps(digests)}.items():
            # strings of fixed length, since others are stored without a checksum
            self._file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        self._file.close()
        # release the reserved space
        os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size)
        os.fsync(self._descriptor)
        refuse_existing(self.path, self.overwrite)  # it may have appeared in the meantime
        os.replace(self._temporary, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems cannot sync folders
                os.fsync(folder)
        finally:
            os.close(folder)

    def _discard(self) -> None:
        """Close the file, and remove the temporary file if it was not renamed."""
        try:
            with contextlib.suppress(Exception):  # report the first problem only
                self._file.close()
            os.close(self._descriptor)
        finally:
            self._file = None
            self._problem = self._problem or ValueError("closed")
            self._temporary.unlink(missing_ok=True)


def _tables(geometry: Geometry | Sensors) -> dict[str, NDArray[Any]]:
    """Return the tables of a file by path: position and direction of sensors."""
    if isinstance(geometry, Geometry):
        return {}
    tables = {"position": geometry.position, "direction": geometry.direction}
    return {f"/sensor/{name}": table for name, table in tables.items() if table is not None}


def _geometry_attributes(geometry: Geometry | Sensors) -> dict[str, Any]:
    if isinstance(geometry, Sensors):
        return {"geometry": "sensors"}
    return {name: value for name, value in vars(geometry).items() if value is not None}


def _time_dtype(given: np.dtype[Any], geometry: Geometry | Sensors) -> np.dtype[Any]:
    """Return the type of times in a file, from their type in memory."""
    short, long = layout_of(geometry).dtypes["/hit/t"]
    if isinstance(geometry, Sensors):
        # float32 holds integers of two bytes only
        return short if given == short or (given.kind in "iu" and given.itemsize <= 2) else long
    whole = given.kind in "iu" and geometry.time_steps < 65536
    whole |= given == np.uint16  # as in the file it was read from
    return short if whole else long


class _Column:
    """Data set that grows, with its unwritten rows and its hash."""

    def __init__(self, path: str, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row = path, dtype, row
        self.pending: list[NDArray[Any]] = []
        self.digest = ContentHash(path, dtype, row)
        most = _HIT_ROWS if path.startswith("/hit/") else _EVENT_ROWS
        self.chunk_rows = min(most, rows_that_fit(1 << 18, dtype, (0, *row)))
        self.n_rows = 0

    @property
    def pending_bytes(self) -> int:
        return sum(rows.nbytes for rows in self.pending)

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk once all rows are written, in whole chunks."""
        n_rows = self.n_rows + sum(len(rows) for rows in self.pending)
        n_chunks = math.ceil(n_rows / self.chunk_rows)
        return n_chunks * self.chunk_rows * self.dtype.itemsize * math.prod(self.row)

    def create(self, file: Any, compression: int | None) -> None:
        self.dataset = file.create_dataset(
            self.path,
            shape=(0, *self.row),
            maxshape=(None, *self.row),
            chunks=(self.chunk_rows, *(max(1, size) for size in self.row)),
            dtype=self.dtype,
            compression=compression,
            shuffle=compression is not None,  # grouping bytes by significance compresses better
        )

    def flush(self) -> None:
        if not self.pending:
            return
        rows = np.concatenate(self.pending)
        self.pending.clear()
        self.digest.update(rows)
        self.dataset.resize(self.n_rows + len(rows), axis=0)
        self.dataset[self.n_rows :] = rows
        self.n_rows += len(rows)


def _no_space(path: Path, needed: int) -> OSError:
    free = shutil.disk_usage(path.parent).free
    return OSError(
        errno.ENOSPC,
        f"Expected room for {needed / 1e6:.1f} MB for {path.name}, got {free / 1e6:.1f} MB of "
        f"free space in {path.parent}; free some or write elsewhere",
    )


def _too_long(path: Path, needed: int, longest: int) -> OSError:
    return OSError(
        errno.EFBIG,
        f"Expected to write {needed / 1e6:.2g} MB to {path.name}, got a limit of "
        f"{longest / 1e6:.2g} MB for one file; raise it with ulimit -f",
    )


def _longest_file() -> int | None:
    """Return the largest size that the system lets this process give a file; None without limit."""
    try:
        import resource
    except ImportError:  # no such limits here
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _fallocate(descriptor: int, size: int) -> None:
    """Reserve the first `size` bytes of a file without changing its length.

    The module `os` cannot do this, so it is called through ctypes.
    """
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError, TypeError):
        raise OSError(errno.ENOSYS, "no fallocate") from None
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if fallocate(descriptor, _KEEP_SIZE, 0, size) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")
