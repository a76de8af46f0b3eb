"""Contest of losses on maps of values, scored as trained and after a read-out.

All losses of a seed start from the same weights and get the same batches. One training is scored
after several numbers of steps, so the learning rate falls as 1 / sqrt(steps), without an end.

    MSE, MAE                 mean over all pixels
    weighted MSE w           a pixel counts by 1 + w target; w is tuned with the first seed
    ACB-MSE                  empty and other pixels count the same
    value bins               bins of the target count the same
    value bins, power 1/2    a bin counts by the root of its pixels
    Balanced MSE             relative to the other targets of a sample of 1,024 pixels

Validation maps alone choose the weight, the read-out and the level above which it is lit.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from paired_runs import Runs, Score, best, gains, place, read_runs, spread, stored, values
from torch import Tensor, nn

from dense_imb.losses import ACBMSELoss, BalancedMSELoss, BalancedRegressionLoss, ValueBins
from dense_imb.metrics import ReadOut, ReadOutTally
from dense_imb.models.fast_unet import FastUNet

TUNED, WEIGHTS = "weighted MSE", (10, 100, 1000)
LEARNING_RATE, WARM_UP, FALL = 0.004, 50, 250  # the rate falls after step FALL
NOISE_SIGMA, N_SAMPLES = 0.1, 1024  # of Balanced MSE


class WeightedMSE(nn.Module):
    """Mean of (1 + weight target) (prediction - target)^2."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((1 + self.weight * target) * (prediction - target).square()).mean()


def _bins(edges: Sequence[float], power: float) -> nn.Module:
    return BalancedRegressionLoss("mse", ValueBins(edges, power=power))


# each is made from the edges of value bins
LOSSES: dict[str, Callable[[Sequence[float]], nn.Module]] = {
    "MSE": lambda edges: nn.MSELoss(),
    "MAE": lambda edges: nn.L1Loss(),
    **{f"{TUNED} {weight}": lambda edges, w=weight: WeightedMSE(w) for weight in WEIGHTS},
    "ACB-MSE": lambda edges: ACBMSELoss(),
    "value bins": lambda edges: _bins(edges, 1.0),
    "value bins, power 1/2": lambda edges: _bins(edges, 0.5),
    "Balanced MSE": lambda edges: BalancedMSELoss(NOISE_SIGMA, N_SAMPLES),
}
TRIED = tuple(name for name in LOSSES if name.startswith(TUNED))
RIVALS = ("MSE", "MAE", *TRIED)
CONTESTANTS = tuple(name for name in LOSSES if name not in RIVALS)


class QuickNet(nn.Module):
    """Dilated convolutions at 1/4 of the resolution; a step takes a third of a U-Net's time."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16 * in_channels, width, 3, padding=1)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(width // 8, width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            )
            for dilation in (1, 2, 4, 8)
        )  # fmt: skip
        self.leave = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, 16 * out_channels, 3, padding=1), nn.PixelShuffle(4)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.enter(image)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.leave(x)
        return out


@dataclass(frozen=True)
class Size:
    """Size of a contest.

    Args:
        steps: numbers of steps after which a training is scored.
        batch_size: images in a batch.
        width: channels of the quick network; 0 takes a U-Net of the library.
        n_validation, n_test: numbers of simulated images.
    """

    steps: tuple[int, ...]
    batch_size: int
    width: int
    n_validation: int
    n_test: int

    def network(self, in_channels: int, out_channels: int) -> nn.Module:
        if self.width:
            return QuickNet(in_channels, out_channels, self.width)
        return FastUNet(in_channels, out_channels, widths=(16, 32, 64, 128))


class Maps(NamedTuple):
    """Images (N, C, H, W), their target maps, and what other scores need."""

    image: Tensor
    target: Tensor
    points: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """One difficulty of an experiment.

    Args:
        name: folder of its runs.
        title: head of its tables.
        level: value above which a pixel is lit.
        edges: edges of value bins.
        losses: losses that compete.
        score: main score, by which the weight is tuned.
        batch: draws a batch of images and targets.
        validation, test: maps for choices and for scores.
        extra: more scores, from outputs, maps, the read-out and its level.
    """

    name: str
    title: str
    level: float
    edges: tuple[float, ...]
    losses: tuple[str, ...]
    score: Score
    batch: Callable[[np.random.Generator, int], tuple[Tensor, Tensor]]
    validation: Maps
    test: Maps
    extra: Callable[[Tensor, Maps], dict[str, float]] = field(default=lambda output, maps: {})

    @property
    def share(self) -> float:
        """Fraction of the test pixels above the level."""
        return float((self.test.target > self.level).float().mean())


def train(
    task: Task, name: str, size: Size, seed: int, device: str = "cpu"
) -> Iterator[tuple[int, nn.Module]]:
    """Train a network with a loss; yield it after each number of steps of the size."""
    torch.manual_seed(seed)
    image, target = task.validation.image, task.validation.target
    network = size.network(image.shape[1], target.shape[1]).to(device)
    loss, rng = LOSSES[name](task.edges).to(device), np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, fused=True)
    for step in range(1, max(size.steps) + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(step / WARM_UP, math.sqrt(FALL / step), 1.0)
        shown, wanted = (one.to(device) for one in task.batch(rng, size.batch_size))
        optimizer.zero_grad()
        loss(network(shown), wanted).backward()
        optimizer.step()
        if step in size.steps:
            yield step, network.eval()
            network.train()


@torch.no_grad()
def outputs(network: nn.Module, maps: Maps) -> Tensor:
    """Return the output maps, (N, C, H, W)."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).float().cpu() for part in maps.image.split(8)])


def read_out(output: Tensor, target: Tensor, level: float) -> tuple[ReadOut, float]:
    """Fit the read-out, one for all channels, and its level that lights as many pixels."""
    tally = ReadOutTally(output.shape[1], level=level, shared=True)
    tally.update(output, target)
    fitted = ReadOut.fit(tally)
    return fitted, fitted.effect[0].matched_level


def lit_scores(output: Tensor, target: Tensor, lit_level: float, level: float) -> dict[str, float]:
    """Return the scores of lit pixels, and the error of the map over that of a blank one.

    Args:
        output, target: maps (N, C, H, W).
        lit_level: level of the output.
        level: level of the target.
    """
    is_lit, is_target = output > lit_level, target > level
    n_lit, n_target, n_both = (int(one.sum()) for one in (is_lit, is_target, is_lit & is_target))
    with_target = is_target.flatten(1).any(1)
    return {
        "blank": float((~is_lit.flatten(1).any(1))[with_target].float().mean()),
        "lit": n_lit / n_target,
        "F1": 2 * n_both / (n_lit + n_target),
        "rmse": float(((output - target).square().mean() / target.square().mean()).sqrt()),
    }


def judge(
    task: Task, output: Tensor, maps: Maps, fitted: ReadOut, matched: float
) -> dict[str, float | None]:
    """Return the scores as trained, named "raw ...", and after the read-out."""
    after = fitted.apply(output)
    raw = lit_scores(output, maps.target, task.level, task.level)
    scores = {f"raw {name}": one for name, one in raw.items()}
    scores |= lit_scores(after, maps.target, matched, task.level)
    # a read-out keeps the order of the pixels, but makes plateaus: positions are those as trained
    scores |= task.extra(output, maps)
    return {name: None if math.isnan(one) else one for name, one in scores.items()}


def run(task: Task, name: str, size: Size, seed: int, device: str = "cpu") -> dict[str, Any]:
    """Train a loss and return its scores after each number of steps."""
    row: dict[str, Any] = {"loss": name, "seed": seed, "task": task.name, "share": task.share}
    start, points = time.process_time(), {}
    for steps, network in train(task, name, size, seed, device):
        output = outputs(network, task.validation)
        fitted, matched = read_out(output, task.validation.target, task.level)
        points[str(steps)] = {
            "level": matched,
            "chosen": judge(task, output, task.validation, fitted, matched),
            "scores": judge(task, outputs(network, task.test), task.test, fitted, matched),
        }
    return row | {"train_seconds": time.process_time() - start, "points": points}


def run_all(
    task: Task, size: Size, out: Path, seeds: Sequence[int], losses: Sequence[str], device: str
) -> Iterator[str]:
    """Train every loss unless its file is there; yield a line about each run."""
    for seed in seeds:
        for name in losses or of_seed(task, out, seed):
            path = place(out / task.name, name, seed)
            row = stored(path, lambda n=name, s=seed: run(task, n, size, s, device))
            last = max(row["points"], key=int)
            scores = row["points"][last]["scores"]
            text = ", ".join(f"{key} {_text(scores[key])}" for key in ("raw lit", "lit"))
            yield (
                f"{task.title}, seed {seed}, {name}: {text}, {task.score.name} "
                f"{_text(scores[task.score.name])} after {last} steps, {row['train_seconds']:.0f} s"
            )


def of_seed(task: Task, out: Path, seed: int) -> list[str]:
    """Return the losses of a seed: all of the first, then the best of the tried weights alone."""
    chosen = tuned(task, read_runs(out / task.name, TRIED)) if seed else None
    return [name for name in task.losses if chosen is None or name not in TRIED or name == chosen]


def tuned(task: Task, runs: Runs) -> str | None:
    """Return the weight with the best validation score of seed 0, averaged over the steps."""
    first = {name: row[0] for name, row in runs.items() if name in TRIED and 0 in row}
    if len(first) < len(TRIED):
        return None
    rows: Runs = {}
    for name, row in first.items():
        found = [point["chosen"][task.score.name] for point in row["points"].values()]
        mean = math.nan if None in found else sum(found) / len(found)
        rows[name] = {0: row | {"chosen": {task.score.name: mean}}}
    return best(rows, rows, task.score)


def after(runs: Runs, steps: str) -> Runs:
    """Return the runs that are scored after these steps, with their scores there."""
    scored = {
        name: {seed: row | row["points"][steps] for seed, row in by_seed.items()
               if steps in row["points"]}
        for name, by_seed in runs.items()
    }  # fmt: skip
    return {name: by_seed for name, by_seed in scored.items() if by_seed}


def tables(tasks: Sequence[Task], out: Path, columns: dict[str, str]) -> str:
    """Return a table of each task, and the gains over the best rival after each number of steps.

    Args:
        tasks: tasks with runs in the folder.
        out: folder of the runs.
        columns: head of each column by the name of its score.
    """
    parts = []
    for task in tasks:
        runs = read_runs(out / task.name, LOSSES)
        if not runs:
            continue
        chosen = tuned(task, runs)
        kept = {name: row for name, row in runs.items() if name not in TRIED or name == chosen}
        parts.append(f"{task.title}; {TUNED} tuned to {chosen or 'nothing yet'}")
        heads = ["steps", "loss", *columns.values()]
        lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
        numbers = sorted({n for by in kept.values() for row in by.values() for n in row["points"]},
                         key=int)  # fmt: skip
        for steps in numbers:
            for name, by_seed in after(kept, steps).items():
                cells = [spread(values(by_seed, column), 3) for column in columns]
                lines.append(f"| {steps} | {name} ({len(by_seed)}) | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
        for steps in numbers:
            text = gains(after(kept, steps), CONTESTANTS, RIVALS, (task.score,))
            parts.append(f"after {steps} steps\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def parser_of(text: str, tasks: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of an experiment.

    Args:
        text: docstring of the experiment.
        tasks: names that --tasks takes.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=[*tasks], metavar="TASK")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=[], metavar="LOSS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", help="steps after which to score")
    parser.add_argument("--data", type=Path, help="folder of the data, DENSE_IMB_DATA by default")
    parser.add_argument("--full", action="store_true", help="the full size, for a GPU")
    parser.add_argument("--device", default="cpu", help="device that trains, cpu by default")
    parser.add_argument("--tables", action="store_true", help="print the tables of finished runs")
    return parser


def run_tasks(tasks: Sequence[tuple[Task, Size]], options: argparse.Namespace) -> None:
    """Run all losses and seeds; the first seed of every task comes before the second of any."""
    for seed in options.seeds:
        for task, size in tasks:
            lines = run_all(task, size, options.out, [seed], options.losses, options.device)
            for line in lines:
                print(line, file=sys.stderr, flush=True)


def summary(tasks: Sequence[Task], out: Path) -> dict[str, Any]:
    """Return the scores of each task, loss and number of steps, a number a seed; for a figure."""
    numbers: dict[str, Any] = {}
    for task in tasks:
        runs = read_runs(out / task.name, LOSSES)
        chosen = tuned(task, runs)
        kept = {name: row for name, row in runs.items() if name not in TRIED or name == chosen}
        rows: dict[str, Any] = {}
        for name, by_seed in kept.items():
            label = TUNED if name in TRIED else name
            for seed in sorted(by_seed):
                for steps, point in by_seed[seed]["points"].items():
                    scores = rows.setdefault(label, {}).setdefault(steps, {})
                    for key, value in point["scores"].items():
                        scores.setdefault(key, []).append(value)
        if rows:
            numbers[task.name] = {"share": task.share, "tuned": chosen, "losses": rows}
    return numbers
