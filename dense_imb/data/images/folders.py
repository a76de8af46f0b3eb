"""Images and masks in folders: pairs of equal names, and their pixels."""

from __future__ import annotations

import functools
import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.arrays import map_npy
from dense_imb.base.files import check_stored, decoding
from dense_imb.base.refusals import Refused
from dense_imb.data.images.decode import LARGEST as LARGEST
from dense_imb.data.images.decode import count_bands, decode, open_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
NIFTI = (".nii", ".nii.gz")
VALUE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")  # files that keep values exactly
_HEADER = 540  # bytes of the header of NIfTI-2; that of NIfTI-1 has 348
_LONGEST_EXTENSION = 1 << 26  # bytes between the header and the voxels of NIfTI
_CIFTI = range(3000, 3100)  # codes of the intent: nibabel would parse XML
_CURE = (
    "add them, or move these images to another folder and train on them without masks with "
    "{unlabelled.train=FOLDER}"
)


class Pair(NamedTuple):
    """An image and the mask that labels its pixels."""

    image: Path
    mask: Path


def stem_of(path: Path) -> str:
    """Return the file name without its suffix; `.nii.gz` is one suffix."""
    return path.name[: -len(".nii.gz")] if is_nifti(path) and path.suffix == ".gz" else path.stem


def is_nifti(path: Path) -> bool:
    """Whether the file name ends in .nii or .nii.gz."""
    return path.name.lower().endswith(NIFTI)


def list_images(
    folder: str | os.PathLike[str],
    suffixes: tuple[str, ...] = SUFFIXES,
    what: str = "images or masks",
) -> list[Path]:
    """List the images of a folder by name; ignore hidden files and other kinds.

    Args:
        folder: folder of the images.
        suffixes: endings of the names of images.
        what: content of the folder, for errors.
    """
    root = Path(folder)
    if not root.is_dir():
        is_what = "is none" if root.exists() else "does not exist"
        raise ValueError(f"Expected a folder of {what}, got {root}, which {is_what}.")
    images = sorted(
        path
        for path in root.iterdir()
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()
    )
    if not images:
        is_run = (root / "config.yaml").exists()
        hint = ": it is the folder of a run" if is_run else ""
        raise ValueError(f"Expected images ({', '.join(suffixes)}) in {root}, got none{hint}.")
    return images


def pair_images(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    suffixes: tuple[str, ...] = SUFFIXES,
    *,
    mask_suffixes: tuple[str, ...] | None = None,
    what: str = "mask",
    cure: str = _CURE,
) -> list[Pair]:
    """Pair each image with the mask of the same name; suffixes may differ.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        suffixes: endings of the names of images.
        mask_suffixes: endings of the names of masks; by default those of the images.
        what: kind of map that the second folder holds, for errors.
        cure: cure for images without one.
    """
    by_name: dict[str, Path] = {}
    first, *further = what.split()
    for mask in list_images(masks, mask_suffixes or suffixes, " ".join([f"{first}s", *further])):
        name = stem_of(mask)
        if name in by_name:
            raise ValueError(
                f"Expected one {what} of each name in {masks}, got {by_name[name].name} and "
                f"{mask.name}."
            )
        by_name[name] = mask
    paths = list_images(images, suffixes, "images")
    missing = [path.name for path in paths if stem_of(path) not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise Refused(
            f"a {what} of the same name in {masks} for each image of {images}",
            f"none for {', '.join(missing[:3])}{more}",
            cure,
        )
    return [Pair(path, by_name[stem_of(path)]) for path in paths]


VOLUMES = "volumes are TIFF with a page for each slice, .npy or NIfTI"


def read_image(
    path: str | os.PathLike[str], *, is_volume: bool = False, as_indices: bool = False
) -> NDArray[Any]:
    """Read pixels (H, W) or (H, W, channels) of the stored type; nothing is rescaled.

    An image with an EXIF orientation is turned upright. A palette image gives its colours.

    Args:
        path: PNG, JPEG, TIFF or .npy.
        is_volume: read (D, H, W) or (D, H, W, channels): the pages of a TIFF, a .npy array, or
            NIfTI with its axes as stored.
        as_indices: read the indices of a palette, which are the labels of a mask.
    """
    source = Path(path)
    with decoding(f"an image in {source}"):
        if source.suffix.lower() == ".npy":
            pixels = map_npy(source)
        elif is_nifti(source):
            pixels = _read_nifti(source)
        else:
            pixels = _read_pages(source, is_volume, as_indices)
    n_dims = 3 if is_volume else 2
    if pixels.ndim not in (n_dims, n_dims + 1) or pixels.dtype.kind not in "buif":
        axes = "D, H, W" if is_volume else "H, W"
        raise ValueError(
            f"Expected {source} to hold pixels ({axes}) or ({axes}, channels), got an array "
            f"{pixels.shape} of {pixels.dtype}."
        )
    if 0 in pixels.shape:
        raise ValueError(f"Expected {source} to hold pixels, got an array {pixels.shape}.")
    return np.array(pixels, pixels.dtype.newbyteorder("="))


def _read_pages(source: Path, is_volume: bool, as_indices: bool) -> NDArray[Any]:
    """Read one page (H, W) or (H, W, channels), or all pages with a dimension in front."""
    with open_picture(source) as image:
        n_pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if is_volume and image.width * image.height * n_pages > LARGEST:
            size = f"{image.width} x {image.height} x {n_pages}"
            raise ValueError(f"it declares {size} pixels, more than {LARGEST:,}")
        if is_volume and n_pages == 1:
            raise ValueError(f"a flat image; {VOLUMES}")
        if n_pages > 1 and not is_volume:
            raise ValueError(f"{n_pages} pages; save each as a file of its own")
        if not is_volume:
            return decode(image, source, as_indices=as_indices)
        pages = []
        for k in range(n_pages):
            image.seek(k)
            pages.append(decode(image, source, as_indices=as_indices))
            if (pages[k].shape, pages[k].dtype) != (pages[0].shape, pages[0].dtype):
                raise ValueError(
                    f"pages of {pages[0].shape} and {pages[k].shape}, {pages[0].dtype} and "
                    f"{pages[k].dtype}; a volume has pages of one size and type"
                )
        return np.stack(pages)


def dimensions_of(path: Path) -> int:
    """Return the spatial dimensions, 2 or 3, of a mask, which has no channels."""
    with decoding(f"an image in {path}"):
        if path.suffix.lower() == ".npy":
            return int(map_npy(path).ndim)
        if is_nifti(path):
            return 2 if _nifti_shape(path)[2:] in ((), (1,)) else 3
        with open_picture(path) as image:
            return 3 if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1 else 2


def count_channels(paths: Sequence[str | os.PathLike[str]]) -> int:
    """Return the number of channels of PNG, JPEG or TIFF images, from their headers alone."""
    first = 0
    for path in paths:
        with open_picture(Path(path), "a PNG, JPEG or TIFF image") as image:
            n_channels = count_bands(image)
        first = first or n_channels
        if n_channels != first:
            raise Refused(
                "the same number of channels in every image",
                f"{first} in {paths[0]} and {n_channels} in {path}",
                "convert the images to grey or to colour",
            )
    return first


def _nifti_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header declares, after checking it; nothing else is read."""
    try:
        import nibabel
    except ImportError as problem:
        raise ImportError(
            f"Expected nibabel for {path}, which is NIfTI, got none; install it with "
            "`pip install 'dense-imb[nifti]'`."
        ) from problem
    tools: Any = nibabel  # its types are incomplete
    is_packed = path.suffix.lower() == ".gz"
    with gzip.open(path, "rb") if is_packed else path.open("rb") as file:
        head = file.read(_HEADER)
    kinds = {348: tools.Nifti1Header, 540: tools.Nifti2Header}
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    size = next((size for size in sizes if size in kinds), None)
    if size is None or len(head) < size:
        raise ValueError("a file of another kind, or a damaged one")
    header = kinds[size](head[:size])
    shape = tuple(int(n) for n in header.get_data_shape())
    if math.prod(shape) > LARGEST:
        raise ValueError(f"it declares {' x '.join(map(str, shape))} voxels, more than {LARGEST:,}")
    if not 0 <= (start := float(header["vox_offset"])) <= _LONGEST_EXTENSION:
        raise ValueError(f"it declares {start:.3g} bytes before its voxels")
    if int(header["intent_code"]) in _CIFTI:
        raise ValueError("CIFTI, a format of surfaces")
    check_stored(path, math.prod(shape) * header.get_data_dtype().itemsize)
    return shape


def orientation_of(path: Path) -> str:
    """Return the directions of the axes of a NIfTI file: "RAS" is right, anterior, superior."""
    with decoding(f"an image in {path}"):
        _nifti_shape(path)
        import nibabel

        tools: Any = nibabel  # its types are incomplete
        return "".join(axis or "?" for axis in tools.aff2axcodes(tools.load(path).affine))


def _read_nifti(path: Path) -> NDArray[Any]:
    _nifti_shape(path)
    if path.suffix.lower() == ".gz":
        status = path.stat()
        _check_packed(path, status.st_size, status.st_mtime_ns)
    from monai.transforms.io.array import LoadImage

    pixels: NDArray[Any] = np.asarray(
        LoadImage(reader="NibabelReader", image_only=True, dtype=None)(path)
    )
    return pixels


@functools.lru_cache(maxsize=1 << 16)
def _check_packed(path: Path, size: int, time_ns: int) -> None:
    """Compare a .gz with its checksum, once for each content: nibabel stops before it.

    Args:
        path: the file.
        size, time_ns: size and time of the file; another content has others.
    """
    with gzip.open(path, "rb") as file:
        while file.read(1 << 20):
            pass
