"""CIFAR-10 and CIFAR-100 as their authors publish them: archives and folders, pickled or binary.

Nothing that a file says is run: a pickle is read with classes of our own that hold what numpy
would have been told, and arrays are made of that.

train, test = open_cifar("cifar-10-python.tar.gz", imb_ratio=100)
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import decoding
from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages
from dense_imb.data.labels.long_tail import long_tail, long_tail_counts

SIDE = 32
_PIXELS = 3 * SIDE * SIDE
_LARGEST = 1 << 29  # bytes of an archive, unpacked: the real ones have 186 MB
_MOST_FILES = 1000


class _Layout(NamedTuple):
    """Where one of the published forms keeps what."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    n_classes: int
    is_binary: bool


_LAYOUTS = (
    _Layout(
        "CIFAR-10", "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch", "batches.meta", 10, False,
    ),
    _Layout("CIFAR-100", "cifar-100-python", ("train",), "test", "meta", 100, False),
    _Layout(
        "CIFAR-10", "cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin", "batches.meta.txt", 10, True,
    ),
    _Layout(
        "CIFAR-100", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 100,
        True,
    ),
)  # fmt: skip


def open_cifar(
    path: str | os.PathLike[str],
    *,
    imb_ratio: float = 1.0,
    profile: str = "exponential",
    seed: int = 0,
) -> tuple[ClassifiedImages, ClassifiedImages]:
    """The training images, long-tailed if wanted, and the test images.

    Args:
        path: cifar-10-python.tar.gz, cifar-100-python.tar.gz, the binary ones, or a folder that
            one of them was unpacked in.
        imb_ratio: of the largest class and the smallest, 100 or 0.01; 1 keeps all. The test
            images stay as they are.
        profile: "exponential" or "step", see `long_tail_counts`.
        seed: of which images stay.
    """
    layout, files = _files_of(Path(path))
    names = _names(layout, files[layout.meta], path)
    parts = [_read(layout, files[name], f"{name} of {path}") for name in layout.train]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    test_images, test_labels = _read(layout, files[layout.test], f"{layout.test} of {path}")
    for label, what in ((labels, "training"), (test_labels, "test")):
        if len(label) and label.max() >= len(names):
            raise ValueError(
                f"Expected {what} labels from 0 to {len(names) - 1} in {path}, got {label.max()}."
            )
    if imb_ratio != 1:
        counts = np.bincount(labels, minlength=len(names))
        wanted = long_tail_counts(len(names), int(counts.min()), imb_ratio, profile)
        stay = long_tail(labels, wanted, seed)
        images, labels = images[stay], labels[stay]
    where = f"{layout.name} in {path}"
    return (
        ClassifiedImages(ArrayImages(images, where), labels, names),
        ClassifiedImages(ArrayImages(test_images, where), test_labels, names),
    )


def _files_of(path: Path) -> tuple[_Layout, dict[str, bytes]]:
    """The form, and the content of the files that it needs."""
    if path.is_dir():
        for layout in _LAYOUTS:
            for folder in (path, path / layout.folder):
                if (folder / layout.train[0]).is_file():
                    return layout, _files_in(folder, layout)
        raise _unknown(path)
    if not path.is_file():
        raise ValueError(f"Expected a CIFAR archive or folder, got {path}, which does not exist.")
    with decoding(f"CIFAR as published in {path}"):
        found = _files_in_archive(path)
    for layout in _LAYOUTS:
        inside = {name: found.get(f"{layout.folder}/{name}") for name in _needed(layout)}
        if inside[layout.train[0]] is not None:
            missing = [name for name, content in inside.items() if content is None]
            _refuse_missing(missing, path)
            return layout, {
                name: content for name, content in inside.items() if content is not None
            }
    raise _unknown(path)


def _needed(layout: _Layout) -> tuple[str, ...]:
    return (*layout.train, layout.test, layout.meta)


def _files_in(folder: Path, layout: _Layout) -> dict[str, bytes]:
    _refuse_missing([name for name in _needed(layout) if not (folder / name).is_file()], folder)
    total = sum((folder / name).stat().st_size for name in _needed(layout))
    if total > _LARGEST:
        raise ValueError(f"Expected {folder} to hold at most {_LARGEST:,} bytes, got {total:,}.")
    return {name: (folder / name).read_bytes() for name in _needed(layout)}


def _refuse_missing(missing: list[str], place: Path) -> None:
    if missing:
        raise ValueError(
            f"Expected {', '.join(missing)} in {place}, got none; the archive is not whole, "
            "download it again."
        )


def _unknown(path: Path) -> ValueError:
    folders = ", ".join(layout.folder for layout in _LAYOUTS)
    return ValueError(f"Expected one of {folders} in {path}, got something else.")


class _Limited(io.RawIOBase):
    """What is read is counted, so that a small file can't become a huge one."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.n_left = file, _LARGEST

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.n_left:
            raise ValueError(f"more than {_LARGEST:,} bytes when unpacked")
        content = self.file.read(size)
        self.n_left -= len(content)
        return content

    def readable(self) -> bool:
        return True


def _files_in_archive(path: Path) -> dict[str, bytes]:
    wanted = {f"{layout.folder}/{name}" for layout in _LAYOUTS for name in _needed(layout)}
    found: dict[str, bytes] = {}
    with path.open("rb") as raw:
        is_packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if is_packed else raw
        with tarfile.open(fileobj=_Limited(stream), mode="r|") as archive:
            for i, member in enumerate(archive):
                name = str(PurePosixPath(member.name))
                if i >= _MOST_FILES:
                    raise ValueError(f"more than {_MOST_FILES} files")
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{member.name}, which is a link or a device, no file")
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"{member.name}, a name that leads out of the archive")
                if not member.isfile() or name not in wanted:
                    continue
                if name in found:
                    raise ValueError(f"{name} twice")
                file = archive.extractfile(member)
                assert file is not None
                found[name] = file.read()
                if len(found[name]) != member.size:
                    raise ValueError(f"{name} cut short")
    return found


# the content of a file


def _names(layout: _Layout, content: bytes, path: object) -> tuple[str, ...]:
    with decoding(f"CIFAR as published in {layout.meta} of {path}"):
        if layout.is_binary:
            names = content.decode().split()
        else:
            key = "label_names" if layout.n_classes == 10 else "fine_label_names"
            names = [_text(name) for name in _unpickled(content)[key]]
        if len(names) != layout.n_classes:
            raise ValueError(f"{len(names)} names for {layout.n_classes} classes")
    return tuple(names)


def _read(
    layout: _Layout, content: bytes, place: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(N, 3, 32, 32) images and (N,) labels."""
    with decoding(f"CIFAR as published in {place}"):
        flat, label = _records(layout, content) if layout.is_binary else _batch(layout, content)
        if flat.dtype != np.uint8 or flat.shape != (len(label), _PIXELS):
            raise ValueError(
                f"{len(label)} labels and pixels {flat.shape} of {flat.dtype}, not "
                f"{_PIXELS} bytes an image"
            )
        if len(label) == 0:
            raise ValueError("no image")
        if label.min() < 0 or label.max() >= layout.n_classes:
            raise ValueError(f"labels from {label.min()} to {label.max()}")
    return flat.reshape(-1, 3, SIDE, SIDE), label


def _records(layout: _Layout, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    n_labels = 1 if layout.n_classes == 10 else 2  # the coarse one comes first
    if len(content) % (n_labels + _PIXELS):
        raise ValueError(f"{len(content)} bytes, no whole number of images")
    rows = np.frombuffer(content, np.uint8).reshape(-1, n_labels + _PIXELS)
    return np.ascontiguousarray(rows[:, n_labels:]), rows[:, n_labels - 1].astype(np.int64)


def _batch(layout: _Layout, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    stored = _unpickled(content)
    labels = stored["labels" if layout.n_classes == 10 else "fine_labels"]
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("labels that are no list of whole numbers")
    data = stored["data"]
    if not isinstance(data, _Array):
        raise ValueError(f"data that are {type(data).__name__}, no array")
    return data.pixels(), np.array(labels, np.int64)


class _Array:
    """What a pickle says of an array."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        """The array, of bytes and of no other type."""
        _, shape, kind, is_fortran, content = self.state
        is_bytes = isinstance(kind, _Kind) and kind.code in ("u1", b"u1")
        if not (is_bytes and isinstance(content, bytes) and len(shape) == 2):
            raise ValueError("an array of something else than bytes")
        flat = np.frombuffer(content, np.uint8)
        return np.ascontiguousarray(flat.reshape(shape, order="F" if is_fortran else "C"))


class _Kind:
    """What a pickle says of the type of an array."""

    __slots__ = ("code",)

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment mean nothing to single bytes


class _Latin:
    """Bytes, as Python 3 writes them for Python 2."""

    __slots__ = ()  # nor can a pickle give it attributes

    def __call__(self, text: Any, encoding: Any = None) -> bytes:
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            raise ValueError("text in an unknown encoding")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): _Array
        for core in ("core", "_core")  # before and since numpy 2
    },
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Latin(),
}


# the one written in Python: its memo is a dictionary, whatever size a damaged file claims
class _Reader(pickle._Unpickler):
    """Knows four names, none of which does a thing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"the name {module}.{name}, which has no place there")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id, which has no place there")


def _unpickled(content: bytes) -> dict[str, Any]:
    # Python 2 wrote the real files: its strings are bytes
    stored = _Reader(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(stored, dict):
        raise ValueError(f"{type(stored).__name__}, no dictionary")
    return {_text(key): value for key, value in stored.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
