"""Write hits as dense frames: .npy, .npz, HDF5 with one frame a chunk, PNG."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.files import (
    check_space,
    refuse_existing,
    refuse_inputs,
    write_whole,
    write_whole_folder,
)
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import RefusedFile
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import BATCH_BYTES
from dense_imb.hits import HitsFile, HitsFiles, rasterise
from dense_imb.hits.frames import Rule, paint
from dense_imb.hits.reader import file_paths

_Block = NDArray[Any]
_Hits = HitsFile | HitsFiles
FRAMES, LABELS = "frames", "labels"  # names inside .npz and HDF5 files


def to_frames(
    hits: _Hits,
    path: PathLike,
    *,
    labels: PathLike | None = None,
    rule: Rule = "largest",
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Write hits as frames (N, H, W), in the format that the suffix names.

    Frames are uint16 if times are whole, else float32. A .npz or HDF5 file has them under
    "frames", and the labels of the visible hits under "labels" if there are any.

    Args:
        hits: result of `open_hits`.
        path: .npy, .npz, .h5, .hdf5, or a new folder for PNG images.
        labels: second .npy file or folder for the label frames.
        rule: hit that is visible in a shared pixel, or "count".
        overwrite: replace files and folders of PNG images.
        progress: show a bar.

    Returns:
        The number of hits hidden by others, which are in no frame.
    """
    path = Path(path)
    writers: dict[str, Callable[..., None]] = {
        ".npy": _write_npy, ".npz": _write_npz, ".h5": _write_hdf5, ".hdf5": _write_hdf5,
        "": _write_png,
    }  # fmt: skip
    if path.suffix not in writers:
        raise ValueError(
            f"Expected {path} to end in .npy, .npz, .h5, .hdf5 or, for a folder of PNG images, "
            f"nothing, got {path.suffix!r}."
        )
    has_labels = "/hit/label" in (hits.columns or {})
    if labels is not None and (path.suffix not in (".npy", "") or not has_labels):
        raise ValueError(
            f"Expected `labels` for hits with labels and a .npy file or a folder, got {labels}; "
            ".npz and HDF5 files hold them anyway."
        )
    outputs = [path] if labels is None else [path, Path(labels)]
    for output in outputs:
        if path.suffix:
            refuse_existing(output, overwrite)
        elif output.exists() and not (overwrite and _is_folder_of_images(output)):
            raise RefusedFile(
                f"no file or folder at {output}",
                "one",
                "choose another name, or replace a folder of PNG images with {overwrite}",
            )
    refuse_inputs(outputs, file_paths(hits))
    is_whole = rule == "count" or hits.columns["/hit/t"].kind == "u"
    frames = _Frames(hits, rule, np.dtype(np.uint16 if is_whole else np.float32), progress)
    if path.suffix in (".npy", ""):
        writers[path.suffix](outputs[0], frames, FRAMES)
        if labels is not None:
            writers[path.suffix](outputs[1], frames, LABELS)
    else:
        writers[path.suffix](path, frames, has_labels)
    return frames.n_occluded


class _Frames:
    """Frames of a hits file, in blocks."""

    def __init__(self, hits: _Hits, rule: Rule, dtype: np.dtype[Any], progress: bool) -> None:
        self.hits, self.rule, self.progress = hits, rule, progress
        self.dtype = {FRAMES: dtype, LABELS: np.dtype(np.uint8)}
        self.shape = (len(hits), hits.grid.height, hits.grid.width)
        self.n_occluded = 0

    def blocks(self, *kinds: str) -> Iterator[tuple[_Block, ...]]:
        self.n_occluded = 0
        size = max(1, BATCH_BYTES // (16 * math.prod(self.shape[1:])))
        with tqdm(
            total=len(self.hits), desc="write", unit="frame", disable=not self.progress, leave=False
        ) as bar:
            for events in self.hits.batches(size):
                raster = rasterise(events, self.rule)
                self.n_occluded += int(raster.n_occluded.sum())
                made = {FRAMES: raster.frame}
                if LABELS in kinds:
                    label = torch.as_tensor(np.asarray(events.label, np.float32))[:, None]
                    made[LABELS] = paint(events, label, raster.is_visible)
                yield tuple(made[kind][:, 0].numpy().astype(self.dtype[kind]) for kind in kinds)
                bar.update(len(events))


def _write_npy(path: Path, frames: _Frames, kind: str) -> None:
    check_space(path, math.prod(frames.shape) * frames.dtype[kind].itemsize)

    def write(partial: Path) -> None:
        mapped = np.lib.format.open_memmap(partial, "w+", frames.dtype[kind], frames.shape)
        start = 0
        for (block,) in frames.blocks(kind):
            mapped[start : start + len(block)] = block
            start += len(block)
        mapped.flush()

    write_whole(path, write)


def _write_npz(path: Path, frames: _Frames, has_labels: bool) -> None:
    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for kind in (LABELS, FRAMES) if has_labels else (FRAMES,):
                with archive.open(f"{kind}.npy", "w", force_zip64=True) as member:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(frames.dtype[kind]),
                        "fortran_order": False,
                        "shape": frames.shape,
                    }
                    np.lib.format.write_array_header_2_0(member, header)
                    for (block,) in frames.blocks(kind):
                        member.write(block.tobytes())

    write_whole(path, write)


def _write_hdf5(path: Path, frames: _Frames, has_labels: bool) -> None:
    kinds = (FRAMES, LABELS) if has_labels else (FRAMES,)

    def write(partial: Path) -> None:
        with h5py.File(partial, "x", libver=("v110", "v110")) as file:
            for kind in kinds:
                create_frames(file, kind, frames.shape, frames.dtype[kind])
            start = 0
            for blocks in frames.blocks(*kinds):
                # HDF5 can crash on a full disk: have room for an incompressible block
                check_space(path, sum(block.nbytes for block in blocks) + (1 << 20))
                for kind, block in zip(kinds, blocks, strict=True):
                    file[kind][start : start + len(block)] = block
                file.flush()
                start += len(blocks[0])

    write_whole(path, write)


def create_frames(file: Any, name: str, shape: tuple[int, ...], dtype: Any, level: int = 4) -> Any:
    """Create a data set with one frame a chunk, so that a frame can be read alone."""
    chunks = (1, *(max(1, size) for size in shape[1:]))
    return file.create_dataset(
        name, shape, dtype, maxshape=(None, *shape[1:]), chunks=chunks,
        compression="gzip", compression_opts=level, shuffle=True,
    )  # fmt: skip


def _write_png(path: Path, frames: _Frames, kind: str) -> None:
    from PIL import Image

    if frames.dtype[kind].kind == "f":
        raise ValueError(
            f"Expected whole times of at most 65535 for images in {path}, got fractions; write "
            ".npy, .npz or .h5."
        )

    def write(to: Path) -> None:
        digits = max(6, len(str(len(frames.hits) - 1)))
        number = 0
        for (block,) in frames.blocks(kind):
            for pixels in block:
                Image.fromarray(pixels).save(to / f"{number:0{digits}}.png")
                number += 1

    write_whole_folder(path, write)


def _is_folder_of_images(path: Path) -> bool:
    """Whether a folder holds nothing but PNG files, and may be replaced as a whole."""
    return path.is_dir() and all(p.suffix == ".png" and p.is_file() for p in path.iterdir())
