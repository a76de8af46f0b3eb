"""The read-out of value maps: predictions turned into the mean target that they stand for."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_floating
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.natural import balance_weights
from dense_imb.metrics._counts import ratio, reading_json, write_json
from dense_imb.metrics.read_out.fit import fitted_map, level_of_count, lit_after, squared_error
from dense_imb.metrics.read_out.maps import OddsMap, PiecewiseMap, ValueMap, map_from_json
from dense_imb.metrics.read_out.tally import ReadOutTally


@dataclass(frozen=True)
class ReadOutEffect:
    """Effect of one map on the data of a tally.

    Args:
        n_pixels: number of pixels.
        level: value above which a pixel is lit.
        n_target: number of pixels with a target above the level.
        lit_before: number of lit pixels of the predictions.
        lit_after: number of lit pixels after the read-out, within one bin.
        matched_level: level after the read-out above which as many pixels are lit as have a target
            above `level`; NaN without such targets.
        rmse_before: root mean square of the error of the predictions; NaN without pixels.
        rmse_after: the same after the read-out.

    Example:
        >>> from dense_imb.metrics.read_out import ReadOutEffect
        >>> effect = ReadOutEffect(
        ...     n_pixels=1000, level=0.5, n_target=20, lit_before=50, lit_after=19,
        ...     matched_level=0.4, rmse_before=0.3, rmse_after=0.2,
        ... )
        >>> effect.overshoot  # lit pixels for each one with a target, before and after the read-out
        (2.5, 0.95)
        >>> print(effect.describe())
        lit / target 2.5 -> 0.95 above 0.5, 1 above the matched level 0.4, RMSE 0.3 -> 0.2
    """

    n_pixels: int
    level: float
    n_target: int
    lit_before: int
    lit_after: int
    matched_level: float
    rmse_before: float
    rmse_after: float

    @property
    def overshoot(self) -> tuple[float, float]:
        """Lit / target pixels before and after; NaN without target pixels."""
        return ratio(self.lit_before, self.n_target), ratio(self.lit_after, self.n_target)

    def describe(self) -> str:
        """Return the effect in one clause."""
        if not self.n_pixels:
            return "no pixels"
        before, after = self.overshoot
        lit = (
            f"lit / target {before:.3g} -> {after:.3g} above {self.level:.3g}, 1 above the "
            f"matched level {self.matched_level:.3g}"
            if self.n_target
            else f"no target above {self.level:g}, lit {self.lit_before:,} -> {self.lit_after:,}"
        )
        return f"{lit}, RMSE {self.rmse_before:.3g} -> {self.rmse_after:.3g}"


@dataclass(frozen=True)
class ReadOut:
    """Monotone map from the predictions of a network to the mean target of such predictions.

        read_out(p) = E[target | prediction = p]

    A balanced loss answers for data in which rare pixels are as common as empty ones, so its maps
    are too bright. The read-out answers for the data on which it was fitted: validation data.
    Predictions keep their order.

    Where a network is unsure, the mean target stays below half the value of a hit, so fewer pixels
    than in the target are lit above half. `matched_level` lights as many.

    Args:
        maps: one map for all channels, or one for each.
        effect: effect of each map on the data of `fit` or `measured`; () before.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> probability = torch.rand(1, 1, 50_000, generator=rng) ** 8
        >>> target = (torch.rand(1, 1, 50_000, generator=rng) < probability).float()
        >>> prediction = probability / (probability + 0.1 * (1 - probability))  # hits weigh more
        >>> tally = ReadOutTally()
        >>> tally.update(prediction, target)
        >>> read_out = ReadOut.fit(tally)
        >>> bool((read_out.apply(prediction) - probability).abs().mean() < 0.01)
        True
        >>> print(read_out.effect[0].describe())
        lit / target 2.36 -> 0.77 above 0.5, 1 above the matched level 0.389, RMSE 0.334 -> 0.227
    """

    maps: tuple[ValueMap, ...]
    effect: tuple[ReadOutEffect, ...] = ()

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("Expected `maps` of one map or more, got none.")
        if self.effect and len(self.effect) != len(self.maps):
            raise ValueError(f"Expected `effect` of {len(self.maps)} maps, got {len(self.effect)}.")

    @classmethod
    def identity(cls) -> Self:
        """Return the read-out that leaves predictions as they are."""
        return cls((PiecewiseMap(),))

    @classmethod
    def fit(cls, tally: ReadOutTally, *, min_pixels: int = 20) -> Self:
        """Return the best monotone map of a tally: isotonic regression of the targets.

        Bins are pooled until their mean targets rise, and the map is linear between them. It never
        has a larger squared error on the tally's data than the predictions. A channel without
        pixels stays as it is.

        Args:
            tally: sums over validation data.
            min_pixels: smallest number of pixels from which a mean target is taken.
        """
        check_at_least("min_pixels", min_pixels, 1)
        if not tally.n_pixels:
            raise ValueError("Expected `tally` with pixels, got none; update it with maps first.")
        maps = tuple(
            fitted_map(*tally.moments(number), min_pixels) for number in range(tally.n_maps)
        )
        return cls(maps).measured(tally)

    @classmethod
    def from_acb_mse(
        cls,
        hit_share: float,
        *,
        empty_weight: float = 1.0,
        hit_weight: float = 1.0,
        frame_weight: float = 0.0,
        value: float = 1.0,
    ) -> Self:
        """Return the exact inverse of ACB-MSE for hits that all have one value; nothing is fitted.

            f = p / value,  s = hit_share
            P = f s / w_h / (f s / w_h + (1 - f)(1 - s) / w_e),   read_out(p) = value P

        It holds for scopes "batch" and "global". Hits of several values need `fit`.

        Args:
            hit_share: fraction of hits among all pixels of the training targets, above 0, below 1.
            empty_weight, hit_weight, frame_weight: those of the loss.
            value: value of every hit.

        Example:
            >>> ReadOut.from_acb_mse(0.01, value=2.0).apply(torch.tensor([0.0, 1.0, 1.98, 2.0]))
            tensor([0.0000, 0.0200, 1.0000, 2.0000])
        """
        if not 0 < hit_share < 1:
            raise ValueError(f"Expected `hit_share` above 0 and below 1, got {hit_share:g}.")
        balance = Balance(weight=(empty_weight, hit_weight), frame_weight=frame_weight)
        empty, hit = balance_weights(balance, (1 - hit_share, hit_share))
        return cls((OddsMap((empty, hit), value),))

    def measured(self, tally: ReadOutTally) -> Self:
        """Return this read-out with its effect on the data of a tally."""
        if len(self.maps) not in (1, tally.n_maps):
            raise ValueError(f"Expected `tally` of {len(self.maps)} channels, got {tally.n_maps}.")
        maps = self.maps if len(self.maps) == tally.n_maps else self.maps * tally.n_maps
        return replace(
            self,
            maps=maps,
            effect=tuple(_effect(one, tally, number) for number, one in enumerate(maps)),
        )

    @property
    def is_identity(self) -> bool:
        """Whether predictions stay as they are."""
        return all(one.is_identity for one in self.maps)

    def apply(self, prediction: Tensor) -> Tensor:
        """Return the mean target of each prediction, in float32 for half precision.

        Runs on any device, and inside `torch.export` and ONNX files.

        Args:
            prediction: (B, C, *spatial); any shape for a read-out of one map.
        """
        check_floating("prediction", prediction)
        if len(self.maps) == 1:
            return self.maps[0](prediction)
        if prediction.dim() < 2 or prediction.shape[1] != len(self.maps):
            raise ValueError(
                f"Expected `prediction` of {len(self.maps)} channels, (B, {len(self.maps)}, "
                f"*spatial), got {tuple(prediction.shape)}."
            )
        channels = zip(self.maps, prediction.unbind(1), strict=True)
        return torch.stack([one(channel) for one, channel in channels], 1)

    def describe(self, names: Sequence[str] | None = None) -> str:
        """Return the maps and their effect, a line for each.

        Args:
            names: names of the channels.
        """
        lines = []
        for number, one in enumerate(self.maps):
            name = "all channels" if len(self.maps) == 1 else f"channel {number}"
            if names is not None and len(names) == len(self.maps):
                name = names[number]
            effect = f"; {self.effect[number].describe()}" if self.effect else ""
            lines.append(f"read-out of {name}: {one.describe()}{effect}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for strict JSON."""
        return {
            "maps": [one.as_json() for one in self.maps],
            "effect": [_finite(asdict(one)) for one in self.effect],
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return the read-out of a dictionary from `to_dict`."""
        try:
            maps = tuple(map_from_json(one) for one in stored["maps"])
            effect = tuple(_effect_from(one) for one in stored["effect"])
            return cls(maps, effect)
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise ValueError(
                f"Expected the dictionary of a read-out, got another one ({why}); write it again "
                "with ReadOut.to_dict."
            ) from why

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, to a temporary name that is then moved into place."""
        write_json(path, type(self).__name__, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the read-out that `save` wrote."""
        with reading_json(path, cls.__name__) as stored:
            return cls.from_dict(stored)


def _effect(one: ValueMap, tally: ReadOutTally, number: int) -> ReadOutEffect:
    moments, edges = tally.moments(number)
    n_lit, n_target = tally.lit(number)
    n = int(moments[0].sum())
    before = ratio(moments[5].sum(), n)
    ends = one(edges)
    return ReadOutEffect(
        n, tally.level, n_target, n_lit,
        n_lit if one.is_identity else lit_after(moments, edges, ends, tally.level),
        level_of_count(moments, edges, ends, n_target) if n_target else math.nan,
        math.sqrt(before), math.sqrt(ratio(squared_error(moments, edges, ends), n)),
    )  # fmt: skip


def _finite(effect: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in effect.items()}


def _effect_from(stored: dict[str, Any]) -> ReadOutEffect:
    numbers: dict[str, Any] = {n: math.nan if v is None else v for n, v in stored.items()}
    return ReadOutEffect(**numbers)
