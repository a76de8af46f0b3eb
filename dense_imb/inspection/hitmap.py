"""What a map of all hits tells of the sensor: hot pixels, hot and silent rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_HOT = 5.0  # times the neighbours' mean
_SIGNIFICANT = 6.0  # standard deviations of a count
_N_TOP = 5


def look_at_map(hits: NDArray[np.int64], n_events: int) -> dict[str, Any]:
    """Describe a hit map (H, W) of so many events.

    A pixel is hot if it has more than 5 times the mean of its 24 neighbours, and a row or column
    if it has more than 3 times the mean of the 4 beside it, both by more than 6 standard
    deviations.

    Example:
        >>> hits = np.full((20, 20), 4)
        >>> hits[3, 7], hits[:, 12] = 900, 0
        >>> found = look_at_map(hits, n_events=1000)
        >>> found["hot_pixels"], found["silent_columns"], found["silent_rows"]
        (1, [12], [])
        >>> found["hottest"][0]
        {'x': 7, 'y': 3, 'hits': 900, 'hits_per_event': 0.9, 'is_hot': True}
    """
    mean = hits.mean()
    is_hot = _stands_out(hits[None, None].astype(np.float64), (5, 5), _HOT)[0, 0]
    order = np.argsort(hits, axis=None, kind="stable")[::-1]
    order = np.concatenate([order[is_hot.flat[order]], order[~is_hot.flat[order]]])
    hottest = [
        {
            "x": int(x),
            "y": int(y),
            "hits": int(hits[y, x]),
            "hits_per_event": float(hits[y, x] / max(n_events, 1)),
            "is_hot": bool(is_hot[y, x]),
        }
        for y, x in zip(*np.unravel_index(order[:_N_TOP], hits.shape), strict=True)
        if hits[y, x] > 0
    ]
    found = {
        "mean_hits_per_pixel": float(mean),
        "mean_hits_per_pixel_and_event": float(mean / max(n_events, 1)),
        "silent_pixels": int((hits == 0).sum()),
        "hot_pixels": int(is_hot.sum()),
        "hottest": hottest,
    }
    for name, axis in (("rows", 1), ("columns", 0)):
        # of the rows without their hot pixels, which would make the row look hot, too
        total = np.where(is_hot, 0, hits).sum(axis).astype(np.float64)
        line = _stands_out(total[None, None, None], (1, 5), 3.0)[0, 0, 0]
        found[f"hot_{name}"] = np.flatnonzero(line).tolist()
        found[f"silent_{name}"] = np.flatnonzero(hits.sum(axis) == 0).tolist()
    return found


def _stands_out(
    counts: NDArray[np.float64], window: tuple[int, int], factor: float
) -> NDArray[np.bool_]:
    """Where a count is far above the mean of the others in a window around it; (1, 1, H, W)."""
    padding = (window[0] // 2, window[1] // 2)
    size = window[0] * window[1]

    def window_sum(image: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(image, window, 1, padding, count_include_pad=True)
        return mean * size

    image = torch.from_numpy(counts)
    n_others = window_sum(torch.ones_like(image)) - 1
    others = (window_sum(image) - image).clamp(min=0) / n_others.clamp(min=1)
    excess = image - others
    is_out = (excess > _SIGNIFICANT * (others + 1).sqrt()) & (image > factor * others)
    found: NDArray[np.bool_] = (is_out & (n_others > 0.5)).numpy()
    return found
