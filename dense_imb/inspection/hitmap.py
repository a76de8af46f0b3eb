"""What a map of all hits tells of the sensor: hot pixels, hot and silent rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_HOT, _HOT_LINE = 5.0, 3.0  # times the neighbours' mean
_SIGNIFICANT = 6.0  # standard deviations of a count
_N_TOP = 5


def look_at_map(hits: NDArray[np.int64], lit: NDArray[np.int64], n_events: int) -> dict[str, Any]:
    """Describe maps (H, W) of the hits, and of the events in which each pixel is lit.

    A pixel is hot if it is lit in more than 5 times as many events as its 24 neighbours are on
    average, a row or column in more than 3 times as many as the 4 beside it, both by more than 6
    standard deviations. Hits would not do: in one event a signal may put many into a pixel.

    Example:
        >>> lit = np.full((20, 20), 4)
        >>> lit[3, 7], lit[:, 12] = 900, 0
        >>> found = look_at_map(2 * lit, lit, n_events=1000)
        >>> found["hot_pixels"], found["silent_columns"], found["silent_rows"]
        (1, [12], [])
        >>> found["hottest"][0]
        {'x': 7, 'y': 3, 'hits_per_event': 1.8, 'share_of_events': 0.9, 'is_hot': True}
    """
    n_events = max(n_events, 1)
    is_hot = _stands_out(lit, (5, 5), _HOT)
    order = np.lexsort((hits.ravel(), lit.ravel(), is_hot.ravel()))[::-1][:_N_TOP]
    hottest = [
        {
            "x": int(x),
            "y": int(y),
            "hits_per_event": float(hits[y, x] / n_events),
            "share_of_events": float(lit[y, x] / n_events),
            "is_hot": bool(is_hot[y, x]),
        }
        for y, x in zip(*np.unravel_index(order, hits.shape), strict=True)
        if hits[y, x] > 0
    ]
    found = {
        "mean_hits_per_pixel_and_event": float(hits.mean() / n_events),
        "mean_share_of_events": float(lit.mean() / n_events),
        "silent_pixels": int((hits == 0).sum()),
        "hot_pixels": int(is_hot.sum()),
        "hottest": hottest,
    }
    for name, axis in (("rows", 1), ("columns", 0)):
        # without their hot pixels, which would make the row look hot, too
        total = np.where(is_hot, 0, lit).sum(axis)
        found[f"hot_{name}"] = np.flatnonzero(_stands_out(total[None], (1, 5), _HOT_LINE)).tolist()
        found[f"silent_{name}"] = np.flatnonzero(hits.sum(axis) == 0).tolist()
    return found


def _stands_out(
    counts: NDArray[np.int64], window: tuple[int, int], factor: float
) -> NDArray[np.bool_]:
    """Where a count (H, W) is far above the mean of the others in a window around it."""
    padding = (window[0] // 2, window[1] // 2)
    size = window[0] * window[1]

    def window_sum(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None], window, 1, padding)[0, 0] * size

    image = torch.from_numpy(counts).double()
    n_others = window_sum(torch.ones_like(image)) - 1
    others = (window_sum(image) - image).clamp(min=0) / n_others.clamp(min=1)
    is_out = (image - others > _SIGNIFICANT * (others + 1).sqrt()) & (image > factor * others)
    found: NDArray[np.bool_] = (is_out & (n_others > 0.5)).numpy()
    return found
