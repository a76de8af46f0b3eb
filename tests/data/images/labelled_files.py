"""Folders and files of labelled images for the tests."""

from __future__ import annotations

import h5py
import numpy as np
from PIL import Image


def save(path, pixels):
    """By the suffix; a TIFF of three dimensions has pages, unless the last one is of colours."""
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.asarray(pixels)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix in (".gz", ".nii"):
        import nibabel

        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    elif path.suffix == ".tif" and pixels.ndim == 3 and pixels.shape[-1] != 3:
        pages = [Image.fromarray(page) for page in pixels]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        Image.fromarray(pixels).save(path)
    return path


def folders(root, images, masks, suffix="png", mask_suffix=None):
    """`images/0.png`, `masks/0.png` and so on; returns both folders."""
    for k, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(root / "images" / f"{k}.{suffix}", image)
        save(root / "masks" / f"{k}.{mask_suffix or suffix}", mask)
    return root / "images", root / "masks"


def hdf5(path, images, masks, **attributes):
    with h5py.File(path, "w") as file:
        file["image"], file["mask"] = images, masks
        file["image"].attrs.update(attributes)
    return path


def random_pairs(n=4, shape=(9, 7), channels=(), n_classes=3, seed=0, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (n, *shape, *channels)).astype(dtype)
    masks = rng.integers(0, n_classes, (n, *shape)).astype(np.uint8)
    masks[:, 0, 0] = n_classes - 1
    return images, masks
