"""The folder of a run, read again: its config, its history and the network that came out."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dense_imb.engine.checkpoint import CheckpointError, load_checkpoint
from dense_imb.hits import Events, Geometry
from dense_imb.metrics import (
    ClassificationScores,
    OperatingPoint,
    ScoreHistogram,
    SegmentationScores,
)
from dense_imb.runs.stages import FIRST, last_stage, told_stages
from dense_imb.runs.write import CHECKPOINTS, SCORES
from dense_imb.tasks.hits.task import Reading
from dense_imb.tasks.images.task import ImageReading, TrainedSegmenter
from dense_imb.tasks.labels.task import ClassReading, TrainedClassifier
from dense_imb.tasks.recipe import (
    build_network,
    build_reading,
    of_classes,
    of_hits,
    of_images,
    read_config,
)

_SILENT = 0.01  # share that a teacher is sure of, below which nothing is learnt from it
_OF_CLASS = re.compile(r"sure_share_\d+")  # columns of the history


class TrainedDenoiser:
    """A trained network as a `dense_imb.hits.baselines.Scorer`.

    Args:
        name: what tables call it.
        network: with its weights.
        reading: how events become its input, and its output scores.
        geometry: the frames that it was trained on.
        device: where it runs.
        batch_size: events at a time; by default what is quick: 16 stay in the caches of a CPU.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        reading: Reading,
        geometry: Geometry,
        device: str | torch.device = "cpu",
        batch_size: int | None = None,
    ) -> None:
        self.name, self.reading, self.geometry = name, reading, geometry
        self.network, self.device = network.eval().to(device), torch.device(device)
        self.batch_size = batch_size or (16 if self.device.type == "cpu" else 256)

    @torch.no_grad()
    def score(self, events: Events) -> Tensor:
        """(n_hits,) float32 in [0, 1]; larger is more like signal."""
        for name in ("width", "height", "time_steps"):
            wanted, got = getattr(self.geometry, name), getattr(events.geometry, name)
            if wanted != got:
                raise ValueError(
                    f"Expected events of {name} {wanted}, on which {self.name} was trained, "
                    f"got {got}."
                )
        scores = [torch.zeros(0)]
        for start in range(0, len(events), self.batch_size):
            part = events[start : start + self.batch_size].torch(self.device)
            scores.append(self.reading.score(self.network, part).cpu())
        return torch.cat(scores).to(events.x.device if events.is_torch else "cpu")


class Run:
    """The folder of a run.

    Of a run in two stages it is the second one that is read, `first` reads the other. `config` is
    then that of the second stage, as one of a single stage; `whole_config` has all that was asked
    for.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise ValueError(
                f"Expected the folder of a run, with config.yaml, got {self.folder}; "
                "dense-imb train makes one."
            )
        self.whole_config = read_config(path)
        self.config = last_stage(self.whole_config)

    @property
    def name(self) -> str:
        """What tables call it: that of the folder, of a first stage with that of its run.

        "two/first" say, which is no file name.
        """
        folder = self.folder.resolve()
        above = folder.parent / "config.yaml"
        if folder.name != FIRST or not above.is_file():
            return folder.name
        try:
            is_stage = read_config(above).second.steps > 0
        except (ValueError, OSError):  # whatever it is, it is no run
            is_stage = False
        return f"{folder.parent.name}/{FIRST}" if is_stage else folder.name

    @property
    def first(self) -> Run | None:
        """The first stage of a run in two; None where it is the only one, or not yet there."""
        there = self.whole_config.second.steps > 0 and self.folder / FIRST
        return Run(there) if there and (there / "config.yaml").is_file() else None

    def history(self) -> list[dict[str, float]]:
        """A row for each validation."""
        path = self.folder / "history.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [
                {name: float(value or math.nan) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds; empty before the first validation."""
        path = self.folder / "metrics.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def summary(self) -> str:
        """What came out, in a few lines for people."""
        metrics = self.metrics()
        is_second = self.whole_config.second.steps > 0
        if not metrics and is_second and self.first is not None:
            return f"{self.first.summary()}\n{self.folder}: no validation of the second stage yet"
        if not metrics:
            return f"{self.folder}: no validation yet"
        if not (best := metrics["best"]):
            return f"{self.folder}: {metrics['steps']} steps, no validation with a score"
        lines = [
            f"{self.folder}: {_told_steps(metrics, is_second=is_second)}"
            f"{metrics['parameters']:,} parameters",
            f"best after step {best['step']:.0f}; {self._told(best)}",
            self.told_samples(),
            self.told_teacher(),
        ]
        if FIRST in metrics:
            lines.append(told_stages(metrics, self.folder))
        return "\n".join(line for line in [*lines, metrics["stopped"]] if line)

    def told_samples(self) -> str:
        """How many samples there are with and without labels; "" where nobody counted them."""
        counted = self.metrics().get("samples")
        if not counted:
            return ""
        what, _ = self._units
        told = f"{counted['train']:,} labelled {what}, "
        if n_unlabelled := (self._semi_supervised().get("samples") or {}).get("unlabelled"):
            told += f"{n_unlabelled:,} without labels, "
        return f"{told}{counted['validation']:,} to validate on"

    def told_teacher(self) -> str:
        """What the unlabelled samples have contributed; "" where there are none."""
        metrics = self._semi_supervised()
        last = metrics.get("last") or {}
        if (share := last.get("sure_share")) is None:
            return ""
        _, what = self._units
        when = "at the end" if metrics.get("is_finished") else "so far"
        told = f"the teacher was sure of {100 * share:.3g} % of the {what} {when}"
        others = [v for n, v in last.items() if _OF_CLASS.fullmatch(n) and n != "sure_share_0"]
        is_blank = share > 0 and bool(others) and not any(others)
        if is_blank:
            told += ", but never of another class than 0"
        is_silent = is_blank or share < _SILENT
        cure = ": lower --unlabelled.threshold, or train for longer"
        return told + cure if is_silent else told

    @property
    def _units(self) -> tuple[str, str]:
        """What a sample is, and what of it has a label."""
        if self.config.trains_on_classes:
            return "images", "images"
        return ("images", "pixels") if self.config.trains_on_images else ("events", "hits")

    def _semi_supervised(self) -> dict[str, Any]:
        """The metrics of the stage that learnt without labels, which is never a second one."""
        if not self.whole_config.is_semi_supervised:
            return {}
        if self.whole_config.second.steps == 0:
            return self.metrics()
        return {} if self.first is None else self.first.metrics()

    def _told(self, best: dict[str, Any]) -> str:
        if self.config.trains_on_classes:
            wanted = (
                "balanced accuracy, accuracy, head accuracy, middle accuracy, tail accuracy, auc"
            )
            found = {n: best.get(n.replace(" ", "_")) for n in wanted.split(", ")}
            scores = [f"{n} {value:.3f}" for n, value in found.items() if value is not None]
            return f"{', '.join(scores)} (validation images)"
        if self.config.trains_on_images:
            names = ("average_precision", "dice", "iou")
            scores = [f"{n.replace('_', ' ')} {best[n]:.3f}" for n in names if best[n] is not None]
            return f"{', '.join(scores)} (validation images, mean of the foreground classes)"
        removal = ", ".join(
            f"{100 * value:.2f} % at {name.removeprefix('removal_at_')} %"
            for name, value in best.items()
            if name.startswith("removal_at_") and value is not None
        )
        return f"noise removed at a retention: {removal} (validation events)"

    def checkpoint(self, which: Literal["best", "last"] = "best") -> dict[str, Any]:
        """The content of the best or the newest checkpoint, its digest checked."""
        pattern = "best-*.pt" if which == "best" else "step-*.pt"
        found = sorted((self.folder / CHECKPOINTS).glob(pattern))
        if not found:
            raise CheckpointError(
                f"Expected a {which} checkpoint in {self.folder / CHECKPOINTS}, got none; "
                f"{self._why_none()}."
            )
        return load_checkpoint(found[-1])

    def _why_none(self) -> str:
        """Why there is no checkpoint."""
        if self.metrics():
            return "no validation had a score"
        if self.first is not None:
            return f"the second stage has not begun, the first one is a run in {self.first.folder}"
        return "the run has not come to its first validation"

    def weights(self, which: Literal["best", "last"] = "best") -> dict[str, Tensor]:
        """The state of the network."""
        return dict(self.checkpoint(which)["network"])

    def geometry(self) -> Geometry:
        """The frames of hits that it was trained on."""
        return self._geometry(self.checkpoint())

    def _geometry(self, content: dict[str, Any]) -> Geometry:
        if self.config.trains_on_images:
            raise ValueError(
                f"Expected a run that was trained on hits, got {self.folder}, which was trained "
                "on images: dense-imb segment makes masks with it, evaluate takes --masks."
            )
        if self.config.trains_on_classes:
            raise ValueError(
                f"Expected a run that was trained on hits, got {self.folder}, a classifier of "
                "whole images; dense-imb evaluate RUN TEST.csv measures it."
            )
        width, height, time_steps = (int(size) for size in content["setup"]["frame"].split(" x "))
        return Geometry(width, height, time_steps)

    def _network(self, content: dict[str, Any], frames: dict[str, Any]) -> nn.Module:
        config, options = self.config, self.config.model.options
        if options.get("pretrained"):  # timm's: they would be downloaded, to be replaced at once
            untrained = replace(config.model, options={**options, "pretrained": False})
            config = replace(config, model=untrained)
        network = build_network(config, frames)
        try:
            network.load_state_dict(content["network"])
        except RuntimeError as problem:
            raise CheckpointError(
                f"Expected weights of {self.config.model.name} in {self.folder}, got others "
                f"({str(problem).splitlines()[-1].strip()})."
            ) from problem
        return network

    def scorer(
        self,
        which: Literal["best", "last"] = "best",
        *,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
    ) -> TrainedDenoiser:
        """The trained network, ready to score hits; on a GPU where there is one."""
        content = self.checkpoint(which)
        geometry = self._geometry(content)
        network = self._network(content, of_hits(self.config, geometry))
        reading = build_reading(self.config)
        return TrainedDenoiser(self.name, network, reading, geometry, _device(device), batch_size)

    def segmenter(
        self,
        which: Literal["best", "last"] = "best",
        *,
        device: str | torch.device | None = None,
    ) -> TrainedSegmenter:
        """The trained network, ready to segment images; on a GPU where there is one."""
        if not self.config.trains_on_images:
            raise ValueError(
                f"Expected a run that was trained on images with masks, got {self.folder}, which "
                "was trained on something else."
            )
        content = self.checkpoint(which)
        reading = ImageReading.of_setup(content["setup"])
        network = self._network(content, of_images(reading))
        return TrainedSegmenter(self.name, network, reading, _device(device))

    def classifier(
        self,
        which: Literal["best", "last"] = "best",
        *,
        device: str | torch.device | None = None,
    ) -> TrainedClassifier:
        """The trained network, ready to classify images; on a GPU where there is one."""
        if not self.config.trains_on_classes:
            raise ValueError(
                f"Expected a run that was trained on images with a label each, got {self.folder}, "
                "which was trained on something else."
            )
        content = self.checkpoint(which)
        reading = ClassReading.from_text(content["setup"]["classes"])
        network = self._network(content, of_classes(reading))
        return TrainedClassifier(self.name, network, reading, _device(device))

    def validation_scores(self) -> ScoreHistogram:
        """The histogram of the best network's scores on the validation events."""
        return ScoreHistogram.load(self.folder / SCORES)

    def class_scores(self) -> SegmentationScores:
        """The counts of the best network on the validation images, of a run on images."""
        return SegmentationScores.load(self.folder / SCORES)

    def classification_scores(self) -> ClassificationScores:
        """The counts of the best network on the validation images, of a classifier."""
        return ClassificationScores.load(self.folder / SCORES)

    def operating_point(self, retention: float | None = None) -> OperatingPoint:
        """The threshold for a wanted retention of hits, chosen on the validation events."""
        wanted = self.config.retention if retention is None else retention
        return self.validation_scores().operating_point(wanted)


def _told_steps(metrics: dict[str, Any], *, is_second: bool) -> str:
    told = f"{metrics['steps']} steps in {metrics['seconds']:.0f} s"
    if not is_second:
        return f"{told}, "
    if metrics.get("first_steps") is None:  # of an older version
        return f"second stage, {told}, "
    first = f"{metrics['first_steps']} steps in {metrics['first_seconds']:.0f} s"
    return f"stage 1: {first}; stage 2: {told}; "


def _device(wanted: str | torch.device | None) -> str | torch.device:
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def open_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder."""
    return Run(folder)
