"""Random parts of a data set that keep groups together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def assign_parts(
    group: NDArray[Any], shares: Sequence[float], seed: int = 0, *, at_least_one: bool = False
) -> NDArray[np.int64]:
    """Assign each sample to a part; all samples of a group go to one part.

    The groups, in random order, fill one part after the other. A part misses its share by at most
    half of the group at its border.

    Args:
        group: (n,) group of each sample; distinct numbers where nothing has to stay together.
        shares: fraction of the samples in each part, in any unit.
        seed: random seed of the order.
        at_least_one: give the first and the last part a group, however small their shares are.

    Returns:
        (n,) number of the part of each sample.

    Example:
        >>> import numpy as np
        >>> run = np.repeat([7, 8, 9, 10], 5)
        >>> assign_parts(run, [0.5, 0.5], seed=0).reshape(4, 5)[:, 0].tolist()
        [0, 1, 0, 1]
    """
    share = np.asarray(shares, np.float64)
    if share.ndim != 1 or not len(share) or not (np.isfinite(share).all() and (share > 0).all()):
        raise ValueError(f"Expected `shares` of positive numbers, got {list(shares)}.")
    if len(group) == 0:
        raise ValueError(f"Expected samples to divide among {len(share)} parts, got none.")
    _, member, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(size))
    middle = np.cumsum(size[order]) - size[order] / 2
    edges = np.cumsum(share)[:-1] / share.sum() * len(group)
    part_in_order = np.searchsorted(edges, middle, side="right")
    if at_least_one and len(size) > 1:
        part_in_order[0], part_in_order[-1] = 0, len(share) - 1
    part_of_group = np.empty(len(size), np.int64)
    part_of_group[order] = part_in_order
    part: NDArray[np.int64] = part_of_group[member]
    empty = sorted(set(range(len(share))) - set(part_of_group.tolist()))
    if empty:
        raise ValueError(
            f"Expected samples for each of {len(share)} parts, got none for part {empty[0] + 1}: "
            f"{len(size)} groups of {len(group)} samples cannot be divided as {list(shares)}; pass "
            "other shares or another seed."
        )
    return part
