"""Contestants of the regions section of loss_speed.py: Dice and its kin, per class and instance."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import torch
import torch.nn.functional as F
from interleaved import Contestant, Formula
from loss_contestants import losses
from torch import Tensor

BLOCK_SHARE = 0.05  # of the blocks of foreground
BLOCK = 4  # pixels along each axis
N_INSTANCES = (1, 100, 5000)  # of each class


class Regions(NamedTuple):
    """Logits, labels in blocks of foreground, and instance maps of the same labels."""

    prediction: Tensor  # logits (B, C, *spatial)
    target: Tensor  # (B, *spatial) int64
    instance: dict[int, Tensor]  # (B, *spatial) int32, by the number of instances of a class
    nearest: Tensor  # (B, *spatial) int32, with a number everywhere


def make_regions(shape: Sequence[int], device: str) -> Regions:
    rng = torch.Generator().manual_seed(0)
    n_images, n_channels, *spatial = shape
    coarse = [-(-size // BLOCK) for size in spatial]
    n_foreground = max(n_channels, 2) - 1
    label = torch.randint(1, n_foreground + 1, (n_images, *coarse), generator=rng)
    label = torch.where(torch.rand(label.shape, generator=rng) < BLOCK_SHARE, label, 0)
    label.view(-1)[:n_foreground] = torch.arange(1, n_foreground + 1)  # each class has pixels
    number = torch.arange(label[0].numel()).view(coarse)  # of the block in its image
    target = _in_pixels(label, spatial)
    instance = {
        n: _in_pixels(torch.where(label > 0, number % n * n_foreground + label, 0), spatial)
        for n in N_INSTANCES
    }
    # blocks of background get a number that a block of foreground may have
    neighbour = number % 100 * n_foreground + label.clamp(min=1)
    nearest = _in_pixels(neighbour, spatial)
    logits = 2 * torch.randn(shape, generator=rng)
    return Regions(
        logits.to(device).requires_grad_(),
        target.to(device),
        {n: one.int().to(device) for n, one in instance.items()},
        nearest.int().to(device),
    )


def _in_pixels(coarse: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return a map of blocks as one of pixels, cropped to the wanted size."""
    for axis, size in enumerate(spatial, 1):
        coarse = coarse.repeat_interleave(BLOCK, axis).narrow(axis, 0, size)
    return coarse.contiguous()


def region_contestants(data: Regions) -> list[Contestant]:
    is_binary = data.prediction.shape[1] == 1

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        if is_binary:
            return F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype))
        return F.cross_entropy(logits, target)

    def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        return dice(logits, target) + cross_entropy(logits, target)

    def blob_of(n: int) -> Formula:
        loss = losses.DiceLoss(per="instance")
        return lambda logits, target: loss(logits, target, instance=data.instance[n])

    def cc() -> Formula:
        loss = losses.DiceLoss(per="instance")
        return lambda logits, target: loss(logits, target, instance=data.nearest)

    def blob_and_cross_entropy() -> Formula:
        loss = losses.CompoundLoss(losses.DiceLoss(per="instance"), losses.CrossEntropyLoss())
        return lambda logits, target: loss(logits, target, instance=data.instance[100])

    def sum_of_both() -> Formula:
        return losses.CompoundLoss(losses.DiceLoss(), losses.CrossEntropyLoss())

    def monai(name: str) -> Formula:
        make = getattr(import_module("monai.losses"), name)
        if is_binary:
            loss = make(sigmoid=True, batch=True)
            return lambda logits, target: loss(logits, target.unsqueeze(1).to(logits.dtype))
        loss = make(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        return lambda logits, target: loss(logits, target.unsqueeze(1))

    def smp_dice() -> Formula:
        module = import_module("segmentation_models_pytorch.losses")
        loss = module.DiceLoss("binary" if is_binary else "multiclass")
        return lambda logits, target: loss(logits, target.unsqueeze(1) if is_binary else target)

    return [
        Contestant("torch cross_entropy", "floor", lambda: cross_entropy, is_compiled=True),
        Contestant("DiceLoss", "ours", lambda: losses.DiceLoss(), dice, is_compiled=True),
        Contestant("MONAI DiceLoss", "rival", lambda: monai("DiceLoss"), dice),
        Contestant("smp DiceLoss", "rival", smp_dice),
        Contestant("TverskyLoss", "ours", lambda: losses.TverskyLoss()),
        Contestant("Matthews", "ours", lambda: losses.RegionLoss(losses.Matthews())),
        Contestant("DiceLoss + CE", "ours", sum_of_both, dice_and_cross_entropy, 1, True),
        Contestant(
            "MONAI DiceCELoss", "rival", lambda: monai("DiceCELoss"), dice_and_cross_entropy
        ),
        *(
            Contestant(f"blob Dice, {n} instances", "ours", lambda n=n: blob_of(n))
            for n in N_INSTANCES
        ),
        Contestant("CC Dice, 100 instances", "ours", cc),
        Contestant("blob Dice + CE, 100 instances", "ours", blob_and_cross_entropy),
    ]


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss of the foreground classes over the batch."""
    p = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:]
    values = []
    for k in range(p.shape[1]):
        is_class = target == k + 1
        hits = (p[:, k] * is_class).sum()
        values.append(1 - 2 * hits / (p[:, k].sum() + is_class.sum()))
    return torch.stack(values).mean()
