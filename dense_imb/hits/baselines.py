"""Classical denoisers with the interface of a trained model, as baselines.

A scorer gives each hit a score that is larger for signal, and changes no hit. Widths and radii
are in pixels and time steps on a grid, in metres and ns for a table of sensors. The defaults have
the best noise removal at 97 % retention on validation events of the arc task
(experiments/benchmarks/hit_baselines.py --choose). An event of this task has 30 signal and 200
noise hits in 88 x 128 x 1000. `make_baseline` scales the defaults to other frames, and has others
for tables of sensors; choose them again for other data.

Hits near the edge of the frame have fewer neighbours; no scorer corrects for this.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.hits.events import Events
from dense_imb.hits.frames import _pixel
from dense_imb.hits.pairs import axes_of, pairs_in_time, sort_by_time, square_distance

__all__ = [
    "BASELINES",
    "BlurredHits",
    "DBSCANScorer",
    "HitDensity",
    "Identity",
    "KeepNothing",
    "MedianFilter",
    "Scorer",
]

_AT_ONCE = 64  # events whose frames are filtered together
# Weights are rounded to multiples of these. Their sums are then exact in float64 (52 bits: a blur
# multiplies two weights and sums 2^20 hits), so the order of the hits and the batch do not matter.
_BLUR_STEP = 2.0**-16
_PAIR_STEP = 2.0**-30


class Scorer(Protocol):
    """Interface of everything that scores hits: baselines and trained models.

    Example:
        >>> from dense_imb.hits import degrade, Degradation, simulate
        >>> noisy = degrade(simulate("arc", 2, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> for make in BASELINES.values():
        ...     scorer: Scorer = make()
        >>> HitDensity().score(noisy).shape
        torch.Size([460])
    """

    @property
    def name(self) -> str:
        """Name in tables."""

    def score(self, events: Events) -> Tensor:
        """Return scores (n_hits,), float32 in [0, 1], on the device of the events.

        Signal should have larger scores. The score of a hit depends on the hits of its own event
        only, and not on their order.
        """


@dataclass(frozen=True)
class Identity:
    """Baseline that keeps everything: score 1.

    Example:
        >>> from dense_imb.hits import Identity, simulate
        >>> arcs = simulate("arc", 2, seed=1)
        >>> Identity().score(arcs).unique()
        tensor([1.])
    """

    name: ClassVar[str] = "identity"

    def score(self, events: Events) -> Tensor:
        return torch.ones(events.n_hits, device=events.tensors().t.device)


@dataclass(frozen=True)
class KeepNothing:
    """Baseline that keeps nothing at any threshold above 0: score 0.

    Example:
        >>> from dense_imb.hits import KeepNothing, simulate
        >>> arcs = simulate("arc", 2, seed=1)
        >>> KeepNothing().score(arcs).unique()
        tensor([0.])
    """

    name: ClassVar[str] = "blank"

    def score(self, events: Events) -> Tensor:
        return torch.zeros(events.n_hits, device=events.tensors().t.device)


@dataclass(frozen=True)
class BlurredHits:
    """Number of other hits under a Gaussian in x and y; time is not used.

        n_i = sum_{j != i} exp(-((x_i - x_j)^2 + (y_i - y_j)^2) / (2 sigma^2))
        score_i = n_i / (1 + n_i)

    The Gaussian is cut off at 4 sigma in x and in y, and rounded to multiples of 2^-16.

    Args:
        sigma: standard deviation of the Gaussian in pixels.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import BlurredHits, Events, Geometry
        >>> x = np.array([10, 10, 70])  # two hits in one pixel, and one far away
        >>> events = Events(Geometry(), np.array([0, 3]), x, x, x + 1)
        >>> BlurredHits(sigma=6.0).score(events)
        tensor([0.5000, 0.5000, 0.0000])
    """

    sigma: float = 6.0
    name: ClassVar[str] = "blurred hits"

    def __post_init__(self) -> None:
        _check_positive("sigma", self.sigma)

    def score(self, events: Events) -> Tensor:
        half = math.ceil(4 * self.sigma)
        step = torch.arange(-half, half + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (step / self.sigma) ** 2)
        kernel = (kernel / _BLUR_STEP).round() * _BLUR_STEP  # the middle stays 1
        return _odds_to_score(_filter_hits(events, kernel) - 1)  # without the hit itself


@dataclass(frozen=True)
class HitDensity:
    """Weighted number of neighbours in x, y and t, or in x, y, z and t.

        d_ij^2  = ((x_i - x_j)^2 + (y_i - y_j)^2) / radius_xy^2 + (t_i - t_j)^2 / radius_t^2
        n_i     = sum_{j != i} max(0, 1 - d_ij^2)
        score_i = n_i / (1 + n_i)

    A table of sensors in 3-D adds (z_i - z_j)^2 to the first bracket. All pairs are counted, so
    the time grows with the hits and the number of hits within radius_t. Weights are rounded to
    multiples of 2^-30.

    Args:
        radius_xy: radius in pixels; in space, in metres, for a table of sensors.
        radius_t: radius in time steps; in ns for a table of sensors.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Events, Geometry, HitDensity
        >>> x, t = np.array([10, 10, 70]), np.array([500, 560, 500])
        >>> events = Events(Geometry(), np.array([0, 3]), x, x, t)
        >>> HitDensity(radius_xy=20.0, radius_t=120.0).score(events)  # n = 3/4, 3/4, 0
        tensor([0.4286, 0.4286, 0.0000])
    """

    radius_xy: float = 20.0
    radius_t: float = 120.0
    name: ClassVar[str] = "hit density"

    def __post_init__(self) -> None:
        _check_positive("radius_xy", self.radius_xy)
        _check_positive("radius_t", self.radius_t)

    def score(self, events: Events) -> Tensor:
        events = events.tensors()
        density = torch.zeros(events.n_hits, dtype=torch.int64, device=events.t.device)
        if events.n_hits == 0:
            return density.float()
        axes = axes_of(events, self.radius_xy, self.radius_t)
        key, order = sort_by_time(events, axes[-1])
        axes = [axis[order] for axis in axes]
        for one, other in pairs_in_time(key):
            # pairs further apart than 1 have the weight 0
            square = square_distance(axes, one, other)
            weight = ((1 - square).clamp(min=0) / _PAIR_STEP).round().to(torch.int64)
            density.index_add_(0, order[one], weight)
            density.index_add_(0, order[other], weight)
        return _odds_to_score(density.double() * _PAIR_STEP)


@dataclass(frozen=True)
class MedianFilter:
    """Median filter of the hit mask, as a score.

        score = lit pixels / size^2   in the size x size window around the hit

    At the threshold 1/2 this is the median filter: a hit is kept if most pixels of its window are
    lit. Sparse events have no such hit, so useful thresholds are lower, which makes it a rank
    filter. Pixels outside the frame are not lit.

    Args:
        size: width of the window in pixels, odd.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Events, Geometry, MedianFilter
        >>> x = np.array([10, 11, 12, 70])
        >>> events = Events(Geometry(), np.array([0, 4]), x, x, x)
        >>> MedianFilter(size=5).score(events)  # 3, 3, 3 and 1 lit pixels of 25
        tensor([0.1200, 0.1200, 0.1200, 0.0400])
    """

    size: int = 21
    name: ClassVar[str] = "median filter"

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or self.size != int(self.size) or self.size % 2 != 1:
            raise ValueError(f"Expected `size` to be an odd whole number, got {self.size}.")
        check_at_least("size", self.size, 1)

    def score(self, events: Events) -> Tensor:
        kernel = torch.ones(int(self.size), dtype=torch.float64)
        return (_filter_hits(events, kernel, is_mask=True) / self.size**2).float()


@dataclass(frozen=True)
class DBSCANScorer:
    """Size of the DBSCAN cluster of each hit in (x, y, t) or (x, y, z, t).

        score = s / (1 + s)   for a hit in a cluster of s hits, 0 outside of clusters

    Neighbours have a distance d <= 1, with d as in `HitDensity`. A hit at the border of two
    clusters joins the cluster of the first hit by x, then y, then t. The order of the hits does
    not matter. Needs scikit-learn (`pip install scikit-learn`, or the extra `clustering`).

    Args:
        radius_xy: radius in pixels; in space, in metres, for a table of sensors.
        radius_t: radius in time steps; in ns for a table of sensors.
        min_samples: neighbours of a core hit, itself included.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import DBSCANScorer, Events, Geometry
        >>> x = np.array([10, 11, 12, 70])
        >>> events = Events(Geometry(), np.array([0, 4]), x, x, x)
        >>> DBSCANScorer(min_samples=3).score(events)  # a cluster of 3, and a lone hit
        tensor([0.7500, 0.7500, 0.7500, 0.0000])
    """

    radius_xy: float = 18.0
    radius_t: float = 100.0
    min_samples: int = 5
    name: ClassVar[str] = "DBSCAN"

    def __post_init__(self) -> None:
        _check_positive("radius_xy", self.radius_xy)
        _check_positive("radius_t", self.radius_t)
        check_at_least("min_samples", self.min_samples, 1)

    def score(self, events: Events) -> Tensor:
        dbscan = _dbscan()(eps=1.0, min_samples=int(self.min_samples))
        events = events.tensors()
        scores = [torch.zeros(0)]
        for start in range(0, len(events), _AT_ONCE):
            part = events[start : start + _AT_ONCE]
            if part.n_hits:
                axes = axes_of(part, self.radius_xy, self.radius_t)
                # a further coordinate keeps events a distance of 2 apart, so no cluster joins them
                points = torch.stack([2.0 * part.event_index(), *axes], 1).cpu().numpy()
                order = np.lexsort(points.T[::-1])
                cluster = np.empty(len(points), np.int64)
                cluster[order] = dbscan.fit_predict(points[order])
                size = np.bincount(cluster + 1)
                size[0] = 0  # hits outside of clusters
                scores.append(_odds_to_score(torch.from_numpy(size[cluster + 1]).double()))
        return torch.cat(scores).to(events.t.device)


# classical rules with their default options, by name
BASELINES: dict[str, Callable[[], Scorer]] = {
    "identity": Identity,
    "blank": KeepNothing,
    "blurred hits": BlurredHits,
    "hit density": HitDensity,
    "median filter": MedianFilter,
    "DBSCAN": DBSCANScorer,
}


def _odds_to_score(odds: Tensor) -> Tensor:
    """Return odds / (1 + odds); the logit of this score is log(odds)."""
    return (odds / (1 + odds)).float()


def _filter_hits(events: Events, kernel: Tensor, *, is_mask: bool = False) -> Tensor:
    """Return the frame of hit counts, filtered along x and y, at each hit: (n_hits,).

    Args:
        events: events to filter.
        kernel: symmetric kernel of odd length, for both axes.
        is_mask: count several hits of a pixel once.
    """
    events = events.tensors()
    kernel = kernel.to(events.t.device)
    height, width = events.grid.height, events.grid.width
    # matrix products are 25 times faster than conv2d in float64 on a CPU, and bitwise equal
    along_x, along_y = _convolution_matrix(kernel, width), _convolution_matrix(kernel, height)
    values = [kernel.new_zeros(0)]
    for start in range(0, len(events), _AT_ONCE):
        part = events[start : start + _AT_ONCE]
        pixel = _pixel(part, part.event_index())
        count = torch.bincount(pixel, minlength=len(part) * height * width)
        count = (count.clamp(max=1) if is_mask else count).to(kernel.dtype)
        filtered = along_y @ count.reshape(-1, height, width) @ along_x
        values.append(filtered.flatten()[pixel])
    return torch.cat(values)


def _convolution_matrix(kernel: Tensor, size: int) -> Tensor:
    """Return the (size, size) matrix of a convolution with a symmetric kernel, zero-padded."""
    pixel, half = torch.arange(size, device=kernel.device), len(kernel) // 2
    lag = pixel[:, None] - pixel + half
    return kernel[lag.clamp(0, 2 * half)].masked_fill((lag < 0) | (lag > 2 * half), 0.0)


def _check_positive(name: str, value: float) -> None:
    check_at_least(name, value, 0)
    if value == 0:
        raise ValueError(f"Expected `{name}` above 0, got {value}.")


def _dbscan() -> Any:
    try:
        return importlib.import_module("sklearn.cluster").DBSCAN
    except ImportError as why:
        raise ImportError(
            "DBSCANScorer needs scikit-learn; install it: pip install scikit-learn."
        ) from why
