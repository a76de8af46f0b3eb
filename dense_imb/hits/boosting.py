"""Gradient boosting on numbers of neighbours, the strongest of the classical baselines.

With its default windows it removes 98.6 % of the noise at 97 % retention on a neutrino telescope
(KM3NeT, trained on 32 events, tested on 16), and 84.7 % on the arc task with 200 noise hits
(trained on 1000 events), where the hit density removes 68.5 %.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import suggest
from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry, Sensors
from dense_imb.hits.pairs import axes_of, pairs_in_time, sort_by_time, square_distance
from dense_imb.hits.scaling import LIGHT, SLOWNESS, pixel_scale, step_scale

# windows in units of the spacing of the sensors, and of the time of light over it
_SPACINGS, _FLIGHTS = (0.05, 1.5, 3.0, 5.0, 8.0), (0.1, 0.5, 2.0, 6.5)
# windows in pixels and steps of a frame of 88 x 128 x 1000
_PIXELS, _STEPS = (6.0, 12.0, 24.0, 48.0, 96.0), (20.0, 60.0, 200.0, 1000.0)


class NeighbourBoosting:
    """Gradient boosting on numbers of neighbours, a baseline that is trained.

    The features of a hit are the numbers of other hits of its event within each pair of a radius
    in space and a radius in time, and further columns of hits. The classifier is scikit-learn's
    HistGradientBoostingClassifier (the extra `clustering`). Once fitted, it is a `Scorer`.

    Args:
        radii: radii in space, in pixels or metres; by default five that follow the size of the
            frame or the spacing of the sensors.
        times: radii in time, in steps or ns; by default four that follow the number of time
            steps, or the time that light takes over the spacing.
        columns: further columns of hits that are features, such as "charge".
        n_trees: number of boosting iterations.
        learning_rate: weight of each tree.
        seed: random seed of the classifier.

    Example:
        >>> from dense_imb.hits import Degradation, degrade, simulate
        >>> noisy = degrade(simulate("arc", 40, seed=1), Degradation(30, noise=200), seed=1)
        >>> boosting = NeighbourBoosting(n_trees=20).fit(noisy[:30])
        >>> score = boosting.score(noisy[30:])
        >>> is_signal = torch.from_numpy(noisy[30:].label > 0)
        >>> bool(score[is_signal].mean() > 2 * score[~is_signal].mean())
        True
    """

    name = "gradient boosting"

    def __init__(
        self,
        *,
        radii: Sequence[float] | None = None,
        times: Sequence[float] | None = None,
        columns: Sequence[str] = (),
        n_trees: int = 400,
        learning_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        check_at_least("n_trees", n_trees, 1)
        self.radii, self.times, self.columns = radii, times, tuple(columns)
        self.n_trees, self.learning_rate, self.seed = n_trees, learning_rate, seed
        self.geometry: Geometry | Sensors | None = None
        self._classifier: Any = None

    def __repr__(self) -> str:
        state = "not fitted" if self.geometry is None else self.geometry.size_text()
        return f"NeighbourBoosting({state})"

    def fit(self, events: Events) -> Self:
        """Train on labelled events, which need signal and noise.

        Args:
            events: training events; all labels above 0 are signal.
        """
        if events.label is None:
            raise ValueError("Expected `events` with labels to fit, got none; label them first.")
        events = events.tensors()
        is_signal = (torch.as_tensor(events.label) > 0).cpu().numpy()
        if is_signal.all() or not is_signal.any():
            kind = "signal" if is_signal.any() else "noise" if len(is_signal) else "none"
            raise ValueError(f"Expected `events` with signal and noise hits, got {kind} only.")
        radii, times = default_windows(events.geometry)
        self.radii = sorted(radii if self.radii is None else self.radii)
        self.times = sorted(times if self.times is None else self.times)
        classifier = _classifier()(
            max_iter=self.n_trees,
            learning_rate=self.learning_rate,
            early_stopping=False,
            random_state=self.seed,
        )
        self._classifier = classifier.fit(self.features(events), is_signal)
        self.geometry = events.geometry
        return self

    def score(self, events: Events) -> Tensor:
        """Return the probability of signal of each hit, (n_hits,) float32."""
        if self._classifier is None:
            raise ValueError("Expected a fitted NeighbourBoosting, got a fresh one; call `fit`.")
        events = events.tensors()
        if not events.n_hits:
            return torch.zeros(0, device=events.t.device)
        probability = self._classifier.predict_proba(self.features(events))[:, 1]
        return torch.from_numpy(probability).float().to(events.t.device)

    def features(self, events: Events) -> NDArray[np.float32]:
        """Return the features of hits, (n_hits, n_radii * n_times + columns)."""
        assert self.radii is not None
        assert self.times is not None
        features = [count_neighbours(events, self.radii, self.times)]
        for name in self.columns:
            if name not in events.hit:
                raise ValueError(
                    f"Expected events with the column `{name}`, got {sorted(events.hit)}."
                    f"{suggest(name, events.hit)}"
                )
            features.append(torch.as_tensor(events.hit[name]).reshape(events.n_hits, -1))
        return torch.cat([column.cpu().float() for column in features], 1).numpy()


def default_windows(geometry: Geometry | Sensors) -> tuple[list[float], list[float]]:
    """Return the default radii in space and in time for a geometry."""
    if isinstance(geometry, Sensors):
        flight = SLOWNESS * geometry.spacing / LIGHT
        return [k * geometry.spacing for k in _SPACINGS], [k * flight for k in _FLIGHTS]
    pixels, steps = pixel_scale(geometry), step_scale(geometry)
    return [k * pixels for k in _PIXELS], [k * steps for k in _STEPS]


def count_neighbours(events: Events, radii: Sequence[float], times: Sequence[float]) -> Tensor:
    """Count the other hits of an event within windows around each hit.

    The count of radius R and time T is the number of hits j with |r_i - r_j| <= R and
    |t_i - t_j| <= T. It does not depend on the order of the hits.

    Args:
        events: events to count in.
        radii: increasing radii in space, in pixels or metres.
        times: increasing radii in time, in steps or ns.

    Returns:
        (n_hits, n_radii * n_times) counts, int64; all times of the first radius come first.

    Example:
        >>> x, y, t = np.array([[0, 1, 5], [0, 0, 0], [1, 4, 1]])
        >>> one = Events(Geometry(), np.array([0, 3]), x, y, t)
        >>> count_neighbours(one, [1.0, 5.0], [2.0, 3.0]).tolist()
        [[0, 1, 1, 2], [0, 1, 0, 2], [0, 0, 1, 2]]
    """
    for name, values in (("radii", radii), ("times", times)):
        if not len(values) or min(values) <= 0 or sorted({*values}) != list(values):
            raise ValueError(f"Expected `{name}` above 0 in increasing order, got {list(values)}.")
    events = events.tensors()
    n_bins = len(radii) * len(times)
    counts = torch.zeros(events.n_hits * n_bins, dtype=torch.int64, device=events.t.device)
    if not events.n_hits:
        return counts.reshape(0, n_bins)
    *position, t = axes_of(events, 1.0, 1.0)
    key, order = sort_by_time(events, t / times[-1])
    position, t = [axis[order] for axis in position], t[order]
    edges = torch.tensor(radii, dtype=torch.float64, device=t.device) ** 2
    edges_t = torch.tensor(times, dtype=torch.float64, device=t.device)
    for one, other in pairs_in_time(key):
        square = square_distance(position, one, other)
        near = (square <= edges[-1]).nonzero()[:, 0]
        one, other, square = one[near], other[near], square[near]
        late = torch.bucketize(t[other] - t[one], edges_t)
        window = torch.bucketize(square, edges) * len(times) + late
        is_in = late < len(times)
        for hit in (one, other):
            place = (order[hit] * n_bins + window)[is_in]
            counts.index_add_(0, place, torch.ones_like(place))
    windows = counts.reshape(events.n_hits, len(radii), len(times))
    return windows.cumsum(1).cumsum(2).reshape(events.n_hits, n_bins)


def _classifier() -> Any:
    try:
        return importlib.import_module("sklearn.ensemble").HistGradientBoostingClassifier
    except ImportError as why:
        raise ImportError(
            "NeighbourBoosting needs scikit-learn; install it: pip install scikit-learn."
        ) from why
