"""Formats of numbers and tables in the report as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_BLOCKS = "▁▂▃▄▅▆▇█"
QUANTILES = {"min": "min", "q05": "5 %", "median": "median", "q95": "95 %", "max": "max"}


def sparkline(counts: Sequence[int]) -> str:
    """Draw counts as blocks of eight heights, and 0 as a dot.

    Example:
        >>> sparkline([0, 1, 4, 8])
        '·▁▄█'
    """
    top = max([*counts, 1])
    return "".join(
        "·" if count == 0 else _BLOCKS[math.ceil(8 * count / top) - 1] for count in counts
    )


def heading(title: str, columns: Sequence[str]) -> str:
    """Return a line that names the columns of a table."""
    return f"{title:18}" + "".join(f"{name:>10}" for name in columns)


def quantile_line(name: str, values: Mapping[str, float], *, share: bool = False) -> str:
    """Return a line of a table with mean and quantiles."""
    form = percent if share else number
    cells = "".join(f"{form(values[key]):>10}" for key in ("mean", *QUANTILES))
    return f"  {name.replace('_', ' '):16}{cells}"


def spectrum_lines(title: str, time: Mapping[str, Any], bins: str) -> list[str]:
    """Return quantiles of times, and their histogram for each class.

    Args:
        title: title of the table.
        time: quantiles, "histogram" by class, and "share_outside_bins".
        bins: description of the bins.
    """
    lines = [heading(title, ("mean", *QUANTILES.values())), quantile_line("all hits", time)]
    for name, counts in time["histogram"].items():
        if name != "hits" or len(time["histogram"]) == 1:
            lines.append(f"  {name:16} {sparkline(counts)}")
    if time["share_outside_bins"] > 0:
        bins += f"; {percent(time['share_outside_bins'])} of the hits lie outside"
    return [*lines, f"  {bins}"]


def pair_line(name: str, values: Mapping[str, float], a: str, b: str, form: Any) -> str:
    """Return a line of a table with two values."""
    return f"  {name:26} {form(values[a]):>9} {form(values[b]):>9}"


def percent(share: float) -> str:
    """Return a fraction in per cent."""
    if math.isnan(share):
        return "-"
    hundredths = 100 * share
    return f"{hundredths:.4g} %" if hundredths < 99 else f"{hundredths:.6g} %"


def number(value: float) -> str:
    """Return a number with five digits, or a dash."""
    return "-" if math.isnan(value) else f"{value:.5g}"


def times(ratio: float) -> str:
    """Return a ratio as text, such as "26 : 1"."""
    return "-" if math.isnan(ratio) else f"{ratio:,.3g} : 1" if ratio < 100 else f"{ratio:,.0f} : 1"


def counted(names: Mapping[str, int]) -> str:
    """Return names with their counts, four at most."""
    shown = [f"{name} ({count:,})" for name, count in list(names.items())[:4]]
    return ", ".join(shown) + (", .." if len(names) > 4 else "")


def shortened(line: str) -> str:
    """Return a line, cut where it is long."""
    return line if len(line) <= 160 else f"{line[:140]} .. (in full in the JSON)"
