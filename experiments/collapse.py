"""Collapse of an autoencoder to a blank output, with MSE, MAE and ACB-MSE on crosses.

    python experiments/collapse.py
    python experiments/collapse.py --size 128x88 --steps 3000 --events 20000     # full size

The claim that ACB-MSE was made for: an autoencoder that shall reconstruct a sparse pattern returns
a blank frame with MSE, and learns with ACB-MSE. Here the network is shown the hits of a cross (with
a few noise hits) and shall reproduce the gapped times of its target; the share of the frame that
the target fills is swept by the number of photons.

    lit       pixels above half the threshold r in the output, over those of the target; 0 is blank
    recall    share of the target's pixels that the output lights
    F1        of lit pixels

Each row and seed is kept in runs/collapse/ and not repeated.

Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dense_imb.base.files import write_whole
from dense_imb.data.events.simulated import write_simulated
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.engine import Loop, LoopSettings
from dense_imb.hits import Degradation, Geometry, open_hits
from dense_imb.losses import ACBMSELoss
from dense_imb.models import build_model
from dense_imb.tasks import FrameReading, FramesTask, HitsOptions, TrainingData

LOSSES = {"MSE": nn.MSELoss, "MAE": nn.L1Loss, "ACB-MSE": ACBMSELoss}
PHOTONS = (15, 1500)
N_SHOWN, N_NOISE, THRESHOLD = 15, 10, 0.5


def measured(task: FramesTask, validation: VirtualEvents) -> dict[str, float]:
    """Return the lit share, recall and F1 of the output over all validation frames."""
    task.network.eval()
    n_lit = n_target = n_both = n_pixels = 0
    held_out = FramesTask(
        task.network,
        nn.MSELoss(),
        TrainingData(validation, validation),
        task.reading,
        HitsOptions(target="pattern", pixels="frame"),
    )
    for start in range(0, len(validation), 50):
        numbers = np.arange(start, min(start + 50, len(validation)))
        batch = held_out.batch(numbers, 0, torch.device("cpu"))
        with torch.no_grad():
            is_lit = task.network(batch.shown) > THRESHOLD / 2
        is_target = batch.is_signal > 0
        n_lit += int(is_lit.sum())
        n_target += int(is_target.sum())
        n_both += int((is_lit & is_target).sum())
        n_pixels += is_lit.numel()
    return {
        "share": n_target / n_pixels,
        "lit": n_lit / n_target,
        "recall": n_both / n_target,
        "F1": 2 * n_both / (n_lit + n_target),
    }


def run(name: str, photons: int, seed: int, options: argparse.Namespace) -> dict[str, float]:
    stored = options.out / f"{name}-{photons}-{seed}.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    height, width = (int(n) for n in options.size.split("x"))
    path = options.out / f"crosses-{options.size}-{photons}-{options.events}.h5"
    if not path.exists():
        write_simulated(
            path, options.events, pattern="cross", seed=1, geometry=Geometry(width, height),
            n_photons=photons, progress=False,
        )  # fmt: skip
    source = open_hits(path)
    shown = Degradation(signal=N_SHOWN, noise=N_NOISE)
    cut = len(source) - options.events // 10
    train = VirtualEvents(source, shown, seed, count=cut)
    validation = VirtualEvents(source, shown, seed, first=cut)
    torch.manual_seed(seed)
    network = build_model("autoencoder", in_channels=1, out_channels=1, frame=(height, width))
    task = FramesTask(
        network,
        LOSSES[name](),
        TrainingData(train, validation),
        FrameReading(("gapped",), THRESHOLD, "value"),
        HitsOptions(target="pattern", pixels="frame"),
    )
    settings = LoopSettings(
        options.steps, batch_size=32, seed=seed, validate_every=options.steps, schedule="cosine"
    )
    start = time.process_time()
    Loop(task, torch.optim.AdamW(network.parameters(), 1e-3), settings).run()
    result = measured(task, validation) | {"cpu_seconds": time.process_time() - start}
    write_whole(stored, lambda partial: partial.write_text(json.dumps(result)))
    return result


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="64x44", help="height and width of the frames")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--photons", type=int, nargs="+", default=PHOTONS)
    parser.add_argument("--out", type=Path, default=Path("runs/collapse"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        "photons  share of frame  loss     seeds  lit           recall        F1            cpu s"
    )
    for photons in options.photons:
        for name in LOSSES:
            rows = [run(name, photons, seed, options) for seed in options.seeds]
            cells = []
            for key in ("lit", "recall", "F1"):
                values = [row[key] for row in rows]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.fmean(values):5.3f} +-{spread:5.3f}")
            share = f"{100 * rows[0]['share']:.2f} %"
            seconds = statistics.fmean(row["cpu_seconds"] for row in rows)
            print(
                f"{photons:7}  {share:>14}  {name:8} {len(rows):5}  {'  '.join(cells)}  "
                f"{seconds:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
