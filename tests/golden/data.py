"""Tiny data sets of all four kinds, from whole random numbers, in files without compression.

Their bytes, which the setup of a run has digests of, are the same on every machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dense_imb.hits import Events, Geometry, HitsWriter, Sensors

_CLASS_SIZES = {"nevus": 20, "keratosis": 10, "melanoma": 6}


def write_data(folder: Path) -> None:
    """Write hits.h5, sensors.h5, images, masks, labels.csv, pictures, spots, heights and parts."""
    _write_hits(folder / "hits.h5")
    _write_sensors(folder / "sensors.h5")
    _write_images(folder / "images", folder / "masks")
    _write_labels(folder / "labels.csv", folder / "pictures")
    _write_values(folder / "spots", folder / "heights", folder / "parts")


def _write_hits(path: Path, n_events: int = 24, n_hits: int = 8) -> None:
    """A diagonal streak in each event; one event in six is of the rare class 2."""
    rng = np.random.default_rng(0)
    frame = Geometry(16, 12, 100)
    step = np.arange(n_hits)
    x = rng.integers(0, frame.width - n_hits, (n_events, 1)) + step
    y = rng.integers(0, frame.height - n_hits, (n_events, 1)) + step
    t = rng.integers(1, 50, (n_events, 1)) + 5 * step
    label = np.where(np.arange(n_events) % 6 == 0, 2, 1).repeat(n_hits)
    offsets = n_hits * np.arange(n_events + 1)
    columns = (column.ravel().astype(np.uint16) for column in (x, y, t))
    with HitsWriter(path, frame) as writer:
        writer.append(Events(frame, offsets, *columns, label.astype(np.uint8)))


def _write_sensors(path: Path, n_events: int = 24, n_hits: int = 30) -> None:
    """Noise, and two kinds of charged particles near the start, in a table of 20 sensors."""
    rng = np.random.default_rng(4)
    position = rng.integers(-50, 50, (20, 3)).astype(np.float32)
    direction = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 20)]
    kind = np.tile([0] * 22 + [1] * 5 + [2] * 3, n_events).astype(np.uint8)
    n = n_events * n_hits
    time = rng.integers(-400, 400, n) // np.where(kind > 0, 16, 1)
    table = Sensors(position, direction)
    with HitsWriter(path, table) as writer:
        writer.append(
            Events(
                table,
                n_hits * np.arange(n_events + 1),
                t=time.astype(np.float32),
                label=kind,
                hit={
                    "charge": (rng.integers(0, 8, n) + 4 * kind).astype(np.float32),
                    "particle": (kind * rng.integers(1, 3, n)).astype(np.uint16),
                },
                sensor=rng.integers(0, 20, n).astype(np.uint32),
            )
        )


def _write_images(images: Path, masks: Path, n: int = 12) -> None:
    """A bright line of class 1 in each image; a brighter one of class 2 in one of three."""
    rng = np.random.default_rng(1)
    images.mkdir()
    masks.mkdir()
    for i in range(n):
        image = rng.integers(60, 120, (40, 48))
        mask = np.zeros(image.shape, np.uint8)
        for k in (1, 2) if i % 3 == 0 else (1,):
            row, start = rng.integers(2, 38), rng.integers(0, 24)
            mask[row, start : start + 24] = k
            image[row, start : start + 24] += 60 * k
        np.save(images / f"{i:02d}.npy", image.astype(np.uint8))
        np.save(masks / f"{i:02d}.npy", mask)


def _write_labels(table: Path, pictures: Path, side: int = 16) -> None:
    """Noise with stripes, of a colour for each class."""
    rng = np.random.default_rng(2)
    pictures.mkdir()
    lines = ["image,label"]
    for k, (name, count) in enumerate(_CLASS_SIZES.items()):
        for i in range(count):
            pixels = rng.integers(40, 160, (side, side, 3))
            is_bright = (np.arange(side) + rng.integers(0, side)) // (k + 1) % 2 == 0
            pixels[is_bright, :, k] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(pictures / f"{name}_{i:02d}.bmp")
            lines.append(f"{name}_{i:02d},{name}")
    table.write_text("\n".join(lines) + "\n")


def _write_values(images: Path, targets: Path, cells: Path, n: int = 12) -> None:
    """A bright spot in each image, its height, and a bit field of the spot and the upper half."""
    rng = np.random.default_rng(6)
    for folder in (images, targets, cells):
        folder.mkdir()
    for i in range(n):
        image, target = rng.integers(60, 120, (40, 48)), np.zeros((40, 48), np.float32)
        row, column, height = rng.integers(0, 36), rng.integers(0, 44), rng.integers(20, 60)
        place = np.s_[row : row + 4, column : column + 4]
        target[place] = height
        image[place] += 2 * height
        bits = (target > 0).astype(np.uint8)
        bits[:20] |= 2
        np.save(images / f"{i:02d}.npy", image.astype(np.uint8))
        np.save(targets / f"{i:02d}.npy", target)
        np.save(cells / f"{i:02d}.npy", bits)
