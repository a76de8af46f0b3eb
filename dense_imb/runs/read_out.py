"""The folder `read_out` of a run on values: the map from predictions to mean values, its scores.

It is written once, at the end of the training, for the best network. The map is the last file to
be written, so a folder with one is complete.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dense_imb.base.files import write_whole
from dense_imb.engine.checkpoint import load_checkpoint
from dense_imb.engine.loop import Loop
from dense_imb.metrics.read_out import ReadOut
from dense_imb.runs.write import SCORES

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
    """

    read_out: ReadOut
    step: int

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
    if known is not None and known.step == loop.state.best_step:
        return
    network = loop.accelerator.unwrap_model(loop.network)
    network.load_state_dict(load_checkpoint(loop.best_path())["network"])
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
    (folder / READ_OUT).mkdir(exist_ok=True)
    task.save_scores(folder / READ_OUT / SCORES)
    stored = {
        "format": _FORMAT,
        "version": _VERSION,
        "step": loop.state.best_step,
        "read_out": read_out.to_dict(),
    }
    text = json.dumps(stored, indent=1, allow_nan=False) + "\n"
    write_whole(folder / READ_OUT / _RECORD, lambda to: to.write_text(text))


def read_read_out(folder: str | os.PathLike[str]) -> ReadOutRecord | None:
    """Read the read-out of a run; None for a run without the folder."""
    path = Path(folder) / READ_OUT / _RECORD
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT or stored["version"] != _VERSION:
            raise ValueError(f"format {stored['format']}, version {stored['version']}")
        return ReadOutRecord(ReadOut.from_dict(stored["read_out"]), int(stored["step"]))
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"Expected the read-out of a run in {path}, got another file ({problem})."
        ) from problem
