"""Simulated crosses: some of their pixels are shown among noise hits, all of them are wanted.

A frame of 128 x 128 pixels holds one cross at a random place. Its pixels have one value, drawn
from 0.5 to 1. Shown are 15 of its pixels (all, if they are fewer) and 10 noise hits.

    arms x width   pixels   share of the frame
    1 x 1               5   0.03 %
    3 x 1              13   0.08 %
    6 x 2              52   0.3 %
    12 x 4            208   1.3 %
    33 x 11         1,573   9.6 %

Value bins of equal weight are left out: without small values they are nearly ACB-MSE.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from contest import LOSSES, Maps, Size, Task
from numpy.typing import NDArray
from paired_runs import Score
from torch import Tensor

SIDE = 128
SHAPES = {"0.03": (1, 1), "0.08": (3, 1), "0.3": (6, 2), "1.3": (12, 4), "9.6": (33, 11)}
N_SHOWN, N_NOISE = 15, 10
LEVEL = 0.25  # half of the smallest value


def cross(arm: int, width: int) -> NDArray[np.intp]:
    """Return the rows and columns of a cross, (n, 2), from 0."""
    side = 2 * arm + width
    mask = np.zeros((side, side), bool)
    mask[arm : arm + width] = mask[:, arm : arm + width] = True
    return np.argwhere(mask)


def draw(rng: np.random.Generator, n: int, arm: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw images and targets, (n, 1, 128, 128) each."""
    pixels, side = cross(arm, width), 2 * arm + width
    image, target = np.zeros((2, n, 1, SIDE, SIDE), np.float32)
    # one value from each of n equal parts: bright and faint crosses are as common in every set
    values = 0.5 + 0.5 * (rng.permutation(n) + rng.uniform(size=n)) / n
    for k, value in enumerate(values):
        rows, columns = (pixels + rng.integers(0, SIDE - side + 1, 2)).T
        target[k, 0, rows, columns] = value
        noise = rng.integers(0, SIDE, (2, N_NOISE))
        image[k, 0, noise[0], noise[1]] = rng.uniform(0.5, 1, N_NOISE)
        shown = rng.permutation(len(pixels))[:N_SHOWN]
        image[k, 0, rows[shown], columns[shown]] = value
    return torch.from_numpy(image), torch.from_numpy(target)


def crosses(share: str, size: Size) -> Task:
    """Return the task of crosses that fill this share of the frame, in percent."""
    arm, width = SHAPES[share]
    shape = functools.partial(draw, arm=arm, width=width)
    return Task(
        name=f"crosses-{share}",
        title=f"crosses on {share} % of the frame",
        level=LEVEL,
        edges=(LEVEL, 0.75),
        losses=tuple(name for name in LOSSES if name != "value bins"),
        score=Score("F1", True),
        batch=shape,
        validation=Maps(*shape(np.random.default_rng([2, arm]), size.n_validation)),
        test=Maps(*shape(np.random.default_rng([3, arm]), size.n_test)),
    )
