"""Class counts of losses: from a sequence, an array, a tensor or a `ClassStatistics`."""

from __future__ import annotations

import warnings
from typing import Any

from dense_imb.base.checks import class_numbers


def class_counts_of(value: Any, name: str = "class_counts") -> tuple[float, ...]:
    """Return positive counts. A class without samples gets a small count, with a warning."""
    counts = class_numbers(name, getattr(value, "class_counts", value))
    if not sum(counts) > 0:
        raise ValueError(f"Expected `{name}` to count something, got {list(counts)}.")
    least = min(1.0, min(count for count in counts if count > 0))
    unseen = [index for index, count in enumerate(counts) if count == 0]
    if unseen:
        warnings.warn(
            f"`{name}` is 0 for class {', '.join(map(str, unseen))}; {least:g} is used instead, to "
            "keep its weight finite.",
            stacklevel=4,
        )
    return tuple(max(count, least) for count in counts)
