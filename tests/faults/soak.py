"""Random cases for as long as one wants, and their table."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.faults.case import Bench, Result, run_case
from tests.faults.children import warm_up
from tests.faults.commands import COMMANDS
from tests.faults.faults import FAULTS

# of `make test`: each fault and each command at least once, the slow ones where they refuse early,
# and kills before a change of a file, whose moments don't depend on the load of the machine
SHORT = (
    "simulate/kill/7", "simulate/names/0", "simulate/full disk/0", "convert/SIGTERM/3",
    "convert/same path/0", "train hits/kill/3", "train hits/two processes/0",
    "train images/SIGTERM/0", "train labels/SIGINT/0", "train values/same path/0",
    "denoise/kill/5", "denoise/two processes/0", "denoise --out/same path/0", "evaluate/clock/4",
    "segment/kill/17", "segment/two commands/0", "predict/image names/1", "curves/read-only/2",
    "inspect/same path/0", "report/read-only/0", "export/same path/0", "compare/same path/0",
    "demo/read-only/0", "train hits --devices 2/same path/0",
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=30.0, help="length of a soak")
    add("--seed", type=int, default=0, help="random seed of the cases")
    add("--out", type=Path, default=Path("soak.json"), help="results; an unfinished soak goes on")
    add("--only", default="", help="text that the names of cases contain")
    add("--short", action="store_true", help="run the cases of `make test` instead")
    add("--case", action="append", default=[], help="run this case, COMMAND/FAULT/NUMBER")
    add("--json", action="store_true", help="print a line of JSON for each case")
    add("--keep", action="store_true", help="leave the folder of the last case")
    add("--table", type=Path, help="print the table of results that are there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; return 1 if one failed."""
    options = make_parser().parse_args(arguments)
    if options.table is not None:
        print(table(json.loads(options.table.read_text())))
        return 0
    names = options.case or (SHORT if options.short else ())
    folder = Path(tempfile.mkdtemp(prefix="dense-imb-faults-"))
    try:
        warm_up()
        bench = Bench(folder)
        if not names:
            return soak(bench, options)
        results = []
        for name in names:
            results.append(_run(bench, name, keep=options.keep, as_json=options.json))
        return int(any(one.outcome == "failed" for one in results))
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def soak(bench: Bench, options: argparse.Namespace) -> int:
    """Run random cases, and keep their results as they come."""
    stored = _stored(options)
    spent = stored["seconds"]
    while stored["seconds"] < 60 * options.minutes:
        start = time.monotonic()
        name = case_name(options.seed, stored["n_cases"], options.only)
        result = _run(bench, name)
        stored["n_cases"] += 1
        stored["seconds"] = round(stored["seconds"] + time.monotonic() - start, 1)
        command, fault, _ = name.split("/")
        count = stored["counts"].setdefault(command, {}).setdefault(fault, {})
        count[result.outcome] = count.get(result.outcome, 0) + 1
        if result.outcome == "failed":
            stored["failures"].append(vars(result))
        options.out.write_text(json.dumps(stored, indent=1) + "\n")
    print(f"\n{table(stored)}\n")
    if stored["failures"]:
        name = stored["failures"][0]["name"]
        print(f"{len(stored['failures'])} failed; next: python -m tests.faults --case '{name}'")
        return 1
    print(
        f"{stored['n_cases']} cases in {stored['seconds'] / 60:.0f} min, "
        f"{(stored['seconds'] - spent) / 60:.0f} of them now, no failure\nnext: python -m "
        f"tests.faults --minutes {options.minutes:g} --seed {options.seed + 1} --out NEW.json"
    )
    return 0


def case_name(seed: int, k: int, only: str = "") -> str:
    """Return the name of the k-th case of a seed; slow commands are drawn a third as often."""
    pairs = {
        f"{name}/{fault}": 1 if command.is_slow else 3
        for name, command in COMMANDS.items()
        for fault in FAULTS
        if only in f"{name}/{fault}"
        and (fault != "image names" or command.maps)
        and (fault != "two commands" or command.beside is not None)
    }
    rng = random.Random(f"{seed} {k}")
    (pair,) = rng.choices([*pairs], [*pairs.values()])
    return f"{pair}/{rng.randrange(1_000_000)}"


def table(stored: dict[str, Any]) -> str:
    """Return the numbers of faults survived, of those injected, as a table in Markdown."""
    rows = [["command", *FAULTS], ["---", *("---:" for _ in FAULTS)]]
    total: Counter[str] = Counter()
    for command in COMMANDS:
        counts = stored["counts"].get(command, {})
        row = [f"`{command}`"]
        for fault in FAULTS:
            count = counts.get(fault, {})
            total.update(count)
            n, good = count.get("failed", 0) + count.get("survived", 0), count.get("survived", 0)
            row.append("" if n == 0 else str(n) if good == n else f"**{good} of {n}**")
        rows.append(row)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    n = total["survived"] + total["failed"]
    return "\n".join(
        [
            *lines,
            "",
            f"{total['survived']} of {n} survived; {stored['date']}, commit {stored['commit']}, "
            f"seed {stored['seed']}, {stored['seconds'] / 60:.0f} min.",
        ]
    )


def _run(bench: Bench, name: str, *, keep: bool = False, as_json: bool = False) -> Result:
    """Run a case, and print its result."""
    result = run_case(bench, name, keep)
    if as_json:
        print(json.dumps(vars(result)), flush=True)
        return result
    codes = " ".join(map(str, result.codes))
    print(f"{result.outcome:9} {result.seconds:6.1f} s  {name}  ({codes})", flush=True)
    for problem in result.problems:
        print(f"    {problem}", flush=True)
    return result


def _stored(options: argparse.Namespace) -> dict[str, Any]:
    """Return the results of an unfinished soak of the same seed, or none."""
    here = {"seed": options.seed, "commit": commit(), "only": options.only}
    if options.out.exists():
        stored: dict[str, Any] = json.loads(options.out.read_text())
        if all(stored[name] == value for name, value in here.items()):
            return stored
        raise SystemExit(f"{options.out} is of another seed or commit; name another file.")
    date = datetime.now().astimezone().strftime("%Y-%m-%d")
    return {**here, "date": date, "n_cases": 0, "seconds": 0.0, "counts": {}, "failures": []}


def commit() -> str:
    """Return the commit, with "+" where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True)
        return done.stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
