"""Stored images and masks, in two folders or in one HDF5 file."""

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
from dense_imb.base.refusals import Refused, literal, option
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

IGNORED = 255  # class of pixels that have none
_HASHED_WHOLE = 1 << 30  # bytes of all files; of more, only both ends of each file are hashed
_END = 1 << 19
_READ_WHOLE, _N_BLOCKS, _BLOCK = 16_000_000, 18, 1 << 16  # bytes; see `digest_content`
_LONGEST_NAME = 60


class ImageSource(Protocol):
    """Images and their masks by number."""

    names: list[str]
    spatial_dims: int
    where: str  # folder or file, for messages
    value_names: tuple[str, ...] | None  # names of the mask values 0, 1, 2 .., where known

    def place(self, i: int) -> str:
        """Name mask i for an error."""

    def image(self, i: int, spatial: tuple[int, ...]) -> NDArray[Any]:
        """Return (C, *spatial) finite pixels of the stored type.

        Args:
            i: number of the image.
            spatial: size of its mask.
        """

    def mask(self, i: int) -> NDArray[Any]:
        """Return (*spatial) whole numbers of any integer type."""

    def mask_values(self, i: int) -> NDArray[Any]:
        """Return the mask (*spatial) in the stored type."""

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of names and content, independent of the folder."""

    def files(self, numbers: Iterable[int]) -> list[Path]:
        """Return the files of some images, without masks; for HDF5 the one file."""


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
        mask = read_image(path, is_volume=self.spatial_dims == 3, as_indices=True)
        if mask.ndim == self.spatial_dims + 1:
            if (mask != mask[..., :1]).any():
                raise ValueError(
                    f"Expected {path} to hold labels, one channel, got {mask.shape[-1]} channels "
                    "that differ; convert colours to labels."
                )
            mask = mask[..., 0]
        self._check_orientation(i)
        return mask

    def _check_orientation(self, i: int) -> None:
        """Refuse a mask of other axes than its image: labels would be mirrored."""
        if not all(is_nifti(path) for path in self.pairs[i]):
            return
        image, mask = (orientation_of(path) for path in self.pairs[i])
        if image != mask:
            raise ValueError(
                f"Expected {self.pairs[i].mask} with the axes of {self.pairs[i].image}, {image}, "
                f"got {mask}; bring one to the other with nibabel's as_closest_canonical."
            )

    def digest(self, numbers: Iterable[int]) -> str:
        return digest_files([path for i in numbers for path in self.pairs[i]])

    def files(self, numbers: Iterable[int]) -> list[Path]:
        return [self.pairs[i].image for i in numbers]


def digest_files(paths: Sequence[Path], prefix: bytes = b"") -> str:
    """Return a digest of names, sizes and bytes; of large data, both ends of each file are read.

    Args:
        paths: the files.
        prefix: further bytes to digest, before the files.
    """
    is_whole = sum(path.stat().st_size for path in paths) <= _HASHED_WHOLE
    digest = hashlib.blake2b(prefix, digest_size=16)
    for path in paths:
        digest.update(path.name.encode(errors="surrogateescape") + b"\0")
        _hash_file(digest, path, is_whole)
    return digest.hexdigest()


def digest_content(path: Path) -> str:
    """Return a digest of the size and the bytes of a file.

    Of a file above 16 MB, 18 blocks of 64 kB are read, evenly spread from its first to its last
    byte.
    """
    digest, size = hashlib.blake2b(digest_size=16), path.stat().st_size
    digest.update(f"{size}\0".encode())
    with path.open("rb") as file:
        if size <= _READ_WHOLE:
            digest.update(file.read())
        else:
            for k in range(_N_BLOCKS):
                file.seek((size - _BLOCK) * k // (_N_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def digest_tree(path: Path) -> str:
    """Return a digest of a file, see `digest_content`, or of the files in a folder.

    Of a file in a folder its name, its size and both ends are read.
    """
    if not path.is_dir():
        return digest_content(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(os.fsencode(file.relative_to(path)) + b"\0")
        _hash_file(digest, file, is_whole=False)
    return digest.hexdigest()


def digest_ends(path: Path) -> str:
    """Return a digest of the size, the first and the last bytes of a file."""
    digest = hashlib.blake2b(digest_size=16)
    _hash_file(digest, path, is_whole=False)
    return digest.hexdigest()


_MOST_NAMES = 8  # of data sets, in an error


class HDF5Images:
    """HDF5 file with a data set `image`; each process opens it, and a pickle has no handle.

    Args:
        path: path of the file.
        needs: names of the required data sets.
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
        self.value_names = names_in(image.parent, self.path)
        attributes = read_attributes(image, self.path, ("channel_axis",))
        axis = int(attributes["channel_axis"]) if attributes else None
        if axis not in (None, 1, -1, image.ndim - 1):
            raise ValueError(
                f"Expected attribute `channel_axis` of `image` of {path} to be 1 or -1, got {axis}."
            )
        self.channel_axis = None if axis is None else 0 if axis == 1 else -1  # axis of one image
        n_images = image.shape[0] if image.ndim else 0
        self.names = [f"{i:0{max(6, len(str(n_images)))}}" for i in range(n_images)]

    def _datasets(self) -> dict[str, Any]:
        """Return the data sets, opened and checked in this process."""
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
                raise Refused(
                    f"data sets {literal(wanted)} in {literal(self.path)}",
                    ", ".join(sorted(datasets)[:_MOST_NAMES]) or "none",
                    self._cure_of_missing(sorted(datasets)),
                )
        except BaseException:
            file.close()
            raise
        self._opened, self._identity = (os.getpid(), file, datasets), identity
        return datasets

    def _cure_of_missing(self, present: list[str]) -> str:
        """Return the cure where a data set is missing, with options in braces."""
        return "rename or convert them"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def names_of(self, name: str) -> tuple[str, ...] | None:
        """Return the names in attribute `names` of a data set, a JSON list."""
        return names_in(self._datasets()[name], self.path, "names")

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of the file and the numbers of some images."""
        digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=16)
        _hash_file(digest, self.path, self.path.stat().st_size <= _HASHED_WHOLE)
        return digest.hexdigest()

    def files(self, numbers: Iterable[int]) -> list[Path]:
        """Return the one file."""
        return [self.path]

    def read(self, name: str, i: int) -> NDArray[Any]:
        """Return entry i of a data set, as stored."""
        with reading(self.path, name):
            pixels: NDArray[Any] = self._datasets()[name][i]
        return pixels

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a data set of numbers; None if the file has none of this name."""
        dataset = self._datasets().get(name)
        return None if dataset is None or dataset.dtype.kind not in "buif" else dataset.shape

    def image_place(self, i: int) -> str:
        """Name image i for an error."""
        return f"image {i} of {self.path}"


class HDF5Source(HDF5Images):
    """HDF5 file with data sets `image` (N, H, W[, C]) or (N, C, H, W), and `mask` (N, H, W).

    Volumes have one dimension more. The shape of the mask decides which axis holds the channels.
    If both fit, it is the last one, unless the attribute `channel_axis` of `image` is 1. The root
    attribute `classes`, a JSON list, names the mask values 0, 1, 2 and so on.
    """

    def __init__(self, path: str | os.PathLike[str], spatial_dims: int | None = None) -> None:
        super().__init__(path, ("image", "mask"))
        self.where = str(path)
        image, mask = (self._datasets()[name] for name in self.needs)
        # without images or without pixels
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


def find_source(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    spatial_dims: int | None = None,
) -> ImageSource:
    """Open two folders, or an HDF5 file if `masks` is None."""
    if spatial_dims not in (None, 2, 3):
        raise ValueError(f"Expected `spatial_dims` of 2 or 3, got {spatial_dims}.")
    if masks is not None:
        return FolderSource(images, masks, spatial_dims)
    if Path(images).is_dir():
        raise Refused(
            f"`masks`, the folder of the masks of {images}", "none", "pass {masks=FOLDER}"
        )
    return HDF5Source(images, spatial_dims)


def is_labelled_file(path: str | os.PathLike[str], map_name: str = "mask") -> bool:
    """Whether a file is HDF5 with data sets `image` and `mask`, or other maps.

    Nothing else is read.
    """
    place = Path(path)
    try:
        with open_file(place) as file, reading(place, "/"):
            return {"image", map_name} <= set(file)
    except (UnreadableFileError, OSError):
        return False


def are_names(names: object) -> TypeGuard[Sequence[str]]:
    """Whether a value is a list of class names: short, different, each on one line."""
    return (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
        and all(len(name) <= _LONGEST_NAME for name in names)
        and len(set(names)) == len(names)
    )


def names_in(holder: Any, path: Path, attribute: str = "classes") -> tuple[str, ...] | None:
    """Read names from an attribute, a JSON list; None if there are none.

    The attribute `classes` has those of mask values, as data_tools/label.py writes them.
    """
    try:
        names = json.loads(str(read_attributes(holder, path, (attribute,)).get(attribute)))
    except (ValueError, RecursionError):
        return None
    return tuple(names) if are_names(names) else None


_MEND = "mend them, or mark their pixels in the mask as ignored and write 0"


def channels_first(
    pixels: NDArray[Any],
    spatial: tuple[int, ...],
    axis: int | None,
    image: str,
    mask: str,
    cure: str = _MEND,
) -> NDArray[Any]:
    """Return an image as (C, *spatial) of finite numbers, see `move_channels`.

    Args:
        pixels, spatial, axis, image, mask: see `move_channels`.
        cure: cure for pixels that are no finite numbers.
    """
    pixels = move_channels(pixels, spatial, axis, image, mask)
    check_finite(pixels, image, cure)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    return np.ascontiguousarray(pixels)


def move_channels(
    pixels: NDArray[Any], spatial: tuple[int, ...], axis: int | None, image: str, mask: str
) -> NDArray[Any]:
    """Return an image as (C, *spatial); refuse another size than that of its mask.

    Args:
        pixels: (*spatial), (*spatial, C) or (C, *spatial).
        spatial: size of the mask.
        axis: axis of the channels, 0 or -1. None: the axis that leaves the size of the mask,
            preferably the last.
        image: name of the image, for errors.
        mask: name of the mask, for errors.
    """
    if pixels.ndim == len(spatial):
        pixels = pixels[None]
    else:
        fits_last = pixels.shape[:-1] == spatial or pixels.shape[1:] != spatial
        if axis == -1 or (axis is None and fits_last):
            pixels = np.moveaxis(pixels, -1, 0)
    if pixels.shape[1:] != spatial:
        raise ValueError(
            f"Expected {mask} of the size of {image}, {pixels.shape[1:]}, got {spatial}."
        )
    return pixels


def check_finite(pixels: NDArray[Any], place: str, cure: str) -> None:
    """Refuse NaN and infinite pixels.

    Args:
        pixels: pixels of any shape.
        place: name of the image, for errors.
        cure: cure, with options in braces.
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        n_broken = int((~np.isfinite(pixels)).sum())
        raise Refused(
            f"{literal(place)} to hold finite numbers",
            f"{n_broken} NaN or infinite of {pixels.size}",
            cure,
        )


def whole(mask: NDArray[Any], place: str) -> NDArray[Any]:
    """Return labels as integers; refuse fractions."""
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.dtype.kind == "f":
        if not (np.abs(mask) < 2**31).all() or (mask % 1 != 0).any():  # also NaN
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


def _hash_file(digest: Any, path: Path, is_whole: bool) -> None:
    size = path.stat().st_size
    digest.update(f"{size}\0".encode())
    with path.open("rb") as file:
        if is_whole or size <= 2 * _END:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            digest.update(file.read(_END))
            file.seek(-_END, os.SEEK_END)
            digest.update(file.read(_END))
