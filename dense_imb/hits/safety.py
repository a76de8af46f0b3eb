"""Hits files of unknown origin: the checks of `dense_imb.base.hdf5`, and those of the format."""

from __future__ import annotations

import shlex
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
    GRID,
    LAYOUTS,
    SENSORS,
    HitsFileError,
    Layout,
    check_dtype,
)
from dense_imb.hits.geometry import Geometry, Sensors

_CONVERTED = {
    ".csv": "a CSV file", ".tsv": "a table", ".dat": "a table", ".root": "a ROOT file",
    ".parquet": "a parquet file", ".npz": "arrays", ".npy": "an array", ".pt": "a tensor",
    ".pth": "a tensor",
}  # fmt: skip


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
    return hdf5.identify_file(path, "a hits file")


@_as_hits_error()
def open_file(path: Path, locking: bool | str | None) -> Any:
    """Open a hits file for reading, without a chunk cache."""
    try:
        return hdf5.open_file(path, locking, "a hits file")
    except UnreadableFileError as problem:
        kind = _CONVERTED.get(path.suffix.lower())
        if kind is None or path.is_dir():
            raise
        raise HitsFileError(
            f"Expected a hits file at {path}, got {kind}; make a hits file of it: "
            f"dense-imb convert {shlex.quote(str(path))} "
            f"{shlex.quote(str(path.with_suffix('.h5')))}."
        ) from problem


@_as_hits_error()
def read_attributes(file: Any, path: Path) -> dict[str, str | int | float]:
    """Return the attributes of the format; others are ignored."""
    attributes = hdf5.read_attributes(file, path, ATTRIBUTES)
    if attributes.get("format_version") != GRID.version:  # version 1 ignores it, as all others
        attributes |= hdf5.read_attributes(file, path, ("geometry",))
    return attributes


def read_layout(attributes: Mapping[str, Any], path: Path) -> Layout:
    """Return the layout that the attributes of a hits file declare."""
    version = attributes.get("format_version")
    newer = "a newer dense_imb may read it"
    checks: list[tuple[str, dict[Any, str], str]] = [
        ("format", {FORMAT: repr(FORMAT)}, "convert it"),
        ("format_version", {known: str(known) for known in LAYOUTS}, newer),
    ]
    if version == SENSORS.version:
        checks.append(("geometry", {"sensors": "'sensors'"}, newer))
    for name, known, cure in checks:
        got = attributes.get(name)
        if got not in known:
            raise HitsFileError(
                f"Expected attribute `{name}` of {path} to be {' or '.join(known.values())}, "
                f"got {got!r}; {cure}."
            )
    return LAYOUTS[attributes["format_version"]]


@_as_hits_error()
def read_geometry(file: Any, attributes: Mapping[str, Any], path: Path) -> Geometry | Sensors:
    """Return the frame or the table of sensors of a hits file of sound structure."""
    if read_layout(attributes, path) is SENSORS:
        return _read_sensors(file, path)
    names = [field.name for field in fields(Geometry)]
    for name in names:
        value = attributes.get(name)
        if not isinstance(value, (int, float)) and (name in names[:3] or value is not None):
            raise HitsFileError(
                f"Expected attribute `{name}` of {path} to be a number, got {value!r}."
            )
    with hdf5.reading(path, "attributes"):
        return Geometry(**{name: attributes[name] for name in names if name in attributes})


def _read_sensors(file: Any, path: Path) -> Sensors:
    tables = {}
    for name in ("position", "direction"):
        if name in file["sensor"]:
            with hdf5.reading(path, f"/sensor/{name}"):
                tables[name] = file[f"/sensor/{name}"][:]
    try:
        return Sensors(**tables)
    except ValueError as problem:
        raise HitsFileError(
            f"{str(problem).rstrip('.')} of `/sensor` of {path}; write it again with a good table."
        ) from problem


@_as_hits_error()
def structure_of(file: Any, path: Path) -> dict[str, Any]:
    """Return the data sets by path, after checking their storage and types; read no data."""
    with hdf5.reading(path, "/"):
        hdf5.check_links(file, path)
    layout = read_layout(read_attributes(file, path), path)
    datasets: dict[str, Any] = {}
    for group in layout.groups:
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
                check_dtype(place, dataset.dtype, dataset.shape, str(path), layout)
                datasets[place] = dataset
    _check_required(datasets, layout, path)
    hdf5.check_total_storage(datasets, path)
    return datasets


def _check_required(datasets: Mapping[str, Any], layout: Layout, path: Path) -> None:
    missing = [place for place in layout.required if place not in datasets]
    if not missing:
        return
    wanted, cure = f"data set `{missing[0]}` in {path}", "convert it"
    if missing[0] in ("/hit/x", "/hit/y", "/hit/sensor"):
        wanted += " for the position of hits"
        cure = "write it again with the position of each hit"
        if layout is GRID and "/hit/sensor" in datasets:
            cure = 'a file of sensors needs the attributes format_version 2 and geometry "sensors"'
    raise HitsFileError(f"Expected {wanted}, got only {sorted(datasets)}; {cure}.")
