"""The folder `read_out` of a run on values: the map from predictions to mean values, its scores.

It is written once, at the end of the training, for the best network. A folder is whole or not
there.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dense_imb.base.files import write_whole, write_whole_folder
from dense_imb.engine.checkpoint import digest_weights, load_checkpoint
from dense_imb.engine.loop import Loop
from dense_imb.metrics.read_out import ReadOut
from dense_imb.runs.write import WEIGHTS, save_scores

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
    """

    read_out: ReadOut
    step: int
    weights: str = ""

    def summary(self) -> str:
        """Describe the read-out and its effect in a line for each map."""
        n_lit = sum(effect.n_target for effect in self.read_out.effect)
        few = f"\nfitted on {n_lit} lit pixels only: use more validation images, or --raw"
        return f"{self.read_out.describe()}{few if n_lit < _FEW else ''}"


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
    loop.accelerator.wait_for_everyone()
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
        read_out = ReadOut.fit(task.tally_read_out(network, device, *place))
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
        "read_out": read_out.to_dict(),
    }
    text = json.dumps(stored, indent=1, allow_nan=False) + "\n"

    def write(to: Path) -> None:
        save_scores(task, to, weights)
        write_whole(to / _RECORD, lambda record: record.write_text(text))

    write_whole_folder(folder / READ_OUT, write)


def read_read_out(folder: str | os.PathLike[str]) -> ReadOutRecord | None:
    """Read the read-out of a run; None for a run without the folder."""
    path = Path(folder) / READ_OUT / _RECORD
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT or stored["version"] != _VERSION:
            raise ValueError(f"format {stored['format']}, version {stored['version']}")
        read_out, step = ReadOut.from_dict(stored["read_out"]), int(stored["step"])
        return ReadOutRecord(read_out, step, str(stored.get(WEIGHTS, "")))
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"Expected the read-out of a run in {path}, got another file ({problem})."
        ) from problem
