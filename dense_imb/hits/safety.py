"""Hits files of unknown origin: the checks of `dense_imb.base.hdf5`, and those of the format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py

from dense_imb.base import hdf5
from dense_imb.base.files import UnreadableFileError
from dense_imb.hits.format import (
    ATTRIBUTES,
    FORMAT,
    REQUIRED,
    VERSION,
    HitsFileError,
    check_dtype,
)
from dense_imb.hits.geometry import Geometry


@contextmanager
def _as_hits_error() -> Iterator[None]:
    """Raise an `UnreadableFileError` as `HitsFileError`; also a decorator."""
    try:
        yield
    except HitsFileError:
        raise
    except UnreadableFileError as problem:
        raise HitsFileError(str(problem)) from problem


@contextmanager
def reading(path: Path, place: str) -> Iterator[None]:
    """Like `dense_imb.base.hdf5.reading`, but raise `HitsFileError`."""
    with _as_hits_error(), hdf5.reading(path, place):
        yield


@_as_hits_error()
def identify_file(path: Path) -> tuple[int, ...]:
    """Return device, inode, size and time of a regular file; refuse anything else."""
    return hdf5.identify_file(path)


@_as_hits_error()
def open_file(path: Path, locking: bool | str | None) -> Any:
    """Open a hits file for reading, without a chunk cache."""
    return hdf5.open_file(path, locking, "a hits file")


@_as_hits_error()
def read_attributes(file: Any, path: Path) -> dict[str, str | int | float]:
    """Return the attributes of the format; others are ignored."""
    return hdf5.read_attributes(file, path, ATTRIBUTES)


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


@_as_hits_error()
def structure_of(file: Any, path: Path) -> dict[str, Any]:
    """Return the data sets by path, after checking their storage and types; read no data."""
    datasets: dict[str, Any] = {}
    with hdf5.reading(path, "/"):
        hdf5.check_links(file, path)
    for group in ("event", "hit"):
        with hdf5.reading(path, f"/{group}"):
            if not isinstance(file.get(group), h5py.Group):
                raise HitsFileError(
                    f"Expected a group `/{group}` in {path}, got {file.get(group)}; convert it."
                )
            hdf5.check_links(file[group], path)
            names = list(file[group])
        for name in names:
            place = f"/{group}/{name}"
            with hdf5.reading(path, place):
                dataset = file[place]
                if not isinstance(dataset, h5py.Dataset):
                    raise HitsFileError(
                        f"Expected `{place}` of {path} to be a data set, got {dataset}; remove it."
                    )
                hdf5.check_storage(dataset, place, path)
                check_dtype(place, dataset.dtype, dataset.shape, str(path))
                datasets[place] = dataset
    missing = [place for place in REQUIRED if place not in datasets]
    if missing:
        raise HitsFileError(
            f"Expected data set `{missing[0]}` in {path}, got only {sorted(datasets)}; convert it."
        )
    hdf5.check_total_storage(datasets, path)
    return datasets
