"""Where labelled images lie, two folders or one HDF5 file: pixels as stored, one by one."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import UnreadableFileError
from dense_imb.base.hdf5 import (
    identify_file,
    list_datasets,
    open_file,
    read_attributes,
    reading,
)
from dense_imb.base.refusals import Refused, option
from dense_imb.data.images.folders import (
    LARGEST,
    NIFTI,
    SUFFIXES,
    dimensions_of,
    is_nifti,
    orientation_of,
    pair_images,
    read_image,
    stem_of,
)

_HASHED_WHOLE = 1 << 30  # bytes of all files together; of more, both ends of each are hashed
_END = 1 << 19
_LONGEST_NAME = 60


class ImageSource(Protocol):
    """Images and their masks by number."""

    names: list[str]
    spatial_dims: int
    where: str  # the images, for people
    value_names: tuple[str, ...] | None  # of the mask values 0, 1, 2 .., where they are known

    def place(self, i: int) -> str:
        """What to call mask i in a sentence."""

    def image(self, i: int, spatial: tuple[int, ...]) -> NDArray[Any]:
        """(C, *spatial) of the stored type, finite; `spatial` is the size of its mask."""

    def mask(self, i: int) -> NDArray[Any]:
        """(*spatial) whole numbers of any integer type."""

    def mask_values(self, i: int) -> NDArray[Any]:
        """(*spatial) of the stored type."""

    def digest(self, numbers: Iterable[int]) -> str:
        """Of the names and the content; the same wherever the data lie."""

    def files(self, numbers: Iterable[int]) -> list[Path]:
        """That some images lie in, without those of masks; of HDF5 the one file."""


class FolderSource:
    """A folder of images and one of masks of the same names."""

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        spatial_dims: int | None = None,
    ) -> None:
        self.pairs = pair_images(images, masks, SUFFIXES + NIFTI)
        self.names = [stem_of(pair.image) for pair in self.pairs]
        self.where = str(images)
        self.value_names: tuple[str, ...] | None = None  # folders have none
        first = self.pairs[0].mask
        self.spatial_dims = _checked(spatial_dims or dimensions_of(first), str(first))

    def place(self, i: int) -> str:
        return str(self.pairs[i].mask)

    def image(self, i: int, spatial: tuple[int, ...]) -> NDArray[Any]:
        path = self.pairs[i].image
        pixels = read_image(path, is_volume=self.spatial_dims == 3)
        axis = None if path.suffix.lower() == ".npy" else -1
        return channels_first(pixels, spatial, axis, str(path), self.place(i))

    def mask(self, i: int) -> NDArray[Any]:
        return whole(self.mask_values(i), self.place(i))

    def mask_values(self, i: int) -> NDArray[Any]:
        path = self.pairs[i].mask
        mask = read_image(path, is_volume=self.spatial_dims == 3)
        if mask.ndim == self.spatial_dims + 1:
            if (mask != mask[..., :1]).any():
                raise ValueError(
                    f"Expected {path} to hold labels, one channel, got {mask.shape[-1]} channels "
                    "that differ: colours are no labels; convert them."
                )
            mask = mask[..., 0]
        self._check_orientation(i)
        return mask

    def _check_orientation(self, i: int) -> None:
        """Voxels of one size can be mirrored; then every label is elsewhere."""
        if not all(is_nifti(path) for path in self.pairs[i]):
            return
        image, mask = (orientation_of(path) for path in self.pairs[i])
        if image != mask:
            raise ValueError(
                f"Expected {self.pairs[i].mask} with the axes of {self.pairs[i].image}, {image}, "
                f"got {mask}; bring one to the other with nibabel's as_closest_canonical."
            )

    def digest(self, numbers: Iterable[int]) -> str:
        return digest_of_files([path for i in numbers for path in self.pairs[i]])

    def files(self, numbers: Iterable[int]) -> list[Path]:
        return [self.pairs[i].image for i in numbers]


def digest_of_files(paths: Sequence[Path]) -> str:
    """Of their names and bytes; of large ones the first and the last bytes stand for all."""
    is_whole = sum(path.stat().st_size for path in paths) <= _HASHED_WHOLE
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        found.update(path.name.encode(errors="surrogateescape") + b"\0")
        _add_file(found, path, is_whole)
    return found.hexdigest()


class HDF5Images:
    """One file with a data set `image`, opened by each process for itself.

    Args:
        path: of the file; a pickle takes no handle along.
        needs: the data sets that it has to have.
    """

    def __init__(self, path: str | os.PathLike[str], needs: tuple[str, ...] = ("image",)) -> None:
        self.path = Path(path).absolute()
        self.needs = needs
        self._identity: tuple[int, ...] | None = None
        self._opened: tuple[int, Any, dict[str, Any]] | None = None
        for name in needs:
            dataset = self._datasets()[name]
            if dataset.dtype.kind not in "buif" or math.prod(dataset.shape[1:]) > LARGEST:
                raise ValueError(
                    f"Expected `{name}` of {path} to hold numbers, up to {LARGEST:,} an image, "
                    f"got {dataset.dtype} of {dataset.shape}."
                )
        image = self._datasets()["image"]
        self.value_names = _names_in(image.parent, self.path)
        attributes = read_attributes(image, self.path, ("channel_axis",))
        axis = int(attributes["channel_axis"]) if attributes else None
        if axis not in (None, 1, -1, image.ndim - 1):
            raise ValueError(
                f"Expected attribute `channel_axis` of `image` of {path} to be 1 or -1, got {axis}."
            )
        self.channel_axis = None if axis is None else 0 if axis == 1 else -1  # of one image
        n_images = image.shape[0] if image.ndim else 0
        self.names = [f"{i:0{max(6, len(str(n_images)))}}" for i in range(n_images)]

    def _datasets(self) -> dict[str, Any]:
        """The data sets, in this process; their structure is checked on each opening."""
        if self._opened is not None and self._opened[0] == os.getpid():
            return self._opened[2]
        identity = identify_file(self.path)
        if self._identity not in (None, identity):
            raise ValueError(
                f"Expected {self.path} as it was when first opened, got another file or other "
                "content; open it again."
            )
        file = open_file(self.path, None, " and ".join(f"{name}s" for name in self.needs))
        try:
            datasets = list_datasets(file, self.path)
            if not {*self.needs} <= set(datasets):
                wanted = " and ".join(f"`{name}`" for name in self.needs)
                raise ValueError(
                    f"Expected data sets {wanted} in {self.path}, got "
                    f"{', '.join(sorted(datasets)[:5]) or 'none'}; rename or convert them."
                )
        except BaseException:
            file.close()
            raise
        self._opened, self._identity = (os.getpid(), file, datasets), identity
        return datasets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def read(self, name: str, i: int) -> NDArray[Any]:
        """Entry i of a data set, as stored."""
        with reading(self.path, name):
            pixels: NDArray[Any] = self._datasets()[name][i]
        return pixels

    def image_place(self, i: int) -> str:
        """What to call image i in a sentence."""
        return f"image {i} of {self.path}"


class HDF5Source(HDF5Images):
    """One file with data sets `image` (N, H, W[, C]) or (N, C, H, W), and `mask` (N, H, W).

    The root attribute `classes`, a list as JSON, names the mask values 0, 1, 2 and so on.
    Volumes have one dimension more. The mask's shape tells where the channels are; where both
    places fit, the last one is taken unless the attribute `channel_axis` of `image` is 1.
    """

    def __init__(self, path: str | os.PathLike[str], spatial_dims: int | None = None) -> None:
        super().__init__(path, ("image", "mask"))
        self.where = str(path)
        image, mask = (self._datasets()[name] for name in self.needs)
        # a sequence of frames of no pixels or of none is no data
        if image.shape[:1] != mask.shape[:1] or 0 in image.shape + mask.shape or mask.ndim < 3:
            raise ValueError(
                f"Expected `image` (N, H, W) or with channels, and `mask` (N, H, W) in {path}, "
                f"got {image.shape} and {mask.shape}."
            )
        self.spatial_dims = _checked(mask.ndim - 1, f"`mask` of {path}")
        if spatial_dims not in (None, self.spatial_dims):
            raise ValueError(
                f"Expected `mask` of {path} with {spatial_dims} spatial dimensions, got "
                f"{mask.shape}; a mask has no channels."
            )

    def place(self, i: int) -> str:
        return f"mask {i} of {self.path}"

    def image(self, i: int, spatial: tuple[int, ...]) -> NDArray[Any]:
        pixels = self.read("image", i)
        return channels_first(
            pixels, spatial, self.channel_axis, self.image_place(i), self.place(i)
        )

    def mask(self, i: int) -> NDArray[Any]:
        return whole(self.mask_values(i), self.place(i))

    def mask_values(self, i: int) -> NDArray[Any]:
        return self.read("mask", i)

    def digest(self, numbers: Iterable[int]) -> str:
        found = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=16)
        _add_file(found, self.path, self.path.stat().st_size <= _HASHED_WHOLE)
        return found.hexdigest()

    def files(self, numbers: Iterable[int]) -> list[Path]:
        return [self.path]


def find_source(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    spatial_dims: int | None = None,
) -> ImageSource:
    """The folders, or the HDF5 file where `masks` is None."""
    if spatial_dims not in (None, 2, 3):
        raise ValueError(f"Expected `spatial_dims` of 2 or 3, got {spatial_dims}.")
    if masks is not None:
        return FolderSource(images, masks, spatial_dims)
    if Path(images).is_dir():
        raise ValueError(
            f"Expected `masks`, the folder of the masks of {images} (masks=FOLDER, "
            "--masks FOLDER), got none."
        )
    return HDF5Source(images, spatial_dims)


def is_labelled_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is HDF5 with data sets `image` and `mask`; nothing else is read."""
    place = Path(path)
    try:
        with open_file(place) as file, reading(place, "/"):
            return {"image", "mask"} <= set(file)
    except (UnreadableFileError, OSError):
        return False


def are_names(names: object) -> TypeGuard[Sequence[str]]:
    """Whether these can be names of classes: short, different, and on one line."""
    return (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
        and all(len(name) <= _LONGEST_NAME for name in names)
        and len(set(names)) == len(names)
    )


def _names_in(file: Any, path: Path) -> tuple[str, ...] | None:
    """What `data_tools/label.py` calls the mask values; another tool's `classes` are none."""
    try:
        names = json.loads(str(read_attributes(file, path, ("classes",)).get("classes")))
    except (ValueError, RecursionError):
        return None
    return tuple(names) if are_names(names) else None


def channels_first(
    pixels: NDArray[Any], spatial: tuple[int, ...], axis: int | None, image: str, mask: str
) -> NDArray[Any]:
    """(C, *spatial) of an image of the size of its mask.

    Args:
        pixels: (*spatial), (*spatial, C) or (C, *spatial).
        spatial: the size of the mask.
        axis: where the channels are, 0 or -1; None: where the rest fits the mask, the last
            axis first.
        image, mask: their names in a sentence.
    """
    if pixels.ndim == len(spatial):
        found = pixels[None]
    else:
        fits_last = pixels.shape[:-1] == spatial or pixels.shape[1:] != spatial
        last = axis == -1 or (axis is None and fits_last)
        found = np.moveaxis(pixels, -1, 0) if last else pixels
    if found.shape[1:] != spatial:
        raise ValueError(
            f"Expected {mask} of the size of {image}, {found.shape[1:]}, got {spatial}."
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        n_broken = int((~np.isfinite(found)).sum())
        raise ValueError(
            f"Expected {image} to hold finite numbers, got {n_broken} NaN or infinite of "
            f"{found.size}; mend them, or mark their pixels in the mask as ignored and write 0."
        )
    if found.dtype == bool:
        found = found.astype(np.uint8)
    return np.ascontiguousarray(found)


def whole(mask: NDArray[Any], place: str) -> NDArray[Any]:
    """Labels as integers; fractions are refused."""
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.dtype.kind == "f":
        if not (np.abs(mask) < 2**31).all() or (mask % 1 != 0).any():  # NaN is not below either
            raise no_labels(mask, place, "whole numbers")
        return mask.astype(np.int64)
    return mask


def no_labels(mask: NDArray[Any], place: str, wanted: str) -> Refused:
    """Return the refusal of values that cannot be labels."""
    low, high = mask.min(), mask.max()
    middle = (float(low) + float(high)) / 2
    cure = "mend these values"
    if np.isfinite(middle):
        cure = f"where larger values mean class 1, pass {option('above', f'{middle:g}')}"
    return Refused(f"{place} to hold labels, {wanted}", f"{mask.dtype} from {low} to {high}", cure)


def _checked(n_dims: int, place: str) -> int:
    if n_dims not in (2, 3):
        raise ValueError(
            f"Expected {place} to hold labels of 2 or 3 dimensions, got {n_dims}; a mask has no "
            "channels."
        )
    return n_dims


def _add_file(found: Any, path: Path, is_whole: bool) -> None:
    size = path.stat().st_size
    found.update(f"{size}\0".encode())
    with path.open("rb") as file:
        if is_whole or size <= 2 * _END:
            while block := file.read(1 << 20):
                found.update(block)
        else:
            found.update(file.read(_END))
            file.seek(-_END, os.SEEK_END)
            found.update(file.read(_END))
