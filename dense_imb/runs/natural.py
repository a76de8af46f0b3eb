"""The folder `natural` of a run: how outputs become natural probabilities, and their scores.

It is written at the end of the training, for the best network, and by `calibrate`. A folder is
whole or not there.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dense_imb.base.files import write_whole, write_whole_folder
from dense_imb.base.refusals import Refused
from dense_imb.config import TrainConfig
from dense_imb.engine.checkpoint import digest_weights, load_checkpoint
from dense_imb.engine.loop import Loop
from dense_imb.engine.processes import wait_for_all
from dense_imb.losses import Focal
from dense_imb.losses.core.natural import Natural, NoInverseError
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.natural import counted_bins, counted_pixels, fitted
from dense_imb.runs.write import SCORES, WEIGHTS, save_scores
from dense_imb.tasks.kind import kind_of
from dense_imb.tasks.mean_teacher import SemiSupervised
from dense_imb.tasks.natural import (
    CalibrationWarning,
    is_plain_sample,
    natural_of,
)

NATURAL = "natural"  # folder in that of a run
_RECORD = "natural.json"
_FORMAT, _VERSION = "dense-imb-natural", 1
_RANK = "scores rank, they are no probabilities (dense-imb evaluate RUN --calibrate fits them)"


@dataclass(frozen=True)
class NaturalRecord:
    """Map from the outputs of a run's best network to natural probabilities.

    Args:
        natural: map to natural logits; None leaves them as trained.
        step: step of the network.
        fit: what was fitted on the validation data: "bias", "affine" or "none".
        class_counts: training pixels (hits) of each class.
        why: reason why the loss has no inverse; "" if it has one.
        error: calibration error of the foreground on the validation data, as trained and natural.
        weights: digest of the network's weights; "" if unknown.
    """

    natural: Natural | None
    step: int
    fit: str
    class_counts: tuple[int, ...]
    why: str = ""
    error: tuple[float, float] | None = None
    weights: str = ""

    @property
    def is_probability(self) -> bool:
        """Whether the outputs are probabilities; those of a loss without an inverse only rank."""
        return self.natural is not None or not self.why

    def summary(self) -> str:
        """Describe the probabilities in one line."""
        if self.natural is None:
            return f"{self.why.rstrip('.')}; {_RANK}" if self.why else "probabilities: as trained"
        fits = {"bias": "a bias fitted", "affine": "slope and bias fitted"}
        how = f" with {fits[self.fit]} on the validation data" if self.fit in fits else ""
        error = (
            "" if self.error is None else ", calibration error {:.3g} -> {:.3g}".format(*self.error)
        )
        return f"probabilities: natural{how}{error}"


def write_natural(config: TrainConfig, folder: Path, task: Any, loop: Loop) -> None:
    """Write the natural probabilities of the best network, and its scores with them.

    Every process calls it, after the last step. The network of the task becomes the best one.

    Args:
        config: configuration of the stage.
        folder: folder of the stage.
        task: task of the stage.
        loop: finished loop.
    """
    task = task.task if isinstance(task, SemiSupervised) else task
    reading: Any = getattr(task, "reading", None)
    if loop.state.best_step < 0 or not hasattr(reading, "natural"):
        return  # without a best network, or whole images, whose test sets have other priors
    wait_for_all(loop.accelerator.device)
    if getattr(reading, "output", "") == "value":
        return  # times, no classes
    known = read_natural(folder)
    best = load_checkpoint(loop.best_path())["network"]
    weights = digest_weights(best)
    if known is not None and known.step == loop.state.best_step and known.weights in ("", weights):
        return
    network = loop.accelerator.unwrap_model(loop.network)
    network.load_state_dict(best)
    network.eval()
    device = loop.accelerator.device
    before = foreground_scores(config, folder)
    loss, step = output_loss(task), loop.state.best_step
    record = fit(config, task, loss, before, network, device, step)
    record = replace(record, weights=weights)
    validate_naturally(task, record, network, device, loop.process, loop.accelerator.num_processes)
    if loop.is_main:
        save(config, folder, task, record, before)


def foreground_scores(config: TrainConfig, folder: Path) -> Sequence[ScoreHistogram]:
    """Load the validation scores of each foreground class from a folder."""
    kind = kind_of(config)
    return kind.foreground(kind.load_scores(folder / SCORES))


def output_loss(task: Any) -> nn.Module:
    """Return the loss of classes of a task."""
    loss = task.described_loss
    loss = loss[0] if isinstance(loss, Sequence) else loss
    assert isinstance(loss, nn.Module)
    return loss


def validate_naturally(
    task: Any,
    record: NaturalRecord,
    network: nn.Module,
    device: torch.device,
    process: int = 0,
    n_processes: int = 1,
) -> None:
    """Validate once more, with natural probabilities; nothing to do where outputs stay as trained.

    Args:
        task: task whose scores become those of the natural probabilities.
        record: map to natural probabilities.
        network: best network.
        device: device of the network.
        process, n_processes: rank of this process, and number of processes that share the work.
    """
    if record.natural is None:
        return
    reading = task.reading
    task.reading = replace(reading, natural=record.natural)
    with torch.no_grad():
        task.validate(network, device, process, n_processes)
    task.reading = reading


def save(
    config: TrainConfig,
    folder: Path,
    task: Any,
    record: NaturalRecord,
    before: Sequence[ScoreHistogram],
) -> None:
    """Write the folder `natural` of a run, in place of an earlier one.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        task: task, after `validate_naturally`.
        record: map to natural probabilities.
        before: validation scores of each foreground class, as trained.
    """

    def write(to: Path) -> None:
        written = record
        if record.natural is not None:
            save_scores(task, to, record.weights)
            after = foreground_scores(config, to)
            written = replace(record, error=(_mean_error(before), _mean_error(after)))
        _write_record(to / _RECORD, written)

    write_whole_folder(folder / NATURAL, write)


def fit(
    config: TrainConfig,
    task: Any,
    loss: nn.Module,
    foreground: Sequence[ScoreHistogram],
    network: nn.Module,
    device: torch.device,
    step: int,
    *,
    must_fit: bool = False,
) -> NaturalRecord:
    """Invert the loss, and fit what the inverse does not know.

    Args:
        config: configuration; `calibrate` asks for slope and bias.
        task: task with the validation data.
        loss: training loss.
        foreground: validation scores of each foreground class, as trained.
        network: best network.
        device: device of the network.
        step: step of the network.
        must_fit: refuse validation data that are too few, rather than warn.
    """
    n_classes = getattr(task.reading, "n_classes", 2)
    counts, why = tuple(int(count) for count in task.class_counts), ""
    natural = Natural((1.0,) * n_classes)
    try:
        if not task.reading.is_logit:
            raise NoInverseError(
                f"`{type(loss).__name__}` gives no probabilities: its outputs "
                "are values, not logits."
            )
        natural = _storable(natural_of(loss, n_classes, counts))
    except NoInverseError as problem:
        why = problem.reason
        if not config.calibrate:
            return NaturalRecord(None, step, "none", counts, why)
    if config.calibrate or not is_plain_sample(config, loss):
        if n_classes == 2:
            counted = counted_bins(foreground[0])
        else:
            outputs = task.labelled_outputs(network, device)
            counted = counted_pixels(outputs, n_classes, len(task.validation))
        try:
            natural = fitted(natural, counted, affine=config.calibrate)
            return NaturalRecord(natural, step, "affine" if config.calibrate else "bias", counts)
        except Refused as problem:
            if must_fit:
                raise
            if config.calibrate:  # never an error: the training is done
                warnings.warn(f"probabilities are not fitted: {problem}", CalibrationWarning, 2)
    return NaturalRecord(None if natural.is_identity else natural, step, "none", counts)


def _storable(natural: Natural) -> Natural:
    if natural.penalty is not None and not isinstance(natural.penalty, Focal):
        name = type(natural.penalty).__name__
        raise NoInverseError(f"`{name}` gives no probabilities: it cannot be stored.")
    return natural


def _mean_error(foreground: Sequence[ScoreHistogram]) -> float:
    """Return the calibration error of the foreground, the mean of its classes."""
    return sum(one.calibration_error() for one in foreground) / len(foreground)


def _write_record(path: Path, record: NaturalRecord) -> None:
    stored = asdict(replace(record, natural=None))
    natural = record.natural
    if natural is not None:
        stored["natural"] = {
            **asdict(replace(natural, penalty=None)),
            "gamma": natural.penalty.gamma if isinstance(natural.penalty, Focal) else None,
        }
        del stored["natural"]["penalty"]
    text = json.dumps({"format": _FORMAT, "version": _VERSION, **stored}, indent=1)
    write_whole(path, lambda to: to.write_text(text + "\n"))


def read_natural(folder: str | os.PathLike[str]) -> NaturalRecord | None:
    """Read the map to natural probabilities; None for a run without the folder."""
    path = Path(folder) / NATURAL / _RECORD
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT or stored["version"] != _VERSION:
            raise ValueError(f"format {stored['format']}, version {stored['version']}")
        natural = stored["natural"]
        error = stored["error"]
        return NaturalRecord(
            None if natural is None else _natural_from(natural),
            int(stored["step"]),
            str(stored["fit"]),
            tuple(map(int, stored["class_counts"])),
            str(stored["why"]),
            None if error is None else (float(error[0]), float(error[1])),
            str(stored.get(WEIGHTS, "")),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"Expected the probabilities of a run in {path}, got another file ({problem})."
        ) from problem


def _natural_from(stored: dict[str, Any]) -> Natural:
    gamma = stored["gamma"]
    names = ("weight", "scale", "shift", "margin", "slope", "bias")
    numbers: dict[str, Any] = {name: tuple(map(float, stored[name])) for name in names}
    penalty = None if gamma is None else Focal(float(gamma))
    return Natural(**numbers, penalty=penalty, plain=float(stored["plain"]))
