"""Sums over processes: the value of all, with the gradient of one process's own pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from dense_imb.losses.core.balance import Balance


def n_processes(scope: str | None) -> int:
    """Return the number of processes whose sums are added: 1 for every scope but "global"."""
    is_global = scope == "global" and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if is_global else 1


def all_processes(local: Tensor, balance: Balance) -> Tensor:
    """Return the sums of all processes, without gradient."""
    total = local.detach().clone()
    if n_processes(balance.scope) > 1:
        dist.all_reduce(total)
    return total


def exchange(local: Tensor, balance: Balance, window: Tensor | None = None) -> Tensor:
    """Return the sums of all processes, or of the window, with the gradient of the local ones."""
    if window is None and n_processes(balance.scope) == 1:
        return local
    if window is None:
        return with_gradient_of(local, all_processes(local, balance), balance)
    if window.shape != local.shape:
        raise ValueError(
            "Expected `window` to be made of calls like this one, with as many classes and the "
            f"same kind of target, got sums of the shape {tuple(window.shape)} for "
            f"{tuple(local.shape)}; make it with the loss and the batches that it is for."
        )
    return with_gradient_of(local, window, balance)


def with_gradient_of(local: Tensor, total: Tensor, balance: Balance) -> Tensor:
    """Return the value `total` with the gradient of `local`, as the trainer will reduce it."""
    factor = n_processes(balance.scope) if balance.gradient == "mean" else 1
    result: Tensor = _WithGradientOf.apply(local, total.detach().to(local), factor)
    return result


class _WithGradientOf(torch.autograd.Function):
    """The value `total` with `factor` times the gradient of `local`.

    Not `total + factor * (local - local.detach())`, which turns an infinite loss into NaN.
    """

    @staticmethod
    def forward(local: Tensor, total: Tensor, factor: int) -> Tensor:
        return total.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.factor = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.factor, None, None
