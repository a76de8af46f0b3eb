"""Find HDF5 frames that are slow to read one by one, and store them one a chunk.

h5py's automatic chunks are small in every direction: of 10,000 frames of 128 x 88 a chunk spans
625. One frame then costs the unpacking of hundreds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import h5py
import numpy as np
from tqdm.auto import tqdm

from dense_imb.base.files import check_space, refuse_existing, write_whole
from dense_imb.data.events.dense import create_frames
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.hdf5 import open_datasets
from dense_imb.data.events.formats.source import BATCH_BYTES

_SLOW = 4.0  # times the bytes of a frame; up to here other costs hide it
_TRIAL_SECONDS = 1.0
_TRIAL_FRAMES = 50


class Layout(NamedTuple):
    """How the frames of a data set are stored, and what one of them costs.

    Args:
        name: path of the data set.
        shape: (N, ...).
        chunks: of the same length, None where the data set is contiguous.
        cost: bytes unpacked to read one frame, as a multiple of its own.
        frames_per_s: measured, in random order.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    cost: float
    frames_per_s: float

    @property
    def is_slow(self) -> bool:
        return self.cost > _SLOW

    def __str__(self) -> str:
        speed = f"{self.frames_per_s:,.0f} frames/s in random order"
        if not self.is_slow:
            return f"{self.name}: {self.shape}, chunks {self.chunks}: {speed}"
        return (
            f"{self.name}: {self.shape}, chunks {self.chunks}: SLOW, {speed}: a chunk spans "
            f"{self.chunks[0] if self.chunks else 1} frames, so one frame costs the unpacking of "
            f"{self.cost:,.0f}; repack it"
        )


def layouts(path: PathLike) -> list[Layout]:
    """The data sets of frames, (N, H, W) or more dimensions, of an HDF5 file."""
    with open_datasets(path) as known:
        return [_layout(name, dataset) for name, dataset in known.items() if _is_frames(dataset)]


def repack(
    path: PathLike, target: PathLike, *, overwrite: bool = False, progress: bool = True
) -> list[str]:
    """Write an HDF5 file again with its frames one a chunk; values and other data sets stay.

    Groups without data sets are not carried.

    Args:
        path: the file; its dangers are refused before data is read.
        target: the new file, which may be the same with `overwrite`.
        overwrite: replace a file that exists.
        progress: show a bar.
    Returns:
        What could not be carried: data and attributes of variable length, which a damaged file
        can make endless.
    """
    refuse_existing(Path(target), overwrite)
    left_out: list[str] = []

    def write(partial: Path) -> None:
        with (
            h5py.File(partial, "x", libver=("v110", "v110")) as new,
            open_datasets(path) as known,
        ):
            for name, dataset in known.items():
                if dataset.dtype.kind not in "biufcS":
                    left_out.append(f"/{name}")
                    continue
                _copy(new, name, dataset, Path(target), progress)
                _copy_attributes(dataset, new[name], f"/{name}", left_out)
            old = next(iter(known.values())).file if known else None
            parents = {parent for name in known for parent in PurePosixPath(f"/{name}").parents}
            for place in sorted(map(str, parents)):
                if place in new and old is not None:
                    _copy_attributes(old[place], new[place], place, left_out)

    write_whole(target, write)
    return left_out


def _is_frames(dataset: Any) -> bool:
    return dataset.ndim >= 3 and dataset.size > 0 and dataset.dtype.kind in "biuf"


def _layout(name: str, dataset: Any) -> Layout:
    frame = math.prod(dataset.shape[1:])
    cost = 1.0
    if dataset.chunks:
        touched = [
            math.ceil(size / chunk) * chunk
            for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
        ]
        cost = dataset.chunks[0] * math.prod(touched) / frame
    order = np.random.default_rng(0).integers(0, len(dataset), _TRIAL_FRAMES)
    start, n_read = time.perf_counter(), 0
    for i in order:
        dataset[int(i)]
        n_read += 1
        if time.perf_counter() - start > _TRIAL_SECONDS:
            break
    speed = n_read / max(time.perf_counter() - start, 1e-9)
    return Layout(name, tuple(dataset.shape), dataset.chunks, cost, speed)


def _copy(new: Any, name: str, dataset: Any, target: Path, progress: bool) -> None:
    check_space(target, (1 << 20) + min(dataset.nbytes, BATCH_BYTES))
    if not _is_frames(dataset):
        if dataset.ndim == 0:
            new.create_dataset(name, data=dataset[()])
            return
        copied = new.create_dataset(
            name, dataset.shape, dataset.dtype, maxshape=dataset.maxshape, chunks=dataset.chunks,
            compression="gzip" if dataset.compression else None,
        )  # fmt: skip
    else:
        copied = create_frames(new, name, dataset.shape, dataset.dtype)
    with tqdm(
        total=len(dataset), desc=f"repack {name}", unit="row", disable=not progress, leave=False
    ) as bar:
        for rows in _blocks(dataset):
            block = dataset[rows]
            check_space(target, block.nbytes + (1 << 20))
            copied[rows] = block
            new.flush()
            bar.update(len(block))


def _blocks(dataset: Any) -> Iterator[slice]:
    """Rows that are read together: whole chunks, as many as the memory is meant for."""
    row = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    step = max(1, BATCH_BYTES // row)
    if dataset.chunks and dataset.chunks[0] * row <= 32 * BATCH_BYTES:
        step = max(step // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(dataset), step):
        yield slice(start, min(start + step, len(dataset)))


def _copy_attributes(old: Any, new: Any, place: str, left_out: list[str]) -> None:
    for name in old.attrs:
        handle = old.attrs.get_id(name)
        if handle.dtype.kind in "biufcS":
            new.attrs[name] = old.attrs[name]
        else:
            left_out.append(f"{place}@{name}")
