"""The folder `read_out` of a run on values: the map from predictions to mean values, its scores.

It is written once, at the end of the training, for the best network. A folder is whole or not
there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dense_imb.base.files import write_whole, write_whole_folder
from dense_imb.engine.checkpoint import digest_weights, load_checkpoint
from dense_imb.engine.loop import Loop
from dense_imb.engine.processes import wait_for_all
from dense_imb.metrics.read_out import ReadOut
from dense_imb.metrics.values import ValueScores
from dense_imb.runs.write import WEIGHTS, save_scores
from dense_imb.tasks.values.scores import headline_scores, larger_balanced_error

READ_OUT = "read_out"  # folder in that of a run
_RECORD = "read_out.json"
_FEW = 200  # lit validation pixels, below which a read-out is coarse
_FORMAT, _VERSION = "dense-imb-read-out", 1


@dataclass(frozen=True)
class ReadOutRecord:
    """Read-out of a run's best network.

    Args:
        read_out: the map, with its effect on the validation images.
        step: step of the network.
        weights: digest of its weights; "" if unknown.
        names: names of the channels, if known.
    """

    read_out: ReadOut
    step: int
    weights: str = ""
    names: tuple[str, ...] | None = None

    def describe(self) -> str:
        """Describe the read-out in a line for each map."""
        return self.read_out.describe(self.names)

    def summary(self) -> str:
        """Describe the read-out and its effect in a line for each map."""
        n_lit = sum(effect.n_target for effect in self.read_out.effect)
        few = f"\nfitted on {n_lit} lit pixels only: use more validation images, or --raw"
        return f"{self.describe()}{few if n_lit < _FEW else ''}"


def write_read_out(folder: Path, task: Any, loop: Loop) -> None:
    """Fit the read-out of the best network on the validation images, and write it with its scores.

    Every process calls it, after the last step. The network of the task becomes the best one.

    Args:
        folder: folder of the stage.
        task: task of the stage; one without `fits_read_out` has none.
        loop: finished loop.
    """
    if loop.state.best_step < 0 or not getattr(task, "fits_read_out", False):
        return
    wait_for_all(loop.accelerator.device)
    known = read_read_out(folder)
    best = load_checkpoint(loop.best_path())["network"]
    weights = digest_weights(best)
    if known is not None and known.step == loop.state.best_step and known.weights in ("", weights):
        return
    network = loop.accelerator.unwrap_model(loop.network)
    network.load_state_dict(best)
    network.eval()
    device, reading = loop.accelerator.device, task.reading
    place = loop.process, loop.accelerator.num_processes
    with torch.no_grad():
        tally = task.tally_read_out(network, device, *place)
        if not tally.n_pixels:  # no validation pixel counts
            return
        read_out = ReadOut.fit(tally)
        task.reading = replace(reading, read_out=read_out)
        task.validate(network, device, *place)
    task.reading = reading
    if not loop.is_main:
        return
    stored = {
        "format": _FORMAT,
        "version": _VERSION,
        "step": loop.state.best_step,
        WEIGHTS: weights,
        "names": reading.names,
        "read_out": read_out.to_dict(),
    }
    text = json.dumps(stored, indent=1, allow_nan=False) + "\n"

    def write(to: Path) -> None:
        save_scores(task, to, weights)
        write_whole(to / _RECORD, lambda record: record.write_text(text))

    write_whole_folder(folder / READ_OUT, write)


def describe_cost(best: Mapping[str, Any], scores: ValueScores) -> str:
    """Describe what a read-out costs in balanced error on the validation images; "" if nothing.

    Args:
        best: scores of the best network as trained.
        scores: errors of the same network with its read-out.
    """
    before, after = best.get("balanced_mae"), headline_scores(scores)["balanced_mae"]
    return "" if before is None else larger_balanced_error("validation images", before, after)


def read_read_out(folder: str | os.PathLike[str]) -> ReadOutRecord | None:
    """Read the read-out of a run; None for a run without the folder."""
    path = Path(folder) / READ_OUT / _RECORD
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT or stored["version"] != _VERSION:
            raise ValueError(f"format {stored['format']}, version {stored['version']}")
        names = stored.get("names")  # older runs lack it
        return ReadOutRecord(
            ReadOut.from_dict(stored["read_out"]),
            int(stored["step"]),
            str(stored.get(WEIGHTS, "")),
            None if names is None else tuple(map(str, names)),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"Expected the read-out of a run in {path}, got another file ({problem})."
        ) from problem
