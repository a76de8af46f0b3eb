"""Images and masks in folders: which belong together, and their pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
_LARGEST = 1 << 28  # pixels of one image; more is a damaged header or a bomb


class Pair(NamedTuple):
    """An image and the mask that labels its pixels."""

    image: Path
    mask: Path


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder by name; hidden files and other kinds are left out."""
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images, got {root}, which is none.")
    found = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"Expected images ({', '.join(SUFFIXES)}) in {root}, got none.")
    return found


def pair_images(images: str | os.PathLike[str], masks: str | os.PathLike[str]) -> list[Pair]:
    """Images with the masks of the same name, whatever the suffixes."""
    by_name: dict[str, Path] = {}
    for mask in list_images(masks):
        if mask.stem in by_name:
            raise ValueError(
                f"Expected one mask of each name in {masks}, got {by_name[mask.stem].name} and "
                f"{mask.name}."
            )
        by_name[mask.stem] = mask
    found = list_images(images)
    missing = [path.name for path in found if path.stem not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"Expected a mask of the same name in {masks} for each image of {images}, got none "
            f"for {', '.join(missing[:3])}{more}."
        )
    return [Pair(path, by_name[path.stem]) for path in found]


def read_image(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, channels) in the file's own type; nothing is rescaled.

    A palette image gives its indices, as masks with a palette mean them.
    """
    from PIL import Image, UnidentifiedImageError

    source = Path(path)
    try:
        if source.suffix.lower() == ".npy":
            pixels = np.load(source, mmap_mode="r", allow_pickle=False)
        else:
            with Image.open(source) as image:
                if image.width * image.height > _LARGEST:
                    raise ValueError(f"it declares {image.width} x {image.height} pixels")
                if image.format == "TIFF" and (n_pages := getattr(image, "n_frames", 1)) > 1:
                    raise ValueError(f"{n_pages} pages; save each as a file of its own")
                pixels = np.asarray(image)
    except (UnidentifiedImageError, ValueError, EOFError, SyntaxError) as problem:
        raise ValueError(f"Expected an image in {source}, got {problem}.") from problem
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "buif":
        raise ValueError(
            f"Expected {source} to hold pixels (H, W) or (H, W, channels), got an array "
            f"{pixels.shape} of {pixels.dtype}."
        )
    return np.array(pixels)
