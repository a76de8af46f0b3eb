"""Tables of sweeps: columns with units, written to and read from CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dense_imb.base.files import write_whole
from dense_imb.base.html_text import html_card, html_table
from dense_imb.base.tabular import Tabular, cells_of_rows

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes


class Column(NamedTuple):
    """One column of numbers; the axis, which all others share, has an empty `quantity`.

    Example:
        >>> from dense_imb.curves import Column
        >>> Column("MSE", "a.u.", (5.0, 7.0), quantity="loss").header
        'loss: MSE [a.u.]'
    """

    name: str
    unit: str
    values: tuple[float, ...]
    quantity: str = ""

    @property
    def header(self) -> str:
        """Heading of the column in a CSV file: `quantity: name [unit]`."""
        return f"{self.quantity}: {self.name} [{self.unit}]".removeprefix(": ")


@dataclass(frozen=True)
class View:
    """Settings for drawing a table; they change no number."""

    quantities: tuple[str, ...] = ("loss",)  # the columns to draw, one line style each
    x_scale: str = "linear"
    y_scale: str = "linear"
    y_range: tuple[float, float] | None = None
    regions: tuple[tuple[str, float, float], ...] = ()  # parts of the axis: name, start, stop
    diagonal: str = ""  # name of the line y = x; "" draws none
    zoom: tuple[float, float] | None = None  # part of the axis to repeat in an inset


@dataclass(frozen=True)
class Table(Tabular):
    """Result of a sweep: an axis, and the numbers of each loss along it.

    A CSV file holds the columns, a JSON file also the title, the caption and the view. NaN, null in
    JSON, marks a gap.

    Example:
        >>> axis = Column("signal size", "pixels", (1.0, 2.0))
        >>> table = Table("Losses", axis, (Column("MSE", "a.u.", (5.0, 7.0), "loss"),))
        >>> [column.header for column in (table.axis, *table.curves)]
        ['signal size [pixels]', 'loss: MSE [a.u.]']
        >>> table["MSE"]
        (5.0, 7.0)
    """

    title: str
    axis: Column
    curves: tuple[Column, ...]
    caption: str = ""
    losses: tuple[str, ...] = ()  # each loss with its options
    view: View = field(default_factory=View)

    def __getitem__(self, name: str) -> tuple[float, ...]:
        """Return the values of the first curve called `name`."""
        for curve in self.curves:
            if curve.name == name:
                return curve.values
        known = ", ".join(dict.fromkeys(repr(curve.name) for curve in self.curves))
        raise KeyError(f"Expected one of {known}, got {name!r}.")

    def table_rows(self) -> list[dict[str, str | float]]:
        """Return a row for each point of the axis; columns are called as in a CSV file."""
        columns = (self.axis, *self.curves)
        names = [column.header for column in columns]
        return [
            dict(zip(names, row, strict=True))
            for row in zip(*(column.values for column in columns), strict=True)
        ]

    def plot(self, ax: Axes | None = None, quantities: Sequence[str] | None = None) -> Axes:
        """Draw the curves, see `dense_imb.curves.draw`, and return the axes.

        Args:
            ax: axes of matplotlib to draw on; None takes the current ones of pyplot where it is in
                use, and new ones elsewhere.
            quantities: columns to draw, for example ["gradient"]; by default those of the view.
        """
        from dense_imb.base.axes import choose_axes
        from dense_imb.curves.figure import draw

        axes = choose_axes(ax)
        draw(self, axes, quantities=quantities)
        return axes

    def _repr_html_(self) -> str:
        rows = html_table(cells_of_rows(self.table_rows()), n_left=0)
        return html_card(self.title, [rows], [self.caption] if self.caption else [])

    def write(self, path: str | Path) -> None:
        """Write a .csv or .json file, whole or not at all."""
        path = Path(path)
        write = {".csv": self._write_csv, ".json": self._write_json}.get(path.suffix)
        if write is None:
            raise ValueError(f"Expected `path` to end in .csv or .json, got {path}.")
        write_whole(path, write)

    def _write_csv(self, path: Path) -> None:
        columns = (self.axis, *self.curves)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([column.header for column in columns])
            writer.writerows(zip(*(column.values for column in columns), strict=True))

    def _write_json(self, path: Path) -> None:
        content = asdict(self)
        content["axis"], content["curves"] = _as_dict(self.axis), [*map(_as_dict, self.curves)]
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Read a file that `write` made."""
        path = Path(path)
        try:
            return cls._read_csv(path) if path.suffix == ".csv" else cls._read_json(path)
        except (ValueError, KeyError, TypeError, IndexError) as problem:
            raise ValueError(
                f"Expected a table of loss-response curves in {path}, .csv or .json, "
                f"got {type(problem).__name__}: {problem}."
            ) from problem

    @classmethod
    def _read_csv(cls, path: Path) -> Table:
        with path.open(newline="", encoding="utf-8") as file:
            headers, *rows = csv.reader(file)
        columns = zip(*rows, strict=True) if rows else ((),) * len(headers)
        axis, *curves = (
            _from_header(header, tuple(map(float, column)), is_axis=position == 0)
            for position, (header, column) in enumerate(zip(headers, columns, strict=True))
        )
        quantities = tuple(dict.fromkeys(curve.quantity for curve in curves))
        return cls(path.stem, axis, tuple(curves), view=View(quantities[:1]))

    @classmethod
    def _read_json(cls, path: Path) -> Table:
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            title=content["title"],
            axis=_from_dict(content["axis"]),
            curves=tuple(map(_from_dict, content["curves"])),
            caption=content["caption"],
            losses=_tuples(content["losses"]),
            view=View(**{name: _tuples(value) for name, value in content["view"].items()}),
        )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _as_dict(column: Column) -> dict[str, Any]:
    # strict JSON has neither NaN nor infinity
    values = [value if math.isfinite(value) else None for value in column.values]
    return {**column._asdict(), "values": values}


def _from_dict(content: dict[str, Any]) -> Column:
    values = tuple(math.nan if value is None else float(value) for value in content["values"])
    return Column(content["name"], content["unit"], values, content["quantity"])


def _from_header(header: str, values: tuple[float, ...], *, is_axis: bool) -> Column:
    text, _, unit = header.rpartition(" [")
    quantity, name = ("", text) if is_axis else text.split(": ", 1)
    return Column(name, unit.removesuffix("]"), values, quantity)
