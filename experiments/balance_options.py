"""Does each option of a loss help where it should: power, count_power, spread, Linear?

    DENSE_IMB_DATA=... OMP_NUM_THREADS=1 python experiments/balance_options.py runs/balance_options
    python experiments/balance_options.py OUT --tasks rare faint   # needs no data
    python experiments/balance_options.py OUT --tasks   # tables of the finished runs

An option competes with the same loss without it: same first weights, batches and steps. A run is a
JSON file in OUT, so a stopped comparison continues. Thresholds are those of validation images.

    task      images                                         options
    rare      four kinds of objects, 60 to 5 % of them       count_power, power
    longer    the same, four times as many steps             count_power, power
    faint     four kinds, one with half of the contrast      power
    easy      discs on 2 % of the pixels                     Hardest
    flipped   discs, 5 % of the training labels flipped      Hardest, WorstNeighbour
    shifted   discs, training labels moved by up to 1 pixel  WorstNeighbour
    lines     textures with a faint crooked line             Linear, WorstNeighbour, Hardest
    cracks    CrackForest, from DENSE_IMB_DATA               Linear, WorstNeighbour, Hardest

Scores: AP is the average precision. F1 is at the threshold of best F1. "skeleton" is the fraction
of the skeleton that is detected at precision 1/2. clDice compares skeletons, at the threshold of
best clDice. "likeliest" takes the likeliest class, without a threshold. p-values are those of
t-tests paired by seed, with Holm's correction for the tests of an option in a task.

The answer is in experiments/README.md. For a GPU, not measured: add --full --device cuda.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from option_images import Data, Sample, skeletons
from option_tasks import LOSSES, TASKS, Pair, Task, WithRecall
from scipy import stats
from thin_structures import crops
from torch import Tensor

from dense_imb.base.files import write_whole
from dense_imb.compare.table import holm
from dense_imb.engine.schedule import rate_factor
from dense_imb.metrics import ScoreHistogram, SegmentationScores
from dense_imb.models.fast_unet import FastUNet

LEARNING_RATE = 0.006
CALLED = (0.5, 0.7, 1.0, 1.4, 2.0)  # called pixels per true pixel, thresholds of clDice


@dataclass(frozen=True)
class Size:
    """Size of the experiment: channels of each level, and steps as multiples of a task's."""

    widths: tuple[int, ...]
    steps: float


SMALL = Size((8, 16, 32), 1)
FULL = Size((32, 64, 128, 256), 20)


def train(name: str, task: Task, data: Data, size: Size, seed: int, device: str) -> FastUNet:
    """Train the network; all losses of a seed start alike and get the same batches."""
    torch.manual_seed(seed)
    labels = torch.cat([label.reshape(-1) for _, label, _ in data.training])
    counts = torch.bincount(labels).tolist()
    n_channels = len(counts) if len(counts) > 2 else 1
    network = FastUNet(1, n_channels, widths=size.widths).to(device)
    loss = LOSSES[name](counts).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    rng = torch.Generator().manual_seed(seed)
    n_steps = max(int(size.steps * task.steps), 1)
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_factor("one-cycle", step / n_steps)
        batch = crops(data.training, task.batch_size, rng, task.side)
        axes = [-1 - k for k in range(2) if torch.rand((), generator=rng) < 0.5]
        image, target, skeleton = (one.flip(axes).to(device) for one in batch)
        optimizer.zero_grad()
        extra = (skeleton,) if isinstance(loss, WithRecall) else ()
        loss(network(image), target, *extra).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def logits_of(network: FastUNet, samples: Sequence[Sample]) -> Tensor:
    """Return the logits (N, C, H, W)."""
    device = next(network.parameters()).device
    parts = torch.stack([image for image, _, _ in samples]).split(8)
    return torch.cat([network(part.to(device)).cpu() for part in parts])


class Scored:
    """Logits of labelled images, and what is counted of them."""

    def __init__(self, network: FastUNet, samples: Sequence[Sample]) -> None:
        self.logits = logits_of(network, samples)
        self.label, self.skeleton = (torch.stack([one[k] for one in samples]) for k in (1, 2))
        self.scores = SegmentationScores(max(self.logits.shape[1], 2))
        self.scores.update(self.logits, self.label)

    def cl_dice(self, threshold: float) -> float:
        """Return the harmonic mean of the skeletons' precision and recall (Shit et al. 2021)."""
        called, label = (self.logits >= threshold)[:, 0].numpy(), self.label[:, 0].numpy() > 0
        thin, skeleton = skeletons(called), self.skeleton[:, 0].numpy()
        precision = (thin & label).sum() / max(thin.sum(), 1)
        recall = (skeleton & called).sum() / max(skeleton.sum(), 1)
        return float(2 * precision * recall / max(precision + recall, 1e-9))

    def skeleton_recall(self, threshold: float) -> float:
        """Return the fraction of the skeletons that is detected."""
        return float((self.logits >= threshold)[self.skeleton].double().mean())


def scores_of_kinds(validation: Scored, test: Scored) -> dict[str, float]:
    """Return means over the foreground classes, and scores of the worst and the rarest."""
    f1 = []
    limits = [threshold for _, threshold in validation.scores.best_f1()]
    for histogram, limit in zip(test.scores.histograms[1:], limits[1:], strict=True):
        point = histogram.at(limit)
        f1.append(_f1(point.purity, point.retention))
    precision = test.scores.average_precision()[1:]
    return {
        "AP": statistics.fmean(precision),
        "worst AP": min(precision),
        "rarest AP": precision[-1],
        "F1": statistics.fmean(f1),
        "F1 likeliest": statistics.fmean(test.scores.dice()[1:]),
        "worst recall": min(test.scores.recall()),
        "rarest recall": test.scores.recall()[-1],
    }


def scores_of_foreground(validation: Scored, test: Scored, is_thin: bool) -> dict[str, float]:
    """Return the scores of one foreground class; see the module."""
    known = validation.scores.histograms[1]
    point = test.scores.histograms[1].at(known.best_f1()[1])
    row = {
        "AP": test.scores.average_precision()[1],
        "F1": _f1(point.purity, point.retention),
    }
    if is_thin:
        row["skeleton"] = test.skeleton_recall(_threshold_at_half(known))
        share = float((validation.label > 0).double().mean())
        logits = validation.logits.numpy()
        limits = [float(np.quantile(logits, max(1 - k * share, 0))) for k in CALLED]
        row["clDice"] = test.cl_dice(max(limits, key=validation.cl_dice))
    return row


def _threshold_at_half(histogram: ScoreHistogram) -> float:
    """Return the threshold of most recall with a precision of at least 1/2."""
    curve = histogram.curve()
    is_good = curve.purity >= 0.5  # False where nothing is kept
    best = torch.where(is_good, curve.retention, -1.0).argmax()
    return float(curve.threshold[best] if is_good.any() else torch.inf)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def run(name: str, key: str, data: Data, size: Size, seed: int, device: str) -> dict[str, Any]:
    """Train and score a loss."""
    network = train(name, TASKS[key], data, size, seed, device)
    validation, test = Scored(network, data.validation), Scored(network, data.test)
    if test.logits.shape[1] > 1:
        scores = scores_of_kinds(validation, test)
    else:
        scores = scores_of_foreground(validation, test, TASKS[key].is_thin())
    return {"loss": name, "seed": seed, "scores": scores}


Runs = dict[str, dict[int, dict[str, float]]]  # scores by loss and seed


def finished(folder: Path) -> Runs:
    """Read the runs of a task."""
    runs: Runs = {}
    for path in sorted(folder.glob("*.json")):
        row = json.loads(path.read_text())
        runs.setdefault(row["loss"], {})[row["seed"]] = row["scores"]
    return {name: runs[name] for name in LOSSES if name in runs}


def table(key: str, runs: Runs) -> str:
    """Return the scores of all losses of a task; +- is the standard deviation over seeds."""
    columns = list(next(iter(next(iter(runs.values())).values())))
    lines = [f"| {key} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name, by_seed in runs.items():
        cells = []
        for column in columns:
            values = [scores[column] for scores in by_seed.values()]
            spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}")
        lines.append(f"| {name} ({len(by_seed)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def gains(runs: dict[str, Runs]) -> str:
    """Return the table of all gains, the options one after the other."""
    lines = ["| option | task | with, without | gain, p |", "| --- " * 4 + "|"]
    for option in ("power", "count_power", "Hardest", "WorstNeighbour", "Linear"):
        for key in (key for key in TASKS if key in runs):
            known = [
                pair
                for pair in TASKS[key].pairs
                if pair.option == option and {pair.one, pair.other} <= runs[key].keys()
            ]
            lines += [f"| {option} | {key} | {row} |" for row in _gains(known, runs[key])]
    return "\n".join(lines)


def _gains(pairs: Sequence[Pair], runs: Runs) -> list[str]:
    """Return the cells of the gains of an option in a task, whose p-values are corrected."""
    tests = [
        (pair, score, *difference(runs[pair.one], runs[pair.other], score))
        for pair in pairs
        for score in pair.scores
    ]
    corrected = holm([p for *_, p in tests])
    rows = []
    for pair in pairs:
        cells = [
            f"{score} {gain:+.3f}, {_p(p)}"
            for (own, score, gain, _), p in zip(tests, corrected, strict=True)
            if own == pair
        ]
        rows.append(f"{pair.one}, {pair.other} | {'; '.join(cells)}")
    return rows


def difference(
    one: dict[int, dict[str, float]], other: dict[int, dict[str, float]], score: str
) -> tuple[float, float]:
    """Return the mean difference over the common seeds, and the p-value of a paired t-test."""
    change = [one[seed][score] - other[seed][score] for seed in one if seed in other]
    if len(change) < 2 or len(set(change)) == 1:
        return statistics.fmean(change) if change else np.nan, np.nan
    return statistics.fmean(change), float(stats.ttest_1samp(change, 0.0).pvalue)


def _p(p: float) -> str:
    return "-" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=[*TASKS], metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--full", action="store_true", help="wider network, 20 times the steps")
    parser.add_argument("--device", default="cpu", help="device that trains, cpu by default")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str], size: Size | None = None) -> None:
    options = parsed(arguments)
    size = size or (FULL if options.full else SMALL)
    for key in options.tasks:
        for seed in options.seeds:
            names = TASKS[key].losses()
            places = {
                name: options.out / key / f"{name.replace(' ', '-').replace('/', 'of')}-{seed}.json"
                for name in names
            }
            missing = [name for name in names if not places[name].exists()]
            data = TASKS[key].data(seed) if missing else None
            for name in missing:
                assert data is not None
                row = run(name, key, data, size, seed, options.device)
                places[name].parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(row)
                write_whole(places[name], lambda to, text=text: to.write_text(text))
                print(f"{key}, seed {seed}, {name}: {row['scores']}", file=sys.stderr, flush=True)
    runs = {key: finished(options.out / key) for key in TASKS}
    runs = {key: of_task for key, of_task in runs.items() if of_task}
    for key, of_task in runs.items():
        print(f"\n{table(key, of_task)}")
    print(f"\n{gains(runs)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
