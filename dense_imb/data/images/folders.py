"""Images and masks in folders: which belong together, and their pixels."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import decoding

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
NIFTI = (".nii", ".nii.gz")
LARGEST = 1 << 28  # pixels of one image; more is a damaged header or a bomb


class Pair(NamedTuple):
    """An image and the mask that labels its pixels."""

    image: Path
    mask: Path


def stem_of(path: Path) -> str:
    """The name without its suffix, `.nii.gz` being one."""
    return path.name[: -len(".nii.gz")] if is_nifti(path) and path.suffix == ".gz" else path.stem


def is_nifti(path: Path) -> bool:
    """Whether the name says so: .nii or .nii.gz."""
    return path.name.lower().endswith(NIFTI)


def list_images(folder: str | os.PathLike[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The images of a folder by name; hidden files and other kinds are left out."""
    root = Path(folder)
    if not root.is_dir():
        is_what = "is none" if root.exists() else "does not exist"
        raise ValueError(f"Expected a folder of images or masks, got {root}, which {is_what}.")
    found = sorted(
        path
        for path in root.iterdir()
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        is_run = (root / "config.yaml").exists()
        hint = ": it is the folder of a run" if is_run else ""
        raise ValueError(f"Expected images ({', '.join(suffixes)}) in {root}, got none{hint}.")
    return found


def pair_images(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    suffixes: tuple[str, ...] = SUFFIXES,
) -> list[Pair]:
    """Images with the masks of the same name, whatever the suffixes."""
    by_name: dict[str, Path] = {}
    for mask in list_images(masks, suffixes):
        name = stem_of(mask)
        if name in by_name:
            raise ValueError(
                f"Expected one mask of each name in {masks}, got {by_name[name].name} and "
                f"{mask.name}."
            )
        by_name[name] = mask
    found = list_images(images, suffixes)
    missing = [path.name for path in found if stem_of(path) not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"Expected a mask of the same name in {masks} for each image of {images}, got none "
            f"for {', '.join(missing[:3])}{more}; add them, or move these images to "
            "a folder of their own, to learn from them without masks (dense-imb train "
            "--unlabelled.train FOLDER)."
        )
    return [Pair(path, by_name[stem_of(path)]) for path in found]


def read_image(path: str | os.PathLike[str], *, is_volume: bool = False) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, channels) in the file's own type; nothing is rescaled.

    A palette image gives its indices, as masks with a palette mean them.

    Args:
        path: PNG, JPEG, TIFF or .npy.
        is_volume: read (D, H, W) or (D, H, W, channels): the pages of a TIFF, a .npy array, or
            NIfTI, its axes as stored.
    """
    source = Path(path)
    with decoding(f"an image in {source}"):
        if source.suffix.lower() == ".npy":
            pixels = np.load(source, mmap_mode="r", allow_pickle=False)
        elif is_nifti(source):
            pixels = _read_nifti(source)
        else:
            pixels = _read_pages(source, is_volume)
    n_dims = 3 if is_volume else 2
    if pixels.ndim not in (n_dims, n_dims + 1) or pixels.dtype.kind not in "buif":
        axes = "D, H, W" if is_volume else "H, W"
        raise ValueError(
            f"Expected {source} to hold pixels ({axes}) or ({axes}, channels), got an array "
            f"{pixels.shape} of {pixels.dtype}."
        )
    if 0 in pixels.shape:
        raise ValueError(f"Expected {source} to hold pixels, got an array {pixels.shape}.")
    return np.array(pixels)


def _read_pages(source: Path, is_volume: bool) -> NDArray[Any]:
    """One page as (H, W) or (H, W, channels), pages of a volume with a dimension in front."""
    from PIL import Image

    with Image.open(source) as image:
        n_pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if image.width * image.height * (n_pages if is_volume else 1) > LARGEST:
            size = f"{image.width} x {image.height}" + (f" x {n_pages}" if is_volume else "")
            raise ValueError(f"it declares {size} pixels")
        if n_pages > 1 and not is_volume:
            raise ValueError(f"{n_pages} pages; save each as a file of its own")
        if not is_volume:
            return np.asarray(image)
        pages = []
        for k in range(n_pages):
            image.seek(k)
            pages.append(np.asarray(image))
            if (pages[k].shape, pages[k].dtype) != (pages[0].shape, pages[0].dtype):
                raise ValueError(
                    f"pages of {pages[0].shape} and {pages[k].shape}, {pages[0].dtype} and "
                    f"{pages[k].dtype}; a volume has pages of one size and type"
                )
        return np.stack(pages)


def dimensions_of(path: Path) -> int:
    """Spatial dimensions of a file of labels, which have no channels: 2 or 3."""
    from PIL import Image

    with decoding(f"an image in {path}"):
        if path.suffix.lower() == ".npy":
            return int(np.load(path, mmap_mode="r", allow_pickle=False).ndim)
        if is_nifti(path):
            return 2 if _nifti_shape(path)[2:] in ((), (1,)) else 3
        with Image.open(path) as image:
            return 3 if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1 else 2


def _nifti_shape(path: Path) -> tuple[int, ...]:
    """The size that the header declares; nothing else is read."""
    try:
        import nibabel
    except ImportError as problem:
        raise ImportError(
            f"Expected nibabel for {path}, which is NIfTI, got none; install it with "
            "`pip install 'dense-imb[nifti]'`."
        ) from problem
    header: Any = nibabel.load(path)
    shape = tuple(int(n) for n in header.shape)
    if math.prod(shape) > LARGEST:
        raise ValueError(f"it declares {' x '.join(map(str, shape))} voxels")
    return shape


def orientation_of(path: Path) -> str:
    """Where the axes of a NIfTI file lead: "RAS" to the right, to the front and up."""
    with decoding(f"an image in {path}"):
        _nifti_shape(path)
        import nibabel

        tools: Any = nibabel  # its types are incomplete
        return "".join(axis or "?" for axis in tools.aff2axcodes(tools.load(path).affine))


def _read_nifti(path: Path) -> NDArray[Any]:
    _nifti_shape(path)
    from monai.transforms.io.array import LoadImage

    pixels: NDArray[Any] = np.asarray(
        LoadImage(reader="NibabelReader", image_only=True, dtype=None)(path)
    )
    return pixels
