"""Noise of a table of sensors, at given or measured rates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry, Sensors
from dense_imb.hits.noise import Floats


@dataclass(frozen=True, eq=False, repr=False)
class SensorNoise:
    """Noise of single sensors, each at its own rate, for tables of sensors.

    A hit falls on a sensor in proportion to its rate. `Degradation.noise` is the number of hits
    of an event; `mean_hits` returns the number that rates and duration give.

    Args:
        rate_khz: rate of each sensor in kHz, or one number for all.
        duration: length of the noise of an event in ns. It begins at a random time before the
            hits of the event and covers them, if it is long enough. None fills the time from the
            first to the last hit.
        weight: relative weight in a mixture, default 1.

    Example:
        >>> sensors = Sensors(np.zeros((2000, 3)))
        >>> SensorNoise(rate_khz=5.0, duration=10_000).mean_hits(sensors)
        100.0
    """

    rate_khz: float | Sequence[float] | Floats = 1.0
    duration: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        rates = np.asarray(self.rate_khz, np.float64)
        if rates.ndim > 1 or not (np.isfinite(rates).all() and (rates >= 0).all() and rates.any()):
            raise ValueError(
                "Expected `rate_khz` as a number above 0, or one number for each sensor that is "
                f"at least 0, got {_short(rates)}."
            )
        object.__setattr__(self, "rate_khz", rates if rates.ndim else float(rates))
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"Expected `duration` above 0 ns, got {self.duration}.")

    def __repr__(self) -> str:
        rates = np.asarray(self.rate_khz)
        text = f"{self.rate_khz}"
        if rates.ndim:
            text = f"{len(rates)} rates, {hashlib.sha256(rates.tobytes()).hexdigest()[:16]}"
        return f"SensorNoise({text}, duration={self.duration}, weight={self.weight})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SensorNoise) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @classmethod
    def measured(
        cls, events: Events, *, duration: float | None = None, weight: float = 1.0
    ) -> Self:
        """Measure the rate of each sensor on events.

        Args:
            events: events of a table of sensors; hits with a label above 0 are left out.
            duration: length of an event in ns; by default the mean time from the first to the
                last hit.
            weight: relative weight in a mixture.
        """
        events = events.numpy()
        if not isinstance(events.geometry, Sensors):
            raise ValueError(
                f"Expected `events` of a table of sensors, got a grid of "
                f"{events.geometry.size_text()}; MeasuredNoise takes noise of grids."
            )
        first, last = event_spans(events)
        length = float((last - first).mean()) if duration is None and len(events) else duration
        is_noise = np.ones(events.n_hits, bool) if events.label is None else events.label == 0
        if not is_noise.any() or not length:
            raise ValueError(
                f"Expected `events` with noise hits over some time, got {int(is_noise.sum())} "
                f"noise hits in {len(events)} events of {length or 0:g} ns."
            )
        hits = np.bincount(np.asarray(events.sensor)[is_noise], minlength=len(events.geometry))
        rates = hits.astype(np.float64) * (1e6 / (len(events) * length))
        return cls(rates, length, weight)

    def mean_hits(self, sensors: Sensors) -> float:
        """Return the mean number of noise hits of an event at these rates."""
        if self.duration is None:
            raise ValueError("Expected `duration` of the noise in ns, got none.")
        return float(self._rates(sensors).sum() * self.duration * 1e-6)

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        raise ValueError(
            f"Expected a table of sensors for SensorNoise, got a grid of {geometry.size_text()}; "
            "take Uniform or HotPixels."
        )

    def place_on_sensors(
        self, hit: Floats, event: Floats, sensors: Sensors, span: Floats
    ) -> tuple[NDArray[np.int64], Floats]:
        share = np.cumsum(self._rates(sensors))
        sensor = np.searchsorted(share, hit[0] * share[-1], side="right")
        first, last = span
        length = last - first if self.duration is None else np.full(len(first), self.duration)
        start = first + np.minimum(last - first - length, 0) * event[0]
        return np.minimum(sensor, len(sensors) - 1), start + length * hit[2]

    def _rates(self, sensors: Sensors) -> Floats:
        rates = np.asarray(self.rate_khz, np.float64)
        if rates.ndim and len(rates) != len(sensors):
            raise ValueError(
                f"Expected `rate_khz` with one rate for each of the {len(sensors)} sensors, got "
                f"{len(rates)}."
            )
        return np.broadcast_to(rates, len(sensors))


def event_spans(events: Events) -> tuple[Floats, Floats]:
    """Return the times of the first and the last hit of each event; 0 for events without hits."""
    t, offset = np.asarray(events.t, np.float64), np.asarray(events.offset, np.int64)
    first, last = np.zeros(len(events)), np.zeros(len(events))
    is_filled = np.diff(offset) > 0
    if is_filled.any():  # empty events lie between the filled ones without any hit
        first[is_filled] = np.minimum.reduceat(t, offset[:-1][is_filled])
        last[is_filled] = np.maximum.reduceat(t, offset[:-1][is_filled])
    return first, last


def _short(values: Floats) -> str:
    text = np.array2string(values.ravel()[:4], separator=", ")
    return f"{text[:-1]}, ..]" if values.size > 4 else text
