"""Defects of the sensor in a map of all hits: hot pixels, hot and silent rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_HOT, _HOT_LINE = 5.0, 3.0  # times the neighbours' mean
_SIGNIFICANT = 6.0  # standard deviations of a count
_N_TOP = 5


def look_at_map(hits: NDArray[np.int64], lit: NDArray[np.int64], n_events: int) -> dict[str, Any]:
    """Describe the defects of a sensor.

    A pixel is hot if it is lit in more than 5 times as many events as its 24 neighbours on
    average. A row or column is hot above 3 times the average of the 4 beside it. Both need an
    excess above 6 standard deviations. Events are compared, not hits: a signal may put many hits
    into a pixel in one event.

    Args:
        hits: (H, W) hits in each pixel.
        lit: (H, W) events in which each pixel is lit.
        n_events: number of events.

    Example:
        >>> lit = np.full((20, 20), 4)
        >>> lit[3, 7], lit[:, 12] = 900, 0
        >>> defects = look_at_map(2 * lit, lit, n_events=1000)
        >>> defects["hot_pixels"], defects["silent_columns"], defects["silent_rows"]
        (1, [12], [])
        >>> defects["hottest"][0]
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
    defects = {
        "mean_hits_per_pixel_and_event": float(hits.mean() / n_events),
        "mean_share_of_events": float(lit.mean() / n_events),
        "silent_pixels": int((hits == 0).sum()),
        "hot_pixels": int(is_hot.sum()),
        "hottest": hottest,
    }
    for name, axis in (("rows", 1), ("columns", 0)):
        # a hot pixel must not make its row look hot
        total = np.where(is_hot, 0, lit).sum(axis)
        defects[f"hot_{name}"] = np.flatnonzero(
            _stands_out(total[None], (1, 5), _HOT_LINE)
        ).tolist()
        defects[f"silent_{name}"] = np.flatnonzero(hits.sum(axis) == 0).tolist()
    return defects


def _stands_out(
    counts: NDArray[np.int64], window: tuple[int, int], factor: float
) -> NDArray[np.bool_]:
    """Return where a count (H, W) is far above the mean of the others in a window around it."""
    padding = (window[0] // 2, window[1] // 2)
    size = window[0] * window[1]

    def window_sum(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None], window, 1, padding)[0, 0] * size

    image = torch.from_numpy(counts).double()
    n_others = window_sum(torch.ones_like(image)) - 1
    others = (window_sum(image) - image).clamp(min=0) / n_others.clamp(min=1)
    is_out = (image - others > _SIGNIFICANT * (others + 1).sqrt()) & (image > factor * others)
    stands_out: NDArray[np.bool_] = (is_out & (n_others > 0.5)).numpy()
    return stands_out
