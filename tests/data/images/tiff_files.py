"""TIFF files of one page, as programs other than Pillow write them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KIND = {"u": 1, "i": 2, "f": 3}  # SampleFormat
BLACK_IS_0, WHITE_IS_0, RGB, CIELAB = 1, 0, 2, 8  # PhotometricInterpretation


def write_tiff(
    path: Path,
    pixels: NDArray[Any],
    *,
    order: str = "<",
    meaning: int = BLACK_IS_0,
    bits: int | None = None,
    orientation: int = 1,
) -> Path:
    """Write pixels (H, W) or (H, W, channels) without compression.

    Args:
        path: the file.
        pixels: the values; bytes of packed values with `bits` below 8.
        order: "<" or ">".
        meaning: PhotometricInterpretation.
        bits: bits of a value, if not those of the type.
        orientation: orientation, 1 to 8.
    """
    height, width, *channels = pixels.shape
    n = channels[0] if channels else 1
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if bits is not None:
        width = width * 8 // bits
    tags: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 4, (width,)), (257, 4, (height,)), (258, 3, (bits or 8 * pixels.itemsize,) * n),
        (259, 3, (1,)), (262, 3, (meaning,)), (273, 4, (0,)), (274, 3, (orientation,)),
        (277, 3, (n,)), (278, 4, (height,)), (279, 4, (len(data),)),
        (339, 3, (KIND[pixels.dtype.kind],) * n),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    extra = b""
    entries = struct.pack(f"{order}H", len(tags))
    begin = start + sum(2 * len(values) for _, _, values in tags if len(values) > 2)
    for tag, kind, values in tags:
        values = (begin,) if tag == 273 else values
        packed = struct.pack(f"{order}{len(values)}{'HI'[kind == 4]}", *values)
        if len(packed) > 4:
            extra += packed
            packed = struct.pack(f"{order}I", start + len(extra) - len(packed))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    path.write_bytes(head + entries + struct.pack(f"{order}I", 0) + extra + data)
    return path


def random_pixels(dtype: str, shape: tuple[int, ...] = (4, 6)) -> NDArray[Any]:
    """Return pixels over the whole range of a type."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    pixels = rng.integers(limits.min, limits.max, shape, dtype=np.dtype(dtype), endpoint=True)
    pixels.flat[:2] = limits.min, limits.max
    return pixels
