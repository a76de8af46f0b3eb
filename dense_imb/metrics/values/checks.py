"""Checks of value maps and their cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dense_imb.base.checks import check_finite, check_floating, check_tensor
from dense_imb.metrics._counts import in_float64

_MOST_BITS = 62  # of an int64


def checked_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """Return the edges of value bins; refuse edges that do not rise."""
    edges = tuple(float(edge) for edge in edges)
    for edge in edges:
        check_finite("value_edges", edge)
    for lower, upper in itertools.pairwise(edges):
        if not lower < upper:
            raise ValueError(f"Expected `value_edges` to rise, got {lower:g} before {upper:g}.")
    return edges


def checked_names(cells: Sequence[str], labels: bool) -> tuple[str, ...]:
    """Return the names of the cells; refuse two equal ones, and more than a bit field holds."""
    if isinstance(cells, str):
        raise TypeError(
            f'Expected `cells` to be a list of names, got {cells!r}; write ["{cells}"].'
        )
    names = tuple(str(cell) for cell in cells)
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"Expected `cells` with different names, got {twice!r} twice.")
    if not labels and len(names) > _MOST_BITS:
        raise ValueError(
            f"Expected at most {_MOST_BITS} `cells` that overlap, got {len(names)}; "
            "pass labels=True if they are labels."
        )
    return names


def checked_channels(name: str, numbers: Sequence[float], n_channels: int) -> tuple[float, ...]:
    """Return a number for each channel; refuse another number of them, and infinite ones."""
    values = tuple(float(value) for value in numbers)
    if len(values) != n_channels:
        raise ValueError(
            f"Expected `{name}` with one number for each of the {n_channels} channels, "
            f"got {len(values)}."
        )
    for value in values:
        check_finite(name, value)
    return values


def checked_lit_level(
    lit_level: float | Sequence[float] | None, level: float | None, n_channels: int
) -> tuple[float, ...] | None:
    """Return the level of lit predictions in each channel; refuse it without one of targets."""
    if lit_level is None:
        return None
    if level is None:
        raise ValueError("Expected `level`, that of the targets, beside `lit_level`, got none.")
    each = (lit_level,) * n_channels if isinstance(lit_level, (int, float)) else lit_level
    return checked_channels("lit_level", each, n_channels)


def finite_values(name: str, value: Tensor, valid: Tensor, cure: str) -> Tensor:
    """Return a map in float64 on the CPU, 0 where it does not count.

    Args:
        name: name of the argument in errors.
        value: the map.
        valid: bool on the CPU, same shape, False for pixels that do not count.
        cure: end of the error for NaN and infinity.
    """
    check_floating(name, value)
    values = in_float64(value).cpu().where(valid, 0.0)
    n_bad = int((~values.isfinite()).sum())
    if n_bad:
        raise ValueError(
            f"Expected `{name}` without NaN or infinity, got {n_bad:,} in {values.numel():,} "
            f"pixels; {cure}."
        )
    return values


def pixels_last(map_: Tensor) -> Tensor:
    """Return a map (B, C, *spatial) as (B, C, pixels)."""
    return map_.flatten(2) if map_.dim() > 2 else map_.unsqueeze(2)


def membership(
    cells: Tensor, names: Sequence[str], labels: bool, valid: Tensor
) -> Callable[[int, slice], Tensor]:
    """Check the cells of a batch; return the function from a cell's number to its pixels.

    The function also takes a slice of the pixels of each image, and returns bool (B, C, n).

    Args:
        cells: masks, labels or a bit field, see `ValueScores.update`.
        names: names of the cells.
        labels: whether integers are labels; they are a bit field if not.
        valid: bool (B, C, *spatial) on the CPU, False for pixels that do not count.
    """
    check_tensor("cells", cells)
    cells, shape = cells.cpu(), valid.shape
    if cells.is_floating_point() or cells.is_complex():
        raise TypeError(
            f"Expected `cells` to be masks of bool or integers, got {cells.dtype}; "
            "call .bool() on masks, .long() on integers."
        )
    if cells.dtype == torch.bool and not labels:
        wanted = (shape[0], len(names), *shape[2:])
        if cells.shape != wanted:
            raise ValueError(
                f"Expected `cells` with a mask for each of {', '.join(names)}, {wanted}, "
                f"got {tuple(cells.shape)}."
            )
        masks = pixels_last(cells)
        return lambda number, part: masks[:, number, None, part].expand(-1, shape[1], -1)
    field = _expanded(cells.long(), shape)
    _check_range(field[valid], names, labels)
    field = pixels_last(field[:, :1]).expand(-1, shape[1], -1)
    if labels:
        return lambda number, part: field[..., part] == number
    return lambda number, part: (field[..., part] >> number) & 1 == 1


def _expanded(cells: Tensor, shape: torch.Size) -> Tensor:
    spatial = shape[2:]
    if cells.shape in ((shape[0], *spatial), (shape[0], 1, *spatial)):
        return cells.reshape(shape[0], 1, *spatial).expand(shape)
    raise ValueError(
        f"Expected `cells` of integers in the shape {(shape[0], *spatial)}, "
        f"got {tuple(cells.shape)}; masks must be bool."
    )


def _check_range(field: Tensor, names: Sequence[str], labels: bool) -> None:
    highest = len(names) - 1 if labels else (1 << len(names)) - 1
    is_outside = (field < 0) | (field > highest)
    if not bool(is_outside.any()):
        return
    example = int(field[is_outside][0])
    listed = ", ".join(names)
    if labels:
        raise ValueError(
            f"Expected `cells` with the labels 0 to {highest} of {listed}, got {example} in "
            f"{int(is_outside.sum()):,} pixels; name every label, or leave them out with `mask`."
        )
    bit = "a negative number" if example < 0 else f"the bit {example.bit_length() - 1}"
    raise ValueError(
        f"Expected `cells` with the bits 0 to {len(names) - 1} of {listed}, got {bit} in "
        f"{int(is_outside.sum()):,} pixels; name every bit, or pass labels=True for labels."
    )
