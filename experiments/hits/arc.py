"""Reference task: how much noise do networks of hits remove, and after how many seconds?

python experiments/hits/arc.py
python experiments/hits/arc.py --rows tiny --seeds 0
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
PARTS = {"train": (4000, 100), "chosen_on": (1000, 103), "test": (1000, 102)}  # events, seed
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
    "base": {"model.name": "hits:base"},
    "tiny, weight decay 0.1": {"model.name": "hits:tiny", "optimizer.weight_decay": 0.1},
    "tiny, weight decay 0.3": {"model.name": "hits:tiny", "optimizer.weight_decay": 0.3},
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


def simulated(folder: Path, scale: float = 1.0) -> dict[str, Path]:
    """Write clean patterns to learn from, to choose thresholds on and to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.h5" for name in PARTS}
    for name, (events, seed) in PARTS.items():
        if not paths[name].exists():
            count = max(int(events * scale), 10)
            write_simulated(paths[name], count, pattern="arc", seed=seed, progress=False)
    return paths


def scored(scorer: Any, paths: dict[str, Path], seed: int, levels: list[int]) -> list[Scores]:
    """Return scores at each number of noise hits; thresholds come from other events."""
    with open_hits(paths["chosen_on"]) as validation, open_hits(paths["test"]) as test:
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


def measured_rule(name: str, paths: dict[str, Path], seed: int) -> Callable[[], Scores]:
    def measure() -> Scores:
        start = time.process_time()
        scorer = rule(name, paths["train"], seed)
        cpu = time.process_time() - start
        return {**scored(scorer, paths, seed, [NOISE])[0], "cpu": cpu}

    return measure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*ROWS, *RULES]
    parser.add_argument("--rows", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of events")
    parser.add_argument("--out", type=Path, default=Path("runs/hits_arc"))
    options = parser.parse_args(arguments)
    paths = simulated(options.out, options.scale)
    results: dict[str, list[Scores]] = {}
    for name in options.rows:
        results[name] = []
        for seed in options.seeds:
            place = options.out / f"{name}-{options.steps}".replace(", ", "-").replace(" ", "-")
            if name in RULES:
                measure = measured_rule(name, paths, seed)
                results[name].append(once(place / f"seed-{seed}.json", measure))
                continue
            config = BASE | {"hits.train": str(paths["train"]), "steps": options.steps} | ROWS[name]

            def measured(run: Run, seed: int = seed) -> Scores:
                return scored(run.trained(), paths, seed, [NOISE])[0]

            results[name].append(trained_row(place, config, seed, measured))
    print(table(results, COLUMNS))


if __name__ == "__main__":
    main()
