"""Thin structures with smp.Unet, binary: BCE, a balanced loss, that loss with smp's Dice or ours.

python experiments/segmentation_models_pytorch/train.py                            # generated
python experiments/segmentation_models_pytorch/train.py --images DIR --masks DIR   # by name
"""

import argparse
import sys
from pathlib import Path

import segmentation_models_pytorch as smp
import torch

from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss

sys.path.insert(0, str(Path(__file__).parents[1]))
from thin_structures import average_precision, crops, samples

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", help="folder of images; generated ones by default")
parser.add_argument("--masks", help="folder of masks, not 0 where there is something")
parser.add_argument("--encoder", default="resnet18", help="any of smp's; not pretrained here")
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--generated", type=int, default=60, help="number of images to generate")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

data = samples(options.images, options.masks, options.generated, options.seed)
n_held_out = max(len(data) // 5, 1)
held_out, training = data[:n_held_out], data[n_held_out:]
balanced = CrossEntropyLoss(balance=Balance())

for name, loss in {
    "smp SoftBCEWithLogitsLoss": smp.losses.SoftBCEWithLogitsLoss(),
    "CrossEntropyLoss(balance=Balance())": balanced,
    "the same + smp DiceLoss('binary')": CompoundLoss(balanced, smp.losses.DiceLoss("binary")),
    "the same + DiceLoss()": CompoundLoss(balanced, DiceLoss()),
}.items():
    torch.manual_seed(options.seed)
    network = smp.Unet(options.encoder, encoder_weights=None, in_channels=1, classes=1)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = torch.Generator().manual_seed(options.seed)
    for _ in range(options.steps):
        image, mask = crops(training, 8, rng)
        optimizer.zero_grad()
        loss(network(image), mask).backward()
        optimizer.step()
    score = average_precision(network.eval(), held_out)
    print(f"average precision {score:.3f} on {n_held_out} held-out images: {name}", flush=True)
