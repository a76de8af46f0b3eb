"""Tables of scores: strict JSON, CSV, aligned text, and what notebooks show."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dense_imb.base.files import write_whole
from dense_imb.base.tabular import TabularBars

Row = dict[str, str | float]


class ScoreTable(TabularBars):
    """Base class of tables whose rows hold names and numbers; NaN is null in JSON."""

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        scorers = ", ".join(dict.fromkeys(str(row["scorer"]) for row in self.rows))
        return f"{type(self).__name__}({len(self.rows)} rows of {scorers})"

    def table_rows(self) -> Sequence[Row]:
        """Return all rows, with all columns."""
        return self.rows

    def as_json(self) -> dict[str, Any]:
        """Return the table as a dictionary for strict JSON."""
        raise NotImplementedError

    def _row_of(self, scorer: str, **also: str) -> Row:
        """Return the first row of a scorer; `also` holds values of further columns."""
        wanted = {"scorer": scorer, **also}
        for row in self.rows:
            if all(row[name] == value for name, value in wanted.items()):
                return row
        known = ", ".join(dict.fromkeys(repr(row["scorer"]) for row in self.rows))
        raise KeyError(f"Expected one of {known}, got {scorer!r}.")

    def json(self) -> str:
        """Return the table as JSON text."""
        return json.dumps(self.as_json(), indent=1, allow_nan=False)

    def csv(self) -> str:
        """Return a header line and one line per row."""
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.finite_rows())
        return text.getvalue()

    def finite_rows(self) -> list[dict[str, str | float | None]]:
        """Return the rows with None in place of NaN and infinity."""
        return finite_rows(self.rows)

    def save(
        self, path: str | os.PathLike[str], *, made_by: Mapping[str, Any] | None = None
    ) -> None:
        """Write a .json or .csv file, atomically.

        Args:
            path: the file.
            made_by: facts about scorers, data and options, for JSON only.
        """
        path = Path(path)
        if path.suffix not in (".json", ".csv"):
            raise ValueError(f"Expected `path` to end in .json or .csv, got {path}.")
        content = self.as_json() | ({} if made_by is None else {"made_by": made_by})
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        text = self.csv() if path.suffix == ".csv" else text
        write_whole(path, lambda to: to.write_text(text, encoding="utf-8"))


def finite_rows(rows: Sequence[Row]) -> list[dict[str, str | float | None]]:
    """Return rows with None in place of NaN and infinity."""
    return [
        {
            name: value if isinstance(value, str) or math.isfinite(value) else None
            for name, value in row.items()
        }
        for row in rows
    ]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, with the first column left-aligned, the others right-aligned.

    Example:
        >>> for line in aligned([["", "AP"], ["blank", "0.02"], ["run", "0.5"]]): print(line)
                 AP
        blank  0.02
        run     0.5
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])])
        for cells in table
    ]


def score_cell(value: str | float) -> str:
    """Return the text of a score in a table; a dash for NaN."""
    number = float(value)
    return "-" if math.isnan(number) else f"{number:.3f}"


def percent_digits(share: float, digits: int) -> str:
    """Return a share in per cent, with more digits where fewer would round it up to 100.

    Args:
        share: a share from 0 to 1.
        digits: smallest number of digits behind the point.

    Example:
        >>> percent_digits(0.98, 1), percent_digits(0.9996, 1), percent_digits(1.0, 1)
        ('98.0', '99.96', '100.0')
    """
    value = round(100 * share, 9)  # so that rounding errors do not show at ties, or just below 100
    text = f"{value:.{digits}f}"
    while value < 100 and float(text) >= 100:
        digits += 1
        text = f"{value:.{digits}f}"
    return text


def mean_of_known(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if all are."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
