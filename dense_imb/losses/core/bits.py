"""Bits of a tensor as numbers of another type, also inside torch.func.vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import is_batched


def as_bits(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the bits of each number as one of another type of the same size, without a gradient.

    Example:
        >>> as_bits(torch.tensor([1.0]), torch.int32)
        tensor([1065353216], dtype=torch.int32)
    """
    if not torch.compiler.is_compiling() and is_batched(value):
        return _Bits.apply(value, dtype)  # type: ignore[no-any-return]
    return value.view(dtype)


class _Bits(torch.autograd.Function):
    """`Tensor.view(dtype)`, for which torch 2.10 has no rule under vmap."""

    @staticmethod
    def forward(value: Tensor, dtype: torch.dtype) -> Tensor:
        return value.view(dtype).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], value: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, int | None]:
        return as_bits(value, dtype), in_dims[0]
