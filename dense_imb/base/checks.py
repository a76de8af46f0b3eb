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


WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
# types that every operation of a loss or a score knows
_USUAL_TYPES = frozenset({
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, *WIDE_UNSIGNED,
})  # fmt: skip


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
    if label.is_floating_point() or label.dtype in (torch.bool, *WIDE_UNSIGNED):
        return wide_label(label) != ignore_index
    kind = torch.iinfo(label.dtype)
    if kind.min <= ignore_index <= kind.max:
        return label != ignore_index
    return torch.ones_like(label, dtype=torch.bool)


def check_tensor(name: str, value: object) -> None:
    """Refuse a value that is no dense tensor of a usual real type."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Expected `{name}` to be a torch.Tensor, got {type(value).__name__}; "
            "torch.as_tensor makes one."
        )
    # three attributes, less than a microsecond: this runs for every tensor of every call
    if value.dtype not in _USUAL_TYPES or value.layout is not torch.strided or value.is_nested:
        raise _unusual(name, value)


def _unusual(name: str, value: Tensor) -> TypeError:
    """Return the error of a tensor that few operations of torch accept."""
    if value.is_nested:
        got, cure = "a nested one", "pad it with torch.nested.to_padded_tensor, and pass a `mask`"
    elif value.layout is not torch.strided:
        got, cure = f"one of the layout {value.layout}", "call .to_dense() on it first"
    elif value.is_quantized:
        got, cure = f"one of {value.dtype}", "call .dequantize() on it first"
    elif value.is_complex():
        return TypeError(
            f"Expected `{name}` to be real, got {value.dtype}; take its real part first."
        )
    else:
        usual = ".float()" if value.is_floating_point() else ".long()"
        got, cure = f"one of {value.dtype}", f"call {usual} on it first"
    return TypeError(f"Expected `{name}` to be a dense tensor of real numbers, got {got}; {cure}.")


def check_floating(name: str, value: Tensor) -> None:
    """Refuse a value that is no dense tensor of real floating-point numbers."""
    if isinstance(value, Tensor) and value.is_complex():
        raise TypeError(
            f"Expected `{name}` to be floating point, got {value.dtype}; take its real part first."
        )
    check_tensor(name, value)
    if not value.is_floating_point():
        raise TypeError(
            f"Expected `{name}` to be floating point, got {value.dtype}; call .float() on it first."
        )


def check_devices(name: str, value: Tensor, **others: object) -> None:
    """Refuse tensors that are not on the device of `value`.

    Args:
        name: name of that tensor in errors.
        value: the tensor.
        others: other tensors by name; anything else is left to its own check.
    """
    device = value.device
    for other_name, other in others.items():
        if isinstance(other, Tensor) and other.device != device:
            raise ValueError(
                f"Expected `{other_name}` on the device of `{name}`, {device}, got one on "
                f"{other.device}; call .to({name}.device) on it first."
            )


def check_has_values(**tensors: object) -> None:
    """Refuse values that are no dense tensors, and meta tensors, which have a shape alone.

    Args:
        tensors: tensors by name; None is left out.
    """
    for name, value in tensors.items():
        if value is None:
            continue
        check_tensor(name, value)
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(
                f"Expected `{name}` to hold numbers, got a meta tensor, which has none; make it "
                "on a CPU or an accelerator."
            )


def readable(**tensors: Any) -> list[Any]:
    """Return tensors as plain ones, after `check_has_values`; None stays None."""
    check_has_values(**tensors)
    return [bare(value) for value in tensors.values()]


def bare(value: Any) -> Any:
    """Return a plain tensor, for MONAI's MetaTensor and for one made in inference mode.

    The first costs 30 microseconds an operation, the second cannot be saved for a gradient.
    """
    if type(value) is not Tensor:
        if value is None or not hasattr(value, "as_tensor"):
            return value
        value = value.as_tensor()
    if torch.compiler.is_compiling() or not value.is_inference():  # no compiler knows it
        return value
    return value if torch.is_inference_mode_enabled() else value.clone()


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


def launches_kernels(value: Tensor) -> bool:
    """Whether each operation costs a launch: eager, on a GPU; few of them beat little memory."""
    return value.device.type != "cpu" and is_plain_eager()


def is_plain_eager() -> bool:
    """Whether code runs as it stands: neither compiled nor inside a transform of torch.func."""
    # depth of torch.func's transforms; torch has no public function for it
    return not (torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level())


def is_exporting() -> bool:
    """Whether torch.export runs this code, for a graph that goes to any machine."""
    # torch 2.10 answers True to `torch.compiler.is_exporting` in every graph that it compiles
    return torch.compiler._is_exporting_flag


def is_batched(value: Tensor) -> bool:
    """Whether a tensor is one of many inside torch.func.vmap."""
    functorch = torch._C._functorch  # torch has no public function for it
    while functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            return True
        value = functorch.get_unwrapped(value)
    return False


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
