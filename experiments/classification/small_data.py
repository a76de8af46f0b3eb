"""Small data in the true on-disk formats, to try the recipes without the real data.

    python experiments/classification/small_data.py small

Writes small/cifar-10-python.tar.gz (pickles as Python 2 wrote the real ones), small/table with
train.csv, test.csv and a folder of JPEG images (three classes, long-tailed), and, with --all, the
other three CIFAR archives. Each class has its own stripe pattern and colour, on
noise.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES_10 = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
]  # fmt: skip


def patterns(labels: Any, n_classes: int, side: int = 32, seed: int = 0) -> Any:
    """Draw images (N, 3, side, side) uint8 for labels (N,)."""
    rng = np.random.default_rng(seed)
    angle = np.pi * np.asarray(labels) / n_classes
    y, x = np.mgrid[:side, :side]
    phase = rng.uniform(0, 2 * np.pi, (len(angle), 1, 1))
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    wave = np.sin(2 * np.pi * along / 8 + phase)[:, None]
    hue = np.stack([np.cos(2 * angle + shift) for shift in (0, 2.1, 4.2)], 1)[:, :, None, None]
    noise = rng.normal(0, 30, (len(angle), 3, side, side))
    return (128 + 40 * wave + 12 * hue + noise).clip(0, 255).astype(np.uint8)


class Python2Pickle:
    """Protocol 2 as cPickle of Python 2 wrote it: str are bytes, arrays by numpy 1's names."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.n_kept = 0

    def keep(self) -> None:
        self.n_kept += 1
        small = self.n_kept < 256
        self.out.write(
            b"q" + bytes([self.n_kept]) if small else b"r" + struct.pack("<I", self.n_kept)
        )

    def text(self, value: bytes) -> None:
        short = len(value) < 256
        size = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        self.out.write(size + value)
        self.keep()

    def number(self, value: int) -> None:
        if 0 <= value < 256:
            self.out.write(b"K" + bytes([value]))
        elif 0 <= value < 65536:
            self.out.write(b"M" + struct.pack("<H", value))
        else:
            self.out.write(b"J" + struct.pack("<i", value))

    def array(self, value: Any) -> None:
        self.out.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.keep()
        self.out.write(b"cnumpy\nndarray\n")
        self.keep()
        self.out.write(b"K\x00\x85")
        self.text(b"b")
        self.out.write(b"\x87R(K\x01")
        for side in value.shape:
            self.number(side)
        self.out.write(b"\x86cnumpy\ndtype\n")
        self.text(b"u1")
        self.out.write(b"K\x00K\x01\x87R(K\x03")
        self.text(b"|")
        self.out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
        self.text(value.tobytes())
        self.out.write(b"tb")

    def value(self, value: Any) -> None:
        if isinstance(value, bytes):
            self.text(value)
        elif isinstance(value, list):
            self.out.write(b"]")
            self.keep()
            self.out.write(b"(")
            for one in value:
                self.value(one)
            self.out.write(b"e")
        elif isinstance(value, int):
            self.number(value)
        else:
            self.array(value)

    @classmethod
    def of(cls, content: Mapping[bytes, Any]) -> bytes:
        writer = cls()
        writer.out.write(b"\x80\x02}")
        writer.keep()
        writer.out.write(b"(")
        for key, value in content.items():
            writer.text(key)
            writer.value(value)
        writer.out.write(b"u.")
        return writer.out.getvalue()


def cifar_files(
    n_classes: int = 10, per_class: int = 50, *, binary: bool = False, seed: int = 0
) -> dict[str, bytes]:
    """Names and contents of the files of one of the four archives."""
    rng = np.random.default_rng(seed)
    n_batches = 5 if n_classes == 10 else 1
    train = rng.permutation(np.repeat(np.arange(n_classes), per_class))
    parts = [*np.array_split(train, n_batches), np.repeat(np.arange(n_classes), 4)]
    names = (
        [*(f"data_batch_{i + 1}" for i in range(5)), "test_batch"]
        if n_classes == 10
        else ["train", "test"]
    )
    folder = {
        (10, False): "cifar-10-batches-py", (10, True): "cifar-10-batches-bin",
        (100, False): "cifar-100-python", (100, True): "cifar-100-binary",
    }[n_classes, binary]  # fmt: skip
    class_names = NAMES_10 if n_classes == 10 else [f"thing_{k:02d}" for k in range(n_classes)]
    files_by_path: dict[str, bytes] = {}
    for i, (name, label) in enumerate(zip(names, parts, strict=True)):
        flat = patterns(label, n_classes, seed=seed + i).reshape(len(label), -1)
        coarse = label // 5
        if binary:
            columns = [label] if n_classes == 10 else [coarse, label]
            rows = np.concatenate([np.stack(columns, 1).astype(np.uint8), flat], 1)
            files_by_path[f"{folder}/{name}.bin"] = rows.tobytes()
            continue
        files = [f"{k:05d}.png".encode() for k in range(len(label))]
        batch_label = {b"batch_label": f"training batch {i + 1} of {n_batches}".encode()}
        labels = (
            {b"labels": label.tolist()}
            if n_classes == 10
            else {b"fine_labels": label.tolist(), b"coarse_labels": coarse.tolist()}
        )
        content = {**batch_label, **labels, b"data": flat, b"filenames": files}
        files_by_path[f"{folder}/{name}"] = Python2Pickle.of(content)
    as_lines = "".join(f"{name}\n" for name in class_names).encode()
    as_bytes = [name.encode() for name in class_names]
    if binary:
        meta = "batches.meta.txt" if n_classes == 10 else "fine_label_names.txt"
        files_by_path[f"{folder}/{meta}"] = as_lines + b"\n" * (n_classes == 10)
    elif n_classes == 10:
        meta_content = {b"num_cases_per_batch": 10000, b"label_names": as_bytes, b"num_vis": 3072}
        files_by_path[f"{folder}/batches.meta"] = Python2Pickle.of(meta_content)
    else:
        meta_content = {b"fine_label_names": as_bytes, b"coarse_label_names": as_bytes[:20]}
        files_by_path[f"{folder}/meta"] = Python2Pickle.of(meta_content)
    files_by_path[f"{folder}/readme.html"] = b"<meta HTTP-EQUIV='REFRESH'>"
    return files_by_path


def write_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar.gz with one folder."""
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo(next(iter(files)).split("/")[0])
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_table_data(
    folder: Path, counts: Sequence[int] = (60, 24, 9), n_test: int = 8, side: int = 40
) -> None:
    """train.csv, test.csv and images/*.jpg, one class for each count."""
    from PIL import Image

    names = ["nevus", "keratosis", "melanoma", "vascular"][: len(counts)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for part, seed, sizes in (("train", 0, counts), ("test", 1, [n_test] * len(counts))):
        label = np.repeat(np.arange(len(sizes)), sizes)
        lines = ["image,label"]
        for i, pixels in enumerate(patterns(label, len(sizes), side, seed)):
            name = f"{part}_{i:04d}"
            picture = Image.fromarray(np.moveaxis(pixels, 0, -1))
            picture.save(folder / "images" / f"{name}.jpg", quality=95)
            lines.append(f"{name},{names[label[i]]}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--per-class", type=int, default=60, help="images of CIFAR's classes")
    parser.add_argument("--all", action="store_true", help="all four CIFAR archives")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    forms = {"cifar-10-python": (10, False), "cifar-100-python": (100, False),
             "cifar-10-binary": (10, True), "cifar-100-binary": (100, True)}  # fmt: skip
    for name, (n_classes, binary) in forms.items():
        if options.all or name == "cifar-10-python":
            n = options.per_class if n_classes == 10 else max(options.per_class // 5, 1)
            files = cifar_files(n_classes, n, binary=binary)
            print(write_archive(options.folder / f"{name}.tar.gz", files))
    write_table_data(options.folder / "table")
    print(options.folder / "table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
