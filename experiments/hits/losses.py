"""Does the loss matter once the network sees the hits?

    python experiments/hits/losses.py kinds                         # long-tailed kinds of patterns
    DENSE_IMB_DATA=... python experiments/hits/losses.py telescope  # KM3NeT, 4.3 % signal

All losses have the same network, steps and seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from pathlib import Path

import km3net
import torch
from rows import Scores, table, trained_row

from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import Degradation, evaluate, open_hits
from dense_imb.metrics import SegmentationScores
from dense_imb.runs import Run

KINDS = ("arc", "cross", "line", "v")
FREQUENCY = (100, 30, 10, 3)  # of training events; tests have as many of each
TWO_CLASSES = (
    "CrossEntropyLoss",
    "CrossEntropyLoss(balance={})",
    "FocalLoss",
    "HardMiningLoss(gamma=0.5)",
    "HardMiningLoss(gamma=0.5, balance={})",
    "BalancedSoftmaxLoss",
    "ACBMSELoss",
)
LOSSES = {
    "telescope": TWO_CLASSES,
    "kinds": (*TWO_CLASSES[:-1], "ComplementCrossEntropyLoss"),
}
CONFIG = {
    "telescope": km3net.BASE | {"model.name": "hits:small", "steps": 200},
    "kinds": {
        "hits.signal": 30,
        "hits.noise": 200,
        "hits.n_classes": 1 + len(KINDS),
        "hits.validation_events": 100,
        "model.name": "hits:small",
        "steps": 200,
        "validate_every": 100_000,  # at the end only
    },
}
REMOVAL = {f"removal_at_{r}": f"removed at {r} %" for r in (95, 97, 99)}
COLUMNS = {
    "telescope": REMOVAL | {"auc": "AUC"},
    "kinds": {
        "average_precision": "AP, mean of the kinds",
        "rare": "AP of the rarest kind",
        "recall": "recall of the most probable class, mean",
        "removal_at_97": "removed at 97 %",
    },
}


def simulated(folder: Path, scale: float) -> dict[str, Path]:
    """Write clean long-tailed training events, and noisy ones with as many of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.h5" for name in ("train", "validation", "test")}
    noisy = Degradation(signal=30, noise=200)
    for number, (name, path) in enumerate(paths.items()):
        if not path.exists():
            is_train = name == "train"
            write_simulated(
                path,
                max(int((3000 if is_train else 600) * scale), 40),
                pattern=KINDS,
                frequency=FREQUENCY if is_train else None,
                seed=number,
                n_photons=600,
                degradation=None if is_train else noisy,
                progress=False,
            )
    return paths


def of_classes(run: Run, path: Path) -> Scores:
    """Return scores of the classes on events with as many of each kind."""
    network = run.trained()
    scores = SegmentationScores(1 + len(KINDS))
    with open_hits(path) as file:
        for start in range(0, len(file), 16):
            events = file[start : start + 16].torch()
            logits = network.reading.probability(network.network, events).log().detach()
            scores.update(logits.T[None], events.label.long()[None])
    precision = scores.average_precision()[1:]
    return {
        "average_precision": statistics.fmean(precision),
        "rare": precision[-1],
        "recall": statistics.fmean(value for value in scores.recall() if not math.isnan(value)),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=LOSSES)
    parser.add_argument("--loss", nargs="+", help="some losses; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of events")
    parser.add_argument("--out", type=Path, default=Path("runs/hits_losses"))
    options = parser.parse_args(arguments)
    task, folder = options.task, options.out / options.task
    if task == "telescope":
        source = Path(os.environ["DENSE_IMB_DATA"]) / "km3net_muons" / "events.h5"
        paths = km3net.convert(source, folder)
    else:
        paths = simulated(folder, options.scale)

    def measure(run: Run) -> Scores:
        with open_hits(paths["validation"]) as validation, open_hits(paths["test"]) as test:
            size = 1 if task == "telescope" else 16
            row = evaluate([run.trained()], validation, test, batch_size=size).rows[0]
        scores = {name: float(row[name]) for name in (*REMOVAL, "auc")}
        return scores if task == "telescope" else scores | of_classes(run, paths["test"])

    results: dict[str, list[Scores]] = {}
    for loss in options.loss or LOSSES[task]:
        config = CONFIG[task] | {"loss": loss, "hits.train": str(paths["train"])}
        if task == "telescope":
            config |= {"hits.validation": str(paths["validation"])}
        config |= {"steps": options.steps} if options.steps else {}
        place = folder / "".join(c for c in loss if c.isalnum()) / str(config["steps"])
        results[loss] = [trained_row(place, config, seed, measure) for seed in options.seeds]
        print(table({loss: results[loss]}, COLUMNS[task], "loss").splitlines()[-1], flush=True)
    print(table(results, COLUMNS[task], "loss"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
