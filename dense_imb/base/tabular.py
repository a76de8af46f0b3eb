"""Base classes of tables and scores: as HTML in notebooks, as DataFrame of pandas, as bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dense_imb.base.axes import choose_axes, draw_bars
from dense_imb.base.html_text import html_card, html_table
from dense_imb.base.refusals import suggest

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, str | float]]
_WHOLE = 1e15  # whole numbers below this are written without an exponent


class Tabular:
    """Base class of what has rows of names and numbers: shown in notebooks, and as DataFrame."""

    def table_rows(self) -> Rows:
        """Return the rows; every name and number of a row stands by the name of its column."""
        raise NotImplementedError

    def text_tables(self) -> list[list[list[str]]]:
        """Return the tables that a notebook shows, as texts; the header of each comes first."""
        return [cells_of_rows(self.table_rows())]

    def text_notes(self) -> Sequence[str]:
        """Return the sentences that a notebook shows below the tables."""
        return ()

    def _repr_html_(self) -> str:
        parts = [html_table(cells, n_left=_n_names(cells)) for cells in self.text_tables() if cells]
        return html_card(repr(self), parts, self.text_notes())

    def to_pandas(self) -> Any:
        """Return the rows as `pandas.DataFrame`; needs pandas."""
        return data_frame(self.table_rows())


class TabularBars(Tabular):
    """Base class of tables of which one column can be drawn, a bar for each row."""

    def bar_rows(self) -> Rows:
        """Return the rows that are drawn."""
        return self.table_rows()

    def bar_column(self) -> str:
        """Return the name of the column that is drawn unless another is asked for."""
        raise NotImplementedError

    def plot(self, ax: Axes | None = None, column: str | None = None) -> Axes:
        """Draw a column, a bar for each row, and return the axes.

        Args:
            ax: axes of matplotlib to draw on; None takes the current ones of pyplot where it is in
                use, and new ones elsewhere.
            column: name of the column; None takes the main score.
        """
        rows, column = self.bar_rows(), self.bar_column() if column is None else column
        known = [name for name in column_names(rows) if not _is_text(rows, name)]
        if column not in known:
            raise ValueError(
                f"Expected `column` to be one of {', '.join(known)}, got {column!r}."
                f"{suggest(column, known)}"
            )
        axes = choose_axes(ax)
        values = [float(row.get(column, math.nan)) for row in rows]
        draw_bars(axes, [_name_of(row) for row in rows], values, column.replace("_", " "))
        return axes


def data_frame(rows: Rows, *, index: str | None = None) -> Any:
    """Return rows as `pandas.DataFrame`.

    Args:
        rows: rows of names and numbers.
        index: column that becomes the index; None numbers the rows.
    """
    frame = import_pandas().DataFrame([dict(row) for row in rows], columns=column_names(rows))
    return frame if index is None or index not in frame else frame.set_index(index)


def import_pandas() -> Any:
    """Return the library pandas, or say how to install it."""
    try:
        import pandas
    except ImportError as problem:
        raise ImportError("Expected the library pandas, got none; pip install pandas.") from problem
    return pandas


def column_names(rows: Rows) -> list[str]:
    """Return the names of all columns, in the order of their first rows.

    Example:
        >>> column_names([{"loss": "a", "f1": 0.5}, {"loss": "b", "failed": "NaN"}])
        ['loss', 'f1', 'failed']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def cells_of_rows(rows: Rows) -> list[list[str]]:
    """Return rows as texts, with their header; [] without rows.

    Example:
        >>> cells_of_rows([{"class": "crack", "pixels": 12000.0, "iou": 0.51234}])
        [['class', 'pixels', 'iou'], ['crack', '12,000', '0.5123']]
    """
    names = column_names(rows)
    if not names:
        return []
    return [
        [name.replace("_", " ") if name.islower() else name for name in names],
        *([number_cell(row.get(name, math.nan)) for name in names] for row in rows),
    ]


def number_cell(value: object) -> str:
    """Return the text of a name or a number: four digits, all of a whole number, a dash for NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if math.isnan(value):
        return "-"
    is_whole = math.isfinite(value) and value == int(value) and abs(value) < _WHOLE
    return f"{int(value):,}" if is_whole else f"{value:.4g}"


def _is_text(rows: Rows, name: str) -> bool:
    return any(isinstance(row.get(name), str) for row in rows)


def _name_of(row: Mapping[str, str | float]) -> str:
    return ", ".join(value for value in row.values() if isinstance(value, str) and value)


def _n_names(cells: Sequence[Sequence[str]]) -> int:
    """Return the number of columns from the left in which no cell is a number."""
    columns = list(zip(*cells[1:], strict=True)) if len(cells) > 1 else []
    for k, column in enumerate(columns):
        if k and all(cell == "-" or cell[:1] in "+-0123456789" for cell in column):
            return k
    return max(len(columns), 1)
