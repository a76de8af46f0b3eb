"""Errors of a loss in a training step, as one sentence that names the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor, nn

from dense_imb.base.files import reason_of
from dense_imb.base.refusals import Refused

_LONGEST = 300  # characters of the message of another library


class State(Protocol):
    """State of a training as far as a sentence names it."""

    step: int


class LossError(Refused):
    """A loss failed in a training step."""


@contextmanager
def named_loss_errors(loss: nn.Module, state: State) -> Iterator[None]:
    """Raise one `LossError` for what a loss raises; errors from elsewhere pass unchanged.

    So do the sentences of our own losses, and a lack of memory.

    Args:
        loss: loss of the task, with all its parts.
        state: state of the training, with the number of steps done.
    """
    try:
        yield
    except (Refused, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as problem:
        failed = _failed_part(loss, problem.__traceback__)
        is_ours = failed is None or type(failed).__module__.startswith("dense_imb.")
        if failed is None or (is_ours and isinstance(problem, (ValueError, TypeError))):
            raise
        what = f"{type(problem).__name__}: {reason_of(problem)[:_LONGEST]}"
        raise LossError(
            f"`{type(failed).__name__}` to return a loss",
            f"{what} (after {state.step} steps)",
            "mend it or choose another one",
        ) from problem


def check_cost(cost: Tensor, loss: nn.Module) -> None:
    """Refuse a cost that is not one number, or has no gradient."""
    name = ", ".join(dict.fromkeys(_names(loss)))
    if cost.ndim:
        raise LossError(
            "one number from the loss",
            f"the shape {tuple(cost.shape)} from `{name}`",
            "let it reduce, for example with reduction='mean'",
        )
    if not cost.requires_grad:
        raise LossError(
            "a loss with a gradient",
            f"`{name}`, whose value does not depend on the network",
            "mend it or choose another one",
        )


def _failed_part(loss: nn.Module, traceback: TracebackType | None) -> nn.Module | None:
    """Return the innermost part of a loss that an error passed through."""
    parts = {id(part): part for part in loss.modules()}
    failed = None
    while traceback is not None:
        failed = parts.get(id(traceback.tb_frame.f_locals.get("self")), failed)
        traceback = traceback.tb_next
    return failed


def _names(loss: nn.Module) -> list[str]:
    inner = [one for one in loss.modules() if not [*one.children()]]
    return [type(one).__name__ for one in inner]
