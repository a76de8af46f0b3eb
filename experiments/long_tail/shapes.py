"""Long-tailed images of eight shapes, at any place, size, angle and colour.

    python experiments/long_tail/shapes.py shapes --largest 800 --imb-ratio 50

Writes train.csv (long-tailed), validation.csv and test.csv (balanced), and their images, PNG. A
shape lies on clutter and noise, faint or clear: a few images do not show the whole class.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_imb.data.labels.long_tail import long_tail_counts

Plane = np.ndarray[Any, np.dtype[np.float64]]
# where a shape is, in coordinates of its own: about -1 to 1
SHAPES: dict[str, Callable[[Plane, Plane], Any]] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.85,
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.75) < 0.2,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.75,
    "frame": lambda u, v: abs(np.maximum(abs(u), abs(v)) - 0.7) < 0.18,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.22) & (np.maximum(abs(u), abs(v)) < 0.95),
    "triangle": lambda u, v: (v > -0.65) & (abs(u) < (0.9 - v) * 0.55),
    "bars": lambda u, v: (abs(abs(u) - 0.5) < 0.2) & (abs(v) < 0.9),
    "crescent": lambda u, v: (np.hypot(u, v) < 0.95) & (np.hypot(u - 0.5, v) > 0.8),
}


def pictures(labels: Sequence[int], side: int, seed: int) -> Any:
    """Draw images (N, side, side, 3) uint8, one for each label."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side * 2 - 1
    drawn = np.empty((len(labels), side, side, 3), np.uint8)
    for i, label in enumerate(labels):
        image = rng.uniform(60, 190, 3) + rng.normal(0, 12, (side, side, 3))
        for _ in range(2):  # strokes that mean nothing
            angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
            stroke = abs(np.cos(angle) * x + np.sin(angle) * y - offset) < rng.uniform(0.03, 0.1)
            image[stroke] += rng.uniform(-40, 40, 3)
        turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.85)
        right, down = rng.uniform(-(1 - scale), 1 - scale, 2)
        u = (np.cos(turn) * (x - right) + np.sin(turn) * (y - down)) / scale
        v = (np.cos(turn) * (y - down) - np.sin(turn) * (x - right)) / scale
        colour = rng.choice([-1.0, 1.0], 3) * rng.uniform(50, 120, 3)
        image[list(SHAPES.values())[label](u, v)] += colour
        drawn[i] = image.clip(0, 255)
    return drawn


def write_shapes(
    folder: Path, *, largest: int, imb_ratio: float, n_held_out: int, side: int
) -> tuple[int, ...]:
    """Write the three tables and their images; return the training images of each class."""
    counts = long_tail_counts(len(SHAPES), largest, imb_ratio)
    even = (n_held_out,) * len(SHAPES)
    names = list(SHAPES)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for seed, (part, sizes) in enumerate((("train", counts), ("validation", even), ("test", even))):
        labels = np.repeat(np.arange(len(SHAPES)), sizes).tolist()
        lines = ["image,label"]
        for i, picture in enumerate(pictures(labels, side, seed)):
            name = f"{part}_{i:05d}.png"
            Image.fromarray(picture).save(folder / "images" / name)
            lines.append(f"{name},{names[labels[i]]}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")  # behind its images
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="new or empty folder")
    parser.add_argument("--largest", type=int, default=800, help="images of the first class")
    parser.add_argument(
        "--imb-ratio",
        type=float,
        default=50,
        help="images of the first class over those of the last",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=50,
        help="validation images of a class, and as many test images",
    )
    parser.add_argument("--side", type=int, default=24, help="side of the images, in pixels")
    options = parser.parse_args(arguments)
    counts = write_shapes(
        options.folder, largest=options.largest, imb_ratio=options.imb_ratio,
        n_held_out=options.held_out, side=options.side,
    )  # fmt: skip
    for name, count in zip(SHAPES, counts, strict=True):
        print(f"{name:10}{count:6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
