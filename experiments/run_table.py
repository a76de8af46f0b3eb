"""Train the rows of a table, each with several seeds, and print their scores.

    python experiments/run_table.py experiments/losses.yaml
    python experiments/run_table.py experiments/losses.yaml --steps 2000 --size 128x88   # full size
    python experiments/run_table.py experiments/losses.yaml --rows acb_mse_lit --seeds 0

A table is a YAML file: the question, the simulated data, the config that all rows share (as for
`dense-imb train`) and the differences of each row. Finished runs are kept, stopped ones continue:
the command can be repeated until the table is complete. Every run is a folder of `dense-imb
train`, with its report.

Thresholds are chosen on one half of the test events, and scores are those of the other half. No row
trains on any of them. All rows of a seed share the same test events.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from dense_imb.base.files import write_whole
from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import Degradation, Geometry, degrade, open_hits
from dense_imb.hits.evaluation import evaluate
from dense_imb.runs import train
from dense_imb.runs.read import config_from

SCORES = ("removal_at_95", "removal_at_97", "removal_at_99", "auc", "retention_at_half")
FIRST_TEST = 10_000_000  # events of a seed that no training file reaches


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"model.output": x} -> {"model": {"output": x}}"""
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return result


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for name, value in above.items():
        is_group = isinstance(value, dict) and isinstance(both.get(name), dict)
        both[name] = merged(both[name], value) if is_group and name != "options" else value
    return both


def simulated(
    wanted: dict[str, Any], folder: Path, events: int, seed: int, first_event: int
) -> Path:
    """Return a file of clean patterns, made once for all rows with the same data."""
    made_of = {name: value for name, value in wanted.items() if name != "events"}
    height, width = (int(n) for n in made_of.pop("size").split("x"))
    name = "-".join(str(value) for value in wanted.values())
    path = folder / f"{name}-{events}-{seed}-{first_event}.h5"
    if not path.exists():
        geometry = Geometry(width, height, made_of.pop("time_steps", 1000))
        write_simulated(
            path, events, geometry=geometry, seed=seed, first_event=first_event, progress=False,
            **made_of,
        )  # fmt: skip
    return path


def run_row(
    name: str, seed: int, table: dict[str, Any], options: argparse.Namespace, folder: Path
) -> dict[str, float]:
    place = folder / f"{name}-{seed}"
    stored = place / "result.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    row = nested(table["rows"][name] or {})
    patterns = {"size": "128x88", **table["simulate"], **row.pop("simulate", {})}
    patterns["size"] = options.size or patterns["size"]
    n_events = options.events or patterns["events"]
    clean = simulated(patterns, folder, n_events, 12345, 0)
    test = simulated(patterns, folder, options.test_events, seed, FIRST_TEST)
    config_dict = merged(nested(table["base"]), row)
    config_dict = merged(config_dict, {"seed": seed, "data": {"train": [str(clean)]}})
    if options.steps:
        config_dict["steps"] = options.steps
    config = config_from(config_dict)
    start = time.process_time()
    run = train(config, place, resume=True, is_quiet=options.quiet)
    result: dict[str, float] = {"cpu_seconds": time.process_time() - start}

    with open_hits(test) as hits:
        clean_tests = hits[:]
    signal = config.hits.signal
    levels = table.get("noise_levels") or [config.hits.noise]
    for level in levels:
        degradation = Degradation(
            signal=tuple(signal) if isinstance(signal, list) else signal, noise=level
        )
        noisy = degrade(clean_tests, degradation, seed=seed, epoch=7)
        half = len(noisy) // 2  # one chooses the threshold, the other is measured
        row = evaluate([run.trained()], noisy[:half], noisy[half:]).rows[0]
        before = f"{level}: " if len(levels) > 1 else ""
        result |= {before + score: float(row[score]) for score in SCORES}
    text = json.dumps(result, indent=1)
    write_whole(stored, lambda partial: partial.write_text(text))
    return result


def printed(results: dict[str, list[dict[str, float]]]) -> str:
    columns = list(dict.fromkeys(name for rows in results.values() for r in rows for name in r))
    width = max(len(name) for name in results) + 2
    lines = ["row".ljust(width) + "seeds  " + "  ".join(name.rjust(14) for name in columns)]
    for name, rows in results.items():
        cells = []
        for column in columns:
            values = [row[column] for row in rows if column in row]
            scale = 1 if column == "cpu_seconds" else 100
            mean = scale * statistics.fmean(values)
            spread = f"+-{scale * statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{mean:.2f}{spread}".rjust(max(14, len(column))))
        lines.append(name.ljust(width) + f"{len(rows):5}  " + "  ".join(cells))
    return "\n".join(lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", nargs="+", help="some rows; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="steps of each run, in place of the table's")
    parser.add_argument(
        "--size", help="size of the frames, for example 128x88, in place of the table's"
    )
    parser.add_argument(
        "--events", type=int, help="number of clean patterns, in place of the table's"
    )
    parser.add_argument("--test-events", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="runs/<name of the table> by default")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parsed(arguments)
    table = yaml.safe_load(options.table.read_text())
    folder = options.out or Path("runs") / options.table.stem
    folder.mkdir(parents=True, exist_ok=True)
    rows = options.rows or list(table["rows"])
    if unknown := [name for name in rows if name not in table["rows"]]:
        raise SystemExit(f"Expected rows of {', '.join(table['rows'])}, got {unknown[0]}.")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for seed in options.seeds:  # a first seed of every row before the second of any
        for name in rows:
            results[name].append(run_row(name, seed, table, options, folder))
    text = printed(results)
    print(text)
    stored = json.dumps({"torch": torch.__version__, "results": results}, indent=1)
    write_whole(folder / "table.json", lambda partial: partial.write_text(stored))
    write_whole(folder / "table.txt", lambda partial: partial.write_text(text + "\n"))


if __name__ == "__main__":
    main(sys.argv[1:])
