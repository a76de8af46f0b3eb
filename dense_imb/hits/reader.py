"""Read hits files: checked on open, lazily after, in any order and any process."""

from __future__ import annotations

import glob
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dense_imb.hits.events import Events, Geometry, concatenate, gathered
from dense_imb.hits.format import (
    ContentHash,
    HitsFileError,
    attributes_digest,
    check_hits,
    check_offset,
    rows_of,
)
from dense_imb.hits.safety import (
    geometry_of,
    identify_file,
    open_file,
    read_attributes,
    reading,
    structure_of,
)

_BLOCK_BYTES = 2 << 20  # read at a time while checking
_MEMORY_LIMIT = 1 << 30
_MAX_OPEN = 64  # files of one data set; a process may have 1024
_Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_InMemory = bool | Literal["auto"]


class _Hits(Dataset[Events]):
    """What one file and several have in common: indexing."""

    geometry: Geometry
    columns: dict[str, np.dtype[Any]]
    n_hits: int

    def __len__(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; what is read next opens it again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _take(self, order: NDArray[np.int64]) -> Events:
        """Events by number, in this order, repeats allowed; all numbers are in range."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Events:
        """Events by a slice, a number (a batch of one) or a list of numbers, in its order."""
        if isinstance(index, slice):
            return self._take(np.arange(*index.indices(len(self)), dtype=np.int64))
        if np.ndim(index) == 0:
            index = [operator.index(index)]
        order = np.asarray(index)
        if order.size and (order.ndim != 1 or order.dtype.kind not in "iu"):
            raise TypeError(
                f"Expected a slice, a number or a list of numbers, got {order.dtype} of shape "
                f"{order.shape}; np.flatnonzero makes numbers of a mask."
            )
        order = order.astype(np.int64).reshape(-1)
        outside = order[(order < -len(self)) | (order >= len(self))]
        if len(outside):
            raise IndexError(f"Expected an event from 0 to {len(self) - 1}, got {outside[0]}.")
        return self._take(np.where(order < 0, order + len(self), order))

    def __getitems__(self, index: Sequence[int]) -> Events:
        """A batch for torch's DataLoader; give it `collate_fn=collate_events`."""
        return self[index]

    def batches(self, size: int = 1024) -> Iterator[Events]:
        """All events in order, `size` at a time: the memory stays flat."""
        if size < 1:
            raise ValueError(f"Expected `size` of at least 1, got {size}.")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __iter__(self) -> Iterator[Events]:
        """One event at a time, read in batches."""
        for batch in self.batches():
            yield from batch


class HitsFile(_Hits):
    """The events of one hits file (see `dense_imb.hits.format`).

    Opening checks everything but the content hash, which `verify` does. A file that fits is then
    held in memory; a larger one is read as asked. Safe after fork and with DataLoader workers:
    each process opens the file for itself, and a pickle takes neither handle nor data along.

    `attributes` holds the root attributes that the format knows, of denoised files also those of
    the masking (see `dense_imb.hits.masking.masking_of`).

    Args:
        path: the file.
        locking: h5py's file locking; False where a network file system has none.
        in_memory: hold all columns in memory; "auto" up to `memory_limit`.
        memory_limit: bytes.
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
        try:
            self._start(in_memory, memory_limit)
        except HitsFileError:
            self.close()
            raise

    def _start(self, in_memory: _InMemory, memory_limit: int) -> None:
        datasets = self._open()
        with reading(self.path, "attributes"):
            self.attributes = read_attributes(self._file, self.path)
            self.geometry = geometry_of(self.attributes, self.path)
        self.columns = {name: dataset.dtype for name, dataset in datasets.items()}
        self.n_hits = len(datasets["/hit/x"])
        self.n_bytes = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets.values())
        self.in_memory = self.n_bytes <= memory_limit if in_memory == "auto" else in_memory
        self._load()
        self._check()

    def __len__(self) -> int:
        return self._n_events

    def _open(self) -> dict[str, Any]:
        """The data sets, in this process, their structure checked again."""
        if self._file is not None and self._pid == os.getpid():
            return self._datasets
        identity = identify_file(self.path)
        if self._identity not in (None, identity):
            raise HitsFileError(
                f"Expected {self.path} as it was when first opened, got another file or other "
                "content; open it again."
            )
        file = open_file(self.path, self.locking)
        try:
            self._datasets = structure_of(file, self.path)
        except HitsFileError:
            file.close()
            raise
        self._file, self._pid, self._identity = file, os.getpid(), identity
        return self._datasets

    def close(self) -> None:
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file, self._datasets = None, {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_datasets": {}, "_offset": None, "_held": {}}

    def _load(self) -> None:
        """The offsets always, 8 bytes an event; the other columns where the file fits."""
        datasets = self._open()
        self._held: dict[str, NDArray[Any]] = {}
        offset = self._read(datasets, "/event/offset", 0, len(datasets["/event/offset"]))
        if len(offset) == 0 or offset.max() > self.n_hits:  # before int64 can wrap around
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
        """Lengths, offsets, and every hit, a block at a time."""
        where, offset = str(self.path), self._offset
        assert offset is not None
        check_offset(offset, self.n_hits, where)
        datasets = self._held or self._open()
        for name, dataset in datasets.items():
            of = "hits" if name.startswith("/hit/") else "events"
            n_rows = self.n_hits if of == "hits" else self._n_events
            if name != "/event/offset" and len(dataset) != n_rows:
                raise HitsFileError(
                    f"Expected `{name}` of {where} with one row for each of the {n_rows} {of}, "
                    f"got {len(dataset)}; write it again."
                )
        step = _BLOCK_BYTES // 8
        for start in range(0, self.n_hits, step):
            stop = min(start + step, self.n_hits)
            block = {n: self._read(datasets, f"/hit/{n}", start, stop) for n in ("x", "y", "t")}
            check_hits(block, self.geometry, offset, where, start)

    def _read(self, source: Mapping[str, Any], name: str, start: int, stop: int) -> NDArray[Any]:
        with reading(self.path, name):
            rows: NDArray[Any] = source[name][start:stop]
        return rows

    def _take(self, order: NDArray[np.int64]) -> Events:
        if self._offset is None:  # out of a pickle
            self._load()
        offset = self._offset
        assert offset is not None
        if self._held:
            return self._events(*_gather(offset, self._held, order))
        wanted, position = np.unique(order, return_inverse=True)
        # neighbours are read together: runs of events are runs of hits
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
        return self._events(*_gather(local, rows, position.astype(np.int64)))

    def _events(self, offset: NDArray[np.int64], rows: Mapping[str, NDArray[Any]]) -> Events:
        hit = {n.removeprefix("/hit/"): c for n, c in rows.items() if n.startswith("/hit/")}
        event = {n.removeprefix("/event/"): c for n, c in rows.items() if n.startswith("/event/")}
        x, y, t, label = hit.pop("x"), hit.pop("y"), hit.pop("t"), hit.pop("label", None)
        return Events(self.geometry, offset, x, y, t, label, hit, event)


class HitsFiles(_Hits):
    """Several hits files of one geometry and with the same columns, as one data set.

    Args:
        paths: files or patterns like "runs/*.h5", in this order; a pattern's files by name.
        locking, in_memory, memory_limit: as of `HitsFile`; the limit is for all files together.
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
        for path in _expand(paths):
            file = HitsFile(path, locking=locking, in_memory=in_memory, memory_limit=memory_limit)
            memory_limit -= file.n_bytes if file.in_memory else 0
            first = self.files[0] if self.files else file
            for name in ("geometry", "columns"):
                wanted, got = getattr(first, name), getattr(file, name)
                if got != wanted:
                    wanted, got = _difference(wanted, got)
                    raise ValueError(
                        f"Expected {file.path} with the {name} of {first.path}, {wanted}, "
                        f"got {got}; convert one of them or open them apart."
                    )
            self.files.append(file)
            self._spare(file)
        self.geometry, self.columns = self.files[0].geometry, self.files[0].columns
        self.n_hits = sum(file.n_hits for file in self.files)
        self._starts = np.cumsum([0, *(len(file) for file in self.files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _spare(self, file: HitsFile) -> None:
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
            self._spare(self.files[k])
        joined, source = concatenate(parts), np.concatenate(sources)
        if len(parts) == 1 or np.array_equal(source, np.arange(len(order))):
            return joined
        file = self.files[0]
        rows = {f"/hit/{name}": column for name, column in joined.hit_columns().items()}
        rows |= {f"/event/{name}": column for name, column in joined.event.items()}
        return file._events(*_gather(joined.offset, rows, np.argsort(source)))


def _difference(wanted: Any, got: Any) -> tuple[str, str]:
    """What differs in two geometries or dictionaries of columns, of the one and of the other."""
    sides = [one if isinstance(one, dict) else vars(one) for one in (wanted, got)]
    names = [n for n in {**sides[0], **sides[1]} if sides[0].get(n) != sides[1].get(n)]
    first, second = (
        ", ".join(f"{name} {side.get(name, 'missing')}" for name in names) for side in sides
    )
    return first, second


def open_hits(
    paths: _Paths,
    *,
    locking: bool | str | None = None,
    in_memory: _InMemory = "auto",
    memory_limit: int = _MEMORY_LIMIT,
) -> HitsFile | HitsFiles:
    """One hits file, several, or a pattern like "runs/*.h5", as one data set."""
    expanded = _expand(paths)
    if len(expanded) == 1:
        return HitsFile(
            expanded[0], locking=locking, in_memory=in_memory, memory_limit=memory_limit
        )
    return HitsFiles(expanded, locking=locking, in_memory=in_memory, memory_limit=memory_limit)


def collate_events(events: Events) -> Events:
    """For `DataLoader(hits, batch_size, collate_fn=collate_events)`: the batch is one already."""
    return events


def verify(path: str | os.PathLike[str], *, locking: bool | str | None = None) -> dict[str, str]:
    """Compare every data set with the content hash that the writer stored.

    Returns:
        The digest of each data set, and of the attributes under "/". Where one differs, a
        `HitsFileError` names it.
    """
    place = Path(path).absolute()
    file = open_file(place, locking)
    with file:
        datasets = structure_of(file, place)
        attributes = read_attributes(file, place)
        try:
            stored = json.loads(str(attributes.pop("content_hash")))
            stored = {str(name): str(digest) for name, digest in stored.items()}
        except (KeyError, ValueError, AttributeError):
            raise HitsFileError(
                f"Expected a readable attribute `content_hash` in {place}, got none; HitsWriter "
                "writes one."
            ) from None
        found = {"/": attributes_digest(attributes)}
        for name, dataset in datasets.items():
            digest = ContentHash(name, dataset.dtype, dataset.shape[1:])
            step = rows_of(_BLOCK_BYTES, dataset.dtype, dataset.shape)
            for start in range(0, len(dataset), step):
                with reading(place, name):
                    rows = dataset[start : start + step]
                digest.update(rows)
            found[name] = digest.hexdigest()
    differ = sorted(name for name in found | stored if found.get(name) != stored.get(name))
    if differ:
        raise HitsFileError(
            f"Expected the content of {place} to match its hash, got another in "
            f"{', '.join(f'`{name}`' for name in differ)}; restore the file from a copy."
        )
    return found


def _gather(
    offset: NDArray[np.int64], rows: Mapping[str, NDArray[Any]], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Events in another order: their offsets and columns."""
    moved, index = gathered(offset, order)
    return moved, {
        name: column[index if name.startswith("/hit/") else order] for name, column in rows.items()
    }


def _expand(paths: _Paths) -> list[Path]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in given:
        text = os.fspath(path)
        is_pattern = glob.has_magic(text) and not os.path.exists(text)
        found += [Path(name) for name in (sorted(glob.glob(text)) if is_pattern else [text])]
        if is_pattern and not glob.glob(text):
            raise FileNotFoundError(f"Expected files that match {text}, got none.")
    if not found:
        raise ValueError("Expected at least one file, got none.")
    return found
