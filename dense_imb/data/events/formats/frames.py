"""Dense frames: .npy and .npz arrays, .pt bundles, folders of images.

A pixel above 0 is a hit; its value is the time, or another quantity that the detector measures.
Frames of all formats are read in blocks.
"""

from __future__ import annotations

import fnmatch
import math
import os
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.arrays import map_npy
from dense_imb.base.bundles import check_bundle
from dense_imb.base.files import MAX_COMPRESSION, UnreadableFileError, decoding
from dense_imb.base.refusals import Refused
from dense_imb.data.events.formats.source import BATCH_BYTES, Columns, Source
from dense_imb.data.images.folders import list_images, pair_images, read_image
from dense_imb.hits import Geometry, frames_to_events

PathLike = str | os.PathLike[str]
_TYPES = (
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
_MAX_PIXELS = 1 << 28  # of a frame; more means a damaged header or a bomb


class Rows(Protocol):
    """Array of frames that reads a block on access."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, rows: slice) -> Any: ...


def frames_source(
    name: str, frames: Rows, labels: Rows | None = None, rows_at_once: int = 1
) -> Source:
    """Read events from frames (N, H, W) or (N, 1, H, W).

    Args:
        name: name of the frames in errors.
        frames: times, 0 in pixels without a hit.
        labels: label of each pixel, in the same shape; those of empty pixels are counted and
            dropped.
        rows_at_once: blocks begin at multiples of this, for example the frames of an HDF5 chunk.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Geometry
        >>> source = frames_source("two frames", np.array([[[0, 7, 0]], [[5, 0, 9]]]))
        >>> [batch.t.tolist() for batch in source.batches(Geometry(3, 1, 9))]
        [[7, 5, 9]]
    """
    n_frames, height, width = _sizes(name, frames)
    if labels is not None and _sizes(f"labels of {name}", labels) != (n_frames, height, width):
        raise ValueError(
            f"Expected labels of {name} in the shape of its frames, {tuple(frames.shape)}, got "
            f"{tuple(labels.shape)}."
        )
    block = max(1, BATCH_BYTES // (8 * height * width))
    block = math.ceil(block / rows_at_once) * rows_at_once
    size = Geometry(width, height, 65536)
    source = Source(name, lambda: iter(()), width, height, n_frames)

    def read() -> Iterator[Columns]:
        source.n_labels_lost = 0
        for start in range(0, n_frames, block):
            part = slice(start, min(start + block, n_frames))
            shape = (part.stop - start, 1, height, width)
            frame = _tensor(frames[part], name).reshape(shape)
            if frame.is_floating_point() and not bool(torch.isfinite(frame).all()):
                wrong = int((~torch.isfinite(frame)).flatten(1).any(1).nonzero()[0])
                raise ValueError(
                    f"Expected finite values in {name}, got NaN or infinity in frame "
                    f"{start + wrong}."
                )
            if bool((frame < 0).any()):
                wrong = int((frame < 0).flatten(1).any(1).nonzero()[0])
                raise ValueError(
                    f"Expected values of at least 0 in {name}, where 0 is an empty pixel, got "
                    f"{frame[wrong].min().item():g} in frame {start + wrong}."
                )
            label = None if labels is None else _tensor(labels[part], name).reshape(shape)
            if label is not None:
                source.n_labels_lost += int(((label != 0) & (frame == 0)).sum())
            events = frames_to_events(frame, size, label).numpy()
            yield Columns(events.offset, events.hit_columns(), {})

    source.read = read
    return source


def npy_source(path: PathLike, labels: PathLike | None = None) -> Source:
    """Read frames of a .npy file, mapped into memory and never unpickled.

    Example:
        >>> import numpy as np, tempfile
        >>> from dense_imb.data.events.formats import npy_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/frames.npy"
        >>> np.save(path, np.array([[[0, 7, 0]], [[5, 0, 9]]]))  # (N, H, W) times, 0 is empty
        >>> next(npy_source(path).batches(Geometry(3, 1, 9))).t.tolist()
        [7, 5, 9]
    """
    return frames_source(str(path), _map_npy(path), None if labels is None else _map_npy(labels))


def npz_source(path: PathLike, key: str | None = None, labels: str | None = None) -> Source:
    """Read frames under one name of a .npz file, and labels under another.

    Example:
        >>> import numpy as np, tempfile
        >>> from dense_imb.data.events.formats import npz_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/frames.npz"
        >>> frames = np.array([[[0, 7, 0]], [[5, 0, 9]]])
        >>> np.savez(path, tof=frames, truth=np.uint8(frames > 6))
        >>> batch = next(npz_source(path, "tof", labels="truth").batches(Geometry(3, 1, 9)))
        >>> batch.t.tolist(), batch.label.tolist()
        ([7, 5, 9], [1, 0, 1])
    """
    with decoding(f"{path} to be a .npz archive"), zipfile.ZipFile(path) as archive:
        known = [name.removesuffix(".npy") for name in archive.namelist()]
    frames = ArchiveMember(Path(path), choose_key(path, known, key, [labels]))
    rows = None if labels is None else ArchiveMember(Path(path), choose_key(path, known, labels))
    return frames_source(f"{frames.key} of {path}", frames, rows)


def pt_source(path: PathLike, key: str | None = None, labels: str | None = None) -> Source:
    """Read frames of a .pt bundle: a tensor, or a dict of tensors. Only tensors are loaded.

    Example:
        >>> import tempfile, torch
        >>> from dense_imb.data.events.formats import pt_source
        >>> from dense_imb.hits import Geometry
        >>> path = tempfile.mkdtemp() + "/frames.pt"
        >>> torch.save({"tof": torch.tensor([[[0, 7, 0]], [[5, 0, 9]]])}, path)
        >>> next(pt_source(path, "tof").batches(Geometry(3, 1, 9))).t.tolist()
        [7, 5, 9]
    """
    try:
        with decoding(f"{path} to be a .pt bundle of tensors"):
            if zipfile.is_zipfile(path):  # torch refuses to map others
                check_bundle(Path(path), sums=True)
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnreadableFileError as problem:
        if not isinstance(problem.__cause__, pickle.UnpicklingError):
            raise
        raise UnreadableFileError(
            f"Expected {path} to be a .pt bundle of tensors, got a pickle of other objects, which "
            "could run any code and is not loaded; save plain tensors with torch.save."
        ) from problem
    if isinstance(loaded, torch.Tensor):
        if labels is not None or key is not None:
            raise ValueError(f"Expected no key for {path}, which holds one tensor only.")
        loaded, key = {"tensor": loaded}, "tensor"
    if not isinstance(loaded, dict):
        raise ValueError(
            f"Expected {path} to hold a tensor or a dict, got a {type(loaded).__name__}."
        )
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    chosen = choose_key(path, [*tensors], key, [labels])
    rows = None if labels is None else tensors[choose_key(path, [*tensors], labels)]
    for name in (chosen, labels):
        if name is not None:
            _check_tensor(tensors[name], f"`{name}` of {path}", os.path.getsize(path))
    return frames_source(f"{chosen} of {path}", tensors[chosen], rows)


def _check_tensor(tensor: torch.Tensor, what: str, n_bytes: int) -> None:
    """Refuse tensors that are no plain array of numbers in a file of `n_bytes`."""
    if tensor.is_nested or tensor.is_quantized or tensor.dtype not in _TYPES:
        kind = "a nested tensor" if tensor.is_nested else tensor.dtype
        raise ValueError(f"Expected {what} to be a tensor of numbers, got {kind}.")
    # an expanded tensor can declare any size over a few stored bytes
    if tensor.layout != torch.strided or tensor.nbytes > n_bytes or tensor.is_meta:
        raise ValueError(
            f"Expected {what} to be stored whole, got a tensor of {tuple(tensor.shape)} in a file "
            f"of {n_bytes} bytes."
        )


def image_source(
    folder: PathLike, masks: PathLike | None = None, pattern: str | None = None
) -> Source:
    """Read frames from the images of a folder, sorted by name.

    Args:
        folder: images with one channel.
        masks: folder of label images of the same names.
        pattern: use only the files that match it, for example "real_*".

    Example:
        >>> import numpy as np, tempfile
        >>> from PIL import Image
        >>> from dense_imb.data.events.formats import image_source
        >>> from dense_imb.hits import Geometry
        >>> folder = tempfile.mkdtemp()
        >>> Image.fromarray(np.uint8([[0, 7, 0], [0, 0, 9]])).save(folder + "/event1.png")
        >>> batch = next(image_source(folder).batches(Geometry(3, 2, 255)))
        >>> batch.x.tolist(), batch.y.tolist(), batch.t.tolist()
        ([1, 2], [0, 1], [7, 9])
    """
    pairs = [(path, None) for path in list_images(folder)]
    if masks is not None:
        pairs = [*pair_images(folder, masks)]  # type: ignore[list-item]
    chosen = [pair for pair in pairs if fnmatch.fnmatch(pair[0].name, pattern or "*")]
    if not chosen:
        raise ValueError(f"Expected images that match {pattern} in {folder}, got none.")
    labels = None if masks is None else _Images([Path(str(mask)) for _, mask in chosen])
    return frames_source(str(folder), _Images([image for image, _ in chosen]), labels)


class _Images:
    """Images as rows of frames; all have the size of the first."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        first = self._read(paths[0])
        self.dtype = first.dtype
        self.shape = (len(paths), *first.shape)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        frames = []
        for path in self.paths[rows]:
            frames.append(self._read(path))
            if frames[-1].shape != self.shape[1:]:
                raise ValueError(
                    f"Expected images of one size, {self.paths[0].name} has {self.shape[1:]}, "
                    f"got {frames[-1].shape} in {path}."
                )
        return np.stack(frames)

    def _read(self, path: Path) -> NDArray[Any]:
        pixels = read_image(path, as_indices=True)
        if pixels.ndim != 2:
            raise ValueError(
                f"Expected one number a pixel in {path}, got {pixels.shape[2]} channels; "
                "save it as a grey image."
            )
        return pixels


class ArchiveMember:
    """Array of a .npz file, read from front to back without unpacking it as a whole."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._stream: Any = None
        self._row = 0
        self._open()
        self._close()

    def _open(self) -> None:
        with decoding(f"{self.path} to be a .npz archive"), zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(f"{self.key}.npy")
            self._stream = archive.open(member)  # keeps the file open
            try:
                version = np.lib.format.read_magic(self._stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                self.shape, is_fortran, self.dtype = read(self._stream)
                header = self._stream.tell()
            except BaseException:
                self._close()
                raise
        declared = math.prod(self.shape) * self.dtype.itemsize
        packed = max(member.compress_size, 1)
        self._row = 0
        if is_fortran or self.dtype.hasobject:
            self._close()
            raise ValueError(
                f"Expected `{self.key}` of {self.path} in C order and without objects; save it "
                "again with np.ascontiguousarray."
            )
        if declared != member.file_size - header or member.file_size > packed * MAX_COMPRESSION:
            self._close()
            raise ValueError(
                f"Expected `{self.key}` of {self.path} to be stored whole, got {declared:,} bytes "
                f"declared and {member.compress_size:,} stored; the file is damaged or hostile."
            )

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        if self._stream is None or start != self._row:
            self._close()
            self._open()
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with decoding(f"{self.path} to be a .npz archive"):
                for _ in range(self._row, start):
                    self._stream.read(size)
                data = self._stream.read((stop - start) * size)
        except ValueError:
            self._close()
            raise
        self._row = stop
        if stop == self.shape[0]:
            self._close()
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])


def choose_key(
    path: PathLike, known: Sequence[str], key: str | None, others: Sequence[str | None] = ()
) -> str:
    """Return the key, if it is known; without one, the only key there is."""
    left = [name for name in known if name not in others]
    if key is None and len(left) == 1:
        return left[0]
    if key is None or key not in known:
        got = "none" if key is None else repr(key)
        raise Refused(f"a key of {path}, one of {known}", got, "name it with {key}, or {labels}")
    return key


def _map_npy(path: PathLike) -> NDArray[Any]:
    with decoding(f"{path} to be a .npy array"):
        return map_npy(Path(path))


def _sizes(name: str, frames: Rows) -> tuple[int, int, int]:
    shape = tuple(int(size) for size in frames.shape)
    is_known = len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)
    if not is_known or not 1 <= shape[-1] * shape[-2] <= _MAX_PIXELS:
        raise ValueError(
            f"Expected frames (N, H, W) or (N, 1, H, W) in {name}, got an array of {shape}."
        )
    if not isinstance(frames.dtype, torch.dtype) and frames.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers in {name}, got {frames.dtype}.")
    return shape[0], shape[-2], shape[-1]


def _tensor(block: NDArray[Any] | torch.Tensor, name: str) -> torch.Tensor:
    """Return a block as a tensor of a type that torch computes with; values stay."""
    if isinstance(block, torch.Tensor):
        block = block.detach()
        if block.is_complex():
            raise ValueError(f"Expected real numbers in {name}, got {block.dtype}.")
        if block.dtype in (torch.float16, torch.bfloat16):
            return block.float()
        return block if block.is_floating_point() else block.long()
    array = np.asarray(block)
    if array.dtype.kind in "biu":
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"Expected numbers below 2^63 in {name}, got {array.max()}.")
        return torch.from_numpy(array.astype(np.int64))
    single = np.float32 if array.dtype.itemsize <= 4 else np.float64
    return torch.from_numpy(array.astype(single))
