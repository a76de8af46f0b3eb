"""Complement cross-entropy (Kim et al., 2020, arXiv 2009.02189) of pixels, in log space."""

from __future__ import annotations

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import check_finite
from dense_imb.losses.core.adjustment import Adjustment, adjust_logits, check_adjustment
from dense_imb.losses.core.gradient import with_gradient
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.pixel_loss import ClassificationLoss, mean_of_pixels
from dense_imb.losses.core.target import PixelTarget

_NAME = "complement cross-entropy"


@shows_options(PixelOptions)
def complement_cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    *,
    balancing_factor: float = 1.0,
    adjustment: Adjustment | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy plus the entropy of the wrong classes among themselves.

        loss = mean_i  -log p_i + f/C entropy(q_i),   q_i = softmax of z over the classes k != y_i

    f > 0 sharpens q: it makes the wrong classes unequal. The published code has this sign.
    f < 0 flattens q, as the paper's text describes. With two classes there is one wrong class,
    whose entropy is 0: plain cross-entropy.

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options. Soft targets
            are refused: they have no complement.
        balancing_factor: f, of either sign.

    Example:
        >>> logits = torch.zeros(1, 3)
        >>> complement_cross_entropy_loss(logits, torch.tensor([0]))  # log 3 + log(2) / 3
        tensor(1.3297)
    """
    check_finite("balancing_factor", balancing_factor)
    check_adjustment(adjustment)

    def error(pixels: PixelTarget) -> Tensor:
        z = adjust_logits(adjustment, pixels.logits, pixels.label)
        return complement_cross_entropy(z, pixels.label, balancing_factor)

    return mean_of_pixels(error, logits, target, soft_for=_NAME, **options)


def complement_cross_entropy(logits: Tensor, label: Tensor, balancing_factor: float) -> Tensor:
    """Return the error of each pixel, (B, C, *spatial), (B, *spatial) -> (B, *spatial)."""
    share = balancing_factor / logits.shape[1]  # f/C
    return with_gradient(
        logits,
        lambda z: _value(z, label, share),
        lambda z: _value_and_gradient(z, label, share),
    )


def _value(z: Tensor, label: Tensor, share: float) -> Tensor:
    """Return -log p_y + f/C entropy(q), from d = z_y - logsumexp of the other classes."""
    index = label.unsqueeze(1)
    channel = torch.arange(z.shape[1], device=z.device)
    is_true = channel.view((1, -1) + (1,) * (z.dim() - 2)) == index
    others = torch.where(is_true, -torch.inf, z)
    # log-softmax of a lone class is a constant 0, and where() below keeps -inf out of the products
    lq = torch.log_softmax(others, 1)
    q = lq.exp()
    lq = torch.where(is_true, 0.0, lq)
    d = z.gather(1, index).squeeze(1) - torch.logsumexp(others, 1)
    return F.softplus(-d) - share * (q * lq).sum(1)


def _value_and_gradient(z: Tensor, label: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the value and its gradient, in the buffer of the complement's log-softmax.

    d/dz_k = q_k (r + f/C (H - log q_k)),   -r for k = y,   r = 1 - p_y,   H = sum_k q_k log q_k

    Written apart from `_value`, by whose autograd the loss takes 2.3 to 2.5 times as long.
    """
    index = label.unsqueeze(1)
    others = z.scatter(1, index, -torch.inf)
    lq = torch.log_softmax(others, 1)
    q = torch.softmax(others, 1)
    # max z - max log q = logsumexp z, exact where a difference of large logits is not
    log_sum = others.amax(1) - lq.amax(1)
    d = z.gather(1, index).squeeze(1) - log_sum
    del others  # a buffer of the logits' size, before the next is made
    lq.scatter_(1, index, torch.zeros_like(d).unsqueeze(1))
    h = (q * lq).sum(1)
    value = F.softplus(-d) - share * h
    r = torch.sigmoid(-d)
    gradient = lq.neg_().add_(h.unsqueeze(1)).mul_(share).add_(r.unsqueeze(1)).mul_(q)
    gradient.scatter_(1, index, -r.unsqueeze(1))
    return value, gradient


class ComplementCrossEntropyLoss(ClassificationLoss):
    """Cross-entropy plus the entropy of the wrong classes among themselves.

        loss = mean_i  -log p_i + f/C entropy(q_i),   q_i = softmax of z over the classes k != y_i

    f > 0, as in the published code, sharpens the wrong classes; f < 0 flattens them, as in the
    paper's text. See `complement_cross_entropy_loss` and `pixel_loss` for the arguments. At
    call time: `mask`, `pixel_weight`, `class_count`, `instance`, `return_parts`.

    Example:
        >>> ComplementCrossEntropyLoss(-1.0)(torch.zeros(1, 3), torch.tensor([0]))
        tensor(0.8676)
    """

    shown = ("balancing_factor", "adjustment", *ClassificationLoss.shown)

    @shows_options(MeanOptions)
    def __init__(
        self,
        balancing_factor: float = 1.0,
        *,
        adjustment: Adjustment | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(**options)
        check_finite("balancing_factor", balancing_factor)
        check_adjustment(adjustment)
        self.balancing_factor = balancing_factor
        self.adjustment = adjustment

    @property
    def soft_for(self) -> str:
        return _NAME

    def natural(self, n_classes: int, class_share: Any = None) -> Natural:
        if n_classes > 2:  # of two classes, the wrong one has no entropy
            raise self.refuse_probability(
                "with more than two classes its entropy of the wrong classes has no inverse"
            )
        return self._natural(n_classes, class_share, None, self.adjustment)

    def error(self, pixels: PixelTarget) -> Tensor:
        z = adjust_logits(self.adjustment, pixels.logits, pixels.label)
        return complement_cross_entropy(z, pixels.label, self.balancing_factor)
