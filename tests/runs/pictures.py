"""Small folders of images with masks, 2-D and 3-D, whose foreground is rare and can be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_imb.config import ImagesConfig, ModelConfig, OptimizerConfig, TrainConfig


def lines(n: int, size: tuple[int, ...], n_classes: int = 2, seed: int = 0) -> tuple[Any, Any]:
    """Noisy images (n, *size) uint8 with a bright line of each class, and their masks."""
    rng = np.random.default_rng(seed)
    image = rng.normal(90, 12, (n, *size))
    mask = np.zeros((n, *size), np.uint8)
    for i in range(n):
        for k in range(1, n_classes):
            place = [int(rng.integers(2, side - 2)) for side in size]
            length = size[-1] // 2
            start = int(rng.integers(0, size[-1] - length))
            where = (*place[:-1], slice(start, start + length))
            mask[i][where] = k
            image[i][where] += 40 + 60 * (k - 1)
    return image.clip(0, 255).astype(np.uint8), mask


def write_folders(
    folder: Path,
    n: int = 8,
    size: tuple[int, ...] = (40, 48),
    n_classes: int = 2,
    *,
    values: tuple[int, ...] | None = None,
    seed: int = 0,
) -> tuple[str, str]:
    """Folders of images and masks; a mask holds `values[class]`."""
    images, masks = folder / "images", folder / "masks"
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    pixels, labels = lines(n, size, n_classes, seed)
    if values is not None:
        labels = np.asarray(values, np.uint8)[labels]
    for i in range(n):
        for path, array in ((images, pixels[i]), (masks, labels[i])):
            if len(size) == 2:
                Image.fromarray(array).save(path / f"{i:03d}.png")
            else:
                np.save(path / f"{i:03d}.npy", array)
    return str(images), str(masks)


def tiny_images(folders: tuple[str, str], **changes: Any) -> TrainConfig:
    """A few steps of a tiny network; `images`, `model` and `optimizer` change a part each."""
    images = {"train": folders[0], "masks": folders[1], "patch": [32, 32]}
    model = {"name": "fast_unet", "options": {"widths": [4, 8]}}
    return TrainConfig(
        images=ImagesConfig(**{**images, **changes.pop("images", {})}),
        model=ModelConfig(**{**model, **changes.pop("model", {})}),
        optimizer=OptimizerConfig(**changes.pop("optimizer", {})),
        **{"steps": 10, "batch_size": 4, "validate_every": 5, **changes},
    )
