"""HDF5 files of images and their values, written sample by sample."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import refuse_existing, refuse_inputs, write_whole
from dense_imb.data.values.key_point_tables import KeyPoints
from dense_imb.data.values.key_points import REACH, check_sigma, heat_maps

Sample = Mapping[str, NDArray[Any]]
_COMPRESSION = 4


def write_values(
    path: str | os.PathLike[str],
    samples: Iterable[Sample],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    overwrite: bool = False,
) -> int:
    """Write samples to the data sets of an HDF5 file, whole or not at all.

    Each array of a sample is a row of the data set of its name, usually:

        image   (N, C, *spatial)  channels of the network's input
        target  (N, K, *spatial)  values to predict
        cells   (N, *spatial)     bit field, bit k for cell k

    The attribute `channel_axis` of `image` tells readers where its channels are.

    Args:
        path: file to write.
        samples: arrays by name; of one shape and type in every sample.
        names: names of the channels or cells of a data set, kept as JSON in its attribute `names`.
        overwrite: replace a file that exists.

    Returns:
        The number of samples.
    """
    place = Path(path)
    refuse_existing(place, overwrite)
    n_samples = 0

    def write(partial: Path) -> None:
        nonlocal n_samples
        with h5py.File(partial, "w") as file:
            for sample in samples:
                _append(file, n_samples, sample)
                n_samples += 1
            if n_samples == 0:
                raise ValueError(f"Expected samples for {place}, got none.")
            if "image" in file:
                file["image"].attrs["channel_axis"] = 1
            for key, listed in (names or {}).items():
                # strings of fixed length: safe to read from files of unknown origin
                file[key].attrs["names"] = np.bytes_(json.dumps(list(listed)))

    write_whole(place, write)
    return n_samples


def _append(file: Any, i: int, sample: Sample) -> None:
    if i == 0:
        for key, array in sample.items():
            chunk = array.shape if array.ndim < 3 else (1, *array.shape[-3:])[-array.ndim :]
            file.create_dataset(
                key,
                (0, *array.shape),
                array.dtype,
                maxshape=(None, *array.shape),
                chunks=(1, *chunk),
                compression=_COMPRESSION,
                shuffle=True,
            )
    for key, array in sample.items():
        wanted = (file[key].shape[1:], file[key].dtype)
        if (array.shape, array.dtype) != wanted:
            raise ValueError(
                f"Expected `{key}` of sample {i} like that of the first, {wanted[0]} of "
                f"{wanted[1]}, got {array.shape} of {array.dtype}; bring all to one size and type."
            )
        file[key].resize(i + 1, 0)
        file[key][i] = array


def write_heat_maps(
    table: KeyPoints,
    images: str | os.PathLike[str],
    path: str | os.PathLike[str],
    sigma: float,
    *,
    reach: float = REACH,
    overwrite: bool = False,
) -> int:
    """Write images and the heat maps of their key points, see `write_values`; return their number.

    Further data sets: `points` (N, K, 2), x and y with NaN where a point is not visible, and
    `name` (N), the name of each image.

    Args:
        table: key points.
        images: folder of the images, all of one size.
        path: HDF5 file to write.
        sigma: standard deviation of a blob, in pixels.
        reach: radius of a blob in units of sigma.
        overwrite: replace a file that exists.
    """
    check_sigma(sigma)
    paths = table.find_images(images)
    refuse_inputs([path], paths)
    length = max(len(name.encode()) for name in table.images)

    def samples() -> Iterable[Sample]:
        for i, image in enumerate(paths):
            pixels = _channels_first(image)
            table.check_inside(i, pixels.shape[1:])
            yield {
                "image": pixels,
                "target": heat_maps(table.points[i], pixels.shape[1:], sigma, reach=reach).numpy(),
                "points": table.points[i],
                "name": np.array(table.images[i].encode(), f"S{length}"),
            }

    return write_values(path, samples(), names={"target": table.names}, overwrite=overwrite)


def _channels_first(path: Path) -> NDArray[Any]:
    """Read an image as (C, H, W)."""
    from dense_imb.data.images.folders import read_image

    pixels = read_image(path)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
