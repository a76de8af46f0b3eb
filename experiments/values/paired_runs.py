"""Stored runs of an experiment by loss and seed, their table, and paired tests.

A run is one JSON file with `loss`, `seed`, `train_seconds`, `chosen` (scores of the data on which
thresholds and read-outs are chosen) and `scores` (those of the test data).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from dense_imb.base.files import write_whole
from dense_imb.compare.table import holm

Runs = dict[str, dict[int, dict[str, Any]]]  # by loss and seed


class Score(NamedTuple):
    """A score, and whether more of it is better."""

    name: str
    more_is_better: bool


def stored(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of a JSON file, which is made first if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(make())
        write_whole(path, lambda partial: partial.write_text(text))
    return dict(json.loads(path.read_text()))


def place(folder: Path, name: str, seed: int) -> Path:
    """Return the file of a run."""
    return folder / f"{name.replace('/', 'of').replace(' ', '-')}-{seed}.json"


def read_runs(folder: Path, names: Iterable[str]) -> Runs:
    """Read the runs of these losses, in their order; losses without a run are left out."""
    runs: Runs = {}
    for path in sorted(folder.glob("*-*.json")):
        row = json.loads(path.read_text())
        runs.setdefault(row["loss"], {})[row["seed"]] = row
    return {name: runs[name] for name in names if name in runs}


def values(by_seed: Mapping[int, Mapping[str, Any]], name: str, of: str = "scores") -> list[float]:
    """Return a score of each seed; one that is missing is NaN."""
    rows = [by_seed[seed][of].get(name) for seed in sorted(by_seed)]
    return [math.nan if one is None else float(one) for one in rows]


def best(runs: Runs, names: Iterable[str], score: Score, of: str = "chosen") -> str | None:
    """Return the loss with the best mean score; "chosen" never looks at test data."""
    means = {name: statistics.fmean(values(runs[name], score.name, of)) for name in names}
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    pick = max if score.more_is_better else min
    return pick(known, key=lambda name: known[name]) if known else None


def tuned(runs: Runs, tried: Sequence[str], scores: Sequence[Score], seed: int = 0) -> list[str]:
    """Return the tried losses that are the best in one of the scores, by one seed.

    Empty until all have a run of this seed.
    """
    first = {name: {seed: runs[name][seed]} for name in tried if seed in runs.get(name, {})}
    if len(first) < len(tried):
        return []
    chosen = {best(first, first, score) for score in scores}
    return [name for name in tried if name in chosen]


def describe_tuning(
    runs: Runs, tried: Sequence[str], scores: Sequence[Score], digits: int, seed: int = 0
) -> str:
    """Return the scores by which the tried losses were chosen, in the order of `scores`."""
    parts = []
    for name in tried:
        if seed in runs.get(name, {}):
            chosen = runs[name][seed]["chosen"]
            parts.append(f"{name} {' / '.join(f'{chosen[one.name]:.{digits}f}' for one in scores)}")
    return "; ".join(parts)


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference over seeds, and the p-value of a paired t-test."""
    change = [a - b for a, b in zip(one, other, strict=True)]
    if len(change) < 2 or len(set(change)) == 1:
        return statistics.fmean(change) if change else math.nan, math.nan
    return statistics.fmean(change), float(stats.ttest_1samp(change, 0.0).pvalue)


def table(
    runs: Runs,
    columns: Mapping[str, str],
    digits: int,
    references: Mapping[str, Mapping[str, Any]] | None = None,
    title: str = "loss",
) -> str:
    """Return the mean and the spread over seeds of each loss.

    Args:
        runs: runs by loss and seed.
        columns: head of each column by the name of its score.
        digits: digits after the point.
        references: scores of rows without a network, such as "blank".
        title: head of the first column.
    """
    lines = [
        f"| {title} | {' | '.join(columns.values())} | CPU s |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for name, by_seed in runs.items():
        cells = [spread(values(by_seed, column), digits) for column in columns]
        seconds = statistics.fmean(row["train_seconds"] for row in by_seed.values())
        lines.append(f"| {name} ({len(by_seed)}) | {' | '.join(cells)} | {seconds:.0f} |")
    for name, scores in (references or {}).items():
        cells = [spread([_known(scores.get(column))], digits) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | |")
    return "\n".join(lines)


def gains(
    runs: Runs, contestants: Sequence[str], rivals: Sequence[str], scores: Sequence[Score]
) -> str:
    """Return the table of gains over the best rival, with p-values corrected by Holm's method.

    The rival of a score is the one that is best on the data for choices. The tests of the table
    are corrected together. "better" and "worse" mark p below 0.05.
    """
    known = [name for name in contestants if name in runs]
    rivals = [name for name in rivals if name in runs]
    tests: list[tuple[str, Score, str, float, float]] = []
    for score in scores:
        rival = best(runs, rivals, score)
        for name in known if rival is not None else ():
            assert rival is not None
            seeds = sorted(set(runs[name]) & set(runs[rival]))
            pair = [
                values({seed: runs[loss][seed] for seed in seeds}, score.name)
                for loss in (name, rival)
            ]
            tests.append((name, score, rival, *difference(*pair)))
    corrected = holm([p for *_, p in tests])
    heads = {score: rival for _, score, rival, _, _ in tests}
    lines = [
        f"| gain over | {' | '.join(f'{rival}: {one.name}' for one, rival in heads.items())} |",
        "| --- " * (len(heads) + 1) + "|",
    ]
    for name in known:
        cells = [
            f"{gain:+.3f}, {_chance(p)}{_verdict(gain, p, score)}"
            for (own, score, _, gain, _), p in zip(tests, corrected, strict=True)
            if own == name
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(numbers: Sequence[float], digits: int) -> str:
    """Format a mean and the standard deviation over seeds."""
    mean = statistics.fmean(numbers)
    if math.isnan(mean):
        return "-"
    if len(numbers) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} +- {np.std(numbers, ddof=1):.{digits}f}"


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _chance(p: float) -> str:
    return "-" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _verdict(gain: float, p: float, score: Score) -> str:
    if math.isnan(p) or p >= 0.05:
        return ""
    return ", better" if (gain > 0) == score.more_is_better else ", worse"


def parser_of(description: str | None, losses: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of the options that the scripts share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--losses", nargs="+", choices=losses, metavar="LOSS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="steps of a training")
    parser.add_argument("--full", action="store_true", help="the full size, for a GPU")
    parser.add_argument("--device", default="cpu", help="device that trains, cpu by default")
    parser.add_argument("--tables", action="store_true", help="print the tables of finished runs")
    return parser
