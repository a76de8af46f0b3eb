"""Thin structures in a plain torch loop: BCE and a balanced loss, one line apart.

python experiments/plain_torch/train.py                            # generated, a few minutes
python experiments/plain_torch/train.py --images DIR --masks DIR   # masks by the images' names
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from dense_imb.losses import Balance, CrossEntropyLoss

sys.path.insert(0, str(Path(__file__).parents[1]))
from thin_structures import average_precision, crops, samples

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", help="folder of images; generated ones by default")
parser.add_argument("--masks", help="folder of masks, not 0 where there is something")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--generated", type=int, default=60, help="number of images to generate")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

data = samples(options.images, options.masks, options.generated, options.seed)
n_held_out = max(len(data) // 5, 1)
held_out, training = data[:n_held_out], data[n_held_out:]


def block(before: int, after: int, spread: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, 3, padding=spread, dilation=spread)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


for name, loss in {
    "torch BCEWithLogitsLoss": nn.BCEWithLogitsLoss(),
    "CrossEntropyLoss(balance=Balance())": CrossEntropyLoss(balance=Balance()),
}.items():
    torch.manual_seed(options.seed)
    blocks = [block(1, 16, 1), *(block(16, 16, spread) for spread in (1, 2, 4, 8, 1))]
    network = nn.Sequential(*blocks, nn.Conv2d(16, 1, 1))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    rng = torch.Generator().manual_seed(options.seed)
    for _ in range(options.steps):
        image, mask = crops(training, 8, rng)
        optimizer.zero_grad()
        loss(network(image), mask).backward()
        optimizer.step()
    score = average_precision(network.eval(), held_out)
    print(f"average precision {score:.3f} on {n_held_out} held-out images: {name}", flush=True)
