"""CIFAR-10 and CIFAR-100 as published: archives and folders, pickled or binary.

Pickles are read without running them. `torchvision.datasets` unpickles the files with all that
they import, so it can read none but the published ones, by checksum. Here a pickle may name four
functions of NumPy, and gets classes of ours in their place, which only keep what they are given.

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


class _Form(NamedTuple):
    """Files of one of the published forms."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    n_classes: int
    is_binary: bool

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


_FORMS = (
    _Form(
        "CIFAR-10", "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch", "batches.meta", 10, False,
    ),
    _Form("CIFAR-100", "cifar-100-python", ("train",), "test", "meta", 100, False),
    _Form(
        "CIFAR-10", "cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin", "batches.meta.txt", 10, True,
    ),
    _Form(
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
    """Open the training images, long-tailed if wanted, and the test images.

    Args:
        path: cifar-10-python.tar.gz, cifar-100-python.tar.gz, the binary archives, or a folder
            with an unpacked archive.
        imb_ratio: ratio of the largest class to the smallest, for example 100 or 0.01; 1 keeps
            all. The test images are not changed.
        profile: "exponential" or "step", see `long_tail_counts`.
        seed: random seed of the long tail.
    """
    form, files = _load(Path(path))
    names = _names(form, files[form.meta], path)
    parts = [_read(form, files[name], f"{name} of {path}") for name in form.train]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    test_images, test_labels = _read(form, files[form.test], f"{form.test} of {path}")
    if imb_ratio != 1:
        counts = np.bincount(labels, minlength=len(names))
        wanted = long_tail_counts(len(names), int(counts.min()), imb_ratio, profile)
        stay = long_tail(labels, wanted, seed)
        images, labels = images[stay], labels[stay]
    where = f"{form.name} in {path}"
    return (
        ClassifiedImages(ArrayImages(images, where), labels, names),
        ClassifiedImages(ArrayImages(test_images, where), test_labels, names),
    )


def _load(path: Path) -> tuple[_Form, dict[str, bytes]]:
    """Return the form, and the content of its files by name."""
    if path.is_dir():
        content = _read_folder(path)
    elif path.is_file():
        with decoding(f"CIFAR as published in {path}"):
            content = _read_archive(path)
    else:
        raise ValueError(f"Expected a CIFAR archive or folder, got {path}, which does not exist.")
    for form in _FORMS:
        places = {name: f"{form.folder}/{name}" for name in form.files}
        if places[form.train[0]] not in content:
            continue
        missing = [name for name, place in places.items() if place not in content]
        if missing:
            raise ValueError(
                f"Expected {', '.join(missing)} in {path}, got none; the archive is not whole, "
                "download it again."
            )
        return form, {name: content[place] for name, place in places.items()}
    folders = ", ".join(form.folder for form in _FORMS)
    raise ValueError(f"Expected one of {folders} in {path}, got something else.")


def _read_folder(path: Path) -> dict[str, bytes]:
    for form in _FORMS:
        for folder in (path, path / form.folder):
            if not (folder / form.train[0]).is_file():
                continue
            files = [folder / name for name in form.files if (folder / name).is_file()]
            total = sum(file.stat().st_size for file in files)
            if total > _LARGEST:
                raise ValueError(
                    f"Expected {folder} to hold at most {_LARGEST:,} bytes, got {total:,}."
                )
            return {f"{form.folder}/{file.name}": file.read_bytes() for file in files}
    return {}


class _Limited(io.RawIOBase):
    """Reader with a limit, so that a small file cannot become a huge one."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.n_left = file, _LARGEST

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.n_left:
            raise ValueError(f"more than {_LARGEST:,} bytes when unpacked")
        block = self.file.read(size)
        self.n_left -= len(block)
        return block

    def readable(self) -> bool:
        return True


def _read_archive(path: Path) -> dict[str, bytes]:
    wanted = {f"{form.folder}/{name}" for form in _FORMS for name in form.files}
    content: dict[str, bytes] = {}
    with path.open("rb") as raw:
        is_packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if is_packed else raw
        limited = _Limited(stream)
        with tarfile.open(fileobj=limited, mode="r|") as archive:
            for i, member in enumerate(archive):
                name = str(PurePosixPath(member.name))
                if i >= _MOST_FILES:
                    raise ValueError(f"more than {_MOST_FILES} files")
                if member.size > limited.n_left:
                    raise ValueError(f"more than {_LARGEST:,} bytes when unpacked")
                if member.issparse():  # bytes that are declared, not stored
                    raise ValueError(f"{member.name}, which has holes")
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{member.name}, which is a link or a device, no file")
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"{member.name}, a name that leads out of the archive")
                if not member.isfile() or name not in wanted:
                    continue
                if name in content:
                    raise ValueError(f"{name} twice")
                file = archive.extractfile(member)
                assert file is not None
                content[name] = file.read()
                if len(content[name]) != member.size:
                    raise ValueError(f"{name} cut short")
    return content


# the content of a file


def _names(form: _Form, content: bytes, path: object) -> tuple[str, ...]:
    with decoding(f"CIFAR as published in {form.meta} of {path}"):
        if form.is_binary:
            names = content.decode().split()
        else:
            key = "label_names" if form.n_classes == 10 else "fine_label_names"
            names = [_text(name) for name in _unpickled(content)[key]]
        if len(names) != form.n_classes:
            raise ValueError(f"{len(names)} names for {form.n_classes} classes")
    return tuple(names)


def _read(form: _Form, content: bytes, place: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return (N, 3, 32, 32) images and (N,) labels."""
    with decoding(f"CIFAR as published in {place}"):
        flat, label = _records(form, content) if form.is_binary else _batch(form, content)
        if flat.dtype != np.uint8 or flat.shape != (len(label), _PIXELS):
            raise ValueError(
                f"{len(label)} labels and pixels {flat.shape} of {flat.dtype}, not "
                f"{_PIXELS} bytes an image"
            )
        if len(label) == 0:
            raise ValueError("no image")
        if label.min() < 0 or label.max() >= form.n_classes:
            raise ValueError(f"labels from {label.min()} to {label.max()}")
    return flat.reshape(-1, 3, SIDE, SIDE), label


def _records(form: _Form, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    n_labels = 1 if form.n_classes == 10 else 2  # the coarse one comes first
    if len(content) % (n_labels + _PIXELS):
        raise ValueError(f"{len(content)} bytes, no whole number of images")
    rows = np.frombuffer(content, np.uint8).reshape(-1, n_labels + _PIXELS)
    return np.ascontiguousarray(rows[:, n_labels:]), rows[:, n_labels - 1].astype(np.int64)


def _batch(form: _Form, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    stored = _unpickled(content)
    labels = stored["labels" if form.n_classes == 10 else "fine_labels"]
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("labels that are no list of whole numbers")
    data = stored["data"]
    if not isinstance(data, _Array):
        raise ValueError(f"data that are {type(data).__name__}, no array")
    return data.pixels(), np.array(labels, np.int64)


class _Array:
    """Array in a pickle."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        """Return the array; refuse other types than bytes."""
        _, shape, kind, is_fortran, content = self.state
        is_bytes = isinstance(kind, _Kind) and kind.code in ("u1", b"u1")
        if not (is_bytes and isinstance(content, bytes) and len(shape) == 2):
            raise ValueError("an array of something else than bytes")
        flat = np.frombuffer(content, np.uint8)
        return np.ascontiguousarray(flat.reshape(shape, order="F" if is_fortran else "C"))


class _Kind:
    """Type of an array in a pickle."""

    __slots__ = ("code",)

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment mean nothing to single bytes


class _Latin:
    """Bytes as Python 3 writes them for Python 2."""

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


# the implementation in Python: its memo is a dictionary, so a false size costs no memory
class _Reader(pickle._Unpickler):
    """Unpickler that knows four names, none of which runs anything."""

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
