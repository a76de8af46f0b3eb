"""Cost of a loss in a MONAI training step, against DiceCELoss.

    python experiments/benchmarks/monai_step.py                       # 2-D, some minutes
    python experiments/benchmarks/monai_step.py --size 2x1x64x64x64   # 3-D, MONAI's U-Net, too

A step is MONAI's U-Net forward, the loss, backward and AdamW. The losses take turns in a shuffled
order; each has its own network, from the same weights. "x" is the median of a step over that of
DiceCELoss, "loss only" the same for logits without a network. On a busy machine trust "x min", and
put OMP_NUM_THREADS=1 before the command.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from interleaved import Contestant, Runner, time_interleaved
from torch import Tensor, nn

from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, FocalLoss, HardMiningLoss

FOREGROUND = 0.02


def losses() -> dict[str, nn.Module]:
    """Return the losses, the floor first."""
    from monai.losses import DiceCELoss, DiceLoss

    softmax = {"to_onehot_y": True, "softmax": True}
    balance = Balance()
    return {
        "MONAI DiceCELoss": DiceCELoss(**softmax),
        "CrossEntropyLoss(balance)": CrossEntropyLoss(balance=balance),
        "FocalLoss(balance)": FocalLoss(balance=balance),
        "HardMiningLoss(balance)": HardMiningLoss(balance=balance),
        "HardMiningLoss(balance) + DiceLoss": CompoundLoss(
            HardMiningLoss(balance=balance), DiceLoss(**softmax)
        ),
    }


def training_step(network: nn.Module, loss: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def step(image: Tensor, label: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = loss(network(image), label)
        value.backward()
        optimizer.step()
        return value.detach()  # the clock's own backward has nothing left to do

    return step


def compare(shape: list[int], n_classes: int, rounds: int, warmup: int) -> list[tuple[Any, ...]]:
    from monai.networks.nets import UNet

    rng = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=rng)
    label_shape = (shape[0], 1, *shape[2:])
    is_foreground = torch.rand(label_shape, generator=rng) < FOREGROUND
    label = is_foreground * torch.randint(1, n_classes, label_shape, generator=rng)
    logits = torch.randn((shape[0], n_classes, *shape[2:]), generator=rng).requires_grad_()
    torch.manual_seed(0)
    network = UNet(
        len(shape) - 2, shape[1], n_classes, channels=(16, 32, 64, 128), strides=(2, 2, 2)
    )
    steps, alone = [], []
    for name, loss in losses().items():
        step = training_step(copy.deepcopy(network), loss)
        steps.append(runner(name, step, image, label))
        alone.append(runner(name, loss, logits, label))
    for runners in (steps, alone):
        time_interleaved(runners, rounds, warmup, lambda: None)
    return [
        (step.contestant.name, *against(step, steps[0]), *against(only, alone[0]))
        for step, only in zip(steps, alone, strict=True)
    ]


def runner(name: str, call: Callable[..., Tensor], image: Tensor, label: Tensor) -> Runner:
    return Runner(Contestant(name, "ours", lambda: call), call, image, label)


def against(own: Runner, floor: Runner) -> tuple[float, float, float]:
    """Return the median in ms, and the ratios of the medians and of the fastest runs."""
    median = statistics.median(own.seconds)
    ratio_of_min = min(own.seconds) / min(floor.seconds)
    return 1000 * median, median / statistics.median(floor.seconds), ratio_of_min


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="4x1x256x256", help="BxCxHxW or BxCxDxHxW")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    options = parser.parse_args()
    try:
        shape = [int(extent) for extent in options.size.split("x")]
    except ValueError:
        shape = []
    if len(shape) not in (4, 5) or min(shape) < 1:
        parser.error(f"Expected --size as BxCxHxW or BxCxDxHxW, 4x1x256x256, got {options.size}.")
    if options.classes < 2 or options.rounds < 1 or options.warmup < 0:
        parser.error("Expected --classes of at least 2, and --rounds of at least 1.")
    rows = compare(shape, options.classes, options.rounds, options.warmup)
    print(f"{options.size}, {options.classes} classes, {options.rounds} rounds, one process")
    print(f"{'':36}{'step ms':>9}{'x':>7}{'x min':>7}{'loss ms':>9}{'x':>7}{'x min':>7}")
    for name, step, x, x_min, only, only_x, only_x_min in rows:
        print(f"{name:36}{step:9.1f}{x:7.2f}{x_min:7.2f}{only:9.2f}{only_x:7.2f}{only_x_min:7.2f}")


if __name__ == "__main__":
    main()
