"""Which loss should `dense-imb train` take if none is named?

    DENSE_IMB_DATA=... python experiments/default_loss.py mouse      # 0.15 % foreground
    DENSE_IMB_DATA=... python experiments/default_loss.py cracks     # 1.6 %
    python experiments/default_loss.py hits                          # arcs, a network of hits
    python experiments/default_loss.py frames                        # arcs, a network of frames

The options are the defaults of `dense-imb train`, but for fewer steps and a small network. The
masks of the mouse are discs of 6 pixels about its snout. A quarter of the images is for tests.
Their average precision (AP) and their F1 at the threshold chosen on the validation images are in
the table; for hits the noise removed on validation events. Means and spreads of three seeds.

Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import Geometry
from dense_imb.runs import Run, train
from dense_imb.runs.read import config_from
from dense_imb.tasks.images.evaluate import MEAN, chosen_thresholds, evaluate_images
from dense_imb.tasks.images.recipe import open_test_images

LOSSES = {
    "cross-entropy": "CrossEntropyLoss",
    "balanced softmax": "BalancedSoftmaxLoss",
    "focal": "FocalLoss",
    "cross-entropy, balanced": "CrossEntropyLoss(balance={})",
    "cross-entropy + Dice": "CrossEntropyLoss + monai.losses:DiceLoss(sigmoid=True)",
}
OF_HITS = ("cross-entropy", "balanced softmax", "focal", "cross-entropy, balanced")
IMAGES = {"mouse": "mouse_keypoints", "cracks": "crackforest"}
RADIUS = 6  # of the discs, in pixels


def write_discs(folder: Path, out: Path) -> Path:
    """Write a mask with a disc about the snout for each frame of the mouse."""
    out.mkdir(parents=True, exist_ok=True)
    with (folder / "keypoints.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            with Image.open(folder / "images" / row["image"]) as image:
                width, height = image.size
            y, x = np.ogrid[:height, :width]
            mask = np.zeros((height, width), bool)
            if row["snout_x"]:
                there = float(row["snout_x"]), float(row["snout_y"])
                mask = (x - there[0]) ** 2 + (y - there[1]) ** 2 < RADIUS**2
            Image.fromarray(255 * mask.astype(np.uint8)).save(out / row["image"])
    return out


def images_config(task: str, root: Path, out: Path) -> dict[str, Any]:
    """Return the options of a run on images."""
    folder = root / IMAGES[task]
    masks = write_discs(folder, out / "discs") if task == "mouse" else folder / "masks"
    return {
        "images": {
            "train": str(folder / "images"),
            "masks": str(masks),
            "above": 127,
            "test_share": 0.25,
        },
        "model": {"options": {"widths": [8, 16, 32]}},
        "steps": 300,
        "batch_size": 8,
    }


def hits_config(task: str, folder: Path, n_events: int) -> dict[str, Any]:
    """Simulate arcs, and return the options of a run on them."""
    path = folder / "arcs.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_simulated(
            path, n_events, pattern="arc", seed=0, n_photons=600, geometry=Geometry(64, 44, 100)
        )
    return {
        "hits": {"train": str(path), "signal": 30, "noise": 100, "validation_events": 300},
        "model": {"name": "hits:small" if task == "hits" else "fast_unet"},
        "steps": 200,
    }


def of_images(run: Run) -> dict[str, float]:
    """Return the scores of a run on its test images."""
    test = open_test_images(run.config.images)
    table = evaluate_images([run.trained()], test, thresholds=[chosen_thresholds(run.scores())])
    row = next(row for row in table.rows if row["class"] == MEAN)
    return {"AP": float(row["average_precision"]), "F1": float(row["f1"])}


def of_hits(run: Run) -> dict[str, float]:
    """Return the noise removed on the validation events, in percent."""
    best: Mapping[str, float] = run.metrics["best"]
    removed = {f"removed at {r} %": 100 * best[f"removal_at_{r}"] for r in (97, 99)}
    return {**removed, "AUC": 100 * best["auc"]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*IMAGES, "hits", "frames"])
    parser.add_argument("--loss", nargs="+", help="some rows; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("runs/default_loss"))
    options = parser.parse_args(arguments)
    task, is_images = options.task, options.task in IMAGES
    if is_images:
        shared = images_config(task, Path(os.environ["DENSE_IMB_DATA"]), options.out)
    else:
        shared = hits_config(task, options.out, options.events)
    steps = options.steps or shared["steps"]
    for row, name in enumerate(options.loss or (LOSSES if is_images else OF_HITS)):
        scores = []
        for seed in options.seeds:
            folder = options.out / task / f"{name.replace(' ', '_')}-{seed}"
            config = config_from({**shared, "loss": LOSSES[name], "seed": seed, "steps": steps})
            run = train(config, folder, resume=True, is_quiet=True)
            scores.append(of_images(run) if is_images else of_hits(run))
        if row == 0:
            print("| loss |", " | ".join(scores[0]), "|")
            print("| --- |", " --- |" * len(scores[0]))
        cells = [[one[column] for one in scores] for column in scores[0]]
        texts = [f"{statistics.fmean(cell):.3f} +- {statistics.pstdev(cell):.3f}" for cell in cells]
        print(f"| {name} |", " | ".join(texts), "|", flush=True)


if __name__ == "__main__":
    main()
