"""Does instance balance find more small objects at the same number of false ones?

    OMP_NUM_THREADS=1 python experiments/object_sizes/recall_by_size.py runs/object_sizes

Every loss trains the same network on the same images from the same weights, with equal steps. A run
is one JSON file; finished ones are kept, so a stopped comparison continues. Tables and the figure
are made of these files, see `size_tables.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.losses
import numpy as np
import size_tables
import torch
from numpy.typing import NDArray
from scipy import ndimage
from size_images import TOUCHING, SizeImages, stored_images
from torch import Tensor, nn

from dense_imb.base.files import write_whole
from dense_imb.engine.schedule import rate_factor
from dense_imb.losses import (
    Balance,
    BalancedSoftmaxLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    HardMiningLoss,
    TverskyLoss,
)
from dense_imb.models.fast_unet import FastUNet

LEARNING_RATE = 0.006
N_THRESHOLDS, N_HALVINGS = 40, 6  # coarse and fine steps of the search for a threshold
FALSE_OBJECTS = (1.0, 0.1)  # an image
MIN_PURITY = 0.25  # fraction of true pixels in a predicted object that is not false


@dataclass(frozen=True)
class Contestant:
    """A loss that competes.

    Args:
        build: makes the loss; its argument is the pixels of background and of objects.
        map: instance map that the loss is called with, "component" or "nearest".
    """

    build: Callable[[list[int]], nn.Module]
    map: str | None = None


def _with_cross_entropy(**parts: nn.Module) -> CompoundLoss:
    return CompoundLoss({**parts, "cross_entropy": CrossEntropyLoss()})


CONTESTANTS = {
    "cross-entropy": Contestant(lambda n: CrossEntropyLoss()),
    "balanced cross-entropy": Contestant(lambda n: CrossEntropyLoss(balance=Balance())),
    "balanced softmax": Contestant(BalancedSoftmaxLoss),
    "focal": Contestant(lambda n: FocalLoss(gamma=2.0)),
    "hard mining": Contestant(lambda n: HardMiningLoss()),
    "Dice": Contestant(lambda n: DiceLoss()),
    "Tversky": Contestant(lambda n: TverskyLoss(0.3, 0.7)),
    "MONAI DiceCE": Contestant(lambda n: monai.losses.DiceCELoss(sigmoid=True)),
    "Dice + CE": Contestant(lambda n: _with_cross_entropy(dice=DiceLoss())),
    "blob + CE": Contestant(
        lambda n: _with_cross_entropy(blob=DiceLoss(per="instance")), "component"
    ),
    "Dice + blob + CE": Contestant(
        lambda n: _with_cross_entropy(dice=DiceLoss(), blob=DiceLoss(per="instance")), "component"
    ),
    "CC + CE": Contestant(lambda n: _with_cross_entropy(cc=DiceLoss(per="instance")), "nearest"),
    "CE per instance": Contestant(
        lambda n: CrossEntropyLoss(per="instance", balance=Balance()), "component"
    ),
}


@dataclass(frozen=True)
class Size:
    """Numbers of images, their side in pixels, and the network."""

    n_train: int
    n_validation: int
    n_test: int
    side: int
    batch_size: int
    widths: tuple[int, ...]
    steps: tuple[int, ...]


SMALL = Size(800, 200, 400, 96, 4, (8, 16, 32), (300, 1200))
FULL = Size(4000, 500, 1000, 192, 8, (16, 32, 64, 128), (4000, 16000))


def train(
    contestant: Contestant,
    images: SizeImages,
    size: Size,
    steps: int,
    seed: int,
    device: str = "cpu",
) -> FastUNet:
    """Train the network; all losses of a seed start alike and get the same batches."""
    torch.manual_seed(seed)
    network = FastUNet(1, 1, widths=size.widths).to(device)
    n_true = int(images.mask.sum())
    loss = contestant.build([images.mask.size - n_true, n_true]).to(device)
    is_foreign = not type(loss).__module__.startswith("dense_imb")
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_factor("one-cycle", step / steps)
        chosen = rng.integers(len(images.image), size=size.batch_size)
        turns, flips = rng.integers(4), rng.integers(2)

        def batch(
            maps: NDArray[Any], chosen: Any = chosen, turns: int = turns, flips: int = flips
        ) -> Tensor:
            turned = np.rot90(maps[chosen], turns, (1, 2))
            turned = turned[:, ::-1] if flips else turned
            return torch.from_numpy(np.ascontiguousarray(turned)).to(device)

        logits = network(batch(images.image)[:, None])
        target = batch(images.component)[:, None] > 0
        options = {}
        if contestant.map is not None:
            options["instance"] = batch(getattr(images, contestant.map)).long()
        optimizer.zero_grad()
        loss(logits, target.float() if is_foreign else target.long(), **options).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def logits_of(network: FastUNet, images: SizeImages) -> NDArray[np.float32]:
    """Return the logits (N, side, side)."""
    device = next(network.parameters()).device
    parts = torch.from_numpy(images.image)[:, None].split(16)
    return torch.cat([network(part.to(device))[:, 0].cpu() for part in parts]).numpy()


class Objects:
    """True objects of images, to count found and false ones at a threshold.

    A predicted object is a connected component of the pixels above the threshold. It is false if
    less than a quarter of its pixels are true. Rules for a true object that is found:

        half    at least half of its pixels lie in predicted objects that are not false
        touch   one of its pixels does
    """

    def __init__(self, images: SizeImages) -> None:
        before = np.cumsum([0, *(len(one) for one in images.sizes())])
        self.n_images = len(images.image)
        self.mask = images.mask
        # objects of all images numbered from 1; the structure does not connect images
        self.number = np.where(self.mask, images.component + before[:-1, None, None], 0)
        self.size = np.concatenate(images.sizes())
        self.image_of = np.repeat(np.arange(self.n_images), np.diff(before))
        self._structure = np.zeros((3, 3, 3), bool)
        self._structure[1] = TOUCHING

    def count(
        self, logits: NDArray[np.float32], threshold: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the found pixels of each object, and the false objects of each image."""
        is_called = logits >= threshold
        called, n_called = ndimage.label(is_called, self._structure)
        flat, is_true = called[is_called], self.mask[is_called]
        size = np.bincount(flat, minlength=n_called + 1)
        true = np.bincount(flat[is_true], minlength=n_called + 1)
        is_real = true >= MIN_PURITY * size
        is_found = is_real[flat] & is_true
        pixels = np.bincount(self.number[is_called][is_found], minlength=len(self.size) + 1)[1:]
        first = np.zeros(n_called + 1, int)  # image of each predicted object
        first[flat] = np.nonzero(is_called)[0]
        false = np.bincount(first[1:][~is_real[1:]], minlength=self.n_images)
        return pixels, false

    def thresholds_at(
        self, logits: NDArray[np.float32], limits: Sequence[float]
    ) -> dict[float, float]:
        """Return for each limit the lowest threshold with no more false objects an image.

        All higher thresholds of a coarse list keep to the limit too. Infinity if none does.
        """
        kept = np.geomspace(0.1, 1 / logits.size, N_THRESHOLDS)
        falling = np.quantile(logits, 1 - kept)[::-1]
        n_false: list[float] = []
        while len(n_false) < len(falling) and max(n_false, default=0.0) <= max(limits):
            n_false.append(self.count(logits, falling[len(n_false)])[1].mean())
        chosen = {}
        for limit in limits:
            n_good = next((k for k, n in enumerate(n_false) if n > limit), len(n_false))
            high = falling[n_good - 1] if n_good else np.inf
            is_open = 0 < n_good < len(n_false)
            low = falling[n_good] if is_open else high
            for _ in range(N_HALVINGS if is_open else 0):
                middle = (low + high) / 2
                is_good = self.count(logits, middle)[1].mean() <= limit
                low, high = (low, middle) if is_good else (middle, high)
            chosen[limit] = float(high)
        return chosen


def pixel_scores(
    logits: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Return the average precision, the best F1 and its threshold; ties share a threshold."""
    order = np.argsort(-logits, axis=None)
    score, is_true = logits.reshape(-1)[order], mask.reshape(-1)[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    tp = np.cumsum(is_true)[last]
    precision, recall = tp / (last + 1), tp / tp[-1]
    f1 = 2 * tp / (last + 1 + tp[-1])
    best = int(f1.argmax())
    average = float((precision * np.diff(recall, prepend=0)).sum())
    return average, float(f1[best]), float(score[last][best])


def measure(network: FastUNet, validation: SizeImages, test: SizeImages) -> dict[str, Any]:
    """Score a network on the test images at thresholds of the validation images."""
    logits = {"validation": logits_of(network, validation), "test": logits_of(network, test)}
    chosen, judged = Objects(validation), Objects(test)
    _, _, threshold = pixel_scores(logits["validation"], validation.mask)
    is_called = logits["test"] >= threshold
    both = int((is_called & test.mask).sum())
    row: dict[str, Any] = {
        "average_precision": pixel_scores(logits["test"], test.mask)[0],
        "f1": 2 * both / max(int(is_called.sum()) + int(test.mask.sum()), 1),
        "points": {},
    }
    thresholds = chosen.thresholds_at(logits["validation"], FALSE_OBJECTS)
    for n_false, threshold in thresholds.items():
        pixels, false = judged.count(logits["test"], threshold)
        row["points"][f"{n_false:g}"] = {
            "threshold": threshold,
            "false_objects": float(false.mean()),
            "half": (2 * pixels >= judged.size).astype(int).tolist(),
            "touch": (pixels > 0).astype(int).tolist(),
        }
    return row


def run(
    name: str,
    place: Path,
    size: Size,
    steps: int,
    seed: int,
    images: list[SizeImages],
    device: str = "cpu",
) -> str:
    """Train and score a loss unless its file is there; return a line about it."""
    if not place.exists():
        start = time.process_time()
        network = train(CONTESTANTS[name], images[0], size, steps, seed, device)
        seconds = time.process_time() - start
        row = {"loss": name, "seed": seed, "steps": steps, "train_seconds": seconds}
        row |= measure(network, images[1], images[2])
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(row)
        write_whole(place, lambda partial: partial.write_text(text))
    row = json.loads(place.read_text())
    found = np.mean(row["points"]["1"]["touch"])
    return (
        f"{steps} steps, seed {seed}, {name}: AP {row['average_precision']:.3f}, found {found:.3f}"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the images and the results")
    parser.add_argument("--losses", nargs="+", choices=CONTESTANTS, metavar="LOSS")
    parser.add_argument("--steps", type=int, nargs="+", help="steps of each table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="the full size, for a GPU")
    parser.add_argument("--device", default="cpu", help="device that trains, cpu by default")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, size: Size | None = None) -> None:
    options = parsed(arguments)
    size = size or (FULL if options.full else SMALL)
    numbers = (size.n_train, size.n_validation, size.n_test)
    images = [stored_images(options.out, n, size.side, part) for part, n in enumerate(numbers)]
    for steps in options.steps or size.steps:
        for seed in options.seeds:  # the first seed of every loss before the second of any
            for name in options.losses or CONTESTANTS:
                place = options.out / str(steps) / f"{name.replace(' ', '-')}-{seed}.json"
                print(run(name, place, size, steps, seed, images, options.device), flush=True)
    size_tables.write(options.out, images[2])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
