"""Files of a run: config, versions, history, scores and weights."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_model

from dense_imb import __version__
from dense_imb.base.files import temporary_path, write_whole
from dense_imb.config import TrainConfig
from dense_imb.engine.checkpoint import digest_weights
from dense_imb.engine.loop import Callback, Loop
from dense_imb.engine.task import ScoredTask
from dense_imb.runs.stages import FIRST
from dense_imb.tasks.mean_teacher import SemiSupervised

CHECKPOINTS = "checkpoints"  # the folder of them in the folder of a run
SCORES = "validation_scores.json"
WEIGHTS = "weights"  # digest of the weights, in files of what was measured with them
_SPENT = "first_spent"  # steps and seconds of the first stage, in a checkpoint


class RunFiles(Callback):
    """Callback that writes config, versions, history, scores and weights, each atomically.

    Args:
        folder: folder of the run.
        config: configuration, written if the folder has none.
        task: task of the run.
        first: content of `metrics.json` of the first stage.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        task: ScoredTask,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.config, self.task, self.first = folder, config, task, first
        self._started = time.monotonic()

    def on_start(self, loop: Loop) -> None:
        if not loop.is_main:
            return
        loop.state.memory.setdefault("seconds", 0.0)
        if self.first is not None:
            loop.state.memory[FIRST] = dict(self.first["best"])
            spent = {name: self.first.get(name) for name in ("steps", "seconds")}
            loop.state.memory[_SPENT] = spent
        write_config(self.folder, self.config)
        device = loop.accelerator.device
        _write_text(self.folder / "environment.json", json.dumps(_environment(device), indent=1))

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        if not loop.is_main:
            return
        now = time.monotonic()
        loop.state.memory["seconds"] = loop.state.memory.get("seconds", 0.0) + now - self._started
        self._started = now

    def on_best(self, loop: Loop) -> None:
        _save_weights(loop, self.folder / "best.safetensors")
        weights = loop.accelerator.unwrap_model(loop.network).state_dict()
        save_scores(self.task, self.folder, digest_weights(weights))

    def on_saved(self, loop: Loop) -> None:
        rows = loop.state.history
        if rows:
            table = io.StringIO()
            writer = csv.DictWriter(table, list(dict.fromkeys(n for row in rows for n in row)))
            writer.writeheader()
            writer.writerows(rows)
            _write_text(self.folder / "history.csv", table.getvalue())
            _write_text(self.folder / "metrics.json", json.dumps(self._metrics(loop), indent=1))

    def on_end(self, loop: Loop) -> None:
        if loop.is_main:
            _save_weights(loop, self.folder / "last.safetensors")
            self.on_saved(loop)

    def _metrics(self, loop: Loop) -> dict[str, Any]:
        state = loop.state
        best = next((row for row in state.history if row["step"] == state.best_step), {})
        seconds = state.memory.get("seconds", 0.0)
        spent = state.memory.get(_SPENT, {})  # older checkpoints lack it
        return {
            "monitor": self.task.monitor,
            "best": _strict(best),
            "last": _strict(state.history[-1]),
            **({FIRST: state.memory[FIRST]} if FIRST in state.memory else {}),
            **{f"{FIRST}_{name}": value for name, value in spent.items()},
            "steps": state.step,
            "is_finished": state.step == loop.settings.steps or state.stop is not None,
            "stopped": state.stop,
            "seconds": round(seconds, 1),
            "parameters": sum(p.numel() for p in self.task.network.parameters()),
            "samples": _n_samples(self.task),
        }


def save_scores(task: ScoredTask, folder: Path, weights: str) -> None:
    """Write the validation scores of a task, with the digest of the weights that they are of.

    The file appears whole: scores and weights are read together or not at all.

    Args:
        task: task, after its validation.
        folder: folder to write to.
        weights: see `digest_weights`.
    """

    place = temporary_path(folder / SCORES)
    place.mkdir()
    try:
        task.save_scores(place / SCORES)
        stored = {**json.loads((place / SCORES).read_text()), WEIGHTS: weights}
        (place / SCORES).unlink()
        for path in place.iterdir():  # profiles that belong to them
            path.replace(folder / path.name)
        _write_text(folder / SCORES, json.dumps(stored))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def scored_weights(folder: Path) -> str | None:
    """Return the digest of the weights that the scores in a folder are of; None if unknown."""
    try:
        stored = json.loads((folder / SCORES).read_text())
    except (OSError, ValueError, RecursionError):  # reading the scores has an error of its own
        return None
    weights = stored.get(WEIGHTS) if isinstance(stored, dict) else None
    return weights if isinstance(weights, str) else None


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the configuration of a run, if its folder has none."""
    if not (folder / "config.yaml").exists():
        text = yaml.safe_dump(asdict(config), sort_keys=False)
        _write_text(folder / "config.yaml", text)


def _n_samples(task: Any) -> dict[str, int]:
    """Count the labelled, unlabelled and validation samples."""
    if isinstance(task, SemiSupervised):
        counts = _n_samples(task.task)
        return {"train": counts.pop("train"), "unlabelled": task.unlabelled.n_images, **counts}
    return {name: len(getattr(task, name)) for name in ("train", "validation")}


def _strict(row: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _save_weights(loop: Loop, path: Path) -> None:
    bare = loop.accelerator.unwrap_model(loop.network)

    def write(partial: Path) -> None:
        # safetensors has a temporary file of its own beside the new one: in a folder of ours it is
        # cleared, too, if the process is killed
        folder = temporary_path(path)
        folder.mkdir()
        try:
            weights = folder / path.name
            save_model(bare, str(weights))
            weights.chmod(0o644)  # safetensors lets nobody else read it
            weights.replace(partial)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        write_whole(path, write)
    except SafetensorError as problem:  # it hides a full disk
        raise OSError(f"Expected to write {path}, got: {problem}.") from problem


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda partial: partial.write_text(text))


def _environment(device: torch.device) -> dict[str, Any]:
    """Return versions, devices and the state of the code."""
    packages = {}
    for name in ("torch", "numpy", "h5py", "accelerate", "monai", "segmentation-models-pytorch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
    return {
        "dense_imb": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": packages,
        "git": _git_state(),
        "command": sys.argv,
    }


def _git_state() -> str | None:
    """Return the commit of the working directory, with + if files differ from it."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")
