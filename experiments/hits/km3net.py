"""Neutrino telescope with true labels: how much noise does a network of hits remove?

    DENSE_IMB_DATA=... python experiments/hits/km3net.py
    DENSE_IMB_DATA=... python experiments/hits/km3net.py --rows base --seeds 0 --steps 300

A row takes some 2 minutes of a core for each seed. The answer is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import h5py
import numpy as np
import torch
from rows import Scores, table, trained_row

from dense_imb.hits import Events, HitsWriter, Sensors, evaluate, open_hits
from dense_imb.runs import Run

PARTS = {"train": (0, 300), "validation": (300, 350), "test": (350, 450)}
BASE = {
    "hits.features": ["tot", "direction"],
    "model.name": "hits:base",
    "batch_size": 1,
    "steps": 400,
    "validate_every": 100_000,  # at the end only
}
ROWS = {
    "base": {},
    "base, 800 steps": {"steps": 800},
    "base, weight decay 0.01": {"optimizer.weight_decay": 0.01},
    "base, windows in time only": {"model.options": {"orders": ["time"]}},
    "small": {"model.name": "hits:small"},
}
COLUMNS = {
    "removal_at_95": "removed at 95 %",
    "removal_at_97": "at 97 %",
    "removal_at_99": "at 99 %",
    "retention_at_97": "kept at 97 %",
    "retention_at_99": "kept at 99 %",
    "parameters": "weights",
    "cpu": "CPU s",
}


def convert(source: Path, folder: Path) -> dict[str, Path]:
    """Write training, validation and test events as hits files."""
    paths = {name: folder / f"{name}.h5" for name in PARTS}
    if all(path.exists() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as file:
        sensors = Sensors(file["sensor/position_m"][:], file["sensor/direction"][:])
        hit = file["hit"]
        events = Events(
            sensors,
            file["event/offset"][:].astype(np.int64),
            t=hit["t_ns"][:].astype(np.float32),
            label=hit["label"][:],
            hit={"tot": hit["tot_ns"][:], "muon": hit["muon"][:]},
            sensor=hit["sensor"][:].astype(np.uint32),
        )
    for name, (first, last) in PARTS.items():
        with HitsWriter(paths[name], sensors, overwrite=True) as writer:
            writer.append(events[first:last])
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/km3net"))
    options = parser.parse_args(arguments)
    paths = convert(Path(os.environ["DENSE_IMB_DATA"]) / "km3net_muons" / "events.h5", options.out)

    def measure(run: Run) -> Scores:
        network = run.trained()
        with open_hits(paths["validation"]) as validation, open_hits(paths["test"]) as test:
            result = evaluate([network], validation, test, batch_size=1)
        return {name: float(result.rows[0][name]) for name in COLUMNS if name in result.rows[0]}

    results: dict[str, list[Scores]] = {}
    for name in options.rows:
        config = BASE | {f"hits.{p}": str(paths[p]) for p in ("train", "validation")} | ROWS[name]
        config |= {"steps": options.steps} if options.steps else {}
        place = options.out / f"{name}-{config['steps']}".replace(", ", "-").replace(" ", "-")
        results[name] = [trained_row(place, config, seed, measure) for seed in options.seeds]
        print(table({name: results[name]}, COLUMNS), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
