"""Rows of the tables in this folder: networks trained with several seeds, and their mean scores."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dense_imb.base.files import write_whole
from dense_imb.runs import Run, train
from dense_imb.runs.read import config_from

Scores = dict[str, float]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"hits.noise": 200} -> {"hits": {"noise": 200}}"""
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return result


def once(path: Path, measure: Callable[[], Scores]) -> Scores:
    """Return the scores in a file, or measure and write them."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(measure(), indent=1)
        write_whole(path, lambda partial: partial.write_text(text))
    return dict(json.loads(path.read_text()))


def trained_row(
    folder: Path,
    config: Mapping[str, Any],
    seed: int,
    measure: Callable[[Run], Scores],
) -> Scores:
    """Train with one seed and return scores, seconds and parameters; a finished run is kept.

    Args:
        folder: parent of the run folders.
        config: options by dotted name, as on the command line.
        seed: random seed.
        measure: scores of a run.
    """
    place = folder / f"seed-{seed}"

    def whole() -> Scores:
        start, clock = time.process_time(), time.monotonic()
        run = train(
            config_from(nested({**config, "seed": seed})), place, resume=True, is_quiet=True
        )
        spent = {"cpu": time.process_time() - start, "seconds": time.monotonic() - clock}
        return {**measure(run), **spent, "parameters": float(run.metrics["parameters"])}

    return once(folder / f"seed-{seed}.json", whole)


def mean_and_spread(values: Iterable[float], scale: float = 1.0, digits: int = 2) -> str:
    """Format the mean and the standard deviation of one value a seed."""
    values = [scale * value for value in values]
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(rows: Mapping[str, list[Scores]], columns: Mapping[str, str], first: str = "row") -> str:
    """Return a table in Markdown, one row a name, mean and spread over its seeds.

    Args:
        rows: scores of each seed by the name of the row.
        columns: heading of each score; fractions become per cent.
        first: heading of the names.
    """
    lines = [
        f"| {first} | seeds | {' | '.join(columns.values())} |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for name, seeds in rows.items():
        cells = [name, str(len(seeds))]
        for column in columns:
            values = [scores[column] for scores in seeds if column in scores]
            if column in ("parameters",):
                cells.append(f"{statistics.fmean(values):,.0f}" if values else "-")
            elif column in ("cpu", "seconds"):
                cells.append(f"{statistics.fmean(values):.0f}" if values else "-")
            else:
                cells.append(mean_and_spread(values, 100) if values else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
