"""Contestants of loss_speed.py: data, formulas and losses of each section.

A contestant is one line. `losses` is dense_imb.losses; losses missing there are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from interleaved import Contestant, Formula, Missing
from torch import Tensor

HIT_SHARE = 0.02
EDGES = (0.001, *(k / 15 for k in range(1, 15)))  # 16 bins: the empty pixels, and 15 of hits
LABEL_SHARE = 0.03  # of all labels but the background
RARER = 0.75  # each of these is rarer than the one before by this factor


class _Losses:
    """The losses of dense_imb; a missing one skips its contestant."""

    def __getattr__(self, name: str) -> Any:
        module = import_module("dense_imb.losses")
        if name not in module.__all__:
            raise Missing("not in dense_imb.losses")
        return getattr(module, name)


losses = _Losses()


# --- regression ------------------------------------------------------------------------------


class Frames(NamedTuple):
    """Almost empty frames; hits between 0 and 1."""

    prediction: Tensor  # (B, 1, *spatial)
    target: Tensor  # (B, 1, *spatial)
    mask: Tensor  # (B, 1, *spatial) bool, nine pixels in ten


def make_frames(shape: Sequence[int], device: str) -> Frames:
    rng = torch.Generator().manual_seed(0)
    is_hit = torch.rand(shape, generator=rng) < HIT_SHARE
    target = torch.where(is_hit, 1 - torch.rand(shape, generator=rng), 0.0)
    prediction = torch.rand(shape, generator=rng)
    mask = torch.rand(shape, generator=rng) < 0.9
    return Frames(prediction.to(device).requires_grad_(), target.to(device), mask.to(device))


def regression_contestants(data: Frames) -> list[Contestant]:
    def masked_acb_mse(prediction: Tensor, target: Tensor) -> Tensor:
        return where_acb_mse(prediction, target, data.mask)

    def acb_mask() -> Formula:
        loss = losses.ACBMSELoss()
        return lambda prediction, target: loss(prediction, target, mask=data.mask)

    def acb_image() -> Formula:
        return losses.ACBMSELoss(scope="image")

    def bins() -> Formula:
        return losses.BalancedRegressionLoss(partition=losses.ValueBins(EDGES))

    return [
        Contestant("torch mse_loss", "floor", lambda: F.mse_loss, F.mse_loss, is_compiled=True),
        Contestant("plain copy", "limit", lambda: plain_copy),
        Contestant("ACBMSELoss", "ours", lambda: losses.ACBMSELoss(), where_acb_mse, 1, True),
        Contestant("torch.where", "rival", lambda: where_acb_mse, where_acb_mse, 1, True),
        Contestant("acb-mse", "rival", lambda: import_module("acb_mse").ACBLoss(), where_acb_mse),
        Contestant('ACBMSELoss scope="image"', "ours", acb_image, acb_mse_by_image),
        Contestant("ACBMSELoss mask", "ours", acb_mask, masked_acb_mse),
        Contestant("16 ValueBins", "ours", bins, binned_mse, is_compiled=True),
    ]


def plain_copy(prediction: Tensor, target: Tensor) -> Tensor:
    """Copy the memory in one pass."""
    return prediction.detach().clone()


def where_acb_mse(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weight each pixel, as the simplest code does."""
    is_hit, is_empty = target != 0, target == 0
    if mask is not None:
        is_hit, is_empty = is_hit & mask, is_empty & mask
    square = (prediction - target) ** 2
    hit_weight, empty_weight = 1 / is_hit.sum(), 1 / is_empty.sum()
    weight = torch.where(is_hit, hit_weight, torch.where(is_empty, empty_weight, 0.0))
    return (weight * square).sum()


def acb_mse_by_image(prediction: Tensor, target: Tensor) -> Tensor:
    pairs = zip(prediction, target, strict=True)
    return torch.stack([where_acb_mse(p, t) for p, t in pairs]).mean()


def binned_mse(prediction: Tensor, target: Tensor) -> Tensor:
    label = torch.bucketize(target.float(), torch.tensor(EDGES, device=target.device), right=True)
    square = (prediction - target) ** 2
    return torch.stack([square[label == c].mean() for c in label.unique()]).mean()


# --- classification --------------------------------------------------------------------------


class Labels(NamedTuple):
    """Logits and labels: mostly background, each further class rarer than the one before."""

    prediction: Tensor  # logits (B, C, *spatial)
    target: Tensor  # (B, *spatial) int64
    class_counts: list[int]


def make_labels(shape: Sequence[int], device: str) -> Labels:
    rng = torch.Generator().manual_seed(0)
    n_images, n_classes, *spatial = shape
    n_pixels = n_images * torch.Size(spatial).numel()
    share = RARER ** torch.arange(n_classes).double()
    share[0] = share[1:].sum() * (1 - LABEL_SHARE) / LABEL_SHARE
    target = torch.multinomial(share, n_pixels, replacement=True, generator=rng)
    class_counts = torch.bincount(target, minlength=n_classes).clamp(min=1).tolist()
    logits = 2 * torch.randn(shape, generator=rng)
    target = target.view(n_images, *spatial).to(device)
    return Labels(logits.to(device).requires_grad_(), target, class_counts)


def classification_contestants(data: Labels) -> list[Contestant]:
    n_classes = data.prediction.shape[1]
    counts = data.class_counts
    count = torch.tensor(counts, dtype=torch.float64, device=data.target.device)
    log_prior = (count / count.sum()).log()
    weight = 1 / count

    # formulas that need the counts; torch.cross_entropy divides by the sum of the weights
    def weighted(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, weight=weight.to(logits.dtype))

    def balanced_softmax(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits + per_class(log_prior, logits), target)

    def divided_by_root_count(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits / per_class(count.sqrt(), logits), target)

    def ldam(logits: Tensor, target: Tensor) -> Tensor:
        one_hot = torch.zeros_like(logits).scatter_(1, target.unsqueeze(1), 1.0)
        margin = 0.5 * (count / count.min()) ** -0.25
        return F.cross_entropy(30 * (logits - per_class(margin, logits) * one_hot), target)

    def with_channel(loss: Formula) -> Formula:  # labels as MONAI wants them, (B, 1, *spatial)
        return lambda logits, target: loss(logits, target.unsqueeze(1))

    def monai_focal() -> Formula:
        monai = import_module("monai.losses")
        return with_channel(monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0))

    def monai_dice() -> Formula:
        return with_channel(
            import_module("monai.losses").DiceCELoss(to_onehot_y=True, softmax=True)
        )

    def kornia_focal() -> Formula:
        return import_module("kornia.losses").FocalLoss(alpha=None, gamma=2.0, reduction="mean")

    def smp_focal() -> Formula:  # a sum of sigmoids, not a softmax: nobody else computes it
        return import_module("segmentation_models_pytorch.losses").FocalLoss("multiclass", gamma=2)

    def compensated() -> Formula:  # from the start, with the uniform test prior
        return losses.BiasCompensatedLoss(class_counts=counts)

    def ours(
        name: str, formula: Formula, make: Callable[[], Formula], is_compiled: bool = False
    ) -> Contestant:
        return Contestant(name, "ours", make, formula, is_compiled=is_compiled)

    def rival(name: str, formula: Formula | None, make: Callable[[], Formula]) -> Contestant:
        return Contestant(name, "rival", make, formula)

    def plain(name: str, formula: Formula) -> Contestant:  # a rival that is its own formula
        return Contestant(name, "rival", lambda: formula, formula)

    ce, hm, cce = F.cross_entropy, published_hard_mining, published_cce
    return [
        Contestant("torch cross_entropy", "floor", lambda: ce, ce, is_compiled=True),
        Contestant("plain copy", "limit", lambda: plain_copy),
        ours("CrossEntropyLoss", ce, lambda: losses.CrossEntropyLoss(), True),
        rival("MONAI DiceCELoss", None, monai_dice),
        ours(
            "CrossEntropyLoss balance",
            balanced_cross_entropy,
            lambda: losses.CrossEntropyLoss(balance=losses.Balance()),
            True,
        ),
        plain("torch, weight=1/bincount", balanced_cross_entropy),
        plain("torch, weight fixed", weighted),
        ours("FocalLoss", focal, lambda: losses.FocalLoss(gamma=2), True),
        # these two average over the channels as well
        replace(rival("MONAI FocalLoss", focal, monai_focal), scale=n_classes),
        replace(rival("kornia FocalLoss", focal, kornia_focal), scale=n_classes),
        rival("smp FocalLoss", None, smp_focal),
        ours("HardMiningLoss", hm, lambda: losses.HardMiningLoss(delta=1e7), True),
        plain("HMLoss as published", hm),
        ours(
            "HardMiningLoss balance",
            balanced_hard_mining,
            lambda: losses.HardMiningLoss(delta=1e7, balance=losses.Balance()),
            True,
        ),
        ours("ComplementCrossEntropyLoss", cce, lambda: losses.ComplementCrossEntropyLoss(), True),
        plain("CCE as published", cce),
        ours(
            "BalancedSoftmaxLoss",
            balanced_softmax,
            lambda: losses.BalancedSoftmaxLoss(class_counts=counts),
        ),
        ours("BiasCompensatedLoss", balanced_softmax, compensated),
        plain("torch, logits + prior", balanced_softmax),
        ours(
            "ClassDependentTemperatureLoss",
            divided_by_root_count,
            lambda: losses.ClassDependentTemperatureLoss(class_counts=counts),
        ),
        plain("torch, logits / sqrt(count)", divided_by_root_count),
        ours("LDAMLoss", ldam, lambda: losses.LDAMLoss(class_counts=counts)),
        plain("LDAM as published", ldam),
    ]


def per_class(values: Tensor, logits: Tensor) -> Tensor:
    return values.to(logits.dtype).view(-1, *[1] * (logits.dim() - 2))


def log_probability(logits: Tensor, target: Tensor) -> Tensor:  # (B, *spatial)
    return logits.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)


def focal(logits: Tensor, target: Tensor) -> Tensor:
    true = log_probability(logits, target)
    return -((1 - true.exp()) ** 2 * true).mean()


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    count = torch.bincount(target.flatten(), minlength=logits.shape[1]).clamp(min=1)
    return F.cross_entropy(logits, target, weight=1 / count.to(logits.dtype))


def published_hard_mining(logits: Tensor, target: Tensor) -> Tensor:
    return hard_mining_map(logits, target).mean()


def balanced_hard_mining(logits: Tensor, target: Tensor) -> Tensor:
    error = hard_mining_map(logits, target)
    return torch.stack([error[target == c].mean() for c in target.unique()]).mean()


def hard_mining_map(logits: Tensor, target: Tensor, delta: float = 1e7) -> Tensor:
    """HMLoss at alpha = gamma = 1 on clipped probabilities, as its authors wrote it."""
    p = logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1).clamp(1e-7, 1 - 1e-7)
    rise = torch.sin(torch.pi * torch.minimum(p, 1 - p)) / (torch.pi * p)
    fall = torch.exp(-delta * p) * torch.sinc(delta * p)
    return -(rise - fall) * p.log()


def published_cce(logits: Tensor, target: Tensor) -> Tensor:
    """Complement cross-entropy, balancing factor 1, as its authors wrote it."""
    n_classes = logits.shape[1]
    index = target.unsqueeze(1)
    cross_entropy = F.nll_loss(logits.log_softmax(1), target)
    probability = logits.softmax(1)
    rest = probability / (1 - probability.gather(1, index)) + 1e-7
    is_other = torch.ones_like(logits).scatter_(1, index, 0.0)
    complement = (rest * torch.log(rest + 1e-10) * is_other).sum()
    return cross_entropy - complement / (target.numel() * n_classes)
