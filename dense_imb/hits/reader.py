"""Reading of hits files: checked on opening, then in any order and in any process."""

from __future__ import annotations

import glob
import json
import operator
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dense_imb.hits.events import Events, concatenate, reorder
from dense_imb.hits.format import (
    ContentHash,
    HitsFileError,
    attributes_digest,
    check_hits,
    check_offset,
    rows_that_fit,
)
from dense_imb.hits.geometry import Geometry, Sensors, as_grid, describe_difference
from dense_imb.hits.safety import (
    identify_file,
    open_file,
    read_attributes,
    read_geometry,
    reading,
    structure_of,
)

_BLOCK_BYTES = 2 << 20  # bytes read at a time while checking
_MEMORY_LIMIT = 1 << 30  # bytes
_MAX_OPEN = 64  # open files per data set; a process may have 1024
_Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_InMemory = bool | Literal["auto"]


class _Hits(Dataset[Events]):
    """Base class of `HitsFile` and `HitsFiles`: indexing and iteration."""

    geometry: Geometry | Sensors
    columns: dict[str, np.dtype[Any]]
    n_hits: int

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def grid(self) -> Geometry:
        """The grid of pixels; refuses a table of sensors, which has no frame."""
        return as_grid(self.geometry)

    def _size_text(self) -> str:
        return f"{len(self):,} events, {self.n_hits:,} hits, {self.geometry.size_text()}"

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _take(self, order: NDArray[np.int64]) -> Events:
        """Return the events of these indices (0 .. n_events - 1) in this order, with repeats."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Events:
        """Return the events of a slice, an index (a batch of one) or a list of indices."""
        if isinstance(index, slice):
            return self._take(np.arange(*index.indices(len(self)), dtype=np.int64))
        if np.ndim(index) == 0:
            index = [operator.index(index)]
        order = np.asarray(index)
        if order.size and (order.ndim != 1 or order.dtype.kind not in "iu"):
            raise TypeError(
                f"Expected a slice, an index or a list of indices, got {order.dtype} of shape "
                f"{order.shape}; np.flatnonzero converts a mask to indices."
            )
        order = order.astype(np.int64).reshape(-1)
        outside = order[(order < -len(self)) | (order >= len(self))]
        if len(outside):
            raise IndexError(f"Expected an event from 0 to {len(self) - 1}, got {outside[0]}.")
        return self._take(np.where(order < 0, order + len(self), order))

    def __getitems__(self, index: Sequence[int]) -> Events:
        """Return a batch for a DataLoader with `collate_fn=collate_events`."""
        return self[index]

    def batches(self, size: int = 1024) -> Iterator[Events]:
        """Yield all events in order, `size` at a time, with constant memory."""
        if size < 1:
            raise ValueError(f"Expected `size` of at least 1, got {size}.")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __iter__(self) -> Iterator[Events]:
        """Yield one event at a time, read in batches."""
        for batch in self.batches():
            yield from batch


class HitsFile(_Hits):
    """Data set of the events of one hits file (see `dense_imb.hits.format`).

    Opening checks everything but the content hash, which `verify` checks. A small file is then
    held in memory; a larger one is read on demand. The data set is safe after a fork and with
    DataLoader workers: each process opens the file itself, and a pickle holds no data. Threads may
    share it; they read one after the other.

    `attributes` has the root attributes of the format. Those of denoised files include the
    settings of the masking, see `dense_imb.hits.masking.read_masking`.

    Args:
        path: path of the file.
        locking: h5py's file locking; pass False if a network file system has no locks.
        in_memory: hold all columns in memory; "auto" does so for files up to `memory_limit`.
        memory_limit: size in bytes, default 1 GiB.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitsFile, HitsWriter, simulate
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 3, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = HitsFile(path)
        >>> len(hits), len(hits[:2]), hits[1].n_hits == arcs[1].n_hits
        (3, 2, True)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        locking: bool | str | None = None,
        in_memory: _InMemory = "auto",
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        if in_memory not in (True, False, "auto"):
            raise ValueError(f"Expected `in_memory` True, False or 'auto', got {in_memory!r}.")
        self.path = Path(path).absolute()
        self.locking = locking
        self._identity: tuple[int, ...] | None = None
        self._file: Any = None
        self._datasets: dict[str, Any] = {}
        self._pid = os.getpid()
        self._lock, self._lock_pid = threading.RLock(), os.getpid()
        try:
            self._start(in_memory, memory_limit)
        except HitsFileError:
            self.close()
            raise

    def _start(self, in_memory: _InMemory, memory_limit: int) -> None:
        datasets = self._open()
        self.attributes = read_attributes(self._file, self.path)
        self.geometry = read_geometry(self._file, self.attributes, self.path)
        self.columns = {name: dataset.dtype for name, dataset in datasets.items()}
        self.n_hits = len(datasets[f"/hit/{self.geometry.columns[0]}"])
        self.n_bytes = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets.values())
        self.in_memory = self.n_bytes <= memory_limit if in_memory == "auto" else in_memory
        self._load()
        self._check()

    def __len__(self) -> int:
        return self._n_events

    def __repr__(self) -> str:
        return f"HitsFile({self.path.name!r}, {self._size_text()})"

    def _alone(self) -> threading.RLock:
        """Return the lock of the open file, so that no thread closes it while another one reads."""
        if self._lock_pid != os.getpid():  # a fork may have copied it while it was held
            self._lock, self._lock_pid = threading.RLock(), os.getpid()
        return self._lock

    def _open(self) -> dict[str, Any]:
        """Return the columns; in a new process, open the file and check its structure again."""
        if self._file is not None and self._pid == os.getpid():
            return self._datasets
        identity = identify_file(self.path)
        if self._identity not in (None, identity):
            raise HitsFileError(
                f"Expected {self.path} as it was when first opened, got a changed file; "
                "open it again."
            )
        file = open_file(self.path, self.locking)
        try:
            datasets = structure_of(file, self.path)
        except HitsFileError:
            file.close()
            raise
        # the table of sensors belongs to the geometry, which is read once
        self._datasets = {n: rows for n, rows in datasets.items() if not n.startswith("/sensor/")}
        self._file, self._pid, self._identity = file, os.getpid(), identity
        return self._datasets

    def close(self) -> None:
        with self._alone():
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file, self._datasets = None, {}

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_file": None, "_datasets": {}, "_offset": None, "_held": {}}
        return {**state, "_lock": None, "_lock_pid": None}

    def _load(self) -> None:
        """Read the offsets (8 bytes per event), and with `in_memory` the other columns."""
        datasets = self._open()
        self._held: dict[str, NDArray[Any]] = {}
        offset = self._read(datasets, "/event/offset", 0, len(datasets["/event/offset"]))
        if len(offset) == 0 or offset.max() > self.n_hits:  # before a cast to int64 can overflow
            check_offset(offset, self.n_hits, str(self.path))
        self._offset: NDArray[np.int64] | None = offset.astype(np.int64)
        self._n_events = len(offset) - 1
        if self.in_memory:
            self._held = {
                name: self._read(datasets, name, 0, len(dataset))
                for name, dataset in datasets.items()
                if name != "/event/offset"
            }
            self.close()

    def _check(self) -> None:
        """Check lengths, offsets and all hits, in blocks."""
        where, offset = str(self.path), self._offset
        assert offset is not None
        check_offset(offset, self.n_hits, where)
        datasets = self._held or self._open()
        for name, dataset in datasets.items():
            unit = "hits" if name.startswith("/hit/") else "events"
            n_rows = self.n_hits if unit == "hits" else self._n_events
            if name != "/event/offset" and len(dataset) != n_rows:
                raise HitsFileError(
                    f"Expected `{name}` of {where} with one row for each of the {n_rows} {unit}, "
                    f"got {len(dataset)}; write it again."
                )
        step = _BLOCK_BYTES // 8
        for start in range(0, self.n_hits, step):
            stop = min(start + step, self.n_hits)
            block = {
                name: self._read(datasets, f"/hit/{name}", start, stop)
                for name in (*self.geometry.columns, "t")
            }
            check_hits(block, self.geometry, offset, where, start)

    def _read(self, source: Mapping[str, Any], name: str, start: int, stop: int) -> NDArray[Any]:
        with reading(self.path, name):
            rows: NDArray[Any] = source[name][start:stop]
        return rows

    def _take(self, order: NDArray[np.int64]) -> Events:
        if self._offset is None:  # after unpickling
            with self._alone():
                self._load()
        offset = self._offset
        assert offset is not None
        if self._held:
            return self._events(*_reorder_rows(offset, self._held, order))
        with self._alone():
            return self._read_events(offset, order)

    def _read_events(self, offset: NDArray[np.int64], order: NDArray[np.int64]) -> Events:
        """Return the events of these indices out of the open file."""
        wanted, position = np.unique(order, return_inverse=True)
        # read runs of consecutive events together: their hits are consecutive too
        edges = np.flatnonzero(np.diff(wanted, prepend=-2, append=len(self) + 1) != 1)
        runs = [(int(wanted[a]), int(wanted[b - 1]) + 1) for a, b in pairwise(edges)]
        datasets = self._open()
        rows: dict[str, NDArray[Any]] = {}
        for name, dataset in datasets.items():
            if name == "/event/offset":
                continue
            spans = runs
            if name.startswith("/hit/"):
                spans = [(int(offset[first]), int(offset[last])) for first, last in runs]
            with reading(self.path, name):  # once, not for each event
                parts = [dataset[first:last] for first, last in spans if first < last]
            empty = np.zeros((0, *dataset.shape[1:]), dataset.dtype)
            rows[name] = np.concatenate(parts) if parts else empty
        local = np.concatenate([[0], np.cumsum(offset[wanted + 1] - offset[wanted])])
        if len(wanted) == len(order) and np.array_equal(wanted, order):
            return self._events(local, rows)
        return self._events(*_reorder_rows(local, rows, position.astype(np.int64)))

    def _events(self, offset: NDArray[np.int64], rows: Mapping[str, NDArray[Any]]) -> Events:
        hit = {n.removeprefix("/hit/"): c for n, c in rows.items() if n.startswith("/hit/")}
        event = {n.removeprefix("/event/"): c for n, c in rows.items() if n.startswith("/event/")}
        own = {n: hit.pop(n) for n in (*self.geometry.columns, "t", "label") if n in hit}
        return Events(self.geometry, offset, hit=hit, event=event, **own)


class HitsFiles(_Hits):
    """Data set of several hits files of one geometry with the same columns.

    Args:
        paths: paths or patterns like "runs/*.h5", in this order; the files of a pattern are
            sorted by name.
        locking, in_memory: see `HitsFile`.
        memory_limit: size of all files together in bytes, default 1 GiB.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitsFiles, HitsWriter, simulate
        >>> folder, arcs = tempfile.mkdtemp(), simulate("arc", 3, seed=1)
        >>> for run in ("run1", "run2"):
        ...     with HitsWriter(f"{folder}/{run}.h5", arcs.geometry) as writer:
        ...         writer.append(arcs)
        >>> hits = HitsFiles([f"{folder}/run2.h5", f"{folder}/run1.h5"])
        >>> len(hits), [file.path.name for file in hits.files]
        (6, ['run2.h5', 'run1.h5'])
    """

    def __init__(
        self,
        paths: _Paths,
        *,
        locking: bool | str | None = None,
        in_memory: _InMemory = "auto",
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        self.files: list[HitsFile] = []
        for path in expand_patterns(paths):
            file = HitsFile(path, locking=locking, in_memory=in_memory, memory_limit=memory_limit)
            memory_limit -= file.n_bytes if file.in_memory else 0
            first = self.files[0] if self.files else file
            same = [one for one in self.files if one._identity == file._identity]
            if same:
                raise ValueError(
                    f"Expected each hits file once, got {same[0].path} again as {file.path}; drop "
                    "one."
                )
            for name in ("geometry", "columns"):
                wanted, got = getattr(first, name), getattr(file, name)
                if got != wanted:
                    wanted, got = (
                        describe_difference(wanted, got)
                        if name == "geometry"
                        else _column_difference(wanted, got)
                    )
                    raise ValueError(
                        f"Expected {file.path} with the {name} of {first.path}, {wanted}, "
                        f"got {got}; convert one of them or open them separately."
                    )
            file.geometry = first.geometry  # one table of sensors in memory
            self.files.append(file)
            self._limit_open(file)
        self.geometry, self.columns = self.files[0].geometry, self.files[0].columns
        self.n_hits = sum(file.n_hits for file in self.files)
        self._starts = np.cumsum([0, *(len(file) for file in self.files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"HitsFiles({len(self.files)} files, {self._size_text()})"

    def _limit_open(self, file: HitsFile) -> None:
        """Close a file if the data set has more files than may be open."""
        if len(self.files) > _MAX_OPEN:
            file.close()

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _take(self, order: NDArray[np.int64]) -> Events:
        owner = np.searchsorted(self._starts, order, side="right") - 1
        parts, sources = [], []
        for k in np.unique(owner) if len(order) else [0]:
            source = np.flatnonzero(owner == k)
            parts.append(self.files[k]._take(order[source] - self._starts[k]))
            sources.append(source)
            self._limit_open(self.files[k])
        joined, source = concatenate(parts), np.concatenate(sources)
        if len(parts) == 1 or np.array_equal(source, np.arange(len(order))):
            return joined
        return joined.take(np.argsort(source))


def _column_difference(
    wanted: Mapping[str, np.dtype[Any]], got: Mapping[str, np.dtype[Any]]
) -> tuple[str, str]:
    """Return the columns in which two files differ, as texts."""
    names = [name for name in {**wanted, **got} if wanted.get(name) != got.get(name)]
    first, second = (
        ", ".join(f"{name} {side.get(name, 'missing')}" for name in names) for side in (wanted, got)
    )
    return first, second


def open_hits(
    paths: _Paths,
    *,
    locking: bool | str | None = None,
    in_memory: _InMemory = "auto",
    memory_limit: int = _MEMORY_LIMIT,
) -> HitsFile | HitsFiles:
    """Open one or more hits files as one data set.

    Args:
        paths: path, list of paths, or pattern like "runs/*.h5".
        locking, in_memory: see `HitsFile`.
        memory_limit: size of all files together in bytes, default 1 GiB.

    Example:
        >>> import tempfile
        >>> from dense_imb import open_hits
        >>> from dense_imb.hits import HitsWriter, simulate
        >>> folder, arcs = tempfile.mkdtemp(), simulate("arc", 3, seed=1)
        >>> with HitsWriter(folder + "/arcs.h5", arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = open_hits(folder + "/*.h5")
        >>> len(hits), sorted(set(hits[:].label.tolist()))  # every hit is signal
        (3, [1])
    """
    expanded = expand_patterns(paths)
    if len(expanded) == 1:
        return HitsFile(
            expanded[0], locking=locking, in_memory=in_memory, memory_limit=memory_limit
        )
    return HitsFiles(expanded, locking=locking, in_memory=in_memory, memory_limit=memory_limit)


def file_paths(hits: HitsFile | HitsFiles) -> list[Path]:
    """Return the paths of the files of a data set."""
    return [file.path for file in (hits.files if isinstance(hits, HitsFiles) else [hits])]


def collate_events(events: Events) -> Events:
    """Return the batch, which is one already: `DataLoader(hits, collate_fn=collate_events)`.

    Example:
        >>> from dense_imb.hits import collate_events, simulate
        >>> batch = simulate("arc", 4, seed=1)
        >>> collate_events(batch) is batch
        True
    """
    return events


def verify(path: str | os.PathLike[str], *, locking: bool | str | None = None) -> dict[str, str]:
    """Compare every data set with the content hash in the file.

    Raises a `HitsFileError` with the names of data sets that differ.

    Args:
        path: path of the file.
        locking: see `HitsFile`.

    Returns:
        The digest of each data set by name, and the digest of the attributes as "/".

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitsWriter, simulate, verify
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 3, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> sorted(verify(path))
        ['/', '/event/offset', '/hit/label', '/hit/t', '/hit/x', '/hit/y']
    """
    path = Path(path).absolute()
    file = open_file(path, locking)
    with file:
        datasets = structure_of(file, path)
        attributes = read_attributes(file, path)
        try:
            stored = json.loads(str(attributes.pop("content_hash")))
            stored = {str(name): str(digest) for name, digest in stored.items()}
        except (KeyError, ValueError, AttributeError, RecursionError):
            raise HitsFileError(
                f"Expected a readable attribute `content_hash` in {path}, got none; write the "
                "file again with HitsWriter."
            ) from None
        digests = {"/": attributes_digest(attributes)}
        for name, dataset in datasets.items():
            digest = ContentHash(name, dataset.dtype, dataset.shape[1:])
            step = rows_that_fit(_BLOCK_BYTES, dataset.dtype, dataset.shape)
            for start in range(0, len(dataset), step):
                with reading(path, name):
                    rows = dataset[start : start + step]
                digest.update(rows)
            digests[name] = digest.hexdigest()
    differ = sorted(name for name in digests | stored if digests.get(name) != stored.get(name))
    if differ:
        raise HitsFileError(
            f"Expected the content of {path} to match its hash, got another in "
            f"{', '.join(f'`{name}`' for name in differ)}; restore the file from a copy."
        )
    return digests


def _reorder_rows(
    offset: NDArray[np.int64], rows: Mapping[str, NDArray[Any]], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Return the offsets and the columns of events in another order."""
    moved, index = reorder(offset, order)
    return moved, {
        name: column[index if name.startswith("/hit/") else order] for name, column in rows.items()
    }


def expand_patterns(paths: _Paths) -> list[Path]:
    """Return the files of paths and patterns; refuse a pattern without files."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files: list[Path] = []
    for path in given:
        text = os.fspath(path)
        is_pattern = glob.has_magic(text) and not os.path.exists(text)
        names = sorted(glob.glob(text)) if is_pattern else [text]
        if not names:
            raise FileNotFoundError(f"Expected files that match {text}, got none.")
        files += map(Path, names)
    if not files:
        raise ValueError("Expected at least one file, got none.")
    return files
