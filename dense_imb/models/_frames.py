"""Padding and cropping, so that frames of any size fit networks that halve them several times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import is_exporting


def larger_side(one: int, other: int) -> int:
    """Return the larger of two sides, of which one may be a symbol of an exported graph."""
    # torch 2.14 turns max() into a minimum within the branches of a graph
    return torch.sym_max(one, other)  # type: ignore[return-value]


def padded_size(frame: Sequence[int], multiple: int) -> tuple[int, ...]:
    """Round a size up to a multiple of `multiple`.

    Example:
        >>> padded_size((128, 88), 16)
        (128, 96)
    """
    # ceil without negative numbers: ONNX rounds their quotients the other way
    return tuple((size + multiple - 1) // multiple * multiple for size in frame)


def pad_frames(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Pad frames (B, C, *spatial) with zeros at the end of each axis; `crop_frames` undoes it.

    Example:
        >>> pad_frames(torch.ones(1, 1, 1, 1), (2, 2)).tolist()
        [[[[1.0, 0.0], [0.0, 0.0]]]]
    """
    spatial = frames.shape[2:]
    missing = [wanted - given for wanted, given in zip(size, spatial, strict=True)]
    # an exported graph takes frames of any size, so it always pads
    if not is_exporting() and not any(missing):
        return frames
    ends: list[int] = []
    for amount in reversed(missing):  # F.pad begins with the last axis
        ends += (0, amount)
    return F.pad(frames, ends)


def crop_frames(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Crop frames (B, C, *spatial) to their first pixels on each axis."""
    for axis, wanted in enumerate(size, start=2):
        if is_exporting():  # the layout of a view would depend on the size
            kept = torch.arange(wanted, device=frames.device)
            frames = frames.index_select(axis, kept)
        elif frames.shape[axis] != wanted:
            frames = frames.narrow(axis, 0, wanted)
    return frames
