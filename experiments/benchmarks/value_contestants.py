"""Contestants of the values section of loss_speed.py: a cover of cells, and Balanced MSE.

An image (B, 1, *spatial) goes to the cover; the floor is `l1_loss`. One axis of pixels,
(B, 1, N), goes to Balanced MSE; the floor is a bare logsumexp of a matrix (N_SAMPLES, N_SAMPLES).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from interleaved import Contestant, Formula
from loss_contestants import losses
from torch import Tensor

N_CELLS = 11
N_SAMPLES = 1024
SIGMA = 0.1


class Values(NamedTuple):
    """Values between 0 and 1, and cells that overlap: one box each."""

    prediction: Tensor  # (B, 1, *spatial)
    target: Tensor  # (B, 1, *spatial)
    masks: Tensor  # (B, N_CELLS, *spatial) bool
    field: Tensor  # (B, *spatial) int32, bit g set in cell g


def make_values(shape: Sequence[int], device: str) -> Values:
    rng = torch.Generator().manual_seed(0)
    n_images, _, *spatial = shape
    masks = torch.zeros(n_images, N_CELLS, *spatial, dtype=torch.bool)
    for cell in masks.flatten(0, 1):
        cell[tuple(_interval(size, rng) for size in spatial)] = True
    bit = torch.arange(N_CELLS, dtype=torch.int32).view(1, -1, *[1] * len(spatial))
    field = (masks.int() << bit).sum(1, dtype=torch.int32)
    prediction, target = torch.rand(2, *shape, generator=rng)
    return Values(
        prediction.to(device).requires_grad_(),
        target.to(device),
        masks.to(device),
        field.to(device),
    )


def _interval(size: int, rng: torch.Generator) -> slice:
    """Return an interval of a tenth to half of an axis."""
    part, place = torch.rand(2, generator=rng).tolist()
    length = max(1, int(size * (0.1 + 0.4 * part)))
    start = int((size - length + 1) * place)
    return slice(start, start + length)


def value_contestants(data: Values) -> list[Contestant]:
    return _of_cells(data) if data.prediction.dim() > 3 else _of_samples(data)


def _of_cells(data: Values) -> list[Contestant]:
    def with_label(label: Tensor) -> Callable[[], Formula]:
        def make() -> Formula:
            loss = losses.BalancedRegressionLoss("l1", losses.Cover(N_CELLS, rest="cell"))
            return lambda prediction, target: loss(prediction, target, label=label)

        return make

    def cell_by_cell(prediction: Tensor, target: Tensor) -> Tensor:
        """Mean error of each cell, and of the rest."""
        error = (prediction - target).abs()
        cells = [*data.masks.unbind(1), ~data.masks.any(1)]
        return torch.stack([error[:, 0][cell].mean() for cell in cells if cell.any()]).mean()

    return [
        Contestant("torch l1_loss", "floor", lambda: F.l1_loss, F.l1_loss),
        Contestant("Cover, bit field", "ours", with_label(data.field), cell_by_cell),
        Contestant(
            "Cover, bit field of int64", "ours", with_label(data.field.long()), cell_by_cell
        ),
        Contestant("Cover, masks", "ours", with_label(data.masks), cell_by_cell),
        Contestant("one cell after the other", "rival", lambda: cell_by_cell, cell_by_cell),
    ]


def _of_samples(data: Values) -> list[Contestant]:
    rng = torch.Generator().manual_seed(1)
    matrix = torch.rand(N_SAMPLES, N_SAMPLES, generator=rng).to(data.prediction.device)
    has_all = data.prediction.numel() <= N_SAMPLES  # one sample has no formula to compare with

    def logsumexp(prediction: Tensor, target: Tensor) -> Tensor:
        return matrix.detach().requires_grad_().logsumexp(1).sum()

    return [
        Contestant("torch logsumexp", "floor", lambda: logsumexp),
        Contestant(
            "BalancedMSELoss",
            "ours",
            lambda: losses.BalancedMSELoss(SIGMA, N_SAMPLES),
            published if has_all else None,
        ),
        Contestant(
            "published formula", "rival", lambda: published if has_all else published_of_some
        ),
    ]


def published(prediction: Tensor, target: Tensor) -> Tensor:
    """Balanced MSE of all values as a cross-entropy over pairs."""
    logits = -((prediction.reshape(-1, 1) - target.reshape(1, -1)) ** 2) / (2 * SIGMA**2)
    place = torch.arange(len(logits), device=logits.device)
    return 2 * SIGMA**2 * F.cross_entropy(logits, place)


def published_of_some(prediction: Tensor, target: Tensor) -> Tensor:
    """The same of the first values."""
    return published(prediction.reshape(-1)[:N_SAMPLES], target.reshape(-1)[:N_SAMPLES])
