"""Reference task: how much noise do networks of hits remove, and after how many seconds?

    python experiments/hits/arc.py
    python experiments/hits/arc.py --rows tiny --seeds 0

All rows take 11 minutes of a core. The answer is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import Scores, once, table, trained_row

from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import DBSCANScorer, Degradation, HitDensity, degrade, noise_sweep, open_hits
from dense_imb.hits.boosting import NeighbourBoosting
from dense_imb.runs import Run

SIGNAL, NOISE = 30, 200
# events and seed; short trainings need fewer patterns
PARTS = {
    "train": (4000, 100),
    "long_train": (12_000, 100),
    "chosen_on": (1000, 103),
    "test": (1000, 102),
}
BASE = {
    "hits.signal": SIGNAL,
    "hits.noise": NOISE,
    "hits.validation_events": 200,
    "steps": 600,
    "validate_every": 100_000,  # at the end only
}
ROWS: dict[str, dict[str, Any]] = {
    "tiny": {"model.name": "hits:tiny"},
    "small": {"model.name": "hits:small"},
    "base": {"model.name": "hits:base", "steps": 800},
    "tiny, weight decay 0.01": {"model.name": "hits:tiny", "optimizer.weight_decay": 0.01},
}
RULES = ("hit density", "DBSCAN", "gradient boosting")
COLUMNS = {
    "removal_at_95": "removed at 95 %",
    "removal_at_97": "at 97 %",
    "removal_at_99": "at 99 %",
    "auc": "AUC",
    "parameters": "weights",
    "cpu": "CPU s",
    "seconds": "s",
}


def simulated(folder: Path, part: str, scale: float = 1.0) -> Path:
    """Write clean patterns of a part, once."""
    folder.mkdir(parents=True, exist_ok=True)
    path, (events, seed) = folder / f"{part}.h5", PARTS[part]
    if not path.exists():
        count = max(int(events * scale), 10)
        write_simulated(path, count, pattern="arc", seed=seed, progress=False)
    return path


def scored(scorer: Any, folder: Path, seed: int, levels: list[int]) -> list[Scores]:
    """Return scores at each number of noise hits; thresholds come from other events."""
    chosen_on, tested = folder / "chosen_on.h5", folder / "test.h5"
    with open_hits(chosen_on) as validation, open_hits(tested) as test:
        result = noise_sweep(
            [scorer], test, levels, signal=SIGNAL, seed=seed, validation=validation
        )
    names = ("removal_at_95", "removal_at_97", "removal_at_99", "auc", "retention_at_97")
    return [{name: float(row[name]) for name in names} for row in result.rows]


def rule(name: str, train: Path, seed: int) -> Any:
    """Return a classical rule; gradient boosting learns from 1,000 events."""
    if name != "gradient boosting":
        return HitDensity() if name == "hit density" else DBSCANScorer()
    with open_hits(train) as file:
        clean = file[: min(1000, len(file))]
    index = np.arange(len(clean))
    noisy = degrade(clean, Degradation(SIGNAL, noise=NOISE), seed=seed, event_index=index)
    return NeighbourBoosting(seed=seed).fit(noisy)


def measured_rule(name: str, folder: Path, train: Path, seed: int) -> Callable[[], Scores]:
    def measure() -> Scores:
        start = time.process_time()
        scorer = rule(name, train, seed)
        cpu = time.process_time() - start
        return {**scored(scorer, folder, seed, [NOISE])[0], "cpu": cpu}

    return measure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*ROWS, *RULES]
    parser.add_argument("--rows", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="by default 600, and 800 of base")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of events")
    parser.add_argument("--out", type=Path, default=Path("runs/hits_arc"))
    options = parser.parse_args(arguments)
    folder = options.out
    for part in ("chosen_on", "test"):
        simulated(folder, part, options.scale)
    results: dict[str, list[Scores]] = {}
    for name in options.rows:
        place = folder / name.replace(", ", "-").replace(" ", "-")
        part = "long_train" if name == "base" else "train"
        train = simulated(folder, part, options.scale)
        results[name] = []
        for seed in options.seeds:
            if name in RULES:
                measure = measured_rule(name, folder, train, seed)
                results[name].append(once(place / f"seed-{seed}.json", measure))
                continue
            config = BASE | {"hits.train": str(train)} | ROWS[name]
            config |= {"steps": options.steps} if options.steps else {}

            def measured(run: Run, seed: int = seed) -> Scores:
                return scored(run.trained(), folder, seed, [NOISE])[0]

            results[name].append(trained_row(place, config, seed, measured))
    print(table(results, COLUMNS))


if __name__ == "__main__":
    main()
