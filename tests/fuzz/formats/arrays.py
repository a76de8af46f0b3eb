"""Arrays: NPY, NPZ, PT."""

from __future__ import annotations

import io
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dense_imb.data.events.formats import npy_source, npz_hits_source, npz_source, pt_source
from dense_imb.data.events.formats.arrays import has_flat_arrays
from dense_imb.data.images.folders import dimensions_of, read_image
from tests.fuzz.format import Format, of_bytes, truncate
from tests.fuzz.formats.hdf5 import converted
from tests.fuzz.mutate import NUMBERS, TEXTS, mutated_bytes, mutated_text

_TYPES = ("<u1", ">u4", "<i8", "<f2", ">f8", "<c8", "|O", "|S3", "<U2", "<M8[s]", "|b1", "|V4")


def frames(rng: np.random.Generator) -> Any:
    """Return frames of hit times."""
    return rng.integers(0, 9, (5, 8, 7)) * (rng.random((5, 8, 7)) > 0.6)


def make_npy(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("u1", "<u2", ">u2", "<f4"):
        np.save(
            folder / f"{dtype.replace('<', 'l').replace('>', 'b')}.npy", frames(rng).astype(dtype)
        )


def read_npy_volume(path: Path) -> Any:
    """Read an array as an image of three dimensions."""
    return dimensions_of(path), read_image(path, is_volume=True)


def read_npy_frames(path: Path) -> Any:
    """Convert frames."""
    return converted(npy_source(path), path)


def change_rows(rng: random.Random, path: Path) -> bool:
    """Change the number of bytes behind the header, which declares it."""
    data = path.read_bytes()
    rows, n = data[128:], len(data) - 128
    while len(rows) == n:
        rows = mutated_bytes(rng, data[128:])
    path.write_bytes(data[:128] + rows)
    return True


def change_npy_header(rng: random.Random, path: Path) -> bool:
    """Change the text of the header of a .npy file."""
    path.write_bytes(_with_header(rng, path.read_bytes()))
    return False


def _with_header(rng: random.Random, data: bytes) -> bytes:
    """Return a .npy file with another header, of the length that it declares."""
    end = data.index(b"\n") + 1
    text = data[10:end].decode("latin-1").rstrip()
    change = rng.random()
    if change < 0.3:
        shape = ", ".join(str(rng.choice((*NUMBERS[:22], 5, 8))) for _ in range(rng.randrange(5)))
        text = re.sub(r"'shape': \(.*?\)", lambda match: f"'shape': ({shape})", text)
    elif change < 0.6:
        new = f"'descr': {rng.choice(_TYPES)!r}"
        text = re.sub(r"'descr': '.*?'", lambda match: new, text)
    elif change < 0.7:
        text = text.replace("False", rng.choice(("True", "2", "None")))
    else:
        text = mutated_text(rng, text)[: 1 << 16]
    header = text.encode("utf-8", "replace")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    version = rng.choice((1, 1, 1, 2, 3, 9))
    if version == 1:
        size = (len(header) % 65536).to_bytes(2, "little")
    else:
        size = rng.choice((len(header), 0, 2**31, 2**32 - 1)).to_bytes(4, "little")
    return data[:6] + bytes((version, 0)) + size + header + data[end:]


def make_npz(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "frames.npz", frames=frames(rng).astype(np.uint16))
    np.savez_compressed(folder / "packed.npz", frames=frames(rng).astype(np.uint16))
    columns = {"x": rng.integers(0, 20, 60), "y": rng.integers(0, 20, 60)}
    columns |= {"t": rng.integers(1, 50, 60), "label": rng.integers(0, 2, 60)}
    np.savez(folder / "hits.npz", offset=np.arange(0, 61, 6), charge=rng.random(60), **columns)


def read_npz(path: Path) -> Any:
    """Convert the arrays of an archive."""
    if has_flat_arrays(path):
        return converted(npz_hits_source(path), path, width=20, height=20)
    return converted(npz_source(path), path)


def change_members(rng: random.Random, path: Path) -> bool:
    """Change, lose, repeat or rename the members of an archive, whose checksums are right."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    k, j = rng.randrange(len(members)), rng.randrange(len(members))
    name, data = members[k]
    change = rng.randrange(6)
    if change == 0:
        del members[k]
    elif change == 1:
        members.append(members[k])
    elif change == 2:
        members[k], members[j] = (name, members[j][1]), (members[j][0], data)
    elif change == 3:
        new = rng.choice(TEXTS).strip("\0\ud800") + rng.choice(("", ".npy"))
        members[k] = (new or "x", data)
    elif change == 4 and name.endswith(".npy"):
        members[k] = (name, _with_header(rng, data))
    else:
        members[k] = (name, mutated_bytes(rng, data, header=128))
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)
    path.write_bytes(content.getvalue())
    return False


def make_pt(folder: Path) -> None:
    rng = np.random.default_rng(0)
    tensor = torch.from_numpy(frames(rng))
    torch.save(tensor.float(), folder / "tensor.pt")
    torch.save({"frames": tensor.to(torch.int16)}, folder / "bundle.pt")
    torch.save({"a": tensor.half(), "b": [1, "x"]}, folder / "more.pt")


def read_pt(path: Path) -> Any:
    """Convert the tensors of a bundle."""
    return converted(pt_source(path), path)


def change_records(rng: random.Random, path: Path) -> bool:
    """Change the records of a bundle, whose checksums are right; or save other objects."""
    if rng.random() < 0.7 and zipfile.is_zipfile(path):
        return change_members(rng, path)
    tensor = torch.arange(12.0).reshape(2, 3, 2)
    kinds = (torch.complex64, torch.bool, torch.float64, torch.bfloat16, torch.uint16,
             torch.uint64, torch.float8_e5m2, torch.int8)  # fmt: skip
    made = rng.choice((
        lambda: tensor.to(rng.choice(kinds)),
        lambda: torch.full((2, 3, 2), float(rng.choice(NUMBERS)), dtype=torch.float64).float(),
        lambda: {rng.choice(TEXTS): tensor, rng.choice(NUMBERS): tensor},
        lambda: tensor.to_sparse(),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8),
        lambda: tensor.expand(50, 4, 2, 3, 2),
        lambda: tensor.to("meta"),
        lambda: torch.nested.nested_tensor([tensor, tensor[:1]]),
        lambda: {"frames": tensor, "more": {"x": [tensor]}},
        lambda: rng.choice((None, [tensor], "x", {}, {"frames": 3})),
        lambda: torch.nn.Parameter(tensor),
        lambda: tensor[:, :0],
        lambda: tensor[None, None],
        lambda: tensor.transpose(0, 2),
        lambda: tensor[0, 0, 0],
    ))  # fmt: skip
    torch.save(made(), path)
    return False


FORMATS = {
    "NPY": Format(
        make_npy,
        (read_npy_volume, read_npy_frames),
        (of_bytes(sealed=False, header=128), truncate, change_rows, change_npy_header),
    ),
    "NPZ": Format(
        make_npz, (read_npz,), (of_bytes(sealed=True, header=64), change_members, change_members)
    ),
    "PT": Format(make_pt, (read_pt,), (of_bytes(sealed=True), change_records)),
}
