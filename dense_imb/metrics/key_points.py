"""Scores of key points: pixel error, PCK, blank rate and visibility accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_floating, check_same_shape, readable
from dense_imb.base.tabular import Rows, TabularBars
from dense_imb.metrics._counts import StreamingCounts, in_float64, ratio
from dense_imb.metrics.score_table import mean_of_known

# errors for the median are counted in bins 1 % wide, from 0.01 to 10,000 pixels
_SMALLEST, _LARGEST, _WIDTH = 0.01, 1e4, 0.01
_N_BINS = math.ceil(math.log(_LARGEST / _SMALLEST) / _WIDTH) + 2  # one more at either end


class KeyPointScores(StreamingCounts, TabularBars):
    """Pixel error, PCK, blank rate and visibility accuracy of key points.

        error        = |predicted - true position| in pixels, over the visible true points
        PCK@d        = visible true points with an error of at most d / visible true points
        blank rate   = frames without a point called visible / frames with a visible true point
        visibility   = points whose visibility is right / points

    A visible true point without a predicted position (NaN) misses in PCK, and is left out of the
    mean and the median of the error; `position` is the fraction of points that have one. The
    median is exact to 1 %, or to 0.01 pixels.

    Args:
        names: name of each key point.
        distances: distances d of PCK, in pixels.

    Example:
        >>> scores = KeyPointScores(["snout", "tail"])
        >>> target = torch.tensor([[[5.0, 5.0], [9.0, 1.0]], [[5.0, 5.0], [math.nan, math.nan]]])
        >>> prediction = torch.tensor([[[5.0, 8.0], [9.0, 7.0]], [[math.nan] * 2] * 2])
        >>> scores.update(prediction, target)
        >>> values = scores.scores()
        >>> values["error"], round(values["pck_4"], 3), values["blank_rate"], values["visibility"]
        (4.5, 0.333, 0.5, 0.75)
    """

    def __init__(self, names: Sequence[str], *, distances: Sequence[float] = (4.0,)) -> None:
        self.names = tuple(names)
        self.distances = tuple(sorted(map(float, distances)))
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise ValueError(
                f"Expected `names` with a different name for each key point, got {names!r}."
            )
        if not self.distances or not all(0 <= d < math.inf for d in self.distances):
            raise ValueError(f"Expected `distances` of at least 0, got {list(distances)}.")
        n = len(self.names)
        self._error = torch.zeros(n, dtype=torch.float64)  # sum
        # visible true points, those with a position, right visibilities, all points
        self._counts = torch.zeros(n, 4, dtype=torch.int64)
        self._near = torch.zeros(n, len(self.distances), dtype=torch.int64)
        self._histogram = torch.zeros(n, _N_BINS, dtype=torch.int64)
        self._frames = torch.zeros(3, dtype=torch.int64)  # all, with a visible point, blank of them

    def _settings(self) -> dict[str, Any]:
        return {"names": list(self.names), "distances": list(self.distances)}

    def _tensors(self) -> tuple[Tensor, ...]:
        return self._error, self._counts, self._near, self._histogram, self._frames

    def update(
        self, prediction: Tensor, target: Tensor, *, is_visible: Tensor | None = None
    ) -> None:
        """Add the key points of a batch of frames.

        Args:
            prediction: positions (B, K, n_dims) in pixels; NaN for none.
            target: true positions, same shape; NaN for points that are not visible.
            is_visible: (B, K) bool, whether a point is called visible; by default each that has a
                position.
        """
        prediction, target, is_visible = readable(
            prediction=prediction, target=target, is_visible=is_visible
        )
        check_floating("prediction", prediction)
        check_floating("target", target)
        check_same_shape("prediction", prediction, "target", target)
        if target.dim() != 3 or target.shape[1] != len(self.names) or not target.shape[2]:
            raise ValueError(
                f"Expected `target` (B, {len(self.names)}, 2) for the key points "
                f"{', '.join(self.names)}, got {tuple(target.shape)}."
            )
        prediction, target = in_float64(prediction).cpu(), in_float64(target).cpu()
        if bool(prediction.isinf().any() | target.isinf().any()):
            raise ValueError("Expected positions without infinity, got one; NaN means no position.")
        is_true, has_position = ~target.isnan().any(-1), ~prediction.isnan().any(-1)
        called = has_position if is_visible is None else is_visible.bool().cpu()
        check_same_shape("is_visible", called, "target[..., 0]", target[..., 0])
        error = (prediction - target).square().sum(-1).sqrt()  # (B, K)
        is_measured = is_true & has_position
        counts = (is_true, is_measured, called == is_true, torch.ones_like(is_true))
        self._counts += torch.stack([one.sum(0) for one in counts], -1)
        self._error += torch.where(is_measured, error, 0.0).sum(0)
        # an error without a position is NaN, and near nothing
        self._near += (error[..., None] <= error.new_tensor(self.distances)).sum(0)
        place = ((error / _SMALLEST).log() / _WIDTH).floor().clamp(-1, _N_BINS - 2) + 1
        for k in range(len(self.names)):
            measured = place[:, k][is_measured[:, k]].long()
            self._histogram[k] += torch.bincount(measured, minlength=_N_BINS)
        with_point = is_true.any(1)
        blank = with_point & ~called.any(1)
        self._frames += torch.stack([torch.tensor(len(target)), with_point.sum(), blank.sum()])

    def rows(self) -> dict[str, dict[str, float]]:
        """Return the scores of each key point by its name, NaN where it is never visible."""
        return {name: self._row([k]) for k, name in enumerate(self.names)}

    def table_rows(self) -> Rows:
        """Return the scores of each key point as a row, see `rows`."""
        return [{"point": name, **row} for name, row in self.rows().items()]

    def bar_column(self) -> str:
        """Return the mean error."""
        return "error"

    def scores(self) -> dict[str, float]:
        """Return the scores over all points: `error`, `median_error`, `pck_4`, `blank_rate`.

        `mean_pck_4` is the mean over the names, in which rarely visible points count as much.
        """
        scores = self._row(list(range(len(self.names))))
        rows = self.rows().values()
        for name in ("error", *map(_pck, self.distances)):
            scores[f"mean_{name}"] = mean_of_known([row[name] for row in rows])
        n_frames, n_with_point, n_blank = self._frames.tolist()
        return {**scores, "blank_rate": ratio(n_blank, n_with_point), "n_frames": float(n_frames)}

    def pck(self, distance: float | None = None) -> float:
        """Return PCK over all points at one of the distances; None takes the smallest."""
        distance = self.distances[0] if distance is None else float(distance)
        if distance not in self.distances:
            known = [f"{one:g}" for one in self.distances]
            raise ValueError(
                f"Expected `distance` to be one of {', '.join(known)}, got {distance:g}; name it "
                f"in `distances`."
            )
        return self.scores()[_pck(distance)]

    def _row(self, points: list[int]) -> dict[str, float]:
        n_true, n_measured, n_right, n = self._counts[points].sum(0).tolist()
        near = self._near[points].sum(0).tolist()
        return {
            "n_points": float(n_true),
            "error": ratio(self._error[points].sum(), n_measured),
            "median_error": _median(self._histogram[points].sum(0)),
            **{_pck(d): ratio(k, n_true) for d, k in zip(self.distances, near, strict=True)},
            "position": ratio(n_measured, n_true),
            "visibility": ratio(n_right, n),
        }

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        counts = {"frames": int(self._frames[0]), "points": int(self._counts[:, 0].sum())}
        scores, distance = self.scores(), self.distances[0]
        return counts, {
            "error": scores["error"],
            f"PCK at {distance:g} px": scores[_pck(distance)],
            "blank rate": scores["blank_rate"],
        }


def _pck(distance: float) -> str:
    return f"pck_{distance:g}"


def _median(counts: Tensor) -> float:
    """Return the median of binned errors, between the edges of its bin; NaN without errors."""
    n = int(counts.sum())
    if n == 0:
        return math.nan
    below = counts.cumsum(0)
    place = int((below < n / 2).sum())
    share = (n / 2 - int(below[place] - counts[place])) / int(counts[place])
    if place == 0:
        return share * _SMALLEST
    return _SMALLEST * math.exp(_WIDTH * (place - 1 + share))
