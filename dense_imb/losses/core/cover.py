"""Covers: cells of pixels that overlap, as masks or as the bits of an integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import (
    check_choice,
    check_tensor,
    expand_pixels,
    trains_eagerly,
    values_are_readable,
)
from dense_imb.losses.core.bits import as_bits
from dense_imb.losses.core.groups import Groups, wide

if TYPE_CHECKING:
    from dense_imb.losses.core.balance import Balance
    from dense_imb.losses.core.coefficient import Coefficients

Rest = Literal["ignore", "cell", "refuse"]

_CHUNK = 12  # bits that share a table of 4,096 patterns
_MOST_BITS = 62  # of an int64


@dataclass(frozen=True)
class Cover:
    """Cells that may overlap, like organs and the volume to treat.

    A pixel in several cells counts in each. The label is a mask for each cell, bool (B, n_cells,
    *spatial), or a bit field, integers whose bit g is set in cell g.

    Args:
        n_cells: number of cells G.
        rest: treatment of pixels in no cell. "ignore" leaves them out, "cell" makes them one more
            cell, the last, and "refuse" raises an error.

    Example:
        >>> masks = torch.tensor([[[True, True, False], [False, True, False]]])
        >>> error = torch.tensor([[1.0, 3.0, 5.0]])
        >>> balanced_mean(error, masks, cover=Cover(2), balance=Balance())  # (2 + 3) / 2
        tensor(2.5000)
        >>> balanced_mean(error, masks, cover=Cover(2, rest="cell"), balance=Balance())
        tensor(3.3333)
    """

    n_cells: int
    rest: Rest = "ignore"

    def __post_init__(self) -> None:
        check_choice("rest", self.rest, get_args(Rest))
        if isinstance(self.n_cells, bool) or not isinstance(self.n_cells, int):
            raise TypeError(f"Expected `n_cells` to be a whole number, got {self.n_cells!r}.")
        if self.n_cells < 1:
            raise ValueError(f"Expected `n_cells` of at least 1, got {self.n_cells}.")

    @property
    def n_classes(self) -> int:
        """Number of class means: the cells, and the rest if it is a cell."""
        return self.n_cells + (self.rest == "cell")


class PackedCover(NamedTuple):
    """Cells of the pixels, as patterns of up to 12 bits."""

    chunks: tuple[Tensor, ...]  # int32, in the shape of the error map; 2^bits marks an illegal one
    n_bits: tuple[int, ...]  # of each chunk
    rest_is_zero: bool  # whether the pattern 0 is a cell, the last

    def ignored(self) -> int:
        """Pattern of an ignored pixel, in no cell."""
        return 2 << self.n_bits[0] if self.rest_is_zero else 0


def pack(
    cover: Cover, label: Tensor | None, like: Tensor, like_name: str, valid: Tensor | None
) -> PackedCover:
    """Check the label of a cover, and pack it.

    Args:
        cover: the cells.
        label: masks or a bit field, see `Cover`.
        like: the error map, or a tensor of its shape.
        like_name: name of that tensor in errors.
        valid: mask of the pixels that count, in the shape of `like`; None if all do.
    """
    if label is None:
        raise ValueError(
            "Expected `label` with the cells of a cover, got none: call the loss as "
            "loss(prediction, target, label=masks)."
        )
    check_tensor("label", label)
    rest_is_zero = cover.rest == "cell" and cover.n_cells <= _CHUNK  # no pass to mark the rest
    n_all = cover.n_cells if rest_is_zero else cover.n_classes
    n_bits = [min(_CHUNK, n_all - start) for start in range(0, n_all, _CHUNK)]
    if label.dtype == torch.bool:
        masks = _checked_masks(cover, label, like, like_name)
        chunks = _chunks_of_masks(masks, len(n_bits))
        is_illegal = None
    else:
        field = _checked_field(cover, label, like, like_name)
        is_illegal = _illegal_bits(cover, field, valid)
        chunks = [field.int()] if len(n_bits) == 1 else _chunks_of_field(field, len(n_bits))
    shape = like.shape
    chunks = [_expanded(chunk, shape) for chunk in chunks]
    if cover.rest != "ignore" and not rest_is_zero:
        is_rest = chunks[0] == 0
        for chunk in chunks[1:]:
            is_rest = is_rest & (chunk == 0)
        if cover.rest == "cell":
            chunks[-1] = torch.add(chunks[-1], is_rest, alpha=1 << (n_bits[-1] - 1))
        else:
            is_illegal = _refused_rest(is_rest, is_illegal, valid)
    if is_illegal is not None:
        chunks[0] = torch.where(_expanded(is_illegal, shape), 1 << n_bits[0], chunks[0])
    packed = PackedCover(tuple(chunks), tuple(n_bits), rest_is_zero)
    if valid is None:
        return packed
    return packed._replace(
        chunks=tuple(torch.where(valid, chunk, packed.ignored()) for chunk in chunks)
    )


def _expanded(value: Tensor, shape: torch.Size) -> Tensor:
    """Expand (B, *spatial) to the shape of the error map, which may have channels."""
    return (value.unsqueeze(1) if value.dim() < len(shape) else value).expand(shape)


def _checked_masks(cover: Cover, label: Tensor, like: Tensor, like_name: str) -> Tensor:
    """Return (B, G, *spatial)."""
    has_channels = label.dim() == like.dim() and like.dim() > 1
    batch, spatial = like.shape[:1], like.shape[2 if has_channels else 1 :]
    if label.dim() < 2 or label.shape != (*batch, cover.n_cells, *spatial):
        raise ValueError(
            f"Expected `label` with a mask for each of the {cover.n_cells} cells, "
            f"{(*batch, cover.n_cells, *spatial)} for a `{like_name}` of {tuple(like.shape)}, "
            f"got {tuple(label.shape)}."
        )
    return label


def _chunks_of_masks(masks: Tensor, n_chunks: int) -> list[Tensor]:
    chunks = []
    for number in range(n_chunks):
        # half as long as with bool and int32
        pattern = torch.zeros_like(masks[:, 0], dtype=torch.int16)
        for bit, mask in enumerate(masks[:, number * _CHUNK : (number + 1) * _CHUNK].unbind(1)):
            pattern = pattern.add_(as_bits(mask, torch.uint8), alpha=1 << bit)
        chunks.append(pattern.int())
    return chunks


def _checked_field(cover: Cover, label: Tensor, like: Tensor, like_name: str) -> Tensor:
    if label.is_floating_point() or label.is_complex():
        raise TypeError(
            f"Expected `label` to hold masks of bool or a bit field of integers, got {label.dtype};"
            " call .bool() on masks."
        )
    if label.dim() == like.dim() and label.shape[1:2] == (cover.n_cells,) != like.shape[1:2]:
        raise TypeError(
            f"Expected `label` with {cover.n_cells} channels to hold masks of bool, got "
            f"{label.dtype}; call .bool() on them."
        )
    if cover.n_cells > _MOST_BITS:
        raise ValueError(
            f"Expected a bit field of at most {_MOST_BITS} cells, got {cover.n_cells}; pass masks."
        )
    return expand_pixels("label", label, like, like_name)


def _illegal_bits(cover: Cover, field: Tensor, valid: Tensor | None) -> Tensor | None:
    """Refuse bits of no cell; return where they are if values cannot be read."""
    highest = (1 << cover.n_cells) - 1
    if highest > torch.iinfo(field.dtype).max:
        return None
    if not values_are_readable(field):
        return (field < 0) | (field > highest)
    if field.numel() == 0:
        return None
    if all(0 <= int(bound) <= highest for bound in torch.aminmax(field)):
        return None
    is_illegal = (field < 0) | (field > highest)
    if valid is not None:
        is_illegal = is_illegal & valid
    if bool(is_illegal.any()):
        raise ValueError(
            f"Expected `label` with bits of the {cover.n_cells} cells, from 0 to {highest}, got "
            f"{int(field[is_illegal][0])}; use Cover({_n_bits(field)}), or `mask` for pixels to "
            "ignore."
        )
    return None


def _n_bits(field: Tensor) -> int:
    return max(int(field.max()).bit_length(), 1)


def _chunks_of_field(field: Tensor, n_chunks: int) -> list[Tensor]:
    lowest = (1 << _CHUNK) - 1
    return [((field >> (number * _CHUNK)) & lowest).int() for number in range(n_chunks)]


def _refused_rest(is_rest: Tensor, is_illegal: Tensor | None, valid: Tensor | None) -> Tensor:
    """Refuse pixels in no cell; return where they are if values cannot be read."""
    if values_are_readable(is_rest):
        n_pixels = int((is_rest if valid is None else is_rest & valid).sum())
        if n_pixels:
            raise ValueError(
                f"Expected every pixel in a cell of the cover, got {n_pixels} of "
                f'{is_rest.numel()} in none; use rest="cell" to make them a cell, or '
                'rest="ignore".'
            )
    return is_rest if is_illegal is None else is_rest | is_illegal


class CoverCells(Groups):
    """Rows of pixels in overlapping cells, and sums over the pixels of each cell, (rows, G)."""

    def __init__(self, packed: PackedCover, n_rows: int) -> None:
        self.n_rows = n_rows
        self.n_bits = packed.n_bits
        self.rest_is_zero = packed.rest_is_zero
        self.ignored = packed.ignored()
        self.n_cells = sum(packed.n_bits) + packed.rest_is_zero
        self.chunks = [chunk.reshape(n_rows, -1) for chunk in packed.chunks]

    def count(self) -> Tensor:
        if values_are_readable(self.chunks[0]):
            return self._bincount(None)
        return torch.stack([is_in.sum(1) for is_in in self._bits()], 1)

    def sum(self, pixel: Tensor) -> Tensor:
        pixel = pixel.reshape(self.chunks[0].shape).to(wide(pixel.device))
        if values_are_readable(self.chunks[0]) and not trains_eagerly(pixel):
            return self._bincount(pixel)
        return torch.stack([torch.where(is_in, pixel, 0.0).sum(1) for is_in in self._bits()], 1)

    def spread(self, of_group: Tensor) -> Tensor:
        """Return for each pixel the sum of the numbers of its cells; NaN if it is illegal."""
        total: Tensor | None = None
        parts = torch.split(of_group[:, : sum(self.n_bits)], list(self.n_bits), 1)
        for chunk, part in zip(self.chunks, parts, strict=True):
            table = F.pad(_table(part), (0, 1), value=torch.nan)
            if self.rest_is_zero:
                table = torch.cat([of_group[:, -1:], table[:, 1:]], 1)
                table = F.pad(table, (0, self.ignored + 1 - table.shape[1]))
            value = table.reshape(-1).index_select(0, self._slots(chunk, table.shape[1]))
            total = value if total is None else total + value
        assert total is not None
        return total

    def totals(
        self, error: Tensor | None, weight: Tensor | None, balance: Balance
    ) -> dict[str, Tensor]:
        sums = super().totals(error, weight, balance)
        if balance.frame_weight > 0:  # the cells count pixels more than once
            mass = self._is_in_a_cell() if weight is None else weight
            sums["frame"] = self._in_first_column(mass)
            if error is not None:
                sums["frame_error"] = self._in_first_column(
                    error if weight is None else error * weight
                )
        return sums

    def share(self, coefficient: Coefficients, dtype: torch.dtype) -> Tensor:
        share = self.spread(coefficient.of_class.to(dtype))
        if coefficient.of_frame is None:
            return share
        return share.view_as(self.chunks[0]) + torch.where(
            self._is_in_a_cell(), coefficient.of_frame.to(dtype), 0.0
        )

    def _is_in_a_cell(self) -> Tensor:  # (rows, pixels)
        is_in = self.chunks[0] != self.ignored
        for chunk in self.chunks[1:]:
            is_in = is_in | (chunk != self.ignored)
        return is_in

    def _in_first_column(self, pixel: Tensor) -> Tensor:
        """Sum a map over the pixels in a cell, (rows, G) with zeros behind the first column."""
        pixel = pixel.reshape(self.chunks[0].shape)
        total = torch.where(self._is_in_a_cell(), pixel, 0).sum(1, keepdim=True)
        return F.pad(total.to(wide(total.device)), (0, self.n_cells - 1))

    def _slots(self, chunk: Tensor, width: int) -> Tensor:
        if self.n_rows > 1:
            row = torch.arange(self.n_rows, dtype=chunk.dtype, device=chunk.device)
            chunk = chunk + width * row.unsqueeze(1)
        return chunk.reshape(-1)

    def _bincount(self, pixel: Tensor | None) -> Tensor:
        """Sum over the pixels of each pattern, then over the patterns of each cell."""
        weights = None if pixel is None else pixel.reshape(-1)
        parts = []
        for chunk, n_bits in zip(self.chunks, self.n_bits, strict=True):
            width = max(1 << n_bits, self.ignored) + 1
            total = torch.bincount(self._slots(chunk, width), weights, self.n_rows * width)
            of_pattern = total.view(self.n_rows, width)[:, : 1 << n_bits]
            parts.append(_cell_sums(of_pattern, n_bits))
            if self.rest_is_zero:
                parts.append(of_pattern[:, :1])
        return torch.cat(parts, 1)

    def _bits(self) -> list[Tensor]:
        is_in = [
            ((chunk >> bit) & 1).bool()
            for chunk, n_bits in zip(self.chunks, self.n_bits, strict=True)
            for bit in range(n_bits)
        ]
        return [*is_in, self.chunks[0] == 0] if self.rest_is_zero else is_in


def _table(of_cell: Tensor) -> Tensor:
    """Return for each pattern the sum of the numbers of its cells, (rows, 2^G)."""
    table = torch.zeros_like(of_cell[:, :1])
    for number in torch.split(of_cell, 1, 1):
        table = torch.cat([table, table + number], 1)
    return table


def _cell_sums(of_pattern: Tensor, n_bits: int) -> Tensor:
    """Return for each cell the sum of the numbers of its patterns, (rows, G)."""
    sums = []
    for bit in range(n_bits):
        is_in = of_pattern.reshape(len(of_pattern), -1, 2, 1 << bit)[:, :, 1]
        sums.append(is_in.sum((1, 2)))
    return torch.stack(sums, 1)
