"""Losses of features, the input of a network's last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dense_imb.data.epochs.mixing import Mixing
from dense_imb.data.images.labelled import IGNORED
from dense_imb.losses.foreign.feeding import feeds_on
from dense_imb.models import head_of

_POOLS: dict[int, Any] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}


class FeatureTerm(nn.Module):
    """A loss of the features, added to that of the output.

    A hook on the last layer (`head_of`) keeps the features of every forward pass with gradients.
    If they are coarser than the labels, a cell has its rarest class, see `coarse_label`.

    With `RangeLoss` a step of `fast_unet` takes 1.1 to 1.2 times the CPU time, 1.06 to 1.14 times
    with `max_pixels=64` (`experiments/benchmarks/feature_step.py`).

    Args:
        network: network with the features; it may be called wrapped.
        loss: loss of features (B, D, *cells), called with labels (B, *cells) and a bool mask of
            that shape, for example `RangeLoss`.
        class_counts: training pixels of each class, to know the rare ones; not needed for whole
            images.
    """

    rank: Tensor  # (256,) place of each label, the rarest class last, 0 where there is none

    def __init__(
        self, network: nn.Module, loss: nn.Module, class_counts: Sequence[int] = ()
    ) -> None:
        super().__init__()
        check_takes_features(loss)
        if len(class_counts) > IGNORED:
            raise ValueError(
                f"Expected up to {IGNORED} classes with a `feature_loss`, got {len(class_counts)}; "
                "train without it."
            )
        self.loss = loss
        self.value: Tensor | None = None  # in the last call
        self._caught: Tensor | None = None
        self._head = type(head := head_of(network)).__name__
        head.register_forward_pre_hook(self._catch)
        # a checkpoint need not hold what the data say
        self._has_counts = len(class_counts) > 0
        self.register_buffer("rank", rank_of_rarity(class_counts), persistent=False)

    def logged(self) -> Mapping[str, float]:
        """Value of the last step, for the history."""
        return {} if self.value is None else {"loss_features": float(self.value)}

    def cost(self, label: Tensor, n: int, frame: Sequence[int] = ()) -> Tensor | None:
        """Return the loss of the first n features of the last forward pass, and drop them.

        None if no layer before the last one is trained.

        Args:
            label: (n,) or (n, *spatial) classes, `IGNORED` where a feature is left out.
            n: number of samples.
            frame: size in pixels that the features cover, at least that of `label`.
        """
        features, self._caught = self._caught, None
        if features is None:
            raise ValueError(
                f"Expected a network that calls its last layer, {self._head}, got none of its "
                "features; train without a loss of features."
            )
        if not features.requires_grad:
            return None
        if features.dim() != label.dim() + 1:
            raise ValueError(
                f"Expected features (B, D, *spatial) with {label.dim() - 1} spatial dimensions, "
                f"got {tuple(features.shape)}; train without a loss of features."
            )
        if tuple(features.shape[2:]) != tuple(label.shape[1:]):
            label = self._coarse(label, tuple(features.shape[2:]), frame)
        is_known = label != IGNORED
        cost: Tensor = self.loss(features[:n], label.masked_fill(~is_known, 0), mask=is_known)
        self.value = cost.detach()
        return cost

    def _coarse(self, label: Tensor, cells: Sequence[int], frame: Sequence[int]) -> Tensor:
        if not self._has_counts:
            raise ValueError(
                f"Expected `class_counts` of the training set with features of {tuple(cells)} "
                f"cells and labels of {tuple(label.shape[1:])} pixels, to know which class of a "
                "cell is rare; got none."
            )
        return coarse_label(label, cells, frame, self.rank)

    def _catch(self, head: nn.Module, fed: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            self._caught = fed[0]


def check_takes_features(loss: nn.Module) -> None:
    """Refuse a loss of anything but features."""
    if feeds_on(loss) != "features":
        raise ValueError(
            f"Expected a loss of features, for example RangeLoss, got {type(loss).__name__}, "
            f"a loss of {feeds_on(loss)}."
        )


def check_not_mixed(mixing: Mixing) -> None:
    """Refuse mixing that makes soft targets; a union of hits keeps them sharp."""
    if mixing.kind != "none" and mixing.hits == "linear":
        raise ValueError(
            f"Expected no mixing with a `feature_loss`, got {mixing.kind}: the features of two "
            "classes at once have no label; drop one of the two."
        )


def rank_of_rarity(class_counts: Sequence[int]) -> Tensor:
    """Return the rank of each label, (256,): 1 for the commonest class; 0 for `IGNORED`.

    Example:
        >>> rank_of_rarity([90, 1, 9])[:4]
        tensor([1, 3, 2, 0])
    """
    rank = torch.zeros(256, dtype=torch.long)
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    rank[counts.argsort(descending=True, stable=True)] = torch.arange(1, len(counts) + 1)
    return rank


def coarse_label(label: Tensor, cells: Sequence[int], frame: Sequence[int], rank: Tensor) -> Tensor:
    """Return labels (B, *spatial) on the coarser grid of features: the rarest class of a cell.

    The nearest pixel, or the commonest class, would lose thin lines. A cell is ignored if all of
    its pixels are.

    Args:
        label: classes, `IGNORED` where there is none.
        cells: size of the grid.
        frame: size in pixels that the grid covers, at least that of `label`; the rest is padding.
        rank: see `rank_of_rarity`.

    Example:
        >>> label = torch.tensor([[[0, 0, 1, 0], [0, 0, 0, 0], [0, 255, 255, 255]]])
        >>> coarse_label(label, (2, 2), (4, 4), rank_of_rarity([9, 1]))
        tensor([[[  0,   1],
                 [  0, 255]]])
    """
    ranked = rank[label]
    ends: list[int] = []
    for side, wanted in zip(label.shape[:0:-1], reversed(frame), strict=True):
        ends += (0, wanted - side)
    # ranks are small whole numbers, exact as floats
    pool = _POOLS[len(cells)]
    highest = pool(F.pad(ranked, ends).float().unsqueeze(1), tuple(cells)).squeeze(1).long()
    classes = torch.zeros_like(rank)
    classes[rank] = torch.arange(len(rank), device=rank.device)
    classes[0] = IGNORED
    coarse: Tensor = classes[highest]
    return coarse
