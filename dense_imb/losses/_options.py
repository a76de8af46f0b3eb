"""Options that losses share, so that each is written once."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class CallOptions(TypedDict, total=False):
    """What every balanced or classification loss takes at call time."""

    mask: Tensor | None
    pixel_weight: Tensor | None
    class_count: Tensor | None
    return_parts: bool


class ReducedCallOptions(CallOptions, total=False):
    """The same for a function, which is told its reduction at call time too."""

    reduction: str
