"""Folders of photographs made ready to train on: colours, crops and sizes."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import refuse_existing, write_whole
from dense_imb.data.labels.tables import SUFFIXES, read_picture

_QUALITY = 95  # of JPEG


def grey_world(image: NDArray[np.uint8], power: float = 1.0) -> NDArray[np.uint8]:
    """The colours under white light, if the mean of the scene is grey.

        p_c <- p_c M / M_c,   M_c = mean(p_c^power)^(1 / power),   M = mean of the M_c

    so that lamps of other colours, and cameras, look alike. A power of 6 is "shades of grey"
    (Finlayson and Trezzi, 2004), in which bright pixels count more; many a skin lesion recipe
    takes that.

    Args:
        image: (height, width, 3) colours.
        power: 1 or more.

    Example:
        >>> image = np.array([[[200, 100, 60], [100, 50, 30]]], np.uint8)
        >>> grey_world(image).tolist()
        [[[120, 120, 120], [60, 60, 60]]]
    """
    check_at_least("power", power, 1)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"Expected `image` (height, width, 3), got {image.shape}.")
    pixels = image.astype(np.float64)
    mean = (pixels**power).mean((0, 1)) ** (1 / power)
    gain = np.where(mean > 0, mean.mean() / np.maximum(mean, 1e-9), 1.0)
    corrected: NDArray[np.uint8] = np.rint((pixels * gain).clip(0, 255)).astype(np.uint8)
    return corrected


def centre_square(image: NDArray[np.uint8], share: float = 1.0) -> NDArray[np.uint8]:
    """The square in the middle, its side a share of the shorter side.

    Example:
        >>> centre_square(np.arange(15, dtype=np.uint8).reshape(3, 5, 1))[..., 0].tolist()
        [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected `share` above 0 and up to 1, got {share}.")
    height, width = image.shape[:2]
    side = max(math.floor(share * min(height, width)), 1)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def prepare_pictures(
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | None = None,
    crop: float | None = None,
    power: float | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> int:
    """Write each image of a folder, and of the folders in it, made ready; returns their number.

    Args:
        images: the folder.
        out: another one; the names stay, and so does JPEG; other formats become PNG.
        size: of both sides in the end; None keeps the size.
        crop: take the square in the middle first, its side this share of the shorter side.
        power: of `grey_world`, after the crop; None leaves the colours.
        overwrite: replace files that exist.
        show_progress: a bar on stderr.
    """
    root, folder = Path(images), Path(out)
    if size is not None:
        check_at_least("size", size, 1)
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images, got {root}, which is none.")
    if folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"Expected another folder than {root} to write to, got {folder}.")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"Expected images ({', '.join(SUFFIXES)}) in {root}, got none.")
    targets = [_target(path, root, folder) for path in found]
    twice = {path for path in targets if targets.count(path) > 1} if _repeats(targets) else set()
    if twice:
        raise ValueError(f"Expected files of different names, got {min(twice).name} twice.")
    for target in targets:
        refuse_existing(target, overwrite)

    def change(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if crop is not None:
            colours = centre_square(colours, crop)
        return colours if power is None else grey_world(colours, power)

    wanted = None if size is None else (size, size)
    both = list(zip(found, targets, strict=True))
    for path, target in tqdm(both, "prepare", unit="image", disable=not show_progress):
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = read_picture(path, wanted, change=change)
        write_whole(target, partial(_save, np.moveaxis(pixels, 0, -1), target.suffix))
    return len(found)


def _target(path: Path, root: Path, folder: Path) -> Path:
    target = folder / path.relative_to(root)
    return target if path.suffix.lower() in (".jpg", ".jpeg") else target.with_suffix(".png")


def _repeats(paths: list[Path]) -> bool:
    return len(set(paths)) < len(paths)


def _save(pixels: NDArray[np.uint8], suffix: str, to: Path) -> None:
    from PIL import Image

    options: dict[str, Any] = {"quality": _QUALITY} if suffix.lower() != ".png" else {}
    kind = "PNG" if suffix.lower() == ".png" else "JPEG"
    Image.fromarray(np.ascontiguousarray(pixels)).save(to, format=kind, **options)
