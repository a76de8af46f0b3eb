"""Does balanced regression predict the dose of small organs better?

    DENSE_IMB_DATA=... OMP_NUM_THREADS=1 python experiments/values/dose.py runs/dose
    ... dose.py runs/dose_full --full --device cuda --seeds 0 1 2 3 4      # full size, not measured

CT and ten structures of head-and-neck patients in, dose out (OpenKBP, halved to 64^3). Every loss
trains the same small U-Net from the same weights on the same windows, with equal steps, and counts
voxels of `possible_dose_mask` alone. Doses are in units of 70 Gy.

    MSE, MAE               mean over the voxels
    weighted MAE           voxels of organs and targets count w times, w is tuned (below)
    cover L1               mean over the 11 overlapping structures of their mean absolute error
    cover L1, power 1/2    between MAE and cover L1: a structure counts by the root of its voxels
    bins L1                mean over eight bins of the true dose of their mean absolute error
    bins L1, power 1/2     a bin counts by the root of its voxels
    MAE + DVH              MAE + mean difference of the sorted doses of each structure

Half of the validation patients choose checkpoint, weight and read-out; the other half is scored, as
trained and after the read-out. The weight is tuned with seed 0 for each of three scores: dose
score, DVH score, and the mean over structures of the mean absolute error. Every run is one JSON
file; finished ones are kept.

Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
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
    values,
)
from torch import Tensor, nn

from dense_imb.engine.schedule import rate_factor
from dense_imb.losses import Balance, BalancedRegressionLoss, Cover, ValueBins
from dense_imb.metrics import DoseScores, ReadOut, ReadOutTally

UNIT = 70.0  # Gy
CT_SCALE = 512.0
LEARNING_RATE = 0.01
POSSIBLE = "possible_dose_mask"
EDGES = tuple(gray / UNIT for gray in (10, 20, 30, 40, 50, 60, 69))
WEIGHTS = (3, 10, 30)  # tried for the weighted MAE
TUNED = "weighted MAE"
RIVALS = ("MSE", "MAE")
SCORES = (
    Score("dose_score", False),
    Score("dvh_score", False),
    Score("structure_mae", False),
)

# a loss of prediction, dose (B, 1, D, H, W), bit field and mask (B, D, H, W)
DoseLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dvh_loss(prediction: Tensor, dose: Tensor, field: Tensor, mask: Tensor) -> Tensor:
    """Return the mean difference of the sorted doses of the structures.

        loss = sum_s |sort(p in s) - sort(t in s)| / sum_s |s|

    The value-based DVH loss of Wang et al., "Deep learning-based head and neck radiotherapy
    planning dose prediction via beam-wise dose decomposition", MICCAI 2022. Structures of all
    patients; bit 0, the voxels that can get dose, is none.
    """
    total, n = prediction.sum() * 0, 0
    for p, t, bits, valid in zip(prediction[:, 0], dose[:, 0], field, mask, strict=True):
        for bit in range(1, int(field.max()).bit_length()):
            inside = (bits >> bit & 1).bool() & valid
            ours, theirs = p[inside].sort().values, t[inside].sort().values
            total, n = total + (ours - theirs).abs().sum(), n + len(ours)
    return total / max(n, 1)


def mse(prediction: Tensor, dose: Tensor, field: Tensor, mask: Tensor) -> Tensor:
    return (prediction - dose).square()[mask.unsqueeze(1)].mean()


def mae(prediction: Tensor, dose: Tensor, field: Tensor, mask: Tensor) -> Tensor:
    return (prediction - dose).abs()[mask.unsqueeze(1)].mean()


def mae_and_dvh(prediction: Tensor, dose: Tensor, field: Tensor, mask: Tensor) -> Tensor:
    return mae(prediction, dose, field, mask) + dvh_loss(prediction, dose, field, mask)


def weighted(weight: float) -> DoseLoss:
    """Return the MAE in which voxels of organs and targets count `weight` times."""

    def loss(prediction: Tensor, dose: Tensor, field: Tensor, mask: Tensor) -> Tensor:
        weights = torch.where(field > 1, weight, 1.0) * mask
        error = (prediction - dose).abs()[:, 0]
        return (weights * error).sum() / weights.sum()

    return loss


def cover(count_power: float = 0) -> DoseLoss:
    own = BalancedRegressionLoss("l1", Cover(11), Balance(count_power=count_power))
    return lambda prediction, dose, field, mask: own(prediction, dose, label=field, mask=mask)


def bins(power: float = 1) -> DoseLoss:
    own = BalancedRegressionLoss("l1", ValueBins(EDGES, power=power))
    return lambda prediction, dose, field, mask: own(prediction, dose, mask=mask)


LOSSES: dict[str, DoseLoss] = {
    "MSE": mse,
    "MAE": mae,
    **{f"{TUNED} {weight}": weighted(weight) for weight in WEIGHTS},
    "cover L1": cover(),
    "cover L1, power 1/2": cover(0.5),
    "bins L1": bins(),
    "bins L1, power 1/2": bins(0.5),
    "MAE + DVH": mae_and_dvh,
}
TRIED = tuple(name for name in LOSSES if name.startswith(TUNED))
CONTESTANTS = tuple(name for name in LOSSES if name not in (*RIVALS, *TRIED))


@dataclass(frozen=True)
class Size:
    """Network, windows and length of a training; `n_patients` None for all."""

    widths: tuple[int, ...]
    window: tuple[int, int, int]
    batch_size: int
    steps: int
    n_patients: int | None = None


SMALL = Size((12, 24, 48), (32, 48, 40), 1, 280)
FULL = Size((32, 64, 128, 256), (48, 64, 64), 2, 20_000)


class SmallUNet(nn.Module):
    """U-Net of volumes whose convolutions work at half the resolution and below.

    The last two layers see the output of the U-Net and the input at full resolution, so borders of
    structures stay sharp. Sides of images are multiples of 2^levels.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        pairs = list(pairwise(widths))
        self.enter = nn.Sequential(nn.Conv3d(in_channels, first, 2, stride=2), nn.ReLU())
        self.encode = nn.ModuleList(_convolution(width, width) for width in widths)
        self.down = nn.ModuleList(nn.Conv3d(above, below, 2, stride=2) for above, below in pairs)
        self.deepest = _convolution(last, last)
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in pairs)
        self.decode = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.leave = nn.ConvTranspose3d(first, 8, 2, stride=2)
        self.output = nn.Sequential(
            nn.Conv3d(8 + in_channels, 16, 1), nn.ReLU(), nn.Conv3d(16, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        kept: list[Tensor] = []
        x = self.enter(images)
        for encode, down in zip(self.encode[:-1], self.down, strict=True):
            kept.append(encode(x))
            x = down(kept[-1]).relu()
        x = self.deepest(self.encode[-1](x))
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            x = decode((up(x) + kept.pop()).relu())
        return self.output(torch.cat([self.leave(x).relu(), images], 1))


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, padding=1),
        nn.GroupNorm(max(out_channels // 8, 1), out_channels),
        nn.ReLU(),
    )


@dataclass(frozen=True)
class Patient:
    """The volume around the voxels that can get dose."""

    ct: Tensor  # (D, H, W)
    dose: Tensor  # (D, H, W), in UNIT
    field: Tensor  # (D, H, W) int32, bit s for structure s
    voxel_mm: Tensor

    def image(self, part: tuple[slice, ...] = (slice(None),) * 3) -> Tensor:
        """Return CT and masks (1 + structures, D, H, W)."""
        bits = torch.arange(11).view(-1, 1, 1, 1)
        return torch.cat([self.ct[part][None], (self.field[part] >> bits & 1).float()])


def read_patients(
    path: Path, size: Size, n: int | None = None
) -> tuple[list[Patient], tuple[str, ...]]:
    """Read patients, cut to the voxels that can get dose, and the names of the structures.

    Volumes are padded to at least a window.
    """
    patients = []
    with h5py.File(path) as file:
        names = tuple(str(name) for name in file.attrs["structures"])
        if names[0] != POSSIBLE or len(names) != 11:
            raise ValueError(f"Expected 11 structures, {POSSIBLE} first, in {path}, got {names}.")
        for key in sorted(file)[:n]:
            group = file[key]
            field = group["structures"][...].astype(np.int32)
            where = [np.flatnonzero((field & 1).any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
            box = tuple(slice(one[0], one[-1] + 1) for one in where)
            sides = [max(pair) for pair in zip(field[box].shape, size.window, strict=True)]

            def cut(name: str, kind: type, box: Any = box, sides: Any = sides) -> Tensor:
                volume = group[name][...].astype(kind)[box]  # noqa: B023
                more = [
                    ((n - m) // 2, n - m - (n - m) // 2)
                    for n, m in zip(sides, volume.shape, strict=True)
                ]
                return torch.from_numpy(np.pad(volume, more))

            patients.append(
                Patient(
                    cut("ct", np.float32) / CT_SCALE,
                    cut("dose", np.float32) / UNIT,
                    cut("structures", np.int32),
                    torch.as_tensor(np.asarray(group.attrs["voxel_mm"]), dtype=torch.float64),
                )
            )
    return patients, names


def _batch(
    patients: Sequence[Patient], size: Size, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, doses and bit fields of random windows of random patients."""
    images, doses, fields = [], [], []
    for number in rng.integers(len(patients), size=size.batch_size):
        patient = patients[number]
        first = [
            int(rng.integers(have - want + 1))
            for have, want in zip(patient.ct.shape, size.window, strict=True)
        ]
        part = tuple(slice(a, a + b) for a, b in zip(first, size.window, strict=True))
        images.append(patient.image(part))
        doses.append(patient.dose[part][None])
        fields.append(patient.field[part])
    return torch.stack(images), torch.stack(doses), torch.stack(fields)


def train(
    name: str,
    patients: Sequence[Patient],
    choosing: Sequence[Patient],
    names: Sequence[str],
    size: Size,
    seed: int,
    device: str,
) -> SmallUNet:
    """Train the network, and keep the better of the checkpoints at 3/4 and at the end.

    All losses of a seed start alike and get the same windows. The better checkpoint has the
    smaller sum of dose score and DVH score on the patients for choices.
    """
    torch.manual_seed(seed)
    network = SmallUNet(12, size.widths).to(device)
    loss, rng = LOSSES[name], np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    kept: tuple[float, dict[str, Tensor]] | None = None
    for step in range(size.steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_factor("one-cycle", step / size.steps)
        image, dose, field = (one.to(device) for one in _batch(patients, size, rng))
        optimizer.zero_grad()
        loss(network(image), dose, field, (field & 1).bool()).backward()
        optimizer.step()
        if step + 1 in (3 * size.steps // 4, size.steps):
            scores = scored(predicted(network, choosing, size), choosing, names)
            sum_of_both = scores["dose_score"] + scores["dvh_score"]
            if kept is None or sum_of_both < kept[0]:
                kept = sum_of_both, deepcopy(network.state_dict())
    assert kept is not None
    network.load_state_dict(kept[1])
    return network.eval()


@torch.no_grad()
def predicted(network: nn.Module, patients: Sequence[Patient], size: Size) -> list[Tensor]:
    """Return the dose (D, H, W) of each patient, the mean over windows that overlap."""
    device = next(network.parameters()).device
    doses = []
    for patient in patients:
        image, shape = patient.image(), patient.ct.shape
        total, n = torch.zeros(shape), torch.zeros(shape)
        for part in _windows(shape, size.window):
            total[part] += network(image[(slice(None), *part)][None].to(device))[0, 0].cpu()
            n[part] += 1
        doses.append(total / n)
    return doses


def _windows(shape: Sequence[int], window: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return evenly spaced windows, as few as cover the volume."""
    firsts = [
        np.linspace(0, have - want, -(-have // want)).round().astype(int)
        for have, want in zip(shape, window, strict=True)
    ]
    return [
        tuple(slice(first, first + n) for first, n in zip(start, window, strict=True))
        for start in product(*firsts)
    ]


def scored(
    doses: Sequence[Tensor], patients: Sequence[Patient], names: Sequence[str]
) -> dict[str, float]:
    """Return the scores of predicted doses in Gy; outside the possible voxels they count as 0."""
    scores = DoseScores(names)
    for dose, patient in zip(doses, patients, strict=True):
        inside = UNIT * dose * (patient.field & 1)
        true = UNIT * patient.dose * (patient.field & 1)
        scores.update(inside[None], true[None], patient.field[None], voxel_mm=patient.voxel_mm)
    rows = scores.rows()
    result = {key: scores.scores()[key] for key in ("dose_score", "dvh_score")}
    errors = {f"mae of {name}": row["mae"] for name, row in rows.items() if name != POSSIBLE}
    result["structure_mae"] = float(np.nanmean(list(errors.values())))
    result["bias"] = rows[POSSIBLE]["bias"]
    return result | errors


def fitted(doses: Sequence[Tensor], patients: Sequence[Patient]) -> ReadOut:
    """Fit the read-out on the voxels that can get dose."""
    tally = ReadOutTally()
    for dose, patient in zip(doses, patients, strict=True):
        tally.update(
            dose[None, None], patient.dose[None, None], mask=(patient.field & 1).bool()[None]
        )
    return ReadOut.fit(tally)


def measure(
    network: nn.Module,
    choosing: Sequence[Patient],
    test: Sequence[Patient],
    names: Sequence[str],
    size: Size,
) -> dict[str, dict[str, float]]:
    """Score the patients for choices and those of the test, as trained and after the read-out."""
    doses = {
        "chosen": predicted(network, choosing, size),
        "scores": predicted(network, test, size),
    }
    read_out = fitted(doses["chosen"], choosing)
    result = {}
    for part, patients in (("chosen", choosing), ("scores", test)):
        raw = scored(doses[part], patients, names)
        after = scored([read_out.apply(dose) for dose in doses[part]], patients, names)
        result[part] = {f"raw {key}": value for key, value in raw.items()} | after
    return result


def references(
    training: Sequence[Patient], test: Sequence[Patient], names: Sequence[str]
) -> dict[str, Any]:
    """Return the scores of a blank dose and of the mean one, and the shares of the structures."""
    inside = torch.cat([one.dose[(one.field & 1).bool()] for one in training])
    made = {"blank": 0.0, "mean of training": float(inside.mean())}
    rows: dict[str, Any] = {}
    for name, value in made.items():
        one = scored([torch.full_like(patient.dose, value) for patient in test], test, names)
        rows[name] = one | {f"raw {key}": number for key, number in one.items()}
    n_possible = sum(int((one.field & 1).sum()) for one in test)
    rows["share"] = {
        name: sum(int((one.field >> bit & 1).sum()) for one in test) / n_possible
        for bit, name in enumerate(names)
    }
    return rows


def tables(out: Path) -> str:
    """Return all tables of the runs in the folder."""
    runs = read_runs(out, LOSSES)
    rows = stored(out / "references.json", dict)
    shares = rows.pop("share", {})
    tried = tuned(runs, TRIED, SCORES)
    tuning = describe_tuning(runs, TRIED, SCORES, 2)
    runs = {name: row for name, row in runs.items() if name not in TRIED or name in tried}
    columns = {
        "raw dose_score": "dose score", "dose_score": "after read-out",
        "raw dvh_score": "DVH score", "dvh_score": "after read-out",
        "raw structure_mae": "mean over structures", "structure_mae": "after read-out",
        "raw bias": "bias", "bias": "after read-out",
    }  # fmt: skip
    parts = [
        f"In Gy. Dose score, DVH score, mean over structures of the patients for choices, after "
        f"read-out, seed 0: {tuning}",
        table(runs, columns, 2, rows),
    ]
    raw = [Score(f"raw {score.name}", False) for score in SCORES]
    for rivals in (RIVALS, (*RIVALS, *tried)):
        against = CONTESTANTS if rivals != RIVALS else (*tried, *CONTESTANTS)
        parts += [gains(runs, against, rivals, scores) for scores in (SCORES, raw)]
    return "\n\n".join([*parts, _of_structures(runs, shares)]) + "\n"


def _of_structures(runs: Any, shares: dict[str, float]) -> str:
    """Return the mean absolute error of each structure as trained, the smallest first."""
    lines = [
        f"| structure | share of the possible voxels | {' | '.join(runs)} |",
        "| --- " * (len(runs) + 2) + "|",
    ]
    for name in sorted(set(shares) - {POSSIBLE}, key=lambda one: shares[one]):
        errors = [np.mean(values(runs[loss], f"raw mae of {name}")) for loss in runs]
        cells = " | ".join(f"{error:.2f}" for error in errors)
        lines.append(f"| {name} | {100 * shares[name]:.2f} % | {cells} |")
    return "\n".join(lines)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__, LOSSES)
    parser.add_argument("--data", type=Path, help="folder of train.h5 and validation.h5")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str], size: Size | None = None) -> None:
    options = parsed(arguments)
    if not options.tables:
        _run_all(options, size or (FULL if options.full else SMALL))
    text = tables(options.out)
    (options.out / "tables.md").write_text(text)
    print(text)


def _run_all(options: argparse.Namespace, size: Size) -> None:
    steps = options.steps or size.steps
    size = Size(size.widths, size.window, size.batch_size, steps, size.n_patients)
    data = options.data or Path(os.environ["DENSE_IMB_DATA"]) / "openkbp64"
    training, names = read_patients(data / "train.h5", size, size.n_patients)
    held_out, _ = read_patients(data / "validation.h5", size, size.n_patients)
    choosing, test = held_out[::2], held_out[1::2]
    stored(options.out / "references.json", lambda: references(training, test, names))

    def make(name: str, seed: int) -> dict[str, Any]:
        start = time.process_time()
        network = train(name, training, choosing, names, size, seed, options.device)
        seconds = time.process_time() - start
        row = {"loss": name, "seed": seed, "steps": steps, "train_seconds": seconds}
        return row | measure(network, choosing, test, names, size)

    for seed in options.seeds:  # the first seed of every loss before the second of any
        names_of_seed = options.losses or _of_seed(options.out, seed)
        for name in names_of_seed:
            row = stored(place(options.out, name, seed), lambda n=name, s=seed: make(n, s))
            scores = {key: round(row["scores"][key], 3) for key in ("dose_score", "dvh_score")}
            print(f"seed {seed}, {name}: {scores}", file=sys.stderr, flush=True)


def _of_seed(out: Path, seed: int) -> list[str]:
    """Return the losses of a seed: all of the first, and then the best of the tried weights."""
    chosen = tuned(read_runs(out, TRIED), TRIED, SCORES) if seed else []
    return [name for name in LOSSES if not chosen or name not in TRIED or name in chosen]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
