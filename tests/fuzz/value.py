"""Equality of what was read: arrays by type, shape and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def same(first: Any, second: Any) -> bool:
    """Tell whether two contents are equal to the bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        first, second = first.detach().numpy(), second.detach().numpy()
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    if isinstance(first, dict):
        return [*first] == [*second] and all(same(first[name], second[name]) for name in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, (str, bytes, int, float, bool, type(None))):
        return repr(first) == repr(second)
    if hasattr(first, "__dict__"):
        return same(vars(first), vars(second))
    return repr(first) == repr(second)
