"""Formulas of a pixel that bring their own gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import trains_eagerly

Formula = Callable[[Tensor], Tensor]
FormulaWithGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


def in_full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Keep autocast from multiplying in 16 bits."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def with_gradient(x: Tensor, formula: Formula, value_and_gradient: FormulaWithGradient) -> Tensor:
    """Return formula(x). Eager training keeps its gradient alone, not the steps to it.

    Args:
        x: one number a pixel, or (B, C, *spatial). The value of a pixel depends on its own x only.
        formula: returns one value a pixel, in operations that autograd differentiates.
        value_and_gradient: returns the same value and its gradient in the shape of x. It runs
            without autograd, may reuse its own buffers, and leaves x alone.
    """
    if not trains_eagerly(x):
        return formula(x)
    value: Tensor = _WithGradient.apply(x, formula, value_and_gradient)[0]
    return value


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, formula: Formula, value_and_gradient: FormulaWithGradient
    ) -> tuple[Tensor, Tensor]:
        return value_and_gradient(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.formula, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            total = ctx.formula(x).sum()
            (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        if upstream.dim() < gradient.dim():
            upstream = upstream.unsqueeze(1)
        return gradient * upstream, None, None
