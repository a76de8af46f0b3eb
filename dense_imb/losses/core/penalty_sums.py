"""Penalties as sums of classes: a loss of pixels that shares its softmax, or sees a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.coefficient import coefficients
from dense_imb.losses.core.penalty import factor_of_penalty
from dense_imb.losses.core.processes import all_processes, exchange

if TYPE_CHECKING:
    from dense_imb.losses.core.pixel_loss import PixelLoss


def value_of_errors(
    loss: PixelLoss, mass: Tensor, error: Tensor, window: Tensor | None = None
) -> Tensor:
    """Return the loss of the sums of its penalty.

    Args:
        loss: a penalty with its mean.
        mass: T, pixel weights of each row and class, (rows, C).
        error: L, sums of weighted penalties, (rows, C).
        window: those of a window of accumulation, see `window_of_errors`.
    """
    mass, error = _rows(loss, mass, error)
    balance = loss.balance
    if balance is None:
        mass, error = exchange(torch.stack([mass, error]), Balance(), window)
        return _plain_value(loss, mass, error)
    if balance.scope != "image":
        mass, error = exchange(torch.stack([mass, error]), balance, window)
    total = _rows_and_value(mass, error, balance)
    if balance.scope == "image" and window is not None:
        total = exchange(total, balance, window)
    return total[0] / total[1].clamp(min=1)


def window_of_errors(loss: PixelLoss, mass: Tensor, error: Tensor) -> Tensor:
    """Return the sums that add up to those of a window, without gradient."""
    mass, error = _rows(loss, mass, error)
    if loss.balance is not None and loss.balance.scope == "image":
        return _rows_and_value(mass, error, loss.balance).detach()
    balance = Balance() if loss.balance is None else loss.balance
    return all_processes(torch.stack([mass, error]), balance)


def _rows(loss: PixelLoss, mass: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums in the rows that the loss wants, with the penalty's factors."""
    factor = factor_of_penalty(loss.penalty, mass.shape[1], mass)
    error = error if factor is None else error * factor
    if loss.balance is None or loss.balance.scope != "image":
        mass, error = mass.sum(0, keepdim=True), error.sum(0, keepdim=True)
    return mass, error


def _plain_value(loss: PixelLoss, mass: Tensor, error: Tensor) -> Tensor:
    """Return torch's own mean, sum a L / sum a T."""
    weight = loss.weight_like(mass)
    value = (weight * error).sum()
    if loss.reduction == "sum":
        return value
    total = (weight * mass).sum()
    return value / torch.where(total == 0, 1.0, total)


def _rows_and_value(mass: Tensor, error: Tensor, balance: Balance) -> Tensor:
    """Return the sum of the rows' losses and the number of rows that have one, (2,)."""
    balance.check_n_classes(mass.shape[1])
    balance.check_averages_errors()
    is_present = mass != 0
    n_rows = is_present.any(1).sum().clamp(min=1).to(error.dtype)
    sums = {"count": is_present.to(mass.dtype), "mass": mass, "error": error}
    return torch.stack([coefficients(sums, balance).total(sums) * n_rows, n_rows])
