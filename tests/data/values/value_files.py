"""Small images with maps of rare values, in folders or in one HDF5 file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def spots(n: int, size: tuple[int, ...], seed: int = 0) -> tuple[Any, Any]:
    """Noisy images (n, *size) with a bright spot of 3 pixels a side, and the map of its height."""
    rng = np.random.default_rng(seed)
    image = rng.normal(90, 12, (n, *size))
    target = np.zeros((n, *size), np.float32)
    for i in range(n):
        where = tuple(slice(start := int(rng.integers(0, side - 3)), start + 3) for side in size)
        height = float(rng.uniform(20, 60))
        target[i][where] = height
        image[i][where] += 2 * height
    return image.clip(0, 255).astype(np.uint8), target


def save_npy(folder: Path, arrays: Any) -> str:
    """A folder with 000.npy, 001.npy, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        np.save(folder / f"{i:03d}.npy", array)
    return str(folder)


def write_values(
    folder: Path, n: int = 8, size: tuple[int, ...] = (40, 48), seed: int = 0
) -> tuple[str, str]:
    """Folders of images and of maps of values."""
    images, targets = spots(n, size, seed)
    return save_npy(folder / "images", images), save_npy(folder / "targets", targets)


def write_hdf5(path: Path, names: list[str] | None = None, **arrays: Any) -> str:
    """An HDF5 file with these data sets; `names` are those of the cells."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        if names is not None:
            file["cells"].attrs["names"] = np.bytes_(json.dumps(names))
    return str(path)
