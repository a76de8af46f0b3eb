"""The sums of `hand_sums` as one operation of a compiled graph, for the CPU.

The code that a compiler makes of a softmax over a few channels is slower there: 2 to 5 times the
hand-written passes, see experiments/benchmarks/loss_speed.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import is_exporting
from dense_imb.losses.core.cells import ClassCells
from dense_imb.losses.core.groups import wide
from dense_imb.losses.core.hand_sums import HandSums, hand_sums_of
from dense_imb.losses.core.plain_sums import Request, Sums


def is_one_operation(z: Tensor, request: Request) -> bool:
    """Whether these sums are one operation: compiled for the CPU, of classes, cross-entropy."""
    if z.device.type != "cpu" or not torch.compiler.is_compiling():
        return False
    is_for_any_machine = is_exporting()
    is_simple = request.owner_is_class() and all(phi is None for phi in request.penalties)
    return is_simple and len(request.areas) == 1 and not is_for_any_machine


def compiled_sums(z: Tensor, request: Request) -> tuple[Tensor, ...]:
    """Return the sums of a request that `is_one_operation`."""
    cells = request.classes
    area, own, errors, *_ = _class_sums(
        z.contiguous(),
        cells.label,
        request.weight,
        cells.n_classes,
        cells.by_image,
        len(request.penalties),
    )
    return area, own, *errors.unbind(0)


def _request(
    z: Tensor, label: Tensor, weight: Tensor | None, n_classes: int, by_image: bool, n: int
) -> Request:
    cells = ClassCells(label, n_classes, by_image, z.dtype)
    return Request(label, cells, (weight,), cells, (None,) * n, weight)


def _form(z: Tensor) -> type[HandSums]:
    return hand_sums_of(z.shape[1])


@torch.library.custom_op("dense_imb::class_sums", mutates_args=())
def _class_sums(
    z: Tensor,
    label: Tensor,
    weight: Tensor | None,
    n_classes: int,
    by_image: bool,
    n_penalties: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return area, own, errors (n_penalties, cells), and what the gradient needs."""
    request = _request(z, label, weight, n_classes, by_image, n_penalties)
    sums, (p, *rest) = _form(z).sums(z, request)
    errors = torch.stack(sums.errors) if sums.errors else sums.own.new_zeros(0, request.classes.n)
    return sums.area, sums.own, errors, p, rest[0] if rest else z.new_zeros(0)


@_class_sums.register_fake
def _(
    z: Tensor,
    label: Tensor,
    weight: Tensor | None,
    n_classes: int,
    by_image: bool,
    n_penalties: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_images, n_channels, n_pixels = z.shape
    n = n_classes * (n_images if by_image else 1)
    dtype = wide(z.device)
    kept = z.new_empty(n_images, n_pixels)
    p, own = (kept, z.new_empty(0)) if n_channels <= 2 else (torch.empty_like(z), kept)
    return (
        z.new_empty(n_images, n_classes, 1, dtype=dtype),
        z.new_empty(n, dtype=dtype),
        z.new_empty(n_penalties, n, dtype=dtype),
        p,
        own,
    )


@torch.library.custom_op("dense_imb::class_sums_gradient", mutates_args=())
def _class_sums_gradient(
    z: Tensor,
    label: Tensor,
    weight: Tensor | None,
    n_classes: int,
    by_image: bool,
    kept: list[Tensor],
    by_area: Tensor,
    by_own: Tensor,
    by_errors: Tensor,
) -> Tensor:
    request = _request(z, label, weight, n_classes, by_image, len(by_errors))
    by = Sums(by_area.to(z.dtype), by_own.to(z.dtype), by_errors.to(z.dtype).unbind(0))
    return _form(z).gradient(z, request, kept, by)


@_class_sums_gradient.register_fake
def _(z: Tensor, *_rest: Any) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, label, weight, *ctx.options, _ = inputs
    ctx.save_for_backward(z, label, weight, *output[3:])


def _backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
    z, label, weight, *kept = ctx.saved_tensors
    gradient = _class_sums_gradient(z, label, weight, *ctx.options, kept, *upstream[:3])
    return gradient, None, None, None, None, None


_class_sums.register_autograd(_backward, setup_context=_keep)
