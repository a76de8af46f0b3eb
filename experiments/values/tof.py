"""Does ACB-MSE recover the full pattern of sparse noisy time-of-flight frames better than MSE?

    OMP_NUM_THREADS=1 python experiments/values/tof.py runs/tof
    ... tof.py runs/tof_full --full --device cuda --seeds 0 1 2 3 4        # full size, not measured

The task that ACB-MSE was made for. An arc of 1,500 photons is shown as 30 of its hits among 50
noise hits, on frames of 64 x 44 (full size: 200 noise hits on 128 x 88, the same density); the
network shall return the gapped times of all its pixels, 0 elsewhere. An autoencoder with a
bottleneck and a U-Net are trained with each loss, from the same weights, on the same frames, with
equal steps.

    MSE, MAE         mean over all pixels
    weighted MSE     pixels of the pattern count w times; w is tuned for F1 and for time (seed 0)
    ACB-MSE          empty pixels and pixels of the pattern count the same
    value bins MSE   empty pixels and four bins of time count the same; "power 1/2" is in between

Validation frames choose weight, threshold (best F1) and read-outs; other frames are scored. A
read-out is monotone, so at a tuned threshold the pixels are the same before and after.

    F1, recovered, false     at the threshold; false pixels for each pixel of the pattern
    lit / target             pixels above half the smallest value of a hit, as trained and after
    RMSE                     of the map, as trained and after the read-out
    time error               mean over all pixels of the pattern, in time steps of 1,000; after the
                             read-out that is fitted on the pattern's pixels of validation frames
    time error, recovered    the same over recovered pixels alone

Every run is one JSON file; finished ones are kept. Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from paired_runs import (
    Score,
    describe_tuning,
    gains,
    parser_of,
    place,
    read_runs,
    stored,
    table,
    tuned,
)
from torch import Tensor, nn

from dense_imb.engine.schedule import rate_factor
from dense_imb.hits import Degradation, Events, Geometry, degrade, encode, simulate
from dense_imb.losses import ACBMSELoss, BalancedRegressionLoss, ValueBins
from dense_imb.metrics import ReadOut, ReadOutTally
from dense_imb.models import Autoencoder, FastUNet

THRESHOLD = 0.5  # of gapped times: hits have values from 0.5 to 1
LEVEL = THRESHOLD / 2
TIME_STEPS = 1000
EDGES = (LEVEL, 0.625, 0.75, 0.875)
WEIGHTS = (4, 16, 64, 256)  # tried for the weighted MSE
TUNED = "weighted MSE"
NETWORKS = ("autoencoder", "U-Net")
N_SHOWN = 30
SCORES = (Score("F1", True), Score("time_error", False))
SIMULATED, DEGRADED = 1, 2  # seeds


class WeightedMSE(nn.Module):
    """Mean squared error in which pixels of the pattern count `weight` times."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        weights = torch.where(target > 0, self.weight, 1.0)
        return (weights * (prediction - target).square()).sum() / weights.sum()


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "MSE": nn.MSELoss,
    "MAE": nn.L1Loss,
    **{f"{TUNED} {weight}": lambda w=weight: WeightedMSE(w) for weight in WEIGHTS},
    "ACB-MSE": ACBMSELoss,
    "value bins MSE": lambda: BalancedRegressionLoss("mse", ValueBins(EDGES)),
    "value bins MSE, power 1/2": lambda: BalancedRegressionLoss("mse", ValueBins(EDGES, power=0.5)),
}
TRIED = tuple(name for name in LOSSES if name.startswith(TUNED))
RIVALS = ("MSE", "MAE", *TRIED)
CONTESTANTS = tuple(name for name in LOSSES if name not in RIVALS)


class Training(NamedTuple):
    """Length of a training; all losses of a network share it."""

    steps: int
    batch_size: int
    rate: float


@dataclass(frozen=True)
class Size:
    """Frames, numbers of events and of noise hits, networks, and their training."""

    height: int
    width: int
    noise: int
    n_train: int
    n_validation: int
    n_test: int
    autoencoder_width: int  # channels of the autoencoder
    widths: tuple[int, ...]  # channels of the U-Net
    training: dict[str, Training]

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.width, self.height, TIME_STEPS)

    def network(self, name: str) -> nn.Module:
        if name == "autoencoder":
            frame = (self.height, self.width)
            return Autoencoder(1, 1, frame=frame, width=self.autoencoder_width)
        return FastUNet(1, 1, widths=self.widths)


SMALL = Size(
    64, 44, 50, 4000, 400, 400, 8, (16, 32, 64, 96),
    {"autoencoder": Training(800, 16, 0.003), "U-Net": Training(800, 8, 0.004)},
)  # fmt: skip
FULL = Size(
    128, 88, 200, 30_000, 2000, 2000, 16, (24, 32, 64, 128, 192),
    {"autoencoder": Training(20_000, 32, 0.001), "U-Net": Training(20_000, 16, 0.004)},
)  # fmt: skip


@dataclass(frozen=True)
class Frames:
    """Clean events, and the numbers under which their degradation is drawn."""

    events: Events
    number: NDArray[np.int64]
    shown: Degradation

    @classmethod
    def simulated(cls, size: Size, first: int, n: int) -> Frames:
        events = simulate("arc", n, SIMULATED, size.geometry, first_event=first)
        shown = Degradation(signal=N_SHOWN, noise=size.noise)
        return cls(events, np.arange(first, first + n), shown)

    def batch(self, chosen: NDArray[np.int64], epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Return shown frames and targets (B, 1, H, W), gapped times."""
        clean = self.events.take(chosen)
        noisy = degrade(
            clean, self.shown, seed=DEGRADED, epoch=epoch, event_index=self.number[chosen]
        )
        shown, target = (encode(one, ("gapped",), threshold=THRESHOLD) for one in (noisy, clean))
        return shown.contiguous(), target.contiguous()


def train(name: str, key: str, frames: Frames, size: Size, seed: int, device: str) -> nn.Module:
    """Train a network; all losses of a seed start alike and get the same frames."""
    torch.manual_seed(seed)
    network = size.network(key).to(device)
    loss, rng = LOSSES[name](), np.random.default_rng(seed)
    steps, batch_size, rate = size.training[key]
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor("one-cycle", step / steps)
        chosen = rng.integers(len(frames.number), size=batch_size)
        shown, target = (one.to(device) for one in frames.batch(chosen, 1 + 100_000 * seed + step))
        optimizer.zero_grad()
        loss(network(shown), target).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def outputs(network: nn.Module, frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, outputs and targets (N, 1, H, W)."""
    device = next(network.parameters()).device
    parts = []
    for chosen in np.array_split(np.arange(len(frames.number)), -(-len(frames.number) // 50)):
        shown, target = frames.batch(chosen)
        parts.append((shown, network(shown.to(device)).float().cpu(), target))
    shown, output, target = (torch.cat(one) for one in zip(*parts, strict=True))
    return shown, output, target


def best_threshold(output: Tensor, target: Tensor) -> float:
    """Return the threshold with the best F1 of output >= threshold against target > 0."""
    score, order = output.flatten().sort(descending=True)
    both = (target.flatten() > 0)[order].cumsum(0).double()
    f1 = 2 * both / (torch.arange(1, len(score) + 1) + both[-1])
    is_last = torch.cat([score[1:] != score[:-1], torch.ones(1, dtype=torch.bool)])  # of its ties
    return float(score[torch.where(is_last, f1, -1.0).argmax()])


def to_time(value: Tensor) -> Tensor:
    """Return the times of gapped values, within the range of times."""
    return ((value - THRESHOLD) / (1 - THRESHOLD) * TIME_STEPS).clamp(0, TIME_STEPS)


def read_outs(output: Tensor, target: Tensor) -> tuple[ReadOut, ReadOut]:
    """Fit the read-out of all pixels, and that of the pattern's pixels for times."""
    fitted = []
    for mask in (None, target > 0):
        tally = ReadOutTally(level=LEVEL)
        tally.update(output, target, mask=mask)
        fitted.append(ReadOut.fit(tally))
    return fitted[0], fitted[1]


def scored(
    output: Tensor, target: Tensor, threshold: float, of_value: ReadOut, of_time: ReadOut
) -> dict[str, float]:
    """Return the scores of outputs, see the head of this file."""
    is_hit, is_called = target > 0, output >= threshold
    n_hits, found = int(is_hit.sum()), is_hit & is_called
    both, n_called = int(found.sum()), int(is_called.sum())
    after, true = of_value.apply(output), to_time(target)
    errors = {
        "raw ": (to_time(output) - true).abs(),
        "": (to_time(of_time.apply(output)) - true).abs(),
    }
    result = {
        "F1": 2 * both / (n_called + n_hits),
        "recovered": both / n_hits,
        "false": (n_called - both) / n_hits,
        "raw lit": int((output > LEVEL).sum()) / n_hits,
        "lit": int((after > LEVEL).sum()) / n_hits,
        "raw rmse": float((output - target).square().mean().sqrt()),
        "rmse": float((after - target).square().mean().sqrt()),
        "share": n_hits / target.numel(),
    }
    for stage, error in errors.items():
        result[f"{stage}time_error"] = float(error[is_hit].mean())
        result[f"{stage}time_error_found"] = float(error[found].mean()) if both else math.nan
    return {name: None if math.isnan(one) else one for name, one in result.items()}  # type: ignore[misc]


def measure(network: nn.Module, validation: Frames, test: Frames) -> dict[str, Any]:
    """Score validation and test frames with the threshold and read-outs of validation frames."""
    _, output, target = outputs(network, validation)
    settings = (best_threshold(output, target), *read_outs(output, target))
    _, output_of_test, target_of_test = outputs(network, test)
    return {
        "threshold": settings[0],
        "chosen": scored(output, target, *settings),
        "scores": scored(output_of_test, target_of_test, *settings),
    }


class Constant(nn.Module):
    """A network that returns one value, or its input."""

    def __init__(self, value: float | None) -> None:
        super().__init__()
        self.value = value
        self.register_parameter("device", nn.Parameter(torch.zeros(())))

    def forward(self, shown: Tensor) -> Tensor:
        return shown if self.value is None else torch.full_like(shown, self.value)


def references(training: Frames, validation: Frames, test: Frames) -> dict[str, Any]:
    """Return the scores of a blank frame, of the mean target and of the input itself."""
    _, target = training.batch(np.arange(min(len(training.number), 500)))
    made = {"blank": 0.0, "mean of training": float(target.mean()), "input": None}
    rows = {
        name: measure(Constant(value), validation, test)["scores"] for name, value in made.items()
    }
    for name in ("blank", "mean of training"):  # one value everywhere ranks nothing
        rows[name] |= dict.fromkeys(("F1", "recovered", "false", "raw time_error_found"))
        rows[name] |= dict.fromkeys(("time_error_found",))
    return rows


COLUMNS = {
    "F1": "F1", "recovered": "recovered", "false": "false",
    "raw lit": "lit / target", "lit": "after read-out",
    "raw rmse": "RMSE", "rmse": "after read-out",
    "raw time_error": "time error", "time_error": "after read-out",
    "raw time_error_found": "time error, recovered", "time_error_found": "after read-out",
}  # fmt: skip


def tables(out: Path) -> str:
    """Return all tables of the runs in the folder."""
    rows, parts = stored(out / "references.json", dict), []
    for key in NETWORKS:
        runs = read_runs(out / key, LOSSES)
        if not runs:
            continue
        tried = tuned(runs, TRIED, SCORES)
        tuning = describe_tuning(runs, TRIED, SCORES, 3)
        kept = {name: row for name, row in runs.items() if name not in TRIED or name in tried}
        parts += [
            f"{key}; F1 and time error of validation frames, seed 0: {tuning}",
            table(kept, COLUMNS, 3, rows),
            gains(kept, CONTESTANTS, RIVALS, (*SCORES, Score("raw time_error", False))),
        ]
    return "\n\n".join(parts) + "\n"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__, LOSSES)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    return parser.parse_args(arguments)


def main(arguments: Sequence[str], size: Size | None = None) -> None:
    options = parsed(arguments)
    if not options.tables:
        _run_all(options, size or (FULL if options.full else SMALL))
    text = tables(options.out)
    (options.out / "tables.md").write_text(text)
    print(text)


def _run_all(options: argparse.Namespace, size: Size) -> None:
    if options.steps:
        training = {key: one._replace(steps=options.steps) for key, one in size.training.items()}
        size = replace(size, training=training)
    first, parts = 0, []
    for n in (size.n_train, size.n_validation, size.n_test):
        parts.append(Frames.simulated(size, first, n))
        first += n
    stored(options.out / "references.json", lambda: references(*parts))

    def make(name: str, key: str, seed: int) -> dict[str, Any]:
        start = time.process_time()
        network = train(name, key, parts[0], size, seed, options.device)
        seconds = time.process_time() - start
        row = {
            "loss": name,
            "seed": seed,
            "steps": size.training[key].steps,
            "train_seconds": seconds,
        }
        return row | measure(network, parts[1], parts[2])

    for seed in options.seeds:  # the first seed of every loss before the second of any
        for key in options.networks:
            for name in options.losses or _of_seed(options.out / key, seed):
                row = stored(
                    place(options.out / key, name, seed),
                    lambda n=name, k=key, s=seed: make(n, k, s),
                )
                scores = {one.name: round(row["scores"][one.name], 3) for one in SCORES}
                print(f"{key}, seed {seed}, {name}: {scores}", file=sys.stderr, flush=True)


def _of_seed(folder: Path, seed: int) -> list[str]:
    """Return the losses of a seed: all of the first, and then the best of the tried weights."""
    chosen = tuned(read_runs(folder, TRIED), TRIED, SCORES) if seed else []
    return [name for name in LOSSES if not chosen or name not in TRIED or name in chosen]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
