"""Open an HDF5 file that nobody vouches for: what is dangerous is refused before data is read."""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py

from dense_imb.hits.events import Geometry
from dense_imb.hits.format import (
    ATTRIBUTES,
    FORMAT,
    REQUIRED,
    VERSION,
    HitsFileError,
    check_dtype,
)

# deflate, shuffle, fletcher32, lzf: part of every h5py. Another filter would load a plug-in.
_FILTERS = {1, 2, 3, 32000}
_MAX_COMPRESSION = 1100  # deflate packs at most 1032 to 1; a bomb declares more


@contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """Damaged HDF5 raises exceptions of many kinds: make them one, with the place."""
    try:
        yield
    except HitsFileError:
        raise
    except Exception as problem:
        reason = " ".join(str(problem).split()).rstrip(".") or type(problem).__name__
        raise HitsFileError(
            f"Expected to read `{what}` of {path}, got: {reason}; the file is damaged, restore it "
            "from a copy."
        ) from problem


def identity_of(path: Path) -> tuple[int, ...]:
    """Return device, inode, size and time of a regular file; refuse anything else."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise HitsFileError(f"Expected a file at {path}, got a folder or a device.")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_file(path: Path, locking: bool | str | None, wanted: str = "a hits file") -> Any:
    """Open a file for reading, without a chunk cache."""
    identity_of(path)  # a missing file, a folder and a pipe have a sentence of their own
    with open(path, "rb"):  # and so has one that may not be read
        pass
    try:
        # no chunk cache: an event is a small part of a chunk, and is read alone without one
        return h5py.File(path, "r", locking=locking, rdcc_nbytes=0)
    except Exception as problem:
        reason = " ".join(str(problem).split())
        reason = re.sub(r"^Unable to synchronously open file \((.*)\)$", r"\1", reason)
        if getattr(problem, "errno", None) in (errno.EAGAIN, errno.ENOLCK, errno.ENOSYS):
            cure = "wait for its writer, or pass locking=False if the file system has no locks"
        else:
            cure = "it is of another kind, truncated or damaged: write or copy it again"
        raise HitsFileError(
            f"Expected {wanted} at {path}, got one that HDF5 can't open ({reason}); {cure}."
        ) from problem


def attributes_of(
    file: Any, path: Path, names: Iterable[str] = ATTRIBUTES
) -> dict[str, str | int | float]:
    """The attributes that are known; others are not looked at."""
    attributes: dict[str, str | int | float] = {}
    with told(path, "attributes"):
        for name in names:
            if name not in file.attrs:
                continue
            handle = file.attrs.get_id(name)
            # strings of variable length lie in a heap without checksum: HDF5 can loop there forever
            if handle.shape != () or handle.dtype.kind not in "biufS":
                raise HitsFileError(
                    f"Expected attribute `{name}` of {path} to be one number or string of fixed "
                    f"length, got {handle.dtype} of shape {handle.shape}; np.bytes_ makes one."
                )
            value = file.attrs[name].item()
            attributes[name] = value.decode() if isinstance(value, bytes) else value
    return attributes


def geometry_of(attributes: Mapping[str, Any], path: Path) -> Geometry:
    """Return the frame that the attributes of a hits file describe."""
    for name, wanted in (("format", FORMAT), ("format_version", VERSION)):
        got = attributes.get(name)
        if got != wanted:
            cure = "a newer dense_imb may read it" if name != "format" else "convert it"
            raise HitsFileError(
                f"Expected attribute `{name}` of {path} to be {wanted!r}, got {got!r}; {cure}."
            )
    names = [field.name for field in fields(Geometry)]
    for name in names:
        value = attributes.get(name)
        if not isinstance(value, (int, float)) and (name in names[:3] or value is not None):
            raise HitsFileError(
                f"Expected attribute `{name}` of {path} to be a number, got {value!r}."
            )
    return Geometry(**{name: attributes[name] for name in names if name in attributes})


def structure_of(file: Any, path: Path) -> dict[str, Any]:
    """The data sets by path, once nothing about them is dangerous; no data is read here."""
    found: dict[str, Any] = {}
    with told(path, "/"):
        _check_links(file, path)
    for group in ("event", "hit"):
        with told(path, f"/{group}"):
            if not isinstance(file.get(group), h5py.Group):
                raise HitsFileError(
                    f"Expected a group `/{group}` in {path}, got {file.get(group)}; convert it."
                )
            _check_links(file[group], path)
            names = list(file[group])
        for name in names:
            place = f"/{group}/{name}"
            with told(path, place):
                dataset = file[place]
                if not isinstance(dataset, h5py.Dataset):
                    raise HitsFileError(
                        f"Expected `{place}` of {path} to be a data set, got {dataset}; remove it."
                    )
                _check_storage(dataset, place, path)
                check_dtype(place, dataset.dtype, dataset.shape, str(path))
                found[place] = dataset
    missing = [place for place in REQUIRED if place not in found]
    if missing:
        raise HitsFileError(
            f"Expected data set `{missing[0]}` in {path}, got only {sorted(found)}; convert it."
        )
    _check_total(found, path)
    return found


def safe_datasets(file: Any, path: Path) -> dict[str, Any]:
    """All data sets of a foreign file by path, once nothing about them is dangerous."""
    found: dict[str, Any] = {}
    groups, seen = [("", file)], set()
    while groups:
        prefix, group = groups.pop()
        with told(path, f"/{prefix}"):
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:  # hard links can make a circle
                continue
            seen.add(address)
            _check_links(group, path)
            for name in group:
                child, place = group[name], f"{prefix}{name}"
                if isinstance(child, h5py.Group):
                    groups.append((f"{place}/", child))
                elif isinstance(child, h5py.Dataset):
                    _check_storage(child, f"/{place}", path)
                    found[place] = child
    _check_total(found, path)
    return dict(sorted(found.items()))


def _check_total(datasets: Mapping[str, Any], path: Path) -> None:
    with told(path, "/"):
        stored = sum(dataset.id.get_storage_size() for dataset in datasets.values())
        if stored > path.stat().st_size:
            raise HitsFileError(
                f"Expected the data sets of {path} to fit in its {path.stat().st_size} bytes, "
                f"got {stored} bytes declared stored; the file is damaged or hostile."
            )


def _check_links(group: Any, path: Path) -> None:
    """External and soft links read other files and places: hard ones only."""
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise HitsFileError(
                f"Expected `{group.name.rstrip('/')}/{name}` of {path} to be stored in place, got "
                f"a {type(link).__name__}; copy the data into the file."
            )


def _check_storage(dataset: Any, place: str, path: Path) -> None:
    """Refuse data that is elsewhere, needs a plug-in, or is declared and not there."""
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
        raise HitsFileError(
            f"Expected `{place}` of {path} to be stored in place, got {danger}; copy the data "
            "into the file."
        )
    shape, stored = dataset.shape, dataset.id.get_storage_size()
    if shape is None:
        raise HitsFileError(f"Expected `{place}` of {path} to hold rows, got no data space.")
    declared = math.prod(shape) * dataset.dtype.itemsize
    is_whole = True
    if dataset.chunks is not None:
        n_chunks = math.prod(math.ceil(n / c) for n, c in zip(shape, dataset.chunks, strict=True))
        declared = n_chunks * math.prod(dataset.chunks) * dataset.dtype.itemsize
        is_whole = n_chunks == 0 or (stored > 0 and dataset.id.get_num_chunks() >= n_chunks)
    most = stored * _MAX_COMPRESSION + (1 << 20) if filters & {1, 32000} else stored
    if not is_whole or declared > most:
        raise HitsFileError(
            f"Expected `{place}` of {path} to be stored whole, got {declared / 1e6:,.1f} MB "
            f"declared and {stored / 1e6:,.1f} MB stored; the file is damaged or hostile."
        )
