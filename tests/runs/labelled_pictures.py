"""Small classified images, of the classification recipe's generator, and configs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dense_imb.config import LabelsConfig, ModelConfig, OptimizerConfig, TrainConfig
from tests.data.labels.generated import small_data

CLASSES = ["nevus", "keratosis", "melanoma"]


def write_cifar(folder: Path, per_class: int = 24) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cifar-10-python.tar.gz"
    return str(small_data.write_archive(path, small_data.cifar_files(10, per_class)))


def write_tables(folder: Path, counts: tuple[int, ...] = (30, 12, 5)) -> str:
    small_data.write_table_data(folder, counts, side=24)
    return str(folder)


def tiny_classes(**changes: Any) -> TrainConfig:
    """A few steps of a tiny network; `labels`, `model` and `optimizer` change a part."""
    model = {"name": "resnet32", "options": {"depth": 8, "width": 4}}
    optimizer = {"learning_rate": 0.01, **changes.pop("optimizer", {})}
    return TrainConfig(
        labels=LabelsConfig(**changes.pop("labels", {})),
        model=ModelConfig(**{**model, **changes.pop("model", {})}),
        optimizer=OptimizerConfig(**optimizer),
        **{"steps": 10, "batch_size": 16, "validate_every": 5, **changes},
    )


def of_table(folder: str, **changes: Any) -> TrainConfig:
    table = {"train": f"{folder}/train.csv", "images": f"{folder}/images", "classes": CLASSES}
    return tiny_classes(labels={**table, **changes.pop("labels", {})}, **changes)
