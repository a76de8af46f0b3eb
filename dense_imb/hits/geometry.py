"""Geometry of a detector: a grid of pixels, or a table of sensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused

_SAMPLED, _MOST_IN_MODULE = 200, 64  # sensors whose neighbours give the spacing of a table


@dataclass(frozen=True)
class Geometry:
    """A grid of pixels: size of the frame in pixels and time steps, and in physical units.

    Detectors without a grid have a table of `Sensors` instead.

    Args:
        width: pixels in x; x is 0 .. width - 1.
        height: pixels in y; y is 0 .. height - 1.
        time_steps: number of time steps T; t is 1 .. T.
        x_mm: width of a pixel in mm, None if unknown.
        y_mm: height of a pixel in mm, None if unknown.
        t_ns: length of a time step in ns, None if unknown.

    Example:
        >>> from dense_imb import Geometry
        >>> frame = Geometry(width=256, height=256, time_steps=4096, x_mm=0.5, y_mm=0.5, t_ns=25.0)
        >>> frame.size, frame.width * frame.x_mm, frame.time_steps * frame.t_ns  # 128 mm, 102.4 us
        ((256, 256, 4096), 128.0, 102400.0)
    """

    width: int = 88
    height: int = 128
    time_steps: int = 1000
    x_mm: float | None = None
    y_mm: float | None = None
    t_ns: float | None = None

    columns: ClassVar[tuple[str, ...]] = ("x", "y")  # of hits, that say where they are
    n_axes: ClassVar[int] = 2  # of positions

    def __post_init__(self) -> None:
        for name in ("width", "height", "time_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or not 1 <= value <= 65536:
                raise ValueError(
                    f"Expected `{name}` to be a whole number from 1 to 65536, got {value}."
                )

    @property
    def size(self) -> tuple[int, int, int]:
        """(width, height, time_steps)."""
        return self.width, self.height, self.time_steps

    def size_text(self) -> str:
        """Return the size as text: "88 x 128 x 1000"."""
        return " x ".join(map(str, self.size))


@dataclass(frozen=True, eq=False)
class Sensors:
    """A table of sensors at any position, such as photomultipliers, wires or pads.

    Hits name the row of their sensor, and have times in ns: any finite numbers.

    Args:
        position: (n_sensors, 2 or 3) positions in metres.
        direction: (n_sensors, 2 or 3) vectors that the sensors look along; None if unknown.

    Example:
        >>> from dense_imb.hits import Events
        >>> two = Sensors(np.array([[0.0, 0.0, 10.0], [0.0, 0.0, 20.0]]))
        >>> Events(two, np.array([0, 3]), t=np.array([5.0, 7.5, 6.0]), sensor=np.array([0, 1, 1]))
        Events(1 events, 3 hits, 2 sensors in 3-D)
    """

    position: NDArray[np.float32]
    direction: NDArray[np.float32] | None = None

    columns: ClassVar[tuple[str, ...]] = ("sensor",)

    def __post_init__(self) -> None:
        position = np.ascontiguousarray(self.position, np.float32)
        if position.ndim != 2 or position.shape[1] not in (2, 3) or not len(position):
            raise ValueError(
                "Expected `position` in the shape (n_sensors, 2 or 3), got "
                f"{np.shape(self.position)}."
            )
        tables = {"position": position}
        if self.direction is not None:
            tables["direction"] = np.ascontiguousarray(self.direction, np.float32)
            if tables["direction"].shape != position.shape:
                raise ValueError(
                    f"Expected `direction` in the shape of `position`, {position.shape}, got "
                    f"{np.shape(self.direction)}."
                )
        for name, table in tables.items():
            wrong = np.flatnonzero(~np.isfinite(table).all(1))
            if len(wrong):
                raise ValueError(
                    f"Expected `{name}` with finite numbers, got {table[wrong[0]].tolist()} in "
                    f"row {wrong[0]}."
                )
            table.flags.writeable = False
            object.__setattr__(self, name, table)

    def __len__(self) -> int:
        return len(self.position)

    def __repr__(self) -> str:
        return f"Sensors({self.size_text()}{'' if self.direction is None else ', directions'})"

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Sensors) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def n_axes(self) -> int:
        """Number of coordinates of a position, 2 or 3."""
        return int(self.position.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(n_sensors, n_axes)."""
        return len(self), self.n_axes

    def size_text(self) -> str:
        """Return the size as text: "64170 sensors in 3-D"."""
        return "{} sensors in {}-D".format(*self.size)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of positions and directions."""
        digest = hashlib.blake2b(str(self.size).encode(), digest_size=8)
        for table in (self.position, self.direction):
            digest.update(b"-" if table is None else table.tobytes())
        return digest.hexdigest()

    @cached_property
    def spacing(self) -> float:
        """Distance between neighbouring sensors in metres, or between neighbouring modules.

        It is the median distance to the k-th nearest sensor. k is 1, or the number at which this
        distance grows more than tenfold from one neighbour to the next: modules then hold k.

        Example:
            >>> x = np.array([0.0, 0.1, 30.0, 30.1, 60.0, 60.1])
            >>> Sensors(np.stack([x, 0 * x], 1)).spacing > 25
            True
        """
        if len(self) == 1:
            return 1.0
        chosen = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(np.int64))
        most = min(_MOST_IN_MODULE, len(self) - 1)
        nearest = np.empty((len(chosen), most))
        for row, sensor in enumerate(chosen):  # one at a time: tables may be long
            square = ((self.position - self.position[sensor]).astype(np.float64) ** 2).sum(1)
            square[sensor] = np.inf
            nearest[row] = np.sqrt(np.sort(np.partition(square, most - 1)[:most]))
        distance = np.median(nearest, 0)
        jumps = np.flatnonzero(distance[1:] > 10 * distance[:-1])
        spacing = float(distance[jumps[-1] + 1 if len(jumps) else 0])
        return spacing or 1.0  # all sensors at one place

    @cached_property
    def _on_devices(self) -> dict[tuple[str, torch.device], torch.Tensor]:
        return {}

    def table_on(self, name: str, device: torch.device) -> torch.Tensor:
        """Return `position` or `direction` as a tensor on a device, (n_sensors, n_axes)."""
        key = (name, device)
        if key not in self._on_devices:
            table = torch.from_numpy(getattr(self, name).copy())
            self._on_devices[key] = table.to(device)
        return self._on_devices[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"position": self.position, "direction": self.direction}


def as_grid(geometry: Geometry | Sensors) -> Geometry:
    """Return a grid of pixels as it is; refuse a table of sensors, which has no frame.

    Example:
        >>> import numpy as np
        >>> from dense_imb.hits import Geometry, Sensors, as_grid
        >>> as_grid(Geometry(width=64)).width
        64
        >>> as_grid(Sensors(np.zeros((5, 3))))
        Traceback (most recent call last):
        dense_imb.base.refusals.Refused: Expected hits on a grid of pixels for a frame, got hits of
        5 sensors in 3-D; take a network of hits, `model.name=hits`, or convert the hits with bins.
    """
    if isinstance(geometry, Sensors):
        raise Refused(
            "hits on a grid of pixels for a frame",
            f"hits of {geometry.size_text()}",
            "take a network of hits, {model.name=hits}, or convert the hits with bins",
        )
    return geometry


def describe_difference(wanted: Geometry | Sensors, got: Geometry | Sensors) -> tuple[str, str]:
    """Return what two unequal geometries differ in, as a text for each.

    Example:
        >>> describe_difference(Geometry(width=88), Geometry(width=200))
        ('width 88', 'width 200')
        >>> describe_difference(Geometry(), Sensors(np.zeros((5, 3))))
        ('a grid of 88 x 128 x 1000', 'a table of 5 sensors in 3-D')
    """
    if isinstance(wanted, Geometry) and isinstance(got, Geometry):
        names = [n for n in vars(wanted) if getattr(wanted, n) != getattr(got, n)]
        first, second = (
            ", ".join(f"{name} {getattr(side, name)}" for name in names) for side in (wanted, got)
        )
        return first, second
    if isinstance(wanted, Sensors) and isinstance(got, Sensors) and wanted.size == got.size:
        return _table_difference(wanted, got)
    first, second = (
        f"a {'table' if isinstance(side, Sensors) else 'grid'} of {side.size_text()}"
        for side in (wanted, got)
    )
    return first, second


def _table_difference(wanted: Sensors, got: Sensors) -> tuple[str, str]:
    """Return the first row in which two tables of one size differ, as a text for each."""
    moved = np.flatnonzero((wanted.position != got.position).any(1))
    tables, unit = [wanted.position, got.position], " m"
    if not len(moved):
        if wanted.direction is None or got.direction is None:
            has = "a table with directions", "a table without directions"
            return has if got.direction is None else has[::-1]
        moved = np.flatnonzero((wanted.direction != got.direction).any(1))
        tables, unit = [wanted.direction, got.direction], " as direction"
    row = int(moved[0]) if len(moved) else 0
    first, second = (f"a table with {table[row].tolist()}{unit} in row {row}" for table in tables)
    return first, second
