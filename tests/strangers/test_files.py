"""Opening files that anybody made: nothing runs, nothing else is read, no memory for bombs."""

from __future__ import annotations

import _codecs
import copy
import gzip
import hashlib
import io
import pickle
import re
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.cli import main
from dense_imb.data.events import formats
from dense_imb.data.events.sensors import read_sensors
from dense_imb.data.images.folders import (
    count_channels,
    dimensions_of,
    orientation_of,
    read_image,
)
from dense_imb.data.images.instances import label_instances
from dense_imb.data.images.labelled import open_labelled
from dense_imb.data.images.sources import HDF5Source, is_labelled_file
from dense_imb.data.images.unlabelled import open_unlabelled
from dense_imb.data.labels.cifar import open_cifar
from dense_imb.data.labels.tables import open_table, read_colours
from dense_imb.data.values.sources import HDF5Values
from dense_imb.engine.checkpoint import digest_of, load_checkpoint
from dense_imb.hits import Events, Geometry, HitsWriter, open_hits
from dense_imb.hits.frames import rasterise, visible
from dense_imb.statistics import ClassStatistics
from tests.strangers.watch import nothing_but

_MEMORY = 1 << 26  # bytes that a refusal may take


def refused(place: Path, sentence: str, read: Callable[[], object]) -> None:
    """Check that `read` refuses, runs nothing, and takes little memory."""
    tracemalloc.start()
    try:
        with nothing_but(place), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(ValueError, match=sentence) as problem:
                read()
        assert tracemalloc.get_traced_memory()[1] < _MEMORY
    finally:
        tracemalloc.stop()
    assert "\n" not in str(problem.value)


# pictures

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
{ } loop
"""


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_bomb(path: Path) -> None:
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def small_png_bomb(path: Path) -> None:
    size = struct.pack(">IIBBBBB", 11, 8_388_622, 4, 0, 0, 0, 0)
    data = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(200))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def tiff_bomb(path: Path) -> None:
    tags = [(256, 60_000), (257, 60_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, 60_000), (279, 100)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))


def bmp_bomb(path: Path) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 200, 0, 0, 54) + head + bytes(100))


READERS: dict[str, Callable[[Path], object]] = {
    "read_image": read_image,
    "read_volume": lambda path: read_image(path, is_volume=True),
    "dimensions_of": dimensions_of,
    "count_channels": lambda path: count_channels([path]),
    "read_colours": read_colours,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_no_picture_goes_to_another_program(tmp_path, suffix, reader):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(EPS)
    sentence = "Expected .*a file of another kind, or a damaged one"
    refused(tmp_path, sentence, lambda: READERS[reader](path))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bomb", [png_bomb, tiff_bomb, bmp_bomb])
def test_a_picture_is_refused_by_the_size_that_it_declares(tmp_path, bomb, reader):
    path = tmp_path / "a.png"
    bomb(path)
    refused(tmp_path, r"(exceeds limit|it declares 60000 x 60000)", lambda: READERS[reader](path))


@pytest.mark.parametrize("reader", READERS)
def test_a_png_is_refused_that_is_too_small_for_its_pixels(tmp_path, reader):
    path = tmp_path / "a.png"
    small_png_bomb(path)
    sentence = "it declares 11 x 8388622 pixels, more than so small a file can hold"
    refused(tmp_path, sentence, lambda: READERS[reader](path))


def test_commands_refuse_pictures_of_other_programs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for stem in "ab":
            (tmp_path / name / f"{stem}.png").write_bytes(EPS)
    (tmp_path / "t.csv").write_text("image,label\na.png,0\nb.png,1\n")
    with nothing_but(tmp_path):
        assert main(["inspect", "images", "--masks", "masks"]) == 2
        assert main(["train", "images", "--out", "run", "--images.train", "images",
                     "--images.masks", "masks", "--loss", "FocalLoss"]) == 2  # fmt: skip
        assert main(["train", "labels", "--out", "run", "--labels.train", "t.csv",
                     "--labels.images", "images", "--loss", "FocalLoss"]) == 2  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert sum("a file of another kind" in line for line in lines) == 3


# masks


@pytest.mark.parametrize("value", [100_000_000, 2**31 - 1])
def test_a_large_mask_value_takes_no_memory(tmp_path, value):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "images" / "a.npy", np.zeros((4, 4), np.uint8))
    mask = np.zeros((4, 4), np.int32)
    mask[0, 0] = value
    np.save(tmp_path / "masks" / "a.npy", mask)
    folders = [str(tmp_path / name) for name in ("images", "masks")]
    refused(tmp_path, "to hold labels", lambda: open_labelled(*folders))
    assert main(["inspect", folders[0], "--masks", folders[1]]) == 2
    tracemalloc.start()
    assert label_instances(mask).max() == 1
    assert label_instances(mask, ignore_index=value).max() == 0
    assert tracemalloc.get_traced_memory()[1] < _MEMORY
    tracemalloc.stop()


# arrays


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (open, ("/tmp/ran", "w"))


def with_holes(path: Path, shape: tuple[int, ...]) -> None:
    """Write a .npy of a huge shape that takes no room on the disk."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + 4 * int(np.prod(shape)))


@pytest.mark.parametrize(
    "read",
    [
        read_image,
        dimensions_of,
        formats.npy_source,
        lambda path: read_sensors(path, "m"),
        lambda path: open_unlabelled(path, n_channels=1, spatial_dims=2).image(0),
    ],
)
def test_hostile_arrays_are_refused(tmp_path, read):
    path = tmp_path / "a.npy"
    with_holes(path, (40_000, 40_000))
    refused(tmp_path, "to be stored whole, got 6,400.0 MB declared", lambda: read(path))
    np.save(path, np.array([Evil()], object), allow_pickle=True)
    refused(tmp_path, "Expected", lambda: read(path))
    path.write_bytes(pickle.dumps(Evil()))
    refused(tmp_path, "Expected", lambda: read(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"")
    refused(tmp_path, "an archive of several", lambda: read(path))


def test_hostile_bundles_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"frames": Evil()}, path)
    refused(tmp_path, "could run any code", lambda: formats.pt_source(path))
    torch.save({"frames": torch.zeros(1).expand(10, 30_000, 30_000)}, path)
    refused(tmp_path, "to be stored whole", lambda: formats.pt_source(path))
    path = tmp_path / "a.npz"
    np.savez(path, frames=np.array([Evil()], object))
    refused(tmp_path, "without objects", lambda: formats.npz_source(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        shape = {"descr": "<f4", "fortran_order": False, "shape": (1, 50_000, 50_000)}
        np.lib.format.write_array_header_1_0(head, shape)
        archive.writestr("frames.npy", head.getvalue() + bytes(100))
    refused(tmp_path, "to be stored whole", lambda: formats.npz_source(path))


class Calls:
    """Pickled as a call of a function that torch allows."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def repacked(path: Path, method: int, n_bytes: int = 0) -> None:
    """Write a bundle whose records are packed, with a tensor of more bytes than it declares."""
    buffer = io.BytesIO()
    torch.save({"frames": torch.ones(3, 4, 4)}, buffer)
    source = zipfile.ZipFile(buffer)
    with zipfile.ZipFile(path, "w", method) as archive:
        for record in source.infolist():
            is_tensor = record.filename.endswith("data/0")
            content = bytes(n_bytes) if is_tensor and n_bytes else source.read(record)
            archive.writestr(record.filename, content)


def overlapping(path: Path) -> None:
    """Write a bundle whose directory names the same bytes many times."""
    repacked(path, zipfile.ZIP_STORED, 1 << 20)
    with zipfile.ZipFile(path, "a") as archive:
        whole = next(one for one in archive.infolist() if one.filename.endswith("data/0"))
        for number in range(1, 2000):
            again = copy.copy(whole)
            again.filename = again.orig_filename = whole.filename[:-1] + str(number)
            archive.filelist.append(again)
        archive._didModify = True


def nested_hex(path: Path) -> None:
    """Write a bundle of bytes that double forty times as they are unpickled."""
    content: Any = b"x"
    for _ in range(40):
        content = Calls(_codecs.encode, content, "Hex_Codec")
    torch.save({"frames": torch.ones(3, 4, 4), "more": content}, path)


def many_bytes(path: Path) -> None:
    """Write a bundle that makes a terabyte as it is unpickled."""
    torch.save({"frames": torch.ones(3, 4, 4), "more": Calls(bytearray, 10**12)}, path)


def expanded(path: Path) -> None:
    """Write a bundle that copies an expanded tensor as it is unpickled."""
    tensor = torch.zeros(1, dtype=torch.uint8).expand(10**12)
    copied = Calls(
        torch._utils._rebuild_device_tensor_from_cpu_tensor, tensor, torch.float64, "cpu", False
    )
    torch.save({"frames": torch.ones(3, 4, 4), "more": copied}, path)


BUNDLES = {
    "deflated": (partial(repacked, method=zipfile.ZIP_DEFLATED), "the compressed record .*data"),
    "deflated bomb": (
        partial(repacked, method=zipfile.ZIP_DEFLATED, n_bytes=1 << 24),
        "the compressed record",
    ),
    "bzip2": (partial(repacked, method=zipfile.ZIP_BZIP2), "the compressed record"),
    "overlapping": (overlapping, "records larger than the file"),
    "nested hex": (nested_hex, "bytes beside the text 'Hex_Codec'"),
    "bytearray": (many_bytes, "a call that makes bytes"),
    "expanded": (expanded, "a call that makes bytes"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_that_grow_are_refused_before_torch_reads_them(tmp_path, name, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch read the file"))
    write, sentence = BUNDLES[name]
    path = tmp_path / "a.pt"
    write(path)
    refused(tmp_path, f"Expected .*{sentence}", lambda: formats.pt_source(path))
    assert main(["convert", str(path), str(tmp_path / "a.h5")]) == 2
    digest_of(path).write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    refused(
        tmp_path, f"Expected a dense_imb checkpoint .*{sentence}", lambda: load_checkpoint(path)
    )


def test_bundles_with_bytes_are_read(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"frames": torch.ones(3, 4, 4), "more": b"bytes"}, path)
    assert formats.pt_source(path).n_events == 3


# NIfTI


def nifti(path: Path, **changes: object) -> Path:
    nibabel = pytest.importorskip("nibabel")
    kind = nibabel.Nifti2Header if changes.pop("two", False) else nibabel.Nifti1Header
    header = kind()
    header.set_data_shape(changes.pop("shape", (4, 4, 4)))
    header.set_data_dtype(np.float32)
    header["magic"] = b"n+2" if kind is nibabel.Nifti2Header else b"n+1"
    for name, value in {"vox_offset": header.single_vox_offset, **changes}.items():
        header[name] = value
    content = header.binaryblock + bytes(4)
    content += bytes(4 * 64)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


NIFTI = {
    "voxels": ({"shape": (30_000, 30_000, 30_000)}, "it declares 30000 x 30000 x 30000 voxels"),
    "not stored": ({"shape": (500, 500, 500)}, "to be stored whole, got 500.0 MB declared"),
    "far away": ({"vox_offset": 1e12}, r"it declares 1e\+12 bytes before its voxels"),
    "not a number": ({"vox_offset": np.nan}, "it declares nan bytes before its voxels"),
    "XML": ({"two": True, "intent_code": 3000}, "CIFTI"),
}


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("name", NIFTI)
def test_hostile_nifti_is_refused(tmp_path, name, suffix):
    changes, sentence = NIFTI[name]
    path = nifti(tmp_path / f"a.{suffix}", **changes)
    for read in (dimensions_of, orientation_of, lambda path: read_image(path, is_volume=True)):
        refused(tmp_path, sentence, lambda read=read: read(path))


def test_nifti_of_another_kind_is_refused(tmp_path):
    pytest.importorskip("nibabel")
    for name, content in (("a.nii", EPS), ("b.nii.gz", gzip.compress(b"x")), ("c.nii.gz", b"x")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, "Expected an image in", lambda n=name: dimensions_of(tmp_path / n))
    assert dimensions_of(nifti(tmp_path / "d.nii.gz")) == 3
    assert read_image(nifti(tmp_path / "e.nii", two=True), is_volume=True).shape == (4, 4, 4)


# HDF5


def external_link(file: h5py.File, name: str, secret: Path) -> None:
    file[name] = h5py.ExternalLink(str(secret), f"/{name}")


def soft_link(file: h5py.File, name: str, secret: Path) -> None:
    file["elsewhere"] = np.zeros((2, 4, 4), np.uint8)
    file[name] = h5py.SoftLink("/elsewhere")


def virtual(file: h5py.File, name: str, secret: Path) -> None:
    layout = h5py.VirtualLayout((2, 4, 4), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), name, (2, 4, 4))
    file.create_virtual_dataset(name, layout)


def external_storage(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, (2, 4, 4), np.uint8, external=[(str(secret), 0, 32)])


def declared(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, (2, 1 << 14, 1 << 14), np.uint8, chunks=(1, 64, 64))


def packed(file: h5py.File, name: str, secret: Path) -> None:
    shape = (2, 1 << 15, 1 << 15)
    file.create_dataset(name, shape, np.uint8, chunks=shape, compression="gzip")


@pytest.mark.parametrize("name", ["image", "mask"])
@pytest.mark.parametrize(
    "change", [external_link, soft_link, virtual, external_storage, declared, packed]
)
def test_hostile_hdf5_is_refused(tmp_path, change, name):
    secret, path = tmp_path / "secret.h5", tmp_path / "inner" / "a.h5"
    path.parent.mkdir()
    with h5py.File(secret, "w") as file:
        for one in ("image", "mask", "target"):
            file[one] = np.ones((2, 4, 4), np.uint8)
    with h5py.File(path, "w") as file:
        for one in {"image", "mask", "target"} - {name}:
            file[one] = np.zeros((2, 4, 4), np.uint8)
        change(file, name, secret)
    sentence = "stored (in place|whole)|in chunks of at most"
    for read in (
        HDF5Source,
        HDF5Values,
        formats.hdf5_frames_source,
        formats.hdf5_hits_source,
        open_labelled,
        lambda path: open_unlabelled(path, n_channels=1, spatial_dims=2),
    ):
        refused(path.parent, sentence, lambda read=read: read(path))
    refused(path.parent, "Expected", lambda: open_hits(path))
    with nothing_but(path.parent):
        assert is_labelled_file(path)
        assert main(["inspect", str(path)]) == 2
        assert main(["compare", str(path), "--out", str(path.parent / "out")]) == 2


# archives, tables and statistics


def tar(path: Path, **pax: str) -> Path:
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 10
    member.pax_headers = pax
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(bytes(10)))
    return path


def test_an_archive_that_declares_too_much_is_refused(tmp_path):
    path = tar(tmp_path / "cifar.tar", size=str(10**14))
    assert path.stat().st_size < 10**14
    refused(tmp_path, "more than 536,870,912 bytes when unpacked", lambda: open_cifar(path))
    sparse = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 28),
        "GNU.sparse.name": "cifar-10-batches-py/test",
    }
    path = tar(tmp_path / "holes.tar", **sparse)
    refused(tmp_path, "which has holes", lambda: open_cifar(path))


def test_hits_of_a_huge_frame_are_refused(tmp_path):
    frame = Geometry(65536, 65536, 10)
    events = Events(frame, np.array([0, 1]), *np.ones((3, 1), np.uint16))
    path = tmp_path / "a.h5"
    with HitsWriter(path, frame) as writer:
        writer.append(events)
    sentence = "frames of at most 268,435,456 pixels, got 65536 x 65536"
    refused(tmp_path, sentence, lambda: visible(events))
    refused(tmp_path, sentence, lambda: rasterise(events))
    assert main(["inspect", str(path)]) == 2


def test_large_frames_take_memory_for_a_few_events_at_a_time():
    frame = Geometry(2048, 2048, 10)
    n = 64
    events = Events(frame, np.arange(n + 1), *np.ones((3, n), np.uint16))
    few = [events[k : k + 1] for k in range(n)]
    assert visible(events).tolist() == [bool(visible(one)) for one in few]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_tables_name_files_of_their_folder(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "t.csv").write_text(f"image,label\n{name},0\n{name},1\n")
    refused(inner, "file names inside", lambda: open_table(inner / "t.csv"))


def test_statistics_of_more_classes_than_their_file_holds_are_refused(tmp_path):
    path = tmp_path / "statistics.json"
    ClassStatistics(2).save(path)
    path.write_text(re.sub(r'"n_classes": 2', '"n_classes": 1000000000', path.read_text()))
    refused(tmp_path, "Expected class statistics", lambda: ClassStatistics.load(path))
