"""Tiny segmenters in two stages, and what stops them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dense_imb.config import SecondConfig, TrainConfig
from dense_imb.engine import Loop
from tests.runs.pictures import tiny_images, write_folders


def pictures(folder: Path, **options: Any) -> tuple[str, str]:
    """Images of three classes, every second one without the last."""
    images, masks = write_folders(folder, n_classes=3, **options)
    for path in sorted(Path(masks).iterdir())[::2]:
        mask = np.asarray(Image.open(path))
        Image.fromarray(mask * (mask != 2)).save(path)
    return images, masks


def two(folders: tuple[str, str], **second: Any) -> TrainConfig:
    """Six steps of a segmenter, and four more of its second stage."""
    wanted = SecondConfig(**{"steps": 4, "loss": "FocalLoss", **second})
    return tiny_images(folders, steps=6, validate_every=2, save_every=0.0, second=wanted)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: bool = False) -> None:
    """A signal, or a crash, in that step of all stages together."""
    done = 0
    one_step = Loop._one_step

    def stopping(self: Loop, batch: Any) -> None:
        nonlocal done
        one_step(self, batch)
        done += 1
        if done == step:
            if error:
                raise RuntimeError("killed")
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Loop, "_one_step", stopping)
