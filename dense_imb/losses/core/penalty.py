"""Penalties: the error of a pixel as a formula phi of the log-probability lp of its class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    class_numbers,
    trains_eagerly,
    values_are_readable,
)


class Penalty:
    """phi(lp) and its slope. A penalty is a value: it compares, pickles and prints."""

    @property
    def factor_of_class(self) -> tuple[float, ...] | None:
        """One factor for each class, if the penalty has them."""
        return None

    def of(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        """phi and dphi/dlp of any shape, in operations autograd knows."""
        raise NotImplementedError

    def in_place(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        """The same two, where autograd does not look: buffers are used again, lp is left alone."""
        return self.of(lp)

    def __call__(self, lp: Tensor) -> Tensor:
        """phi; eager training keeps the slope alone, not the twenty steps to it."""
        if not trains_eagerly(lp):
            return self.of(lp)[0]
        value: Tensor = _WithSlope.apply(lp, self)[0]
        return value


def check_penalty(penalty: Penalty | None) -> Penalty:
    """The penalty, cross-entropy where none is given."""
    if penalty is None:
        return CrossEntropy()
    if not isinstance(penalty, Penalty):
        raise TypeError(
            "Expected `penalty` to be CrossEntropy(), Focal() or HardMining(), "
            f"got {type(penalty).__name__}."
        )
    return penalty


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(lp: Tensor, penalty: Penalty) -> tuple[Tensor, Tensor]:
        return penalty.in_place(lp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        lp, ctx.penalty = inputs
        _, slope = output
        ctx.mark_non_differentiable(slope)
        ctx.save_for_backward(lp, slope)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None]:
        lp, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            slope = ctx.penalty.of(lp)[1]
        return upstream * slope, None


@dataclass(frozen=True)
class CrossEntropy(Penalty):
    """phi = -lp."""

    def of(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        return -lp, torch.full_like(lp, -1.0)

    def __call__(self, lp: Tensor) -> Tensor:
        return -lp


@dataclass(frozen=True)
class Focal(Penalty):
    """phi = -alpha (1 - p)^gamma lp, finite for every gamma >= 0 at every logit.

    Args:
        gamma: how much the easy pixels are turned down; 0 is cross-entropy.
        alpha: a factor, or one for each class.
    """

    gamma: float = 2.0
    alpha: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        check_at_least("gamma", self.gamma, 0)
        if isinstance(self.alpha, (int, float)):
            check_at_least("alpha", self.alpha, 0)
        else:
            object.__setattr__(self, "alpha", class_numbers("alpha", self.alpha))

    @property
    def factor_of_class(self) -> tuple[float, ...] | None:
        return self.alpha if isinstance(self.alpha, tuple) else None

    def of(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        # above 0, where a power of gamma < 1 has an infinite slope
        q = (-torch.expm1(lp)).clamp(min=torch.finfo(lp.dtype).tiny)
        modulation = q**self.gamma
        if isinstance(self.alpha, (int, float)) and self.alpha != 1:
            modulation = self.alpha * modulation
        return -modulation * lp, self.gamma * modulation / q * (1 - q) * lp - modulation

    def in_place(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        q = torch.expm1(lp).neg_().clamp_(min=torch.finfo(lp.dtype).tiny)
        modulation = q**self.gamma
        if isinstance(self.alpha, (int, float)) and self.alpha != 1:
            modulation.mul_(self.alpha)
        slope = modulation / q
        slope.mul_(q.neg_().add_(1)).mul_(lp).mul_(self.gamma).sub_(modulation)
        return modulation.mul_(lp).neg_(), slope


@dataclass(frozen=True)
class HardMining(Penalty):
    """phi = -alpha h^gamma lp: little from easy pixels, and little from outliers.

        h = max(sin(pi p) / (pi p) - exp(-delta p) sin(pi delta p) / (pi delta p), 0)

    h is taken at p clipped to 1e-7, as published; lp is not clipped, so that a confidently wrong
    pixel keeps its gradient.

    Args:
        alpha: a factor.
        gamma: power of the modulation h.
        delta: pixels with p well below 1 / delta count as outliers; at least 1.
    """

    alpha: float = 1.0
    gamma: float = 1.0
    delta: float = 1e7

    smallest: ClassVar[float] = 1e-7
    far: ClassVar[float] = 30.0  # exp(-30) is nothing beside 1, and exp(-1e4) a slow denormal

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0)
        check_at_least("gamma", self.gamma, 0)
        check_at_least("delta", self.delta, 1)

    def of(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        bounded = lp.clamp(min=math.log(self.smallest))
        p, q = bounded.exp(), -torch.expm1(bounded)
        # not torch.sinc, which is scalar code on a CPU; min(p, q) keeps the digits near p = 1
        h = torch.sin(math.pi * torch.minimum(p, q)) / (math.pi * p)
        slope_of_h = torch.cos(math.pi * p) - h  # dh/dlp
        if self.delta * self.smallest < self.far:
            cut, slope_of_cut = self._cut(p)
            h, slope_of_h = h - cut, slope_of_h - slope_of_cut
        # 1 where neither clip holds; a where() takes as long as a cosine
        is_free = (lp - math.log(self.smallest)).sign().clamp(min=0) * h.sign().clamp(min=0)
        h = h.clamp(min=torch.finfo(lp.dtype).tiny)
        modulation = self.alpha * h**self.gamma
        slope = self.gamma * modulation / h * slope_of_h * is_free * lp + modulation
        return -modulation * lp, -slope

    def in_place(self, lp: Tensor) -> tuple[Tensor, Tensor]:
        bounded = lp.clamp(min=math.log(self.smallest))
        p, h = bounded.exp(), torch.expm1(bounded).neg_()
        torch.minimum(p, h, out=h).mul_(math.pi).sin_()
        angle = math.pi * p
        h.div_(angle)
        slope_of_h = angle.cos_().sub_(h)
        if self.delta * self.smallest < self.far:
            self._subtract_cut(p, h, slope_of_h)
        is_free = torch.sub(lp, math.log(self.smallest), out=bounded).sign_().clamp_(min=0)
        slope_of_h.mul_(is_free).mul_(torch.sign(h, out=is_free).clamp_(min=0))
        h.clamp_(min=torch.finfo(lp.dtype).tiny)
        modulation = torch.pow(h, self.gamma, out=p).mul_(self.alpha)
        slope = slope_of_h.mul_(modulation).div_(h).mul_(lp).mul_(self.gamma).add_(modulation)
        return modulation.mul_(lp).neg_(), slope.neg_()

    def _cut(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """The part of h that turns outliers down, exp(-x) sinc(x) of x = delta p, and its slope."""
        x = (self.delta * p).clamp(max=self.far)
        decay = torch.exp(-x)
        sinc = torch.sin(math.pi * x) / (math.pi * x)
        return decay * sinc, decay * (torch.cos(math.pi * x) - sinc - x * sinc)

    def _subtract_cut(self, p: Tensor, h: Tensor, slope_of_h: Tensor) -> None:
        if not values_are_readable(p):
            cut, slope_of_cut = self._cut(p)
            h.sub_(cut)
            slope_of_h.sub_(slope_of_cut)
        elif p.numel() > 0 and not self.delta * float(p.min()) >= self.far:  # outliers, or NaN
            index = (p < self.far / self.delta).nonzero(as_tuple=True)
            cut, slope_of_cut = self._cut(p[index])
            h[index] -= cut
            slope_of_h[index] -= slope_of_cut
