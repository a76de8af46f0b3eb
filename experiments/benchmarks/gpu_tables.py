"""Tables of gpu.py, and the settings that its sections share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Device and sizes of a measurement.

    Args:
        device: "cuda", or "cpu" to try the script.
        is_small: tiny sizes, for a try.
        rounds: timed runs of each contestant.
        folder: folder of data and runs.
        compiles: whether losses also run under torch.compile.
    """

    device: str
    is_small: bool
    rounds: int
    folder: Path
    compiles: bool = True

    @property
    def is_cuda(self) -> bool:
        return self.device == "cuda"

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()


@dataclass
class Table:
    """One table: a title, columns, rows, and remarks below it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        self.rows.append(cells)

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_as_text(cell) for cell in row]) for row in self.rows]
        return "\n".join([*lines, "", *(f"- {remark}" for remark in self.remarks)]).rstrip() + "\n"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def one_line(problem: BaseException, longest: int = 160) -> str:
    """Return the kind and the first line of a problem."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:longest]
