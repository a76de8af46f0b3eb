"""Range loss (Zhang et al., 2017, arXiv 1611.08976) on features of images or of pixels."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_at_least,
    check_choice,
    check_devices,
    check_floating,
    check_has_values,
    check_integral,
    is_batched,
    is_other,
    widen_half,
)
from dense_imb.losses.core.module import Loss

_SMALLEST = 1e-12  # squared distance of two features that coincide, whose inverse is finite


def range_loss(
    features: Tensor,
    label: Tensor,
    *,
    k: int = 2,
    margin: float = 100.0,
    intra_weight: float = 5e-5,
    inter_weight: float = 0.01,
    max_pixels: int = 256,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pull the farthest pairs of a class together, push the closest two classes apart.

        intra = sum over classes of  k / sum_{j=1..k} 1 / D_j,   D_j the k largest squared distances
        inter = max(margin - squared distance of the two closest class centres, 0)
        loss  = intra_weight intra + inter_weight inter

    A class with fewer than k pairs has no intra term; one class alone has no inter term.

    Args:
        features: (N, D), or embeddings of pixels, (B, D, *spatial); floating point.
        label: (N,), or (B, *spatial) or (B, 1, *spatial), bool, integer or whole floats.
        k: number of largest distances of a class in the harmonic mean.
        margin: squared distance of two centres beyond which nothing pushes them apart.
        intra_weight, inter_weight: weights of the two terms.
        max_pixels: number of features of a class that are drawn at most.
        ignore_index: label of ignored pixels.
        mask: nonzero where a pixel counts.
        generator: random generator of the draw.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [3.0], [8.0]])
        >>> range_loss(features, torch.tensor([0, 0, 1, 1]), k=1, intra_weight=1.0, margin=50.0)
        tensor(26.2500)
    """
    _check_arguments(k, margin, intra_weight, inter_weight, max_pixels)
    features, label = _flat(features, label, mask, ignore_index)
    intra, centres = [], []
    for one in torch.unique(label).tolist():
        of_class = features[_draw((label == one).nonzero().flatten(), max_pixels, generator)]
        centres.append(of_class.mean(0))
        distance = _squared_distances(of_class)
        if len(distance) >= k:
            intra.append(k / (1 / distance.topk(k).values.clamp(min=_SMALLEST)).sum())
    total = features.sum() * 0.0  # connected, and NaN where a feature is
    if intra:
        total = total + intra_weight * torch.stack(intra).sum()
    if len(centres) > 1:
        closest = _squared_distances(torch.stack(centres)).min()
        total = total + inter_weight * (margin - closest).clamp(min=0)
    return total


def _flat(
    features: Tensor, label: Tensor, mask: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Return the features that count, (n, D), and their labels."""
    features, label, mask = bare(features), bare(label), bare(mask)
    check_floating("features", features)
    check_has_values(features=features, label=label, mask=mask)
    check_devices("features", features, label=label, mask=mask)
    _check_not_batched(label, mask)
    if features.dim() < 2:
        raise ValueError(
            "Expected `features` of the shape (N, D) or (B, D, *spatial), "
            f"got {tuple(features.shape)}."
        )
    features = widen_half(features)
    batch, _, *spatial = features.shape
    flat = [_without_channel("label", label, (batch, *spatial))]
    if mask is not None:
        flat.append(_without_channel("mask", mask, (batch, *spatial)).bool())
    is_used = torch.ones_like(flat[0], dtype=torch.bool) if mask is None else flat[1]
    if ignore_index is not None:
        is_used = is_used & is_other(flat[0], ignore_index)
    return features.movedim(1, -1).flatten(0, -2)[is_used], _whole(flat[0][is_used])


def _check_not_batched(label: Tensor, mask: Tensor | None) -> None:
    """Refuse labels inside torch.func.vmap, where nothing tells which classes there are."""
    for name, value in (("label", label), ("mask", mask)):
        if value is not None and is_batched(value):
            raise ValueError(
                f"Expected `{name}` whose values can be read, got one inside torch.func.vmap: the "
                "classes of a range loss are read from it; loop over the batches instead."
            )


def _whole(label: Tensor) -> Tensor:
    """Return labels of any type as integers: MONAI's are whole floats."""
    if not label.is_floating_point():
        check_integral("label", label)
        return label
    is_broken = (label != label.round()) | label.isinf()  # True for NaN
    if bool(is_broken.any()):
        raise ValueError(
            f"Expected `label` to hold class indices, got {float(label[is_broken][0])}."
        )
    return label.long()


def _without_channel(name: str, value: Tensor, pixels: tuple[int, ...]) -> Tensor:
    if value.dim() == len(pixels) + 1 and value.shape[1] == 1:
        value = value.squeeze(1)
    if tuple(value.shape) != pixels:
        raise ValueError(f"Expected `{name}` of the shape {pixels}, got {tuple(value.shape)}.")
    return value.flatten()


def _draw(index: Tensor, at_most: int, generator: torch.Generator | None) -> Tensor:
    if len(index) <= at_most:
        return index
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(len(index), generator=generator, device=device)[:at_most]
    return index[order.to(index.device)]


def _squared_distances(points: Tensor) -> Tensor:
    """Return |a - b|^2 of every pair, (n, D) -> (n (n - 1) / 2,).

    Exact where |a|^2 + |b|^2 - 2ab cancels.
    """
    first, second = torch.triu_indices(len(points), len(points), 1, device=points.device)
    return (points[first] - points[second]).square().sum(1)


def _check_arguments(
    k: int, margin: float, intra_weight: float, inter_weight: float, max_pixels: int
) -> None:
    check_at_least("k", k, 1)
    check_at_least("margin", margin, 0)
    check_at_least("intra_weight", intra_weight, 0)
    check_at_least("inter_weight", inter_weight, 0)
    check_at_least("max_pixels", max_pixels, 2)


class RangeLoss(Loss):
    """Pull the farthest pairs of a class together, push the closest two classes apart.

        intra = sum over classes of  k / sum_{j=1..k} 1 / D_j,   D_j the k largest squared distances
        inter = max(margin - squared distance of the two closest class centres, 0)
        loss  = intra_weight intra + inter_weight inter

    A term to add to a classification loss. At most `max_pixels` features of each class are drawn
    from `seed` and the number of calls, which is in `state_dict`. See `range_loss` for the
    arguments. At call time: `mask`.

    Example:
        >>> loss = RangeLoss(k=1, margin=50.0, intra_weight=1.0)
        >>> loss(torch.tensor([[0.0], [1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1, 1]))
        tensor(26.2500)
    """

    shown = ("k", "margin", "intra_weight", "inter_weight", "max_pixels", "seed", "ignore_index")
    no_probability = "it trains features, not outputs"
    n_calls: Tensor

    def __init__(
        self,
        k: int = 2,
        margin: float = 100.0,
        intra_weight: float = 5e-5,
        inter_weight: float = 0.01,
        *,
        max_pixels: int = 256,
        seed: int = 0,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_choice("reduction", reduction, ("mean",))
        _check_arguments(k, margin, intra_weight, inter_weight, max_pixels)
        self.k = k
        self.margin = margin
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.max_pixels = max_pixels
        self.seed = seed
        self.ignore_index = ignore_index
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, label: Tensor, *, mask: Tensor | None = None) -> Any:
        """Return the loss of features and their labels; see `range_loss`."""
        # a generator keeps 32 bits of its seed: mix, don't shift
        draw = random.Random(f"{self.seed} {int(self.n_calls)}").getrandbits(32)
        generator = torch.Generator().manual_seed(draw)
        self.n_calls.add_(1)
        return range_loss(
            features,
            label,
            k=self.k,
            margin=self.margin,
            intra_weight=self.intra_weight,
            inter_weight=self.inter_weight,
            max_pixels=self.max_pixels,
            ignore_index=self.ignore_index,
            mask=mask,
            generator=generator,
        )
