"""Simulated images of rings, lines and blobs of 5 to 500 pixels in noise.

    size      n pixels, probability ~ n^-1.5: small objects are many, large ones hold the pixels
    number    Poisson, mean 2 in 96 x 96 pixels, so that 1 % of the pixels are foreground
    image     contrast of the object + white noise (sigma 1) + smooth background (sigma 0.5)

Objects keep a distance of 2 pixels, so each connected component is one object.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dense_imb.base.files import write_whole
from dense_imb.data.images.instances import nearest_instance

KINDS = ("ring", "line", "blob")
SMALLEST, LARGEST = 5, 500
BINS = (5, 10, 25, 60, 150, 501)  # edges of the sizes in tables
CONTRAST = (1.5, 3.0)
PIXELS_OF_AN_OBJECT = 96 * 96 / 2
TOUCHING = np.ones((3, 3), bool)  # pixels that touch at a corner are connected
_TRIES = 100


class SizeImages(NamedTuple):
    """Images with their masks and instance maps."""

    image: NDArray[np.float32]  # (N, side, side)
    component: NDArray[np.int16]  # 0 on the background, the objects of an image from 1
    nearest: NDArray[np.int16]  # number of the nearest object at every pixel

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.component > 0

    def sizes(self) -> list[NDArray[np.int64]]:
        """Return the pixels of each object, one array an image."""
        return [np.bincount(one.reshape(-1))[1:] for one in self.component]


def make_images(n: int, side: int, seed: int) -> SizeImages:
    """Draw images; the same seed gives the same ones."""
    rng = np.random.default_rng([seed, n, side])
    drawn = [_image(rng, side) for _ in range(n)]
    component = np.stack([one for _, one in drawn])
    return SizeImages(
        np.stack([one for one, _ in drawn]),
        component,
        np.stack([*map(nearest_instance, component)]),
    )


def stored_images(folder: Path, n: int, side: int, seed: int) -> SizeImages:
    """Read the images from a folder, or make and write them."""
    path = folder / f"images-{n}-{side}-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = make_images(n, side, seed)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez_compressed(file, **made._asdict())

        write_whole(path, write)
    with np.load(path) as stored:
        return SizeImages(**{name: stored[name] for name in SizeImages._fields})


def _image(rng: np.random.Generator, side: int) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    component = np.zeros((side, side), np.int16)
    image = rng.normal(size=(side, side))
    texture = ndimage.gaussian_filter(rng.normal(size=(side, side)), 4, mode="wrap")
    image += 0.5 * texture / texture.std()
    for _ in range(rng.poisson(side * side / PIXELS_OF_AN_OBJECT)):
        taken = ndimage.binary_dilation(component > 0, TOUCHING, iterations=2)
        is_object = _place(rng, side, taken)
        if is_object is not None:
            component[is_object] = component.max() + 1
            image[is_object] += rng.uniform(*CONTRAST)
    return image.astype(np.float32), component


def _place(
    rng: np.random.Generator, side: int, taken: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Draw an object on free pixels; None in a frame that is too full or too small."""
    low, high = SMALLEST**-0.5, LARGEST**-0.5
    n_pixels = int((low - rng.uniform() * (low - high)) ** -2)
    kind = KINDS[rng.integers(len(KINDS))]
    for _ in range(_TRIES):
        distance = _distance(rng, kind, n_pixels, side)
        if distance is None:
            continue
        chosen = np.argpartition(distance.reshape(-1), n_pixels)[:n_pixels]
        is_object = np.zeros(side * side, bool)
        is_object[chosen] = True
        is_object = is_object.reshape(side, side)
        if not (is_object & taken).any() and ndimage.label(is_object, TOUCHING)[1] == 1:
            return is_object
    return None


def _distance(
    rng: np.random.Generator, kind: str, n_pixels: int, side: int
) -> NDArray[np.float64] | None:
    """Return the distance of each pixel to a circle, a line or a point; None beyond the frame.

    The nearest pixels are the object.
    """
    y0, x0 = rng.uniform(2, side - 3, size=2)
    y, x = np.mgrid[:side, :side] - np.array([y0, x0])[:, None, None]
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == "ring":
        reach = n_pixels / (2 * np.pi * max(1.5, n_pixels / 140))
        distance = np.abs(np.hypot(y, x) - reach)
    elif kind == "line":
        reach = n_pixels / max(1.5, n_pixels / 70) / 2
        distance = np.hypot(across, np.maximum(np.abs(along) - reach, 0))
    else:
        longer = rng.uniform(1, 2)
        reach = (n_pixels / np.pi * longer) ** 0.5
        distance = np.hypot(along, across * longer)
    ends = np.array([[np.sin(angle), np.cos(angle)]]) if kind == "line" else np.eye(2)
    corners = reach * np.concatenate([ends, -ends]) + [y0, x0]
    return distance if ((corners >= 1) & (corners <= side - 2)).all() else None
