"""Real photons of a Cherenkov telescope: does a network of hits find the air shower?

    DENSE_IMB_DATA=... python experiments/hits/photons.py

The labels come from a clustering in x, y and t (DBSCAN); they are not the truth. A score tells how
well the network repeats this clustering on other events.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from rows import Scores, once, table, trained_row

from dense_imb.data.events.combine import split_hits
from dense_imb.hits import Events, Geometry, HitDensity, HitsWriter, evaluate, open_hits

SHARES = {"train": 0.6, "validation": 0.15, "test": 0.25}
BASE = {
    "model.name": "hits:base",
    "model.options": {"orders": ["time", "space-time", "space"]},
    "hits.augment": "mirror",
    "batch_size": 1,
    "steps": 300,
    "validate_every": 100_000,  # at the end only
}
ROWS = {
    "base": {},
    "base, weight decay 0.01": {"optimizer.weight_decay": 0.01},
    "base, windows in time only": {"model.options": {}},
}
COLUMNS = {
    "removal_at_95": "removed at 95 %",
    "removal_at_97": "at 97 %",
    "removal_at_99": "at 99 %",
    "retention_at_97": "kept at 97 %",
    "cpu": "CPU s",
}


def split(source: Path, folder: Path, seed: int) -> dict[str, Path]:
    """Write the split of a seed, that of experiments/photons."""
    paths = {name: folder / f"split-{seed}-{name}.h5" for name in SHARES}
    if all(path.exists() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as file:
        x, y, t, label = (file[f"photon/{name}"][:] for name in ("col", "row", "t", "label"))
        offset = file["event/offset"][:].astype(np.int64)
    events = Events(
        Geometry(45, 40, 100),
        offset,
        x.astype(np.uint16),
        y.astype(np.uint16),
        (t + 1).astype(np.float32),
        (label > 0).astype(np.uint8),
    )
    with HitsWriter(folder / "all.h5", events.geometry, overwrite=True) as writer:
        writer.append(events)
    with open_hits(folder / "all.h5") as hits:
        split_hits(hits, dict(zip(paths.values(), SHARES.values(), strict=True)), seed=seed)
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "hit density"], default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--out", type=Path, default=Path("runs/hits_photons"))
    options = parser.parse_args(arguments)
    source = Path(os.environ["DENSE_IMB_DATA"]) / "fact_photon_stream" / "events.h5"
    results: dict[str, list[Scores]] = {}
    for name in options.rows:
        results[name] = []
        for seed in options.seeds:  # each has a split of its own
            paths = split(source, options.out, seed)

            def scored(scorer: object, paths: dict[str, Path] = paths) -> Scores:
                with open_hits(paths["validation"]) as validation, open_hits(paths["test"]) as test:
                    result = evaluate([scorer], validation, test, batch_size=1)
                return {n: float(v) for n, v in result.rows[0].items() if n in COLUMNS}

            place = options.out / f"{name}-{options.steps}".replace(", ", "-").replace(" ", "-")
            if name == "hit density":
                rule = partial(scored, HitDensity())
                results[name].append(once(place / f"seed-{seed}.json", rule))
                continue
            config = BASE | ROWS[name] | {"steps": options.steps}
            config |= {f"hits.{part}": str(paths[part]) for part in ("train", "validation")}
            results[name].append(
                trained_row(place, config, seed, lambda run: scored(run.trained()))
            )
            print(name, seed, results[name][-1], flush=True)
    print(table(results, COLUMNS))


if __name__ == "__main__":
    main()
