"""Pictures and volumes: PNG, TIFF, JPEG, BMP, NIfTI."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_imb.data.images.folders import (
    count_channels,
    dimensions_of,
    orientation_of,
    read_image,
)
from dense_imb.data.labels.tables import read_colours
from tests.fuzz.format import Format, of_bytes, truncate
from tests.fuzz.mutate import NUMBERS, mutated_bytes


def read_as_image(path: Path) -> Any:
    """Read an image, and its channels from the header."""
    return read_image(path), count_channels([path])


def read_as_mask(path: Path) -> Any:
    """Read the indices of a palette."""
    return read_image(path, as_indices=True)


def read_as_volume(path: Path) -> Any:
    """Read all pages."""
    return read_image(path, is_volume=True), dimensions_of(path)


def pixels() -> dict[str, Any]:
    """Return pictures of several modes."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (14, 11), np.uint8)
    colour = Image.fromarray(rng.integers(0, 255, (14, 11, 3), np.uint8))
    return {
        "grey": Image.fromarray(grey),
        "colour": colour,
        "deep": Image.fromarray(rng.integers(0, 65535, (14, 11), np.uint16)),
        "bits": Image.fromarray(grey > 100),
        "palette": colour.quantize(8),
    }


def make_png(folder: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for name, picture in pixels().items():
        picture.save(folder / f"{name}.png", **({"exif": exif} if name == "colour" else {}))


def make_tiff(folder: Path) -> None:
    packed = {"grey": "tiff_lzw", "colour": "tiff_deflate", "deep": None, "bits": "group4"}
    for name, picture in pixels().items():
        picture.save(folder / f"{name}.tif", compression=packed.get(name))
    pages = [pixels()["grey"]] * 3
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])


def make_other(folder: Path) -> None:
    for name in ("grey", "colour"):
        pixels()[name].save(folder / f"{name}.jpg", quality=90)
    pixels()["colour"].save(folder / "progressive.jpg", progressive=True)
    for name in ("grey", "palette"):  # Pillow tells the format by the content
        pixels()[name].save(folder / f"{name}.png", "BMP")


def change_chunks(rng: random.Random, path: Path) -> bool:
    """Change, lose, repeat or swap the chunks of a PNG; their checksums are right."""
    data, chunks, place = path.read_bytes(), [], 8
    while place < len(data):
        (n,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + n]))
        place += n + 12
    k, j = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    kind, content = chunks[k]
    change = rng.randrange(6)
    if change == 0:
        del chunks[k]
    elif change == 1:
        chunks.insert(j, chunks[k])
    elif change == 2:
        chunks[k], chunks[j] = chunks[j], chunks[k]
    elif change == 3:
        new = rng.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"IDAT"))
        chunks.insert(max(k, 1), (new, rng.randbytes(rng.choice((0, 1, 6, 26, 300)))))
    else:
        chunks[k] = (kind, mutated_bytes(rng, content, header=16))
    path.write_bytes(data[:8] + b"".join(_chunk(*one) for one in chunks))
    return False


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def change_tags(rng: random.Random, path: Path) -> bool:
    """Change an entry of a directory of a TIFF: tag, type, count, or value."""
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack("<I", data[4:8])
    for _ in range(rng.choice((1, 1, 2))):
        (n,) = struct.unpack("<H", data[place : place + 2])
        entry = place + 2 + 12 * rng.randrange(max(n, 1))
        field, kind = rng.choice(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<H")))
        most = 2 ** (8 * struct.calcsize(kind))
        values = (rng.choice(NUMBERS[:22]), rng.randrange(256, 340), rng.randrange(20))
        with contextlib.suppress(struct.error):
            struct.pack_into(kind, data, entry + field, int(rng.choice(values)) % most)
    path.write_bytes(data)
    return False


def make_nifti(folder: Path) -> None:
    import nibabel

    rng = np.random.default_rng(0)
    for name, kind in (("a.nii.gz", nibabel.Nifti1Image), ("b.nii.gz", nibabel.Nifti2Image)):
        image = kind(rng.integers(0, 1000, (9, 8, 7)).astype(np.int16), np.diag([2.0, 2, 3, 1]))
        image.header.set_slope_inter(2.0, 1.0)
        image.to_filename(folder / name)
        data = gzip.decompress((folder / name).read_bytes())
        (folder / name.removesuffix(".gz")).write_bytes(data)


def read_volume(path: Path) -> Any:
    """Read a volume as `inspect` does."""
    return dimensions_of(path), orientation_of(path), read_image(path, is_volume=True)


def change_header(rng: random.Random, path: Path) -> bool:
    """Change a field of the header of NIfTI, also inside of gzip."""
    import nibabel

    data = path.read_bytes()
    plain = gzip.decompress(data) if path.suffix == ".gz" else data
    kind = nibabel.Nifti1Header if plain[:1] == b"\x5c" else nibabel.Nifti2Header
    size = kind.template_dtype.itemsize
    header = kind(plain[:size], check=False)
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice([*header.keys(), "dim", "datatype", "bitpix", "vox_offset", "magic"])
        field = header[name]
        with contextlib.suppress(Exception), np.errstate(all="ignore"):
            value = np.array(rng.choice((*NUMBERS, rng.randrange(20))), object)
            changed = np.array(field)
            changed.reshape(-1)[rng.randrange(changed.size)] = value.astype(float)
            header[name] = changed
    plain = header.binaryblock + plain[size:]
    path.write_bytes(gzip.compress(plain, 1) if path.suffix == ".gz" else plain)
    return False


def change_packed(rng: random.Random, path: Path) -> bool:
    """Change the bytes of NIfTI; those in gzip have a checksum."""
    path.write_bytes(mutated_bytes(rng, path.read_bytes(), header=352))
    return path.suffix == ".gz"


_PICTURES = (read_as_image, read_as_mask, read_as_volume, read_colours)
FORMATS = {
    "PNG": Format(make_png, _PICTURES, (of_bytes(sealed=True, header=64), change_chunks)),
    "TIFF": Format(
        make_tiff,
        _PICTURES,
        (of_bytes(sealed=False, header=16), truncate, change_tags, change_tags),
    ),
    "JPEG, BMP": Format(make_other, _PICTURES, (of_bytes(sealed=False, header=700), truncate)),
    "NIfTI": Format(
        make_nifti,
        (read_volume,),
        (change_packed, change_packed, truncate, change_header, change_header),
        needs=("nibabel",),
    ),
}
