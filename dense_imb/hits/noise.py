"""Profiles of noise hits: functions from random numbers in (0, 1) to positions and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.random import normal_quantile, normal_share
from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry, Sensors

Floats = NDArray[np.float64]


@runtime_checkable
class Profile(Protocol):
    """Interface of noise profiles; `weight` is the relative weight in a mixture.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Degradation, Profile, degrade, simulate
        >>> class LeftHalf:
        ...     weight = 1.0
        ...     def place(self, hit, event, geometry, detector):
        ...         x, y, t = hit  # random numbers in (0, 1)
        ...         return x * geometry.width / 2, y * geometry.height, t * geometry.time_steps
        >>> isinstance(LeftHalf(), Profile)
        True
        >>> noise = Degradation(noise=500, profiles=[LeftHalf()])
        >>> noisy = degrade(simulate("arc", 1, seed=1), noise, seed=1)
        >>> bool(noisy.x[noisy.label == 0].max() < 44)  # of 88 columns
        True
    """

    @property
    def weight(self) -> float: ...

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return x, y and t of hits from random numbers in (0, 1).

        Pixel i covers i to i + 1, and time step t covers t - 1 to t.

        Args:
            hit: (3, n_hits) numbers, independent for each hit.
            event: (4, n_hits) numbers, equal for all hits of an event.
            geometry: size of the frame.
            detector: (4, k) numbers, equal for all events of a seed.
        """
        ...


@runtime_checkable
class SensorProfile(Protocol):
    """Interface of noise profiles for tables of sensors; `weight` as in `Profile`."""

    @property
    def weight(self) -> float: ...

    def place_on_sensors(
        self, hit: Floats, event: Floats, sensors: Sensors, span: Floats
    ) -> tuple[NDArray[np.int64], Floats]:
        """Return the sensor and the time of hits from random numbers in (0, 1).

        Args:
            hit: (3, n_hits) numbers, independent for each hit.
            event: (4, n_hits) numbers, equal for all hits of an event.
            sensors: table of sensors.
            span: (2, n_hits) times of the first and the last hit of the event, in ns.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Noise uniform in x, y and t.

    For a table of sensors, all sensors are equally likely, and times are uniform from the first
    to the last hit of the event.

    Args:
        weight: relative weight in a mixture, default 1.

    Example:
        >>> from dense_imb.hits import Degradation, Uniform, degrade, simulate
        >>> clean = simulate("arc", 2, seed=1)
        >>> noisy = degrade(clean, Degradation(signal=30, noise=200, profiles=[Uniform()]), seed=1)
        >>> [int((event.label == 0).sum()) for event in (noisy[0], noisy[1])]
        [200, 200]
    """

    weight: float = 1.0

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        x, y, t = hit
        return x * geometry.width, y * geometry.height, t * geometry.time_steps

    def place_on_sensors(
        self, hit: Floats, event: Floats, sensors: Sensors, span: Floats
    ) -> tuple[NDArray[np.int64], Floats]:
        first, last = span
        return (hit[0] * len(sensors)).astype(np.int64), first + (last - first) * hit[2]


@dataclass(frozen=True)
class Blob:
    """Noise in a Gaussian spot in x and y, uniform in t.

    Args:
        weight: relative weight in a mixture, default 1.
        width: standard deviation in pixels.
        centre: x and y in pixels; None draws one for each event.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Blob, Degradation, degrade, simulate
        >>> spot = Degradation(noise=1000, profiles=[Blob(width=3.0, centre=(20.0, 60.0))])
        >>> noisy = degrade(simulate("arc", 1, seed=1), spot, seed=1)
        >>> noise = noisy.select(noisy.label == 0)
        >>> float(np.median(noise.x)), float(np.median(noise.y))
        (20.0, 60.0)
    """

    weight: float = 1.0
    width: float = 8.0
    centre: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_width(self.width)

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        x, y, t = hit
        size = (geometry.width, geometry.height)
        middle = [u * s for u, s in zip(event, size, strict=False)]
        if self.centre is not None:
            middle = [np.full(len(x), c + 0.5) for c in self.centre]
        x, y = (
            _truncated_normal(u, m, self.width, s)
            for u, m, s in zip((x, y), middle, size, strict=True)
        )
        return x, y, t * geometry.time_steps


@dataclass(frozen=True)
class Burst:
    """Noise uniform in x and y, Gaussian in t.

    Args:
        weight: relative weight in a mixture, default 1.
        width: standard deviation in time steps.
        centre: time step; None draws one for each event.

    Example:
        >>> from dense_imb.hits import Burst, Degradation, degrade, simulate
        >>> flash = Degradation(noise=1000, profiles=[Burst(width=5.0, centre=400)])
        >>> noisy = degrade(simulate("arc", 1, seed=1), flash, seed=1)
        >>> t = noisy.t[noisy.label == 0]
        >>> bool(375 < t.min() and t.max() < 425)  # within 5 sigma
        True
    """

    weight: float = 1.0
    width: float = 5.0
    centre: float | None = None

    def __post_init__(self) -> None:
        _check_width(self.width)

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        x, y, t = hit
        n_steps = geometry.time_steps
        middle = event[2] * n_steps if self.centre is None else np.full(len(t), self.centre - 0.5)
        t = _truncated_normal(t, middle, self.width, n_steps)
        return x * geometry.width, y * geometry.height, t


@dataclass(frozen=True)
class HotPixels:
    """Noise of single pixels, equally often each, uniform in t.

    Args:
        weight: relative weight in a mixture, default 1.
        pixels: list of (x, y), or the number of pixels to draw, the same for all events of a
            seed.

    Example:
        >>> from dense_imb.hits import Degradation, HotPixels, degrade, simulate
        >>> hot = Degradation(noise=100, profiles=[HotPixels(pixels=[(3, 7), (80, 2)])])
        >>> noisy = degrade(simulate("arc", 1, seed=1), hot, seed=1)
        >>> noise = noisy.select(noisy.label == 0)
        >>> sorted(set(zip(noise.x.tolist(), noise.y.tolist())))
        [(3, 7), (80, 2)]
    """

    weight: float = 1.0
    pixels: int | Sequence[tuple[int, int]] = 5

    def __post_init__(self) -> None:
        n_pixels = self.pixels if isinstance(self.pixels, int) else len(self.pixels)
        if n_pixels < 1:
            raise ValueError(f"Expected `pixels` with at least one pixel, got {self.pixels!r}.")

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        if isinstance(self.pixels, int):
            x, y = detector[0, : self.pixels], detector[1, : self.pixels]
            hot = np.stack([x * geometry.width, y * geometry.height])
        else:
            hot = np.array(self.pixels).T + 0.5
        x, y = hot[:, (hit[0] * hot.shape[1]).astype(np.int64)]
        return x, y, hit[2] * geometry.time_steps


@dataclass(frozen=True)
class HotLines:
    """Noise of rows and columns, equally often each, uniform along the line and in t.

    Args:
        weight: relative weight in a mixture, default 1.
        rows: y of each row.
        columns: x of each column.

    Example:
        >>> from dense_imb.hits import Degradation, HotLines, degrade, simulate
        >>> lines = Degradation(noise=100, profiles=[HotLines(rows=[5, 90])])
        >>> noisy = degrade(simulate("arc", 1, seed=1), lines, seed=1)
        >>> sorted(set(noisy.y[noisy.label == 0].tolist()))
        [5, 90]
    """

    weight: float = 1.0
    rows: Sequence[int] = ()
    columns: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not len(self.rows) + len(self.columns):
            raise ValueError("Expected `rows` or `columns` with at least one line, got none.")

    def place(
        self, hit: Floats, event: Floats, geometry: Geometry, detector: Floats
    ) -> tuple[Floats, Floats, Floats]:
        line = np.array([*self.rows, *self.columns])
        # the integer part chooses the line, the fractional part the position along it
        choice, along = np.divmod(hit[0] * len(line), 1.0)
        at = line[choice.astype(np.int64)] + 0.5
        is_row = choice < len(self.rows)
        x = np.where(is_row, along * geometry.width, at)
        y = np.where(is_row, at, along * geometry.height)
        return x, y, hit[2] * geometry.time_steps


@dataclass(frozen=True)
class MeasuredNoise:
    """Noise of measured hits, with all their columns, such as the charge.

    An event takes consecutive hits from a random start, so no hit is used twice before all are.

    For a table of sensors, an event takes the hits of a random measured event, or of as many
    following ones as it needs, evenly thinned to the wanted number. So the noise covers the whole
    time of a measured event. Times stay as measured: signal and noise must count theirs from the
    same start.

    Args:
        events: events with noise only, of the same geometry.
        weight: relative weight in a mixture, default 1.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Degradation, Events, Geometry
        >>> from dense_imb.hits import MeasuredNoise, degrade, simulate
        >>> x = np.array([1, 2, 3])  # three hits of a run without beam
        >>> measured = MeasuredNoise(Events(Geometry(), np.array([0, 3]), x, x, x, label=0 * x))
        >>> clean = simulate("arc", 1, seed=1)
        >>> noisy = degrade(clean, Degradation(noise=3, profiles=[measured]), seed=1)
        >>> sorted(noisy.x[noisy.label == 0].tolist())
        [1, 2, 3]
    """

    events: Events
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.events.n_hits:
            raise ValueError("Expected `events` with at least one noise hit, got none.")

    def source(self, rank: NDArray[np.int64], event: Floats) -> NDArray[np.int64]:
        """Return the index of the measured hit for each noise hit.

        Args:
            rank: (n_hits,) index of each noise hit within its event.
            event: (4, n_hits) random numbers of each event, see `Profile.place`.
        """
        n_hits = self.events.n_hits
        if isinstance(self.events.geometry, Sensors):
            return self._source_of_sensors(rank, event[3])
        return np.asarray(((event[3] * n_hits).astype(np.int64) + rank) % n_hits)

    def _source_of_sensors(self, rank: NDArray[np.int64], number: Floats) -> NDArray[np.int64]:
        offset, n_hits = np.asarray(self.events.offset, np.int64), self.events.n_hits
        twice = np.concatenate([offset, offset[1:] + n_hits])  # an event may follow the last
        # hits of an event have ranks 0, 1, ..: its last rank and one is their number
        starts = np.flatnonzero(rank == 0)
        wanted = np.diff(np.append(starts, len(rank)))
        begin = offset[(number[starts] * (len(offset) - 1)).astype(np.int64)]
        end = np.searchsorted(twice, np.minimum(begin + wanted, twice[-1]))
        available = np.maximum(twice[end] - begin, wanted)
        begin, wanted, available = (np.repeat(c, wanted) for c in (begin, wanted, available))
        return np.asarray((begin + rank * available // wanted) % n_hits)


def _truncated_normal(number: Floats, middle: Floats, width: float, size: int) -> Floats:
    """Return normally distributed numbers in [0, size) from uniform ones in (0, 1)."""
    low, high = normal_share(-middle / width), normal_share((size - middle) / width)
    value = middle + width * normal_quantile(low + number * (high - low))
    return np.clip(value, 0, np.nextafter(size, 0))


def _check_width(width: float) -> None:
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"Expected `width` to be a number above 0, got {width}.")
