"""Cracks by loss: generated images of one faint crooked line, their truth, and what three losses find."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from style import hide_ticks

from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 5.0)
LOSSES = {
    "cross-entropy": CrossEntropyLoss(),
    "balanced": CrossEntropyLoss(balance=Balance()),
    "Dice + balanced": CompoundLoss(DiceLoss(), CrossEntropyLoss(balance=Balance())),
}
N_STEPS, N_SHOWN = 600, 2


def measure() -> dict[str, Any]:
    """Train a small U-Net with each loss, and keep its maps of two test images; 2 min."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from thin_structures import crops, samples

    from dense_imb.metrics import SegmentationScores
    from dense_imb.models import build_model

    training, test = samples(None, None, 200, 0), samples(None, None, 100, 1)
    images, masks = (torch.stack(part) for part in zip(*test, strict=True))
    numbers: dict[str, Any] = {"image": images[:N_SHOWN, 0], "truth": masks[:N_SHOWN, 0]}
    for name, loss in LOSSES.items():
        torch.manual_seed(0)
        network = build_model("fast_unet", in_channels=1, out_channels=2, widths=(12, 24, 48))
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
        rng = torch.Generator().manual_seed(0)
        for _ in range(N_STEPS):
            image, mask = crops(training, 8, rng)
            optimizer.zero_grad()
            loss(network(image), mask[:, 0].long()).backward()
            optimizer.step()
        with torch.no_grad():
            logits = network.eval()(images)
        scores = SegmentationScores(2)
        scores.update(logits, masks[:, 0].long())
        numbers[name] = logits[:N_SHOWN].softmax(1)[:, 1]
        numbers[f"{name} AP"] = scores.average_precision()[1]
        point = scores.histograms[1].at(0.5)
        print(name, numbers[f"{name} AP"], point.retention, point.purity)
        numbers[f"{name} recall, precision"] = [point.retention, point.purity]
    return numbers
