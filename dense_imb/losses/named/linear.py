"""Linear penalty of pixels: the mean absolute error of probabilities (Ghosh et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dense_imb.losses.core.gradient import with_gradient
from dense_imb.losses.core.penalty import Penalty


@dataclass(frozen=True)
class Linear(Penalty):
    """phi = 1 - p: half of the absolute error of the probabilities, summed over the classes.

    It bears wrong labels, but its gradient vanishes at a confidently wrong pixel, so add another
    loss to it. With a one-hot target its best output is the likeliest class alone, not its
    probability. Its mean over a skeleton of the objects is skeleton recall (Kirchhoff et al. 2024):
    `PixelLoss(Linear(), balance=Balance())(logits, target, mask=skeleton)` is 1 - recall. Measured:
    beside cross-entropy or Dice no significant gain on cracks and faint lines.

    Example:
        >>> from dense_imb.losses import PixelLoss
        >>> PixelLoss(Linear())(torch.zeros(1, 4), torch.tensor([0]))
        tensor(0.7500)
    """

    @property
    def no_inverse(self) -> str:
        return "the best output of 1 - p is the likeliest class alone, whatever its probability"

    def __call__(self, lp: Tensor) -> Tensor:
        return with_gradient(lp, self.value, self.value_and_slope)

    def value(self, lp: Tensor) -> Tensor:
        """Return phi."""
        return -torch.expm1(lp)

    def value_and_slope(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        """Return phi and dphi/dlp = -p."""
        return self.value(lp), lp.exp().neg_()
