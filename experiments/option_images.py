"""Images of the tasks of `balance_options.py`, and skeletons of thin structures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import outliers
import thin_structures
import torch
from numpy.typing import NDArray
from torch import Tensor

Sample = tuple[Tensor, Tensor, Tensor]  # image, label, skeleton of the label; (1, H, W) each

# distance rules of the kinds, in coordinates of -1 to 1; the kinds are classes 1 to 4
KINDS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda u, v: np.hypot(u, v) < 0.8,
    lambda u, v: abs(np.hypot(u, v) - 0.75) < 0.25,
    lambda u, v: (np.minimum(abs(u), abs(v)) < 0.25) & (np.maximum(abs(u), abs(v)) < 0.9),
    lambda u, v: abs(np.maximum(abs(u), abs(v)) - 0.7) < 0.25,
)
RARE = (0.6, 0.25, 0.1, 0.05)  # fraction of the objects that each kind has
FAINT = (1.0, 1.0, 1.0, 0.5)  # contrast of each kind
EVEN, BRIGHT = (0.25,) * 4, (1.0,) * 4


class Data(NamedTuple):
    """Images of a task; only the labels of the training images may be wrong."""

    training: list[Sample]
    validation: list[Sample]
    test: list[Sample]


def kinds(
    seed: int, frequency: tuple[float, ...], contrast: tuple[float, ...], n: int = 160
) -> Data:
    """Draw discs, rings, crosses and frames, 48 x 48 pixels, three objects an image on average."""
    parts = (_kinds(n_images, [seed, part], frequency, contrast) for part, n_images in
             enumerate((n, n, 2 * n)))  # fmt: skip
    return Data(*parts)


def discs(seed: int, side: int = 32, flipped: float = 0.0, shift: int = 0, n: int = 64) -> Data:
    """Draw the noisy discs of `outliers.py`.

    Args:
        flipped: fraction of the training pixels with a wrong label.
        shift: training labels are moved by up to this number of pixels, drawn for each image.
    """
    parts = [outliers.images(n, 1000 * part + seed, side) for part in (1, 2, 3)]
    label = outliers.flipped(parts[0][1], flipped, seed)
    rng = torch.Generator().manual_seed(seed)
    moves = torch.randint(-shift, shift + 1, (n, 2), generator=rng).tolist()
    label = torch.stack([one.roll(move, (0, 1)) for one, move in zip(label, moves, strict=True)])
    labels = (label, parts[1][1], parts[2][1])
    return Data(
        *(with_skeletons(part[0], one[:, None]) for part, one in zip(parts, labels, strict=True))
    )


def lines(seed: int, n: int = 60, side: int = 64) -> Data:
    """Draw textures with one faint crooked line, 2 pixels wide."""
    parts = []
    for part, n_images in enumerate((n, n, 2 * n)):
        rng = torch.Generator().manual_seed(10 * seed + part)
        drawn = [thin_structures.generated(rng, side) for _ in range(n_images)]
        parts.append(with_skeletons(*map(torch.stack, zip(*drawn, strict=True))))
    return Data(*parts)


def cracks(seed: int) -> Data:
    """Read CrackForest from the folder in DENSE_IMB_DATA; the seed splits its photographs."""
    folder = Path(os.environ["DENSE_IMB_DATA"]) / "crackforest"
    read = thin_structures.samples(str(folder / "images"), str(folder / "masks"), 0, seed)
    data = with_skeletons(*map(torch.stack, zip(*read, strict=True)))
    n_test, n_validation = len(data) // 3, len(data) // 6
    return Data(data[n_test + n_validation :], data[n_test : n_test + n_validation], data[:n_test])


def with_skeletons(image: Tensor, label: Tensor) -> list[Sample]:
    """Return samples of images and labels (N, 1, H, W)."""
    thin = torch.from_numpy(skeletons(label[:, 0].numpy() > 0))[:, None]
    return list(zip(image.float(), label.long(), thin, strict=True))


def skeletons(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin masks (N, H, W) to lines of one pixel that touch alike (Zhang and Suen 1984).

    A pixel on the rim is removed if 2 to 6 of its 8 neighbours are set, and if these are one run
    around it. Two turns alternate, one for each side, until nothing changes.
    """
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    flat, wide = padded.reshape(-1), padded.shape[2]
    ring = np.array([-wide, 1 - wide, 1, 1 + wide, wide, wide - 1, -1, -1 - wide])  # from north
    place, n_before = np.flatnonzero(flat), -1
    while len(place) != n_before:
        n_before = len(place)
        for turn in (0, 4):
            near = flat[place[:, None] + ring]
            n_near = near.sum(1)
            n_runs = (~near & np.roll(near, -1, 1)).sum(1)
            north, east, south, west = np.roll(near, turn, 1)[:, ::2].T
            is_rim = ~(north & east & south) & ~(east & south & west)
            is_gone = (n_near >= 2) & (n_near <= 6) & (n_runs == 1) & is_rim
            flat[place[is_gone]] = False
            place = place[~is_gone]
    return padded[:, 1:-1, 1:-1]


def _kinds(
    n: int, seed: list[int], frequency: tuple[float, ...], contrast: tuple[float, ...]
) -> list[Sample]:
    rng, side = np.random.default_rng(seed), 48
    image = rng.normal(size=(n, 1, side, side)) * 0.7
    label = np.zeros((n, 1, side, side), int)
    grid = np.mgrid[:side, :side]
    for i in range(n):
        for _ in range(1 + rng.poisson(2)):
            kind = rng.choice(len(KINDS), p=frequency)
            radius = rng.uniform(4, 7)
            v, u = (grid - rng.uniform(radius, side - radius, (2, 1, 1))) / radius
            is_object = KINDS[kind](u, v) & (label[i, 0] == 0)
            label[i, 0][is_object] = kind + 1
            image[i, 0][is_object] += contrast[kind] * rng.uniform(1, 2)
    return with_skeletons(torch.from_numpy(image), torch.from_numpy(label))
