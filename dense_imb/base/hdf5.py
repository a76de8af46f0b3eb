"""HDF5 files of unknown origin: dangerous ones are refused before any data is read."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from dense_imb.base.files import MAX_COMPRESSION, UnreadableFileError, missing_path, reason_of

_LARGEST_CHUNK = 1 << 30  # bytes; a chunk is unpacked as a whole
# deflate, shuffle, fletcher32, lzf: part of every h5py. Another filter would load a plug-in.
_FILTERS = {1, 2, 3, 32000}


@contextmanager
def reading(path: Path, place: str) -> Iterator[None]:
    """Raise one `UnreadableFileError` for the exceptions of many kinds of damaged HDF5.

    Args:
        path: the file.
        place: path of the data set, group or attributes that is being read.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except Exception as problem:
        raise UnreadableFileError(
            f"Expected to read `{place}` of {path}, got: {reason_of(problem)}; the file is "
            "damaged, restore it from a copy."
        ) from problem


def identify_file(path: Path, wanted: str = "a file") -> tuple[int, ...]:
    """Return device, inode, size and time of a regular file; refuse anything else."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise missing_path(path, wanted, Path.is_file) from None
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError(f"Expected a file at {path}, got a folder or a device.")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_file(path: Path, locking: bool | str | None = None, wanted: str = "HDF5") -> Any:
    """Open a file for reading, without a chunk cache.

    Args:
        path: the file.
        locking: file locking of h5py; False where a network file system has none.
        wanted: content of the file, for the error: "a hits file".
    """
    identify_file(path)  # a missing file, a folder and a pipe have errors of their own
    with open(path, "rb"):  # and so has a file that may not be read
        pass
    try:
        # no chunk cache: an event is a small part of a chunk, and is read alone without one
        return h5py.File(path, "r", locking=locking, rdcc_nbytes=0)
    except Exception as problem:
        reason = " ".join(str(problem).split())
        if getattr(problem, "errno", None) in (errno.EAGAIN, errno.ENOLCK, errno.ENOSYS):
            cure = "wait for its writer, or pass locking=False if the file system has no locks"
        else:
            cure = "it is of another kind, truncated or damaged: write or copy it again"
        raise UnreadableFileError(
            f"Expected {wanted} at {path}, got one that HDF5 can't open ({reason}); {cure}."
        ) from problem


def read_attributes(holder: Any, path: Path, names: Iterable[str]) -> dict[str, str | int | float]:
    """Return those of the named attributes that a file, group or data set has.

    Args:
        holder: file, group or data set of h5py.
        path: the file.
        names: attributes to read; others are ignored.
    """
    attributes: dict[str, str | int | float] = {}
    with reading(path, "attributes"):
        for name in names:
            if name not in holder.attrs:
                continue
            handle = holder.attrs.get_id(name)
            # strings of variable length lie in a heap without checksum: HDF5 can loop there forever
            if handle.shape != () or handle.dtype.kind not in "biufS":
                raise UnreadableFileError(
                    f"Expected attribute `{name}` of {path} to be one number or string of fixed "
                    f"length, got {handle.dtype} of shape {handle.shape}; np.bytes_ makes one."
                )
            value = holder.attrs[name].item()
            attributes[name] = value.decode() if isinstance(value, bytes) else value
    return attributes


def list_datasets(file: Any, path: Path) -> dict[str, Any]:
    """Return all data sets of a file by path, after checking that none of them is dangerous."""
    datasets: dict[str, Any] = {}
    groups, visited = [("", file)], set()
    while groups:
        prefix, group = groups.pop()
        with reading(path, f"/{prefix}"):
            address = h5py.h5o.get_info(group.id).addr
            if address in visited:  # hard links can make a circle
                continue
            visited.add(address)
            check_links(group, path)
            for name in group:
                child, place = group[name], f"{prefix}{name}"
                if isinstance(child, h5py.Group):
                    groups.append((f"{place}/", child))
                elif isinstance(child, h5py.Dataset):
                    check_storage(child, f"/{place}", path)
                    datasets[place] = child
    check_total_storage(datasets, path)
    return dict(sorted(datasets.items()))


def check_total_storage(datasets: Mapping[str, Any], path: Path) -> None:
    """Refuse data sets that declare more stored bytes than the file has."""
    with reading(path, "/"):
        stored = sum(dataset.id.get_storage_size() for dataset in datasets.values())
        if stored > path.stat().st_size:
            raise UnreadableFileError(
                f"Expected the data sets of {path} to fit in its {path.stat().st_size} bytes, "
                f"got {stored} bytes declared stored; the file is damaged or hostile."
            )


def check_links(group: Any, path: Path) -> None:
    """Refuse external and soft links, which lead to other files and places."""
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UnreadableFileError(
                f"Expected `{group.name.rstrip('/')}/{name}` of {path} to be stored in place, got "
                f"a {type(link).__name__}; copy the data into the file."
            )


def check_storage(dataset: Any, place: str, path: Path) -> None:
    """Refuse data that lies elsewhere, needs a plug-in, or is declared but not stored."""
    created = dataset.id.get_create_plist()
    filters = {created.get_filter(k)[0] for k in range(created.get_nfilters())}
    danger = None
    if created.get_layout() == h5py.h5d.VIRTUAL:
        danger = "a virtual data set over other files"
    elif created.get_external_count():
        danger = "external storage in other files"
    elif filters - _FILTERS:
        danger = f"filters {sorted(filters - _FILTERS)} that HDF5 needs plug-ins for"
    if danger:
        raise UnreadableFileError(
            f"Expected `{place}` of {path} to be stored in place, got {danger}; copy the data "
            "into the file."
        )
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > _LARGEST_CHUNK:
        raise UnreadableFileError(
            f"Expected `{place}` of {path} in chunks of at most {_LARGEST_CHUNK:,} bytes, got "
            f"{dataset.chunks} of {dataset.dtype}; write it again in smaller ones."
        )
    shape, stored = dataset.shape, dataset.id.get_storage_size()
    if shape is None:
        raise UnreadableFileError(f"Expected `{place}` of {path} to hold rows, got no data space.")
    declared = math.prod(shape) * dataset.dtype.itemsize
    is_whole = True
    if dataset.chunks is not None:
        n_chunks = math.prod(math.ceil(n / c) for n, c in zip(shape, dataset.chunks, strict=True))
        declared = n_chunks * math.prod(dataset.chunks) * dataset.dtype.itemsize
        is_whole = n_chunks == 0 or (stored > 0 and dataset.id.get_num_chunks() >= n_chunks)
    most = stored * MAX_COMPRESSION + (1 << 20) if filters & {1, 32000} else stored
    if not is_whole or declared > most:
        raise UnreadableFileError(
            f"Expected `{place}` of {path} to be stored whole, got {declared / 1e6:,.1f} MB "
            f"declared and {stored / 1e6:,.1f} MB stored; the file is damaged or hostile."
        )
