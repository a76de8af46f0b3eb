"""Does hard mining help against wrong labels, and with which delta?

    python experiments/outliers.py                        # four minutes of one core
    python experiments/outliers.py --noise 0 --delta 1e2 1e6

Bright spots of 6 % of the pixels, on a noisy background. A share of all training labels is flipped;
validation and test labels are right. Pixels whose probability p is well below 1 / delta count as
outliers and weigh less; h is computed from p clipped at 1e-7. The table has the average precision
on test images, and the F1 at the threshold chosen on validation images.

Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dense_imb.losses import CrossEntropyLoss, FocalLoss, HardMiningLoss
from dense_imb.metrics import SegmentationScores
from dense_imb.models import build_model

SIDE, N_TRAIN, N_SCORED, BATCH = 32, 64, 64, 8
DELTAS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7)


def images(n: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return (n, 1, side, side) noisy images of discs, and their (n, side, side) labels."""
    rng = torch.Generator().manual_seed(seed)
    centre = side * torch.rand(n, 3, 2, 1, 1, generator=rng)
    axis = torch.arange(side, dtype=torch.float32)
    distance = (axis[:, None] - centre[:, :, 0]) ** 2 + (axis[None] - centre[:, :, 1]) ** 2
    label = (distance < 3**2).any(1)
    noise = torch.randn(n, side, side, generator=rng)
    return (label + 0.8 * noise)[:, None], label.long()


def flipped(label: Tensor, share: float, seed: int) -> Tensor:
    """Return labels of which a share is wrong."""
    rng = torch.Generator().manual_seed(1000 + seed)
    return torch.where(torch.rand(label.shape, generator=rng) < share, 1 - label, label)


def scored(network: nn.Module, seed: int) -> SegmentationScores:
    """Return the scores on images of a seed."""
    image, label = images(N_SCORED, seed)
    scores = SegmentationScores(2)
    with torch.no_grad():
        scores.update(network.eval()(image), label)
    return scores


def trained(loss: nn.Module, share: float, seed: int, steps: int) -> tuple[float, float]:
    """Train a small U-Net, and return its average precision and F1."""
    torch.manual_seed(seed)
    network = build_model("fast_unet", in_channels=1, out_channels=2, widths=(8, 16))
    image, label = images(N_TRAIN, 100 + seed)
    label = flipped(label, share, seed)
    optimizer = torch.optim.AdamW(network.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(N_TRAIN, (BATCH,), generator=rng)
        optimizer.zero_grad()
        loss(network(image[chosen]), label[chosen]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    threshold = scored(network, 200 + seed).best_f1()[1][1]
    test = scored(network, 300 + seed)
    point = test.histograms[1].at(threshold)
    f1 = 2 * point.purity * point.retention / (point.purity + point.retention)
    return test.average_precision()[1], f1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02, 0.05])
    parser.add_argument("--delta", type=float, nargs="+", default=DELTAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    losses: dict[str, Callable[[], nn.Module]] = {
        "cross-entropy": CrossEntropyLoss,
        "focal": FocalLoss,
    }
    for delta in options.delta:
        losses[f"hard mining, delta {delta:g}"] = partial(HardMiningLoss, delta=delta)
    heads = [f"AP, F1 at {100 * share:g} % flipped" for share in options.noise]
    print("| loss |", " | ".join(heads), "|")
    print("| --- |", " --- |" * len(heads))
    for name, make in losses.items():
        cells = []
        for share in options.noise:
            runs = [trained(make(), share, seed, options.steps) for seed in options.seeds]
            means = [statistics.fmean(one) for one in zip(*runs, strict=True)]
            spreads = [statistics.pstdev(one) for one in zip(*runs, strict=True)]
            pairs = zip(means, spreads, strict=True)
            cells.append(", ".join(f"{mean:.3f} +- {spread:.3f}" for mean, spread in pairs))
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
