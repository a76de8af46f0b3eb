"""Tiny hits files, configs and tasks to train with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.config import HitsConfig, ModelConfig, OptimizerConfig, TrainConfig
from dense_imb.engine import Loop, LoopSettings
from dense_imb.engine.checkpoint import load_checkpoint
from dense_imb.hits import Events, Geometry, HitsWriter

FRAME = Geometry(16, 12, 100)


def clean_events(n_events: int, seed: int = 0, frame: Geometry = FRAME) -> Events:
    """A short diagonal streak in each event."""
    rng = np.random.default_rng(seed)
    n_hits = 8
    start_x = rng.integers(0, frame.width - n_hits, n_events)
    start_y = rng.integers(0, frame.height - n_hits, n_events)
    step = np.arange(n_hits)
    return Events(
        frame,
        n_hits * np.arange(n_events + 1),
        (start_x[:, None] + step).ravel().astype(np.uint16),
        (start_y[:, None] + step).ravel().astype(np.uint16),
        (rng.integers(1, 50, n_events)[:, None] + 5 * step).ravel().astype(np.uint16),
        np.ones(n_hits * n_events, np.uint8),
    )


def write_events(path: Path, events: Events) -> str:
    with HitsWriter(path, events.geometry, overwrite=True) as writer:
        writer.append(events)
    return str(path)


def tiny(train: str | list[str], **changes: Any) -> TrainConfig:
    """Ten steps of a tiny network; `hits`, `model` and `optimizer` change a part each."""
    hits = {"train": train, "noise": 20, "signal": 6, "validation_share": 0.25}
    model = {"name": "fast_unet", "options": {"widths": [4, 8]}}
    return TrainConfig(
        hits=HitsConfig(**{**hits, **changes.pop("hits", {})}),
        model=ModelConfig(**{**model, **changes.pop("model", {})}),
        optimizer=OptimizerConfig(**changes.pop("optimizer", {})),
        **{"steps": 10, "batch_size": 4, "validate_every": 4, **changes},
    )


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, **changes)


class Line:
    """A task of two lines: noisy points of y = 2 x + 1, and a network that draws lines."""

    monitor = "accuracy"

    def __init__(self, n_samples: int = 24, network: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(1, 1) if network is None else network
        self.loss: nn.Module = nn.MSELoss()
        self.n_samples = n_samples
        self.seen: list[tuple[int, ...]] = []

    def batch(self, samples: Any, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(samples))
        x = torch.as_tensor(samples, dtype=torch.float32)[:, None] / self.n_samples
        return x, 2 * x + 1 + 0.01 * torch.sin(x * 50 + epoch)

    def cost(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        cost: Tensor = self.loss(network(batch[0]), batch[1])
        return cost

    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        x = torch.linspace(0, 1, 7)[:, None]
        return {"accuracy": -float(nn.functional.mse_loss(network(x), 2 * x + 1))}

    def describe(self) -> Mapping[str, str]:
        return {"task": "line"}


class Dropping(nn.Module):
    """A network that draws random numbers, and has buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Remembering(nn.Module):
    """A loss with a state: its scale changes with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.scale.mul_(0.9).add_(0.05 * float(target.mean()))
        return self.scale.clone() * (prediction - target).square().mean()


def loop_of(task: Any, folder: Path | None = None, **settings: Any) -> Loop:
    """A loop over a `Line`."""
    callbacks = settings.pop("callbacks", ())
    accelerator = settings.pop("accelerator", None)
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(task.network.parameters(), 0.05)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    wanted = {"steps": 12, "batch_size": 5, "validate_every": 5, **settings}
    return Loop(
        task,
        optimizer,
        LoopSettings(**wanted),
        folder,
        callbacks=callbacks,
        accelerator=accelerator,
    )


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """Nested containers as one dictionary; the time that a run took is left out."""
    if isinstance(content, dict):
        items = [(str(key), value) for key, value in content.items() if key != "seconds"]
    elif isinstance(content, list | tuple):
        items = [(str(i), value) for i, value in enumerate(content)]
    else:
        return {name: content}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flat(value, f"{name}/{key}")
    return found


def assert_same_content(got: Any, wanted: Any) -> None:
    """Bit for bit."""
    got, wanted = flat(got), flat(wanted)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            assert got[name].dtype == value.dtype, name
            assert torch.equal(got[name], value), name
        else:
            assert got[name] == value or (got[name] != got[name] and value != value), name


def assert_same_runs(got: Path, wanted: Path) -> None:
    """The same history, last checkpoint and best one, and no file that should not be there."""
    assert (got / "history.csv").read_text() == (wanted / "history.csv").read_text()
    for kind in ("step", "best"):
        last, expected = (
            sorted((f / "checkpoints").glob(f"{kind}-*.pt"))[-1] for f in (got, wanted)
        )
        assert last.name == expected.name
        assert_same_content(load_checkpoint(last), load_checkpoint(expected))
    for name in ("best.safetensors", "last.safetensors", "validation_scores.json"):
        assert (got / name).read_bytes() == (wanted / name).read_bytes(), name
    assert not list(got.rglob("*.partial"))
