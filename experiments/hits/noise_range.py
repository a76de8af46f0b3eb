"""One network for 100 to 2,500 noise hits: how much does it remove at each amount?

    python experiments/hits/noise_range.py

The answer is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from arc import SIGNAL, scored, simulated
from rows import Scores, mean_and_spread, trained_row

from dense_imb.runs import Run

LEVELS = [100, 200, 500, 1000, 2000]
CONFIG = {
    "hits.signal": SIGNAL,
    "hits.noise": [100, 2500],
    "hits.validation_events": 100,
    "model.name": "hits:small",
    "batch_size": 8,
    "steps": 1200,
    "validate_every": 100_000,  # at the end only
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=CONFIG["steps"])
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of events")
    parser.add_argument("--out", type=Path, default=Path("runs/hits_arc"))
    options = parser.parse_args(arguments)
    train, _, _ = (
        simulated(options.out, part, options.scale) for part in ("train", "chosen_on", "test")
    )
    config = CONFIG | {"hits.train": str(train), "steps": options.steps}

    def measure(run: Run, seed: int) -> Scores:
        rows = scored(run.trained(), options.out, seed, LEVELS)
        return {
            f"{name} {level}": row[f"removal_at_{name}"]
            for level, row in zip(LEVELS, rows, strict=True)
            for name in ("97", "99")
        }

    place = options.out / f"range-{options.steps}"
    seeds = [
        trained_row(place, config, seed, lambda run, seed=seed: measure(run, seed))
        for seed in options.seeds
    ]
    print("| noise hits | removed at 97 % | at 99 % |\n| --- | --- | --- |")
    for level in LEVELS:
        cells = (
            mean_and_spread([s[f"{name} {level}"] for s in seeds], 100) for name in ("97", "99")
        )
        print(f"| {level} | {' | '.join(cells)} |")
    print(f"{statistics.fmean(scores['cpu'] for scores in seeds):.0f} CPU s of training")


if __name__ == "__main__":
    main()
