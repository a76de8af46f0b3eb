"""Cells of an image: parts whose errors are measured, and balanced, apart from each other.

Cells are the values of a label map, or the bits of a bit field, whose cells may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.checks import check_choice
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.images.labelled import list_values
from dense_imb.data.images.sources import are_names, whole

CellKind = Literal["labels", "bits"]
MOST_BITS = 62  # of a bit field, as losses take it
_MOST_LABELS = 1024


@dataclass(frozen=True)
class Cells:
    """The cells of a data set: their names, and the form in which they are stored.

    Args:
        names: name of each cell.
        kind: "labels" for a map of numbers 0, 1, 2 and so on, "bits" for a bit field, in whose
            cell g the bit g is set.

    Example:
        >>> field = np.array([0, 1, 3])
        >>> Cells(("brain", "tumour"), "bits").count(field).tolist()
        [2, 1]
    """

    names: tuple[str, ...]
    kind: CellKind = "labels"

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.names)

    @property
    def overlap(self) -> bool:
        """Whether a pixel may be in several cells, or in none."""
        return self.kind == "bits"

    def read(self, stored: NDArray[Any], place: str) -> NDArray[Any]:
        """Return a map (*spatial) of integers; refuse cells that were not declared.

        Args:
            stored: map of whole numbers of any type.
            place: name of the map, for errors.
        """
        cells = whole_cells(stored, place, self.kind)
        high = int(cells.max()) if cells.size else 0
        if self.kind == "bits":
            if n_undeclared := high.bit_length() > self.n and high.bit_length() - self.n:
                declared = (1 << self.n) - 1
                bits = [g for g in range(self.n, 63) if (cells >> g & 1).any()]
                raise Refused(
                    f"{place} with the bits of the {self.n} declared cells, values up to "
                    f"{declared}",
                    f"bit{'s' * (len(bits) > 1)} {list_values(bits)} set in "
                    f"{int((cells > declared).sum()):,} pixels",
                    f"name {n_undeclared} more in {{cell_names}}, or clear them",
                )
        elif high >= self.n:
            raise Refused(
                f"{place} with labels 0 to {self.n - 1}, one for each of {self.n} cells",
                list_values([int(v) for v in np.unique(cells)]),
                "name them all in {cell_names}, or take bit fields with {cell_kind=bits}",
            )
        return cells

    def count(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """Return the pixels of each cell, (n,)."""
        if self.kind == "labels":
            return np.bincount(cells.ravel(), minlength=self.n)[: self.n]
        counts = [np.count_nonzero(cells >> g & 1) for g in range(self.n)]
        return np.array(counts, np.int64)

    def pixels(self, cells: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
        """Return the flat indices of the pixels of each cell; of labels all but 0."""
        flat = cells.ravel()
        if self.kind == "labels":
            places = {k: np.flatnonzero(flat == k) for k in range(1, self.n)}
        else:
            places = {g: np.flatnonzero(flat >> g & 1) for g in range(self.n)}
        return {k: place for k, place in places.items() if len(place)}

    def masks(self, cells: NDArray[Any]) -> NDArray[np.bool_]:
        """Return a mask of each cell, (n, *spatial)."""
        number = np.arange(self.n).reshape(-1, *(1,) * cells.ndim)
        is_in = cells == number if self.kind == "labels" else (cells >> number) & 1 > 0
        return np.asarray(is_in)


def whole_cells(stored: NDArray[Any], place: str, kind: CellKind) -> NDArray[Any]:
    """Return a map of cells as integers from 0; refuse other numbers."""
    cells = whole(stored, place)
    low, high = (int(cells.min()), int(cells.max())) if cells.size else (0, 0)
    most = (1 << MOST_BITS) - 1 if kind == "bits" else _MOST_LABELS - 1
    if low < 0 or high > most:
        what = f"a bit field of up to {MOST_BITS} cells" if kind == "bits" else "labels of cells"
        is_field = kind == "labels" and low >= 0
        raise Refused(
            f"{literal(place)} to hold {what}, from 0 to {most}",
            f"values from {low} to {high}",
            "if they are bit fields, add {cell_kind=bits}" if is_field else "",
        )
    # uint64 has no shift by a signed number
    return cells.astype(np.int64) if cells.dtype.kind == "u" else cells


def numbered_cells(n: int, kind: CellKind) -> tuple[str, ...]:
    """Return names for cells without any.

    Example:
        >>> numbered_cells(2, "bits")
        ('bit 0', 'bit 1')
    """
    word = "bit" if kind == "bits" else "cell"
    return tuple(f"{word} {k}" for k in range(n))


def check_cells(kind: str, names: Sequence[str] | None) -> None:
    """Refuse unknown kinds of cells, and names that are none."""
    check_choice("cell_kind", kind, ("labels", "bits"))
    if names is not None and (not are_names(names) or not names):
        raise ValueError(
            f"Expected `cell_names` with a short name for each cell, all different, got "
            f"{list(names)}."
        )
    if names is not None and kind == "bits" and len(names) > MOST_BITS:
        raise ValueError(f"Expected at most {MOST_BITS} cells in a bit field, got {len(names)}.")
