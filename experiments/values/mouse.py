"""Frames of a mouse and the heat maps of its four key points, divided by time.

The first 60 % of the video are for training, the next 20 % for choices, the last for scores.
Frames are halved to 160 x 120. Training takes crops, mirrored at random; a mirror swaps the ears.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from contest import LOSSES, Maps, Size, Task
from paired_runs import Score
from PIL import Image
from torch import Tensor

from dense_imb.data.values.key_point_tables import KeyPoints, read_key_points
from dense_imb.data.values.key_points import find_points, heat_maps
from dense_imb.metrics import KeyPointScores

SHARES = (0.6, 0.2, 0.2)
LEVEL = 0.5
CROP = 96
DISTANCE = 4.0  # of PCK, in pixels of the maps


def folder_of(given: Path | None) -> Path:
    """Return the folder of the frames and their key points."""
    return (given or Path(os.environ.get("DENSE_IMB_DATA", "."))) / "mouse_keypoints"


def frames(folder: Path, table: KeyPoints, shrink: int) -> tuple[Tensor, Tensor]:
    """Return the frames (N, 1, H, W), of mean 0 and spread 1, and their key points.

    Args:
        folder: folder of the images.
        table: key points of the images to read.
        shrink: factor by which frames and positions are made smaller.
    """
    pictures = [np.asarray(Image.open(path).convert("L")) for path in table.find_images(folder)]
    image = torch.from_numpy(np.stack(pictures)).float()[:, None]
    if shrink > 1:
        image = F.avg_pool2d(image, shrink)
    # centre of the first pixel is 0 before and after
    points = (torch.from_numpy(table.points) - (shrink - 1) / 2) / shrink
    mean, deviation = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
    return (image - mean) / deviation, points.clamp(min=-0.5)


def mouse(sigma: float, size: Size, folder: Path, shrink: int = 2) -> Task:
    """Return the task of heat maps of this sigma, in pixels of the shrunk frames."""
    table = read_key_points(folder / "keypoints.csv")
    train, validation, test = (
        frames(folder / "images", part, shrink) for part in table.divide(SHARES)
    )

    def maps(part: tuple[Tensor, Tensor]) -> Maps:
        image, points = part
        return Maps(image, heat_maps(points, image.shape[2:], sigma), points)

    trained = maps(train)
    mirror = torch.tensor([table.names.index(_mirrored(name)) for name in table.names])

    def batch(rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(rng.integers(len(trained.image), size=n))
        top, left = (int(rng.integers(max(s - CROP, 0) + 1)) for s in trained.image.shape[2:])
        window = (slice(None), slice(top, top + CROP), slice(left, left + CROP))
        flips = [axis for axis in (-2, -1) if rng.integers(2)]
        both = [torch.stack([one[k][window] for k in chosen]).flip(flips) for one in trained[:2]]
        if len(flips) == 1:
            both[1] = both[1][:, mirror]
        return both[0], both[1]

    def extra(output: Tensor, maps: Maps) -> dict[str, float]:
        assert maps.points is not None
        scores = KeyPointScores(table.names, distances=(DISTANCE,))
        scores.update(find_points(output, sigma=sigma).position, maps.points)
        known = scores.scores()
        return {name: known[name] for name in ("error", "median_error", f"pck_{DISTANCE:g}")}

    return Task(
        name=f"mouse-{sigma:g}",
        title=f"mouse, sigma {sigma:g}",
        level=LEVEL,
        edges=(0.1, 0.5),
        losses=tuple(LOSSES),
        score=Score("error", False),
        batch=batch,
        validation=maps(validation),
        test=maps(test),
        extra=extra,
    )


def _mirrored(name: str) -> str:
    if name.startswith("left"):
        return "right" + name.removeprefix("left")
    if name.startswith("right"):
        return "left" + name.removeprefix("right")
    return name
