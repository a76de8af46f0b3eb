"""Cracks by loss: images of a faint crooked line, their truth, and the maps of three losses."""

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

SIZE = (10.0, 4.5)
LOSSES = {
    "cross-entropy": CrossEntropyLoss(),
    "balanced": CrossEntropyLoss(balance=Balance()),
    "Dice + balanced": CompoundLoss(DiceLoss(), CrossEntropyLoss(balance=Balance())),
}
N_STEPS, N_SHOWN = 600, 2


def measure() -> dict[str, Any]:
    """Train a small U-Net with each loss, and keep its maps of two test images; 1 min."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from thin_structures import crops, samples

    from dense_imb.metrics import SegmentationScores
    from dense_imb.models import build_model

    training, test = samples(None, None, 200, 0), samples(None, None, 100, 1)
    images, masks = (torch.stack(part) for part in zip(*test, strict=True))
    numbers: dict[str, Any] = {
        "image": to_bytes((images[:N_SHOWN, 0] / 3 + 0.5).clamp(0, 1)),
        "truth": to_bytes(masks[:N_SHOWN, 0]),
    }
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
        point = scores.histograms[1].at(0.5)
        numbers[f"map {name}"] = to_bytes(logits[:N_SHOWN].softmax(1)[:, 1])
        numbers[f"scores {name}"] = np.array([point.retention, point.purity])
    return numbers


def to_bytes(image: torch.Tensor) -> np.ndarray:
    """Return values from 0 to 1 as bytes."""
    return (255 * image).round().byte().numpy()


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw two images in rows: image, truth, and the probability of a crack by each loss."""
    rows = figure.subplots(N_SHOWN, 2 + len(LOSSES))
    for k, row in enumerate(rows):
        row[0].imshow(numbers["image"][k], cmap="gray")
        row[1].imshow(numbers["truth"][k], cmap="Blues")
        for axes, name in zip(row[2:], LOSSES, strict=True):
            axes.imshow(numbers[f"map {name}"][k], cmap="Blues", vmin=0, vmax=255)
        for axes in row:
            hide_ticks(axes)
    for axes, title in zip(rows[0], ("image", "truth", *LOSSES), strict=True):
        axes.set_title(title)
    for axes, name in zip(rows[-1][2:], LOSSES, strict=True):
        recall, precision = numbers[f"scores {name}"]
        axes.set_xlabel(f"recall {recall:.2f}\nprecision {precision:.2f}")
