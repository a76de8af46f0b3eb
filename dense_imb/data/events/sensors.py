"""Tables of sensors: read from a file, given as arrays, or built from the positions of hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.arrays import map_npy
from dense_imb.base.files import decoding
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.hits import Sensors

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_NAMES = ("x", "y", "z", "dx", "dy", "dz")


def unit_of_name(name: str) -> str | None:
    """Return the unit that a name ends with, as in `position_mm`, or None."""
    end = name.rpartition("_")[2]
    return end if end in METRES and "_" in name else None


def sensors_from_arrays(
    position: NDArray[Any], direction: NDArray[Any] | None, unit: str
) -> Sensors:
    """Return a table of sensors with positions in a unit: m, cm or mm."""
    metres = np.asarray(position, np.float64) * METRES[unit]
    return Sensors(metres.astype(np.float32), direction)


def read_sensors(path: PathLike, unit: str | None) -> Sensors:
    """Read a table of sensors: a row each, by their number.

    Args:
        path: CSV with a header and columns x, y, perhaps z, and perhaps the direction dx, dy, dz;
            a column `sensor` may number the rows. Or .npy (n, 2 or 3) with positions.
        unit: unit of the positions: m, cm or mm.
    """
    if unit is None:
        raise Refused("the unit of the table of sensors", "none", "add {unit=m}, cm or mm")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table of sensors at {path}, got no file.")
    if path.suffix == ".npy":
        with decoding(f"{path} to be a .npy array"):
            return sensors_from_arrays(np.array(map_npy(path)), None, unit)
    if path.suffix not in (".csv", ".txt", ".tsv", ".dat"):
        raise Refused(
            "a table of sensors as CSV or .npy", path, "write its rows x,y,z[,dx,dy,dz] as CSV"
        )
    table = _read_csv(path)
    n_axes = 3 if "z" in table else 2
    order = _row_order(table, path)
    axes = [table[name][order] for name in _NAMES[:n_axes]]
    names = _NAMES[3 : 3 + n_axes]
    given = [name for name in names if name in table]
    if given and len(given) < n_axes:
        raise ValueError(f"Expected {', '.join(names)} in {path}, got only {', '.join(given)}.")
    direction = np.stack([table[name][order] for name in names], 1) if given else None
    return sensors_from_arrays(np.stack(axes, 1), direction, unit)


def _read_csv(path: Path) -> dict[str, NDArray[Any]]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(1 << 16).lstrip("#").strip()
        mark = next((one for one in ",;\t" if one in header), None)
        names = [name.strip().strip('"') for name in header.split(mark)]
        if not {"x", "y"} <= set(names):
            raise ValueError(
                f"Expected columns x, y, perhaps z, dx, dy, dz in {path}, got "
                f"{', '.join(names)[:200] or 'none'}."
            )
        with decoding(f"{len(names)} numbers in each row of {path}"):
            rows = np.loadtxt(file, delimiter=mark, ndmin=2, comments=None, quotechar='"')
            if rows.shape[1] != len(names):
                raise ValueError(f"rows of {rows.shape[1]}")
    return dict(zip(names, rows.T, strict=True))


def _row_order(table: dict[str, NDArray[Any]], path: Path) -> NDArray[np.int64]:
    """Return the order of the rows by sensor number, if the table numbers them."""
    rows = np.arange(len(table["x"]))
    if "sensor" not in table:
        return rows
    order = np.argsort(table["sensor"], kind="stable")
    if not np.array_equal(table["sensor"][order], rows):
        raise ValueError(
            f"Expected sensors 0 to {len(rows) - 1}, each once, in {path}, got others; number "
            "them from 0 in both files."
        )
    return order


class PositionTable:
    """Table of sensors built from the distinct positions of hits.

    Args:
        names: columns of the position, two or three; four or six with the direction.
        unit: unit of the positions: m, cm or mm.
    """

    def __init__(self, names: tuple[str, ...], unit: str) -> None:
        self.names, self.unit = names, unit
        n_axes = {2: 2, 3: 3, 4: 2, 6: 3}.get(len(names))
        if n_axes is None or len(set(names)) < len(names):
            raise Refused(
                "two or three columns of positions, and perhaps as many of directions",
                literal(",".join(names)),
                "write {sensors=x,y,z}",
            )
        self.n_axes = n_axes
        self.known = np.zeros((0, len(names)), np.float32)

    def rows_of(self, hit: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return positions in metres, and directions, of hits: (n_hits, k) float32."""
        rows = np.stack([np.asarray(hit[name], np.float64) for name in self.names], 1)
        rows[:, : self.n_axes] *= METRES[self.unit]
        if not np.isfinite(rows).all():
            wrong = rows[~np.isfinite(rows).all(1)][0]
            raise ValueError(
                f"Expected finite positions in {', '.join(self.names)}, got {wrong.tolist()}; "
                "remove these hits."
            )
        return rows.astype(np.float32)

    def add(self, hit: dict[str, NDArray[Any]]) -> None:
        """Add the positions of hits to the table."""
        rows = np.unique(self.rows_of(hit), axis=0)
        self.known = np.unique(np.concatenate([self.known, rows]), axis=0)

    def number(self, hit: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Return the sensor of each hit; all positions are in the table."""
        rows = np.concatenate([self.known, self.rows_of(hit)])
        inverse = np.unique(rows, axis=0, return_inverse=True)[1]
        return inverse.reshape(-1)[len(self.known) :]

    def sensors(self) -> Sensors:
        """Return the table."""
        if not len(self.known):
            raise ValueError("Expected hits to build the table of sensors from, got none.")
        direction = self.known[:, self.n_axes :]
        return Sensors(self.known[:, : self.n_axes], direction if direction.size else None)
