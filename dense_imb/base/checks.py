"""Checks of arguments and tensors, with one error text each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.refusals import suggest


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is not in `choices`, and suggest the nearest one."""
    known = list(choices)
    if value in known:
        return
    names = ", ".join(repr(choice) for choice in known)
    cure = suggest(str(value), known)
    raise ValueError(f"Expected `{name}` to be one of {names}, got {value!r}.{cure}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`, an infinite number and NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"Expected `{name}` to be a number, got {type(value).__name__}.")
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"Expected `{name}` to be a number of at least {least:g}, got {value}.")


def check_finite(name: str, value: float) -> None:
    """Refuse an infinite number and NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"Expected `{name}` to be a number, got {type(value).__name__}.")
    if not math.isfinite(value):
        raise ValueError(f"Expected `{name}` to be a finite number, got {value}.")


def class_numbers(name: str, values: Any) -> tuple[float, ...]:
    """Return a tuple of finite numbers of at least 0, one for each class.

    Args:
        name: name of the argument in errors.
        values: sequence, array or tensor.
    """
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(
            f"Expected `{name}` to hold one number for each class, got {values!r}; "
            "write (1.0, 2.0) for two classes."
        )
    for value in values:
        check_at_least(name, value, 0.0)
    return tuple(float(value) for value in values)


def check_n_entries(name: str, entries: Sequence[object] | Tensor, n_classes: int) -> None:
    """Refuse a sequence whose length is not the number of classes."""
    if len(entries) != n_classes:
        raise ValueError(
            f"Expected `{name}` with one entry for each of the {n_classes} classes, "
            f"got {len(entries)}."
        )


def check_ignore_index(value: object) -> None:
    """Refuse a value that is neither None nor a whole number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"Expected `ignore_index` to be a whole number, got {value!r}.")


def wide_label(label: Tensor) -> Tensor:
    """Return a label map in a type in which every number compares as it is.

    PyTorch wraps a number to the type of the tensor: in uint8, -100 equals 156 and 256 equals 0.
    """
    if label.dtype in (torch.float16, torch.bfloat16):
        return label.float()
    return label if label.is_floating_point() or label.dtype == torch.bool else label.long()


def is_other(label: Tensor, ignore_index: int) -> Tensor:
    """Return where a label map of any type differs from `ignore_index`.

    Example:
        >>> is_other(torch.tensor([0, 156], dtype=torch.uint8), -100)
        tensor([True, True])
    """
    return wide_label(label) != ignore_index


def check_tensor(name: str, value: object) -> None:
    """Refuse a value that is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Expected `{name}` to be a torch.Tensor, got {type(value).__name__}; "
            "torch.as_tensor makes one."
        )


def check_floating(name: str, value: Tensor) -> None:
    """Refuse a value that is no tensor of real floating-point numbers."""
    check_tensor(name, value)
    if not value.is_floating_point():
        raise TypeError(
            f"Expected `{name}` to be floating point, got {value.dtype}; "
            + ("take its real part first." if value.is_complex() else "call .float() on it first.")
        )


def bare(value: Any) -> Any:
    """Return the plain tensor of MONAI's MetaTensor, which costs 30 microseconds an operation."""
    if value is None or type(value) is Tensor or not hasattr(value, "as_tensor"):
        return value
    return value.as_tensor()


def widen_half(value: Tensor) -> Tensor:
    """Return 16-bit floats as float32: float16 squares overflow at 256, and sums lose precision."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def check_integral(name: str, value: Tensor) -> None:
    """Refuse a tensor that is neither bool nor integer."""
    check_tensor(name, value)
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"Expected `{name}` to be bool or integer, got {value.dtype}.")


def check_same_shape(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse two tensors of different shapes."""
    check_tensor(name, value)
    if value.shape != other.shape:
        raise ValueError(
            f"Expected `{name}` in the shape of `{other_name}`, {tuple(other.shape)}, "
            f"got {tuple(value.shape)}."
        )


def expand_pixels(name: str, value: Tensor, like: Tensor, like_name: str) -> Tensor:
    """Expand `value` to the shape of `like`; its channel dimension may be 1 or missing."""
    check_tensor(name, value)
    if value.shape == like.shape:
        return value
    shaped = value
    if value.dim() == like.dim() - 1 and like.dim() >= 2:
        shaped = value.unsqueeze(1)
    fits = shaped.dim() == like.dim() and all(
        size == wanted or (size == 1 and axis == 1)
        for axis, (size, wanted) in enumerate(zip(shaped.shape, like.shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"Expected `{name}` in the shape of `{like_name}`, {tuple(like.shape)} "
            f"(its channel dimension may be 1 or missing), got {tuple(value.shape)}."
        )
    return shaped.expand_as(like)


def values_are_readable(value: Tensor) -> bool:
    """Whether reading a value is free: eager and on the CPU, without a wait for an accelerator."""
    return value.device.type == "cpu" and is_plain_eager()


def trains_eagerly(value: Tensor) -> bool:
    """Whether a hand-written gradient is used: not if compiled, transformed or without gradient."""
    return value.requires_grad and torch.is_grad_enabled() and is_plain_eager()


def is_plain_eager() -> bool:
    """Whether code runs as it stands: neither compiled nor inside a transform of torch.func."""
    # depth of torch.func's transforms; torch has no public function for it
    return not (torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level())


def check_label_range(name: str, label: Tensor, n_classes: int, valid: Tensor | None) -> None:
    """Refuse a label outside 0 .. n_classes - 1 at a valid pixel; reads values."""
    if label.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(label))
    if low >= 0 and high < n_classes:
        return
    outside = (label < 0) | (label >= n_classes)
    if valid is not None:
        outside = outside & valid
    if not outside.any():
        return
    example = int(label[outside][0])
    used = label if valid is None else label[valid]
    may_begin_at_one = int(used.min()) > 0 and int(used.max()) == n_classes > 2
    cure = (
        f"pass `ignore_index={example}` or `mask` for pixels that belong to no class, "
        f"{f'subtract 1 from labels 1 .. {n_classes}, ' if may_begin_at_one else ''}"
        f"or take logits of more classes than {n_classes}."
    )
    if int(used.min()) == 1 and int(used.max()) == n_classes:
        cure = f"its labels begin at 1: subtract 1 ({name} - 1)."
    elif n_classes == 2 and example > 0 and bool(((used == 0) | (used == example)).all()):
        cure = f"its labels are 0 and {example}: map them with ({name} > 0)."
    raise ValueError(f"Expected `{name}` between 0 and {n_classes - 1}, got {example}; {cure}")
