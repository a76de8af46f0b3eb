"""Mutants of all formats, and the table of their verdicts."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.faults.children import warm_up
from tests.faults.soak import commit
from tests.fuzz.formats import FORMATS
from tests.fuzz.runner import BAD, VERDICTS, Verdict, missing, run_mutants

_SEEDS = 1_000_000  # mutants of one seed of a campaign
_PART = 250  # mutants between two records of the results


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--mutants", type=int, default=2000, help="mutants of each format")
    add("--seed", type=int, default=0, help="random seed of the mutants")
    add("--formats", nargs="+", default=[], metavar="FORMAT", help="formats; all by default")
    add("--out", type=Path, default=Path("fuzz.json"), help="results; unfinished ones go on")
    add("--case", action="append", default=[], help="read this mutant again, FORMAT:SEED")
    add("--json", action="store_true", help="print a line of JSON for each mutant, keep nothing")
    add("--table", type=Path, help="print the table of results that are there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the mutants; return 1 if one of them was not read or refused as it should."""
    options = make_parser().parse_args(arguments)
    if options.table is not None:
        print(markdown(json.loads(options.table.read_text())))
        return 0
    unknown = {*options.formats} - {*FORMATS}
    if unknown:
        raise SystemExit(f"Expected formats of {', '.join(FORMATS)}, got {', '.join(unknown)}.")
    warm_up()
    if options.case:
        return max([_replay(case) for case in options.case])
    if options.json:
        return _print_all(options)
    return _campaign(options)


def _replay(case: str) -> int:
    """Read one mutant, and leave its files."""
    name, _, seed = case.rpartition(":")
    folder = Path(tempfile.mkdtemp(prefix="dense-imb-fuzz-"))
    (verdict,) = run_mutants(name, FORMATS[name], [int(seed)], folder, keep=True)
    print(f"{verdict.verdict}  {case}  by {verdict.mutator}\n    {verdict.text}")
    print(f"    files: {folder / 'case'}, valid: {folder / 'valid'}")
    return int(verdict.verdict in BAD)


def _print_all(options: argparse.Namespace) -> int:
    """Print the verdict of each mutant."""
    is_bad = False
    for name in options.formats or FORMATS:
        for verdict in _read(name, seeds_of(options.seed, 0, options.mutants)):
            print(json.dumps({"format": name, **asdict(verdict)}), flush=True)
            is_bad |= verdict.verdict in BAD
    return int(is_bad)


def _campaign(options: argparse.Namespace) -> int:
    """Read the mutants format by format, and keep the results as they come."""
    stored = _stored(options)
    for name in options.formats or FORMATS:
        row = stored["formats"].setdefault(name, {"counts": {}, "seconds": 0.0, "bad": []})
        n_done = sum(row["counts"].values())
        while n_done < options.mutants:
            if without := missing(FORMATS[name]):
                row["skipped"] = f"{without} is not installed"
                break
            start = time.monotonic()
            n = min(_PART, options.mutants - n_done)
            for verdict in _read(name, seeds_of(options.seed, n_done, n)):
                row["counts"][verdict.verdict] = row["counts"].get(verdict.verdict, 0) + 1
                if verdict.verdict in BAD:
                    row["bad"].append(asdict(verdict))
            n_done += n
            row["seconds"] = round(row["seconds"] + time.monotonic() - start, 1)
            options.out.write_text(json.dumps(stored, indent=1) + "\n")
            print(
                f"{name:12} {n_done:5} mutants {row['seconds']:6.1f} s  {row['counts']}", flush=True
            )
    print(f"\n{text_table(stored)}\n\n{markdown(stored)}")
    return int(any(row["bad"] for row in stored["formats"].values()))


def seeds_of(seed: int, start: int, n: int) -> list[int]:
    """Return the seeds of the mutants of a campaign."""
    return [seed * _SEEDS + k for k in range(start, start + n)]


def _read(name: str, seeds: Sequence[int]) -> list[Verdict]:
    if missing(FORMATS[name]):
        return []
    folder = Path(tempfile.mkdtemp(prefix="dense-imb-fuzz-"))
    try:
        return [*run_mutants(name, FORMATS[name], seeds, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stored(options: argparse.Namespace) -> dict[str, Any]:
    """Return the results of an unfinished campaign of the same seed and commit, or none."""
    here = {"seed": options.seed, "commit": commit()}
    if options.out.exists():
        stored: dict[str, Any] = json.loads(options.out.read_text())
        if all(stored[name] == value for name, value in here.items()):
            return stored
        raise SystemExit(f"{options.out} is of another seed or commit; name another file.")
    date = datetime.now().astimezone().strftime("%Y-%m-%d")
    return {**here, "date": date, "formats": {}}


def _rows(stored: dict[str, Any]) -> list[list[str]]:
    rows = [["format", "mutants", *VERDICTS, "seconds"]]
    total: Counter[str] = Counter()
    for name, row in stored["formats"].items():
        counts = row["counts"]
        total.update(counts)
        numbers = [str(counts.get(verdict, 0)) for verdict in VERDICTS]
        n = row.get("skipped") or str(sum(counts.values()))
        rows.append([name, n, *numbers, f"{row['seconds']:.0f}"])
    seconds = sum(row["seconds"] for row in stored["formats"].values())
    numbers = [str(total[verdict]) for verdict in VERDICTS]
    return [*rows, ["all", str(total.total()), *numbers, f"{seconds:.0f}"]]


def text_table(stored: dict[str, Any]) -> str:
    """Return the counts as text, and the mutants to look at."""
    rows = _rows(stored)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(r, widths, strict=True)) for r in rows]
    for name, row in stored["formats"].items():
        for one in row["bad"]:
            lines.append(f"{one['verdict']}  --case '{name}:{one['seed']}'  {one['text'][:160]}")
    return "\n".join(lines)


def markdown(stored: dict[str, Any]) -> str:
    """Return the counts as a table in Markdown."""
    first, *rows = _rows(stored)
    lines = [first, ["---", *("---:" for _ in first[1:])], *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{stored['date']}, commit {stored['commit']}, seed {stored['seed']}."
