"""Stored images, maps of values and cells, in folders or in one HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused, nearest, option
from dense_imb.data.images.folders import (
    NIFTI,
    SUFFIXES,
    VALUE_SUFFIXES,
    dimensions_of,
    is_nifti,
    orientation_of,
    pair_images,
    read_image,
    stem_of,
)
from dense_imb.data.images.instances import FolderMaps
from dense_imb.data.images.sources import (
    HDF5Images,
    channels_first,
    check_finite,
    digest_files,
    move_channels,
)

TARGET = "target"  # data set of an HDF5 file, by default
_MEND = "mend them, or move the image to another folder"
_LEAVE_OUT = "mend them, or leave them out with {counted=FOLDER}, maps that are 0 there"


class Stored(NamedTuple):
    """An image with its map of values, channels first, and its cells and counted pixels."""

    image: NDArray[Any]  # (C, *spatial)
    target: NDArray[Any]  # (K, *spatial)
    cells: NDArray[Any] | None  # (*spatial)
    counted: NDArray[Any] | None  # (*spatial)


class ValueSource(Protocol):
    """Images and their maps of values by number."""

    names: list[str]
    spatial_dims: int
    where: str  # folder or file, for messages
    cell_names: tuple[str, ...] | None  # names of the cells, where known
    channel_names: tuple[str, ...] | None  # names of the channels of the maps, where known
    has_cells: bool
    has_counted: bool

    def place(self, i: int) -> str:
        """Name target i for an error."""

    def cell_place(self, i: int) -> str:
        """Name the cells of image i for an error."""

    def counted_place(self, i: int) -> str:
        """Name the map of counted pixels of image i for an error."""

    def stored(self, i: int) -> Stored:
        """Return an image with its values and other maps; refuse those that do not fit."""

    def cells(self, i: int) -> NDArray[Any]:
        """Return the cells of an image as stored."""

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of names and content, independent of the folder."""

    def files(self, numbers: Iterable[int]) -> list[Path]:
        """Return the image files of some images; for HDF5 the one file."""


class FolderValues:
    """A folder of images, one of maps of values of the same names, and perhaps one of cells."""

    def __init__(
        self,
        images: str | os.PathLike[str],
        targets: str | os.PathLike[str],
        cells: str | os.PathLike[str] | None = None,
        spatial_dims: int | None = None,
        counted: str | os.PathLike[str] | None = None,
    ) -> None:
        self.pairs = pair_images(
            images,
            targets,
            SUFFIXES + NIFTI,
            mask_suffixes=VALUE_SUFFIXES + NIFTI,
            what="map of values",
            cure="add them, or move these images to another folder",
        )
        self.names = [stem_of(pair.image) for pair in self.pairs]
        self.where = str(images)
        self.cell_names: tuple[str, ...] | None = None  # folders have none
        self.channel_names: tuple[str, ...] | None = None
        self.has_cells, self.has_counted = cells is not None, counted is not None
        self.spatial_dims = spatial_dims or self._dimensions()
        self._cells = self._maps("cells", cells)
        self._counted = self._maps("counted pixels", counted)

    def _maps(self, what: str, folder: str | os.PathLike[str] | None) -> FolderMaps | None:
        """Open a folder of further maps; None without one."""
        if folder is None:
            return None
        return FolderMaps(
            folder,
            dict(enumerate(self.names)),
            self.spatial_dims,
            what=f"a map of {what}",
            cure=f"add them, or drop {{{what.partition(' ')[0]}}}",
        )

    def _dimensions(self) -> int:
        """Return the spatial dimensions of the first image and its map."""
        first = self.pairs[0]
        known = {d for path in first if (d := _known_dimensions(path)) is not None}
        if len(known) == 1:
            return known.pop()
        shapes = [tuple(read_image(path, is_volume=True).shape) for path in first]
        return common_dimensions(*shapes)

    def place(self, i: int) -> str:
        return str(self.pairs[i].mask)

    def cell_place(self, i: int) -> str:
        assert self._cells is not None
        return self._cells.place(i)

    def stored(self, i: int) -> Stored:
        pair = self.pairs[i]
        image, target = (read_image(path, is_volume=self.spatial_dims == 3) for path in pair)
        if all(is_nifti(path) for path in pair):
            _check_axes(pair.image, pair.mask)
        axes = tuple(None if path.suffix.lower() == ".npy" else -1 for path in pair)
        cells = self.cells(i) if self.has_cells else None
        counted = None if self._counted is None else self._counted.read(i)
        return _stored(self, i, str(pair.image), image, target, (cells, counted), axes)

    def counted_place(self, i: int) -> str:
        assert self._counted is not None
        return self._counted.place(i)

    def cells(self, i: int) -> NDArray[Any]:
        assert self._cells is not None
        return self._cells.read(i)

    def digest(self, numbers: Iterable[int]) -> str:
        numbers = list(numbers)
        maps = [one for one in (self._cells, self._counted) if one is not None]
        others = "".join(one.digest(numbers) for one in maps)
        return digest_files([path for i in numbers for path in self.pairs[i]], others.encode())

    def files(self, numbers: Iterable[int]) -> list[Path]:
        return [self.pairs[i].image for i in numbers]


class HDF5Values(HDF5Images):
    """HDF5 file with data sets `image` and `target`, (N, H, W), (N, H, W, C) or (N, C, H, W).

    Volumes have one dimension more. A data set of cells, (N, H, W), or the attribute
    `channel_axis` of `image`, 1 or -1, decides which dimensions are spatial. The attribute `names`
    of a data set, a JSON list, names the channels of `target` and the cells.

    Args:
        path: path of the file.
        target: name of the data set of values.
        cells: name of the data set of cells.
        spatial_dims: 2 or 3; by default as the shapes say.
        counted: name of the data set that is nonzero where a pixel counts, (N, *spatial).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: str = TARGET,
        cells: str | None = None,
        spatial_dims: int | None = None,
        counted: str | None = None,
    ) -> None:
        self._names = {"targets": target, "cells": cells, "counted": counted}  # by option
        super().__init__(path, ("image", target, *(name for name in (cells, counted) if name)))
        self.target_name, self.cells_name, self.counted_name = target, cells, counted
        self.where, self.has_cells = str(path), cells is not None
        self.has_counted = counted is not None
        shapes = [dataset.shape for n, dataset in self._datasets().items() if n in self.needs]
        if len({shape[:1] for shape in shapes}) > 1 or any(0 in s or len(s) < 3 for s in shapes):
            listed = " and ".join(f"{n} {self._datasets()[n].shape}" for n in self.needs)
            raise ValueError(
                f"Expected data sets (N, H, W), or with channels, of one N in {path}, got {listed}."
            )
        self.cell_names = None if cells is None else self.names_of(cells)
        self.channel_names = self.names_of(target)
        if spatial_dims is None and (flat := cells or counted) is not None:
            spatial_dims = len(self._datasets()[flat].shape) - 1
        if spatial_dims is None and self.channel_axis is not None:
            spatial_dims = len(self._datasets()["image"].shape) - 2
        image, values = (self._datasets()[name].shape[1:] for name in ("image", target))
        self.spatial_dims = spatial_dims or common_dimensions(image, values)

    def _cure_of_missing(self, present: list[str]) -> str:
        free = [name for name in present if name not in ("image", *self._names.values())]
        cures = []
        for name_of_option, name in self._names.items():
            if name is None or name in present:
                continue
            usual = {"targets": TARGET}.get(name_of_option, name_of_option)
            near = usual if usual in free else nearest(name, free)
            if near is not None:
                cures.append(f"pass {option(name_of_option, near)}")
        return " and ".join(cures) or super()._cure_of_missing(present)

    def place(self, i: int) -> str:
        return f"{self.target_name} {i} of {self.path}"

    def cell_place(self, i: int) -> str:
        return f"{self.cells_name} {i} of {self.path}"

    def stored(self, i: int) -> Stored:
        image, target = (self.read(name, i) for name in ("image", self.target_name))
        cells = self.cells(i) if self.has_cells else None
        counted = None if self.counted_name is None else self.read(self.counted_name, i)
        axes = (self.channel_axis, None)
        return _stored(self, i, self.image_place(i), image, target, (cells, counted), axes)

    def counted_place(self, i: int) -> str:
        return f"{self.counted_name} {i} of {self.path}"

    def cells(self, i: int) -> NDArray[Any]:
        assert self.cells_name is not None
        return self.read(self.cells_name, i)


def find_values(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str] | None = None,
    cells: str | os.PathLike[str] | None = None,
    spatial_dims: int | None = None,
    counted: str | os.PathLike[str] | None = None,
) -> ValueSource:
    """Open folders, or an HDF5 file, whose data sets `targets`, `cells` and `counted` name."""
    if spatial_dims not in (None, 2, 3):
        raise ValueError(f"Expected `spatial_dims` of 2 or 3, got {spatial_dims}.")
    if not Path(images).is_dir():
        name, mask = (None if one is None else str(one) for one in (cells, counted))
        target = TARGET if targets is None else str(targets)
        return HDF5Values(images, target, name, spatial_dims, mask)
    if targets is None:
        raise Refused(
            f"the folder of the maps of values of {images}", "none", "pass {targets=FOLDER}"
        )
    return FolderValues(images, targets, cells, spatial_dims, counted)


def common_dimensions(image: Sequence[int], target: Sequence[int]) -> int:
    """Return the spatial dimensions of an image and its map of values, either with channels.

    Two arrays of three axes are volumes if their shapes are equal, else images with channels.

    Example:
        >>> common_dimensions((3, 32, 32), (32, 32)), common_dimensions((8, 8, 8), (8, 8, 8))
        (2, 3)
    """
    fewest = min(len(image), len(target))
    if fewest == 3 and len(image) == len(target) and tuple(image) != tuple(target):
        return 2
    return min(max(fewest, 2), 3)


def _known_dimensions(path: Path) -> int | None:
    """Return the spatial dimensions of a file; None where an axis may be that of channels."""
    if path.suffix.lower() != ".npy":
        return dimensions_of(path)
    n_axes = dimensions_of(path)
    return {2: 2, 4: 3}.get(n_axes)


def _check_axes(image: Path, target: Path) -> None:
    """Refuse a map of other axes than its image: its values would be mirrored."""
    first, second = orientation_of(image), orientation_of(target)
    if first != second:
        raise ValueError(
            f"Expected {target} with the axes of {image}, {first}, got {second}; bring one to the "
            "other with nibabel's as_closest_canonical."
        )


def _stored(
    source: Any,
    i: int,
    image_place: str,
    image: NDArray[Any],
    target: NDArray[Any],
    maps: tuple[NDArray[Any] | None, NDArray[Any] | None],
    axes: Sequence[int | None],
) -> Stored:
    """Return arrays with the channels first; refuse those of different sizes.

    The target is 0 where a pixel does not count.

    Args:
        source: source of the arrays.
        i: number of the image.
        image_place: name of the image, for errors.
        image: pixels.
        target: values.
        maps: cells and counted pixels; None without any.
        axes: axis of the channels of image and target; None if either end may be.
    """
    n_dims, place = source.spatial_dims, source.place(i)
    sizes = [_sizes(array, n_dims, axis) for array, axis in zip((image, target), axes, strict=True)]
    common = [size for size in sizes[1] if size in sizes[0]]
    for array, name_of in zip(maps, (source.cell_place, source.counted_place), strict=True):
        if array is None:
            continue
        if array.shape in common:
            common = [array.shape]  # it settles which axes are space
            continue
        name, got = name_of(i), array.shape
        if not common and any(got in known for known in sizes):
            break  # it fits one of the two, which do not fit each other
        if not common or len(got) != n_dims:
            wanted = " or ".join(map(str, dict.fromkeys(sizes[0])))
            raise ValueError(f"Expected {name} of the size of {image_place}, {wanted}, got {got}.")
        raise ValueError(f"Expected {name} of the size of {place}, {common[0]}, got {got}.")
    if not common:
        wanted = " or ".join(map(str, dict.fromkeys(sizes[0]))) or f"{image.shape} in {n_dims}-D"
        raise Refused(
            f"{place} of the size of {image_place}, {wanted}",
            target.shape,
            "resize one of them, or say with {spatial_dims=2} or {spatial_dims=3} which axes are "
            "space",
        )
    spatial, counted = common[0], maps[1]
    target = move_channels(target, spatial, axes[1], place, image_place)
    if counted is not None:
        target = np.where(counted != 0, target, 0)  # elsewhere it may hold NaN
    check_finite(target, place, _LEAVE_OUT)
    return Stored(
        channels_first(image, spatial, axes[0], image_place, place, _MEND),
        np.array(target, np.uint8 if target.dtype == bool else None, order="C"),
        *maps,
    )


def _sizes(array: NDArray[Any], n_dims: int, axis: int | None) -> list[tuple[int, ...]]:
    """Return the sizes in space that an array may have, the likeliest first."""
    if array.ndim == n_dims:
        return [array.shape]
    if array.ndim != n_dims + 1:
        return []
    last, first = array.shape[:-1], array.shape[1:]
    return {None: [last, first], -1: [last], 0: [first]}[axis]


def as_values(target: NDArray[Any]) -> NDArray[np.float32]:
    """Return values as float32; larger ones become infinite."""
    with np.errstate(over="ignore"):
        return target.astype(np.float32)
