"""Sums of targets by prediction, from which a read-out is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_finite,
    check_floating,
    check_same_shape,
    expand_pixels,
    readable,
)
from dense_imb.metrics._counts import StreamingCounts, ratio
from dense_imb.metrics.values.checks import finite_values

# distances from 0 and from `value`, in units of `value`: 2^-16 to 2^40, 32 bins an octave
_FIRST, _LAST, _PER_OCTAVE = -16, 40, 32
_MOMENTS = 6
_AT_ONCE = 1 << 22  # values


class ReadOutTally(StreamingCounts):
    """Sums of the target over bins of the prediction, for `ReadOut.fit`.

    Bins are finest next to 0 and to `value`, where balanced losses put most predictions: their
    width is 2 % of the distance to the nearer of the two. So a few thousand bins serve any
    prediction up to 10^12 `value`, and parts of the data merge exactly.

    Args:
        n_channels: number of channels of the maps.
        value: typical value of rare pixels, such as that of a hit or of the peak of a heat map.
        level: value above which a pixel is lit, by default `value` / 2.
        shared: whether all channels have one map in common.

    Example:
        >>> tally = ReadOutTally()
        >>> tally.update(torch.tensor([[[0.8, 0.8, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
        >>> tally
        ReadOutTally(3 pixels, 2 lit, 1 target; lit / target 2)
    """

    def __init__(
        self,
        n_channels: int = 1,
        *,
        value: float = 1.0,
        level: float | None = None,
        shared: bool = False,
    ) -> None:
        check_at_least("n_channels", n_channels, 1)
        check_finite("value", value)
        if value <= 0:
            raise ValueError(f"Expected `value` above 0, got {value:g}.")
        self.n_channels, self.shared, self.value = n_channels, bool(shared), float(value)
        self.level = self.value / 2 if level is None else float(level)
        check_finite("level", self.level)
        self.edges = _edges(self.value, self.level)
        # sums of n, u, u^2, r, r u, r^2: u = p - edge below, r = t - p, small where errors are
        self._moments = torch.zeros(self.n_maps, _MOMENTS, len(self.edges) - 1, dtype=torch.float64)
        self._lit = torch.zeros(self.n_maps, 2, dtype=torch.int64)  # of prediction, of target

    @property
    def n_maps(self) -> int:
        """Number of maps to fit: one for each channel, or one."""
        return 1 if self.shared else self.n_channels

    @property
    def n_pixels(self) -> int:
        """Number of pixels so far, of all maps together."""
        return int(self._moments[:, 0].sum())

    def _settings(self) -> dict[str, Any]:
        return {
            "n_channels": self.n_channels,
            "value": self.value,
            "level": self.level,
            "shared": self.shared,
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._moments, self._lit)

    def update(self, prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> None:
        """Add a batch of maps, (B, C, *spatial) each.

        Args:
            prediction: output of the network, as trained.
            target: true values.
            mask: bool, (B, *spatial) or the shape of `prediction`, False for pixels to leave out.
        """
        prediction, target, mask = readable(prediction=prediction, target=target, mask=mask)
        check_floating("prediction", prediction)
        check_same_shape("target", target, "prediction", prediction)
        if prediction.dim() < 2 or prediction.shape[1] != self.n_channels:
            raise ValueError(
                f"Expected `prediction` (B, {self.n_channels}, *spatial), "
                f"got {tuple(prediction.shape)}."
            )
        valid = torch.ones(prediction.shape, dtype=torch.bool)
        if mask is not None:
            valid = expand_pixels("mask", mask, prediction, "prediction").bool().cpu()
        truth = finite_values("target", target, valid, "leave such pixels out with `mask`")
        value = finite_values("prediction", prediction, valid, "look for it in the network")
        self._check_range(value)
        if self.shared:
            self._add(0, value[valid], truth[valid])
            return
        for number in range(self.n_channels):
            kept = valid[:, number]
            self._add(number, value[:, number][kept], truth[:, number][kept])

    def _check_range(self, value: Tensor) -> None:
        limit = float(self.edges[-1])
        if value.numel() and float(value.abs().max()) >= limit:
            raise ValueError(
                f"Expected `prediction` below {limit:.4g} in size, got "
                f"{float(value.abs().max()):.4g}; pass the typical target as `value`."
            )

    def _add(self, number: int, value: Tensor, truth: Tensor) -> None:
        for block, true in zip(
            torch.split(value, _AT_ONCE), torch.split(truth, _AT_ONCE), strict=True
        ):
            self._add_block(number, block, true)

    def _add_block(self, number: int, value: Tensor, truth: Tensor) -> None:
        slot = torch.bucketize(value, self.edges, right=True) - 1
        above, residual = value - self.edges[slot], truth - value
        n_bins = len(self.edges) - 1
        parts = (
            torch.ones_like(value), above, above.square(),
            residual, residual * above, residual.square(),
        )  # fmt: skip
        self._moments[number] += torch.stack([torch.bincount(slot, part, n_bins) for part in parts])
        self._lit[number] += torch.stack([(value > self.level).sum(), (truth > self.level).sum()])

    def moments(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the moments of the bins with pixels, and their two edges, of one map.

        The moments are the sums of n, u, u^2, r, r u and r^2, (6, n_bins), with the prediction's
        distance u from its lower edge and the residual r = target - prediction.
        """
        is_full = self._moments[number, 0] > 0
        edges = torch.stack([self.edges[:-1][is_full], self.edges[1:][is_full]])
        return self._moments[number][:, is_full], edges

    def lit(self, number: int) -> tuple[int, int]:
        """Return the numbers of pixels above the level in the predictions and in the targets."""
        n_lit, n_target = self._lit[number].tolist()
        return n_lit, n_target

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        n_lit, n_target = self._lit.sum(0).tolist()
        counts = {"pixels": self.n_pixels, "lit": n_lit, "target": n_target}
        return counts, {"lit / target": ratio(n_lit, n_target)}


def _edges(value: float, level: float) -> Tensor:
    """Return the rising edges of the bins; float32 holds each, and predictions too."""
    n = (_LAST - _FIRST) * _PER_OCTAVE
    distance = value * torch.exp2(_FIRST + torch.arange(n + 1, dtype=torch.float64) / _PER_OCTAVE)
    inner = distance[distance <= value / 2]
    parts = [-distance, inner, value - inner, value + distance, torch.tensor([level]).double()]
    edges: Tensor = torch.unique(torch.cat(parts).float().double())
    return edges
