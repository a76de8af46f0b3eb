"""A few steps of a tiny network on small maps of values."""

from __future__ import annotations

from typing import Any

from dense_imb.config import ModelConfig, OptimizerConfig, TrainConfig, ValuesConfig


def tiny_values(data: tuple[str, ...] | str, **changes: Any) -> TrainConfig:
    """A configuration of 10 steps.

    Args:
        data: folders of images and targets, or an HDF5 file.
        changes: values that differ; `values`, `model` and `optimizer` change a part each.
    """
    places = (data,) if isinstance(data, str) else data
    values = dict(zip(("train", "targets"), places, strict=False))
    values |= {"patch": [32, 32], **changes.pop("values", {})}
    model = {"name": "fast_unet", "options": {"widths": [4, 8]}, **changes.pop("model", {})}
    return TrainConfig(
        values=ValuesConfig(**values),
        model=ModelConfig(**model),
        optimizer=OptimizerConfig(**changes.pop("optimizer", {})),
        **{"steps": 10, "batch_size": 4, "validate_every": 5, **changes},
    )
