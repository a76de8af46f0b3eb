"""Complement cross-entropy (Kim et al., 2020, arXiv 2009.02189) of pixels, in log space."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import check_finite, trains_eagerly
from dense_imb.losses.core.adjustment import Adjustment, adjusted, check_adjustment
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

    Minimised, f > 0 makes the wrong classes unequal (sharpens q), which is the sign of the
    published code and its default; f < 0 flattens q, which is what the paper's text describes.
    With two classes there is one wrong class, whose entropy is 0: plain cross-entropy.

    Args:
        logits, target, adjustment: see `pixel_loss`, also for the other options. Soft targets
            have no complement, and are refused.
        balancing_factor: f, of either sign.

    Example:
        >>> logits = torch.zeros(1, 3)
        >>> complement_cross_entropy_loss(logits, torch.tensor([0]))  # log 3 + log(2) / 3
        tensor(1.3297)
    """
    check_finite("balancing_factor", balancing_factor)
    check_adjustment(adjustment)

    def error(pixels: PixelTarget) -> Tensor:
        z = adjusted(adjustment, pixels.logits, pixels.label)
        return complement_cross_entropy(z, pixels.label, balancing_factor)

    return mean_of_pixels(error, logits, target, soft_for=_NAME, **options)


def complement_cross_entropy(logits: Tensor, label: Tensor, balancing_factor: float) -> Tensor:
    """The error of each pixel, (B, C, *spatial), (B, *spatial) -> (B, *spatial)."""
    if not trains_eagerly(logits):
        return _value(logits, label, balancing_factor)
    value: Tensor = _Fused.apply(logits, label, balancing_factor)[0]
    return value


class _Complement(NamedTuple):
    """The classes but the true one, in operations autograd knows."""

    is_true: Tensor  # (B, C, *spatial)
    d: Tensor  # z_y - logsumexp of the others
    q: Tensor  # softmax over the others, 0 at the true class
    lq: Tensor  # its logarithm, 0 at the true class
    negentropy: Tensor  # sum q lq


def _complement(logits: Tensor, label: Tensor) -> _Complement:
    index = label.unsqueeze(1)
    channel = torch.arange(logits.shape[1], device=logits.device)
    is_true = channel.view((1, -1) + (1,) * (logits.dim() - 2)) == index
    others = torch.where(is_true, -torch.inf, logits)
    # log-softmax of a lone class is a constant 0, and where() below keeps -inf out of the products
    lq = torch.log_softmax(others, 1)
    q = lq.exp()
    lq = torch.where(is_true, 0.0, lq)
    d = logits.gather(1, index).squeeze(1) - torch.logsumexp(others, 1)
    return _Complement(is_true, d, q, lq, (q * lq).sum(1))


def _value(logits: Tensor, label: Tensor, balancing_factor: float) -> Tensor:
    parts = _complement(logits, label)
    return F.softplus(-parts.d) - balancing_factor / logits.shape[1] * parts.negentropy


def _gradient(logits: Tensor, label: Tensor, balancing_factor: float) -> Tensor:
    parts = _complement(logits, label)
    share = balancing_factor / logits.shape[1]
    r = torch.sigmoid(-parts.d).unsqueeze(1)
    of_others = parts.q * (r + share * (parts.negentropy.unsqueeze(1) - parts.lq))
    return torch.where(parts.is_true, -r, of_others)


class _Fused(torch.autograd.Function):
    """Value and gradient in one pass, in the buffer of the complement's log-softmax."""

    @staticmethod
    def forward(logits: Tensor, label: Tensor, balancing_factor: float) -> tuple[Tensor, Tensor]:
        index = label.unsqueeze(1)
        share = balancing_factor / logits.shape[1]
        others = logits.scatter(1, index, -torch.inf)
        lq = torch.log_softmax(others, 1)
        q = torch.softmax(others, 1)
        # max z - max log q = logsumexp z, exact where a difference of large logits is not
        log_sum = others.amax(1) - lq.amax(1)
        d = logits.gather(1, index).squeeze(1) - log_sum
        del others  # a buffer of the logits' size, before the next is made
        lq.scatter_(1, index, torch.zeros_like(d).unsqueeze(1))
        negentropy = (q * lq).sum(1)  # H
        value = F.softplus(-d) - share * negentropy
        r = torch.sigmoid(-d)
        # q_k (r + f/C (H - lq_k)); of the true class -r
        gradient = lq.neg_().add_(negentropy.unsqueeze(1)).mul_(share).add_(r.unsqueeze(1)).mul_(q)
        gradient.scatter_(1, index, -r.unsqueeze(1))
        return value, gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        logits, label, ctx.balancing_factor = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(logits, label, output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, label, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            gradient = _gradient(logits, label, ctx.balancing_factor)
        return gradient * upstream.unsqueeze(1), None, None


class ComplementCrossEntropyLoss(ClassificationLoss):
    """Cross-entropy plus the entropy of the wrong classes among themselves.

        loss = mean_i  -log p_i + f/C entropy(q_i),   q_i = softmax of z over the classes k != y_i

    f > 0, the published code's default, sharpens the wrong classes; f < 0 flattens them, as the
    paper's text has it. See `complement_cross_entropy_loss` and `pixel_loss` for the arguments. At
    call time: `mask`, `pixel_weight`, `class_count`, `return_parts`.

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

    def error(self, pixels: PixelTarget) -> Tensor:
        z = adjusted(self.adjustment, pixels.logits, pixels.label)
        return complement_cross_entropy(z, pixels.label, self.balancing_factor)
