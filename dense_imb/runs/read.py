"""The folder of a run, read again: its configuration, its history and its trained network.

Reading a run builds no loss and imports nothing that the run names: the folder may come from
anybody.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor

from dense_imb.base.files import decoding
from dense_imb.base.refusals import Refused, literal
from dense_imb.base.tabular import data_frame
from dense_imb.base.values import build_dataclass
from dense_imb.base.yaml_text import read_yaml_file
from dense_imb.config import TrainConfig, upgrade, with_defaults
from dense_imb.engine.checkpoint import (
    CheckpointError,
    check_weights,
    digest_weights,
    load_checkpoint,
)
from dense_imb.hits import Geometry
from dense_imb.hits.drift import EventProfile, load_profile
from dense_imb.losses.core.natural import Natural
from dense_imb.metrics import OperatingPoint
from dense_imb.metrics.operating_point import Aim
from dense_imb.runs.confined import check_confined
from dense_imb.runs.metrics import read_metrics
from dense_imb.runs.natural import NATURAL, NaturalRecord, read_natural
from dense_imb.runs.read_out import READ_OUT, ReadOutRecord, describe_cost, read_read_out
from dense_imb.runs.stages import FIRST, describe_stages
from dense_imb.runs.write import CHECKPOINTS, SCORES, scored_weights
from dense_imb.tasks.hits.recipe import geometry_of_setup
from dense_imb.tasks.kind import Kind
from dense_imb.tasks.recipe import Recipe

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

_SILENT = 0.01  # fraction of confident pseudo-labels below which they teach nothing
_SURE_OF_CLASS = re.compile(r"sure_share_\d+")  # columns of the history


class Run:
    """The folder of a run.

    A run in two stages is read for its second stage; `first` is the run of the first stage.
    `config` is then the configuration of the second stage, as a run in one stage, and
    `whole_config` that of both.

    Example:
        >>> from dense_imb import Run, pretrained
        >>> run = pretrained("arc")  # a Run, without the history of its training
        >>> isinstance(run, Run), run.kind.name, run.geometry().size
        (True, 'hits', (88, 128, 1000))
        >>> run.operating_point(retention=0.9).removal > 0.99  # of the noise
        True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise ValueError(
                f"Expected the folder of a run, with config.yaml, got {self.folder}; "
                "dense-imb train hits, images, labels or values makes one."
            )
        self.whole_config = read_config(path)
        self.recipe = Recipe.read(self.whole_config).last
        self.config = self.recipe.config

    def __repr__(self) -> str:
        metrics = self.metrics
        state = f"{metrics['steps']} steps" if metrics else "no validation yet"
        return f"Run({str(self.folder)!r}, {self.kind.name}, {self.config.model.name}, {state})"

    @cached_property
    def kind(self) -> Kind:
        """Kind of the training data."""
        return self.recipe.kind

    @property
    def name(self) -> str:
        """Name in tables: that of the folder; a first stage is named after its run, "two/first"."""
        folder = self.folder.resolve()
        above = folder.parent / "config.yaml"
        if folder.name != FIRST or not above.is_file():
            return folder.name
        try:
            is_stage = read_config(above).second.steps > 0
        except (ValueError, OSError):  # no run
            is_stage = False
        return f"{folder.parent.name}/{FIRST}" if is_stage else folder.name

    @property
    def first(self) -> Run | None:
        """First stage of a run in two; None if it is the only one, or not there yet."""
        there = self.whole_config.second.steps > 0 and self.folder / FIRST
        return Run(there) if there and (there / "config.yaml").is_file() else None

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each validation, read from `history.csv`."""
        path = self.folder / "history.csv"
        if not path.exists():
            return []
        with decoding(f"a table of numbers in {path}"), path.open(newline="") as file:
            return [
                {name: float(value or math.nan) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`; empty before the first validation."""
        path = self.folder / "metrics.json"
        return read_metrics(path) if path.exists() else {}

    def to_pandas(self) -> Any:
        """Return the history as `pandas.DataFrame`, a row for each validation; needs pandas."""
        return data_frame(self.history, index="step")

    def plot(self, ax: Axes | None = None, columns: str | Sequence[str] | None = None) -> Axes:
        """Draw columns of the history against the step, and return the axes.

        Args:
            ax: axes of matplotlib to draw on; None takes the current ones of pyplot where it is in
                use, and new ones elsewhere.
            columns: names of columns of the history, for example "loss"; None takes the score
                that chooses the best network, with a ring around the best.
        """
        from dense_imb.runs import show

        return show.plot_history(self, ax, columns)

    def _repr_html_(self) -> str:
        from dense_imb.runs import show

        return show.card_of_run(self)

    def summary(self) -> str:
        """Format the result in a few lines."""
        metrics = self.metrics
        is_second = self.whole_config.second.steps > 0
        if not metrics and is_second and self.first is not None:
            return f"{self.first.summary()}\n{self.folder}: no validation of the second stage yet"
        if not metrics:
            return f"{self.folder}: no validation yet"
        if not (best := metrics["best"]):
            return f"{self.folder}: {metrics['steps']} steps, no validation with a score"
        scores = self.scores() if (self.folder / SCORES).exists() else None
        lines = [
            f"{self.folder}: {_format_steps(metrics, is_second=is_second)}"
            f"{metrics['parameters']:,} parameters",
            f"best after step {best['step']:.0f}; {self.kind.headline(best, scores)}",
            *([self.natural.summary()] if self.natural is not None else []),
            *([self.read_out.summary(), self.read_out_cost()] if self.read_out is not None else []),
            self.format_sample_counts(),
            self.format_teacher(),
        ]
        if FIRST in metrics:
            lines.append(describe_stages(metrics, self.folder))
        return "\n".join(line for line in [*lines, metrics["stopped"]] if line)

    def read_out_cost(self) -> str:
        """Describe what the read-out costs in balanced error on the validation images.

        "" where it costs nothing, and without a read-out.
        """
        if self.read_out is None or not (self._scores_folder / SCORES).exists():
            return ""
        return describe_cost(self.metrics.get("best") or {}, self.scores())

    def format_sample_counts(self) -> str:
        """Format the numbers of labelled, unlabelled and validation samples; "" if unknown."""
        counted = self.metrics.get("samples")
        if not counted:
            return ""
        line = f"{counted['train']:,} labelled {self.kind.samples}, "
        if n_unlabelled := (self._semi_supervised().get("samples") or {}).get("unlabelled"):
            line += f"{n_unlabelled:,} without labels, "
        return f"{line}{counted['validation']:,} to validate on"

    def format_teacher(self) -> str:
        """Format the fraction of confident pseudo-labels; "" without unlabelled samples."""
        metrics = self._semi_supervised()
        last = metrics.get("last") or {}
        if (share := last.get("sure_share")) is None:
            return ""
        when = "at the end" if metrics.get("is_finished") else "so far"
        line = f"confident pseudo-labels {when}: {100 * share:.3g} % of the {self.kind.scored}"
        others = [v for n, v in last.items() if _SURE_OF_CLASS.fullmatch(n) and n != "sure_share_0"]
        is_blank = share > 0 and bool(others) and not any(others)
        if is_blank:
            line += ", all of them of class 0"
        is_silent = is_blank or share < _SILENT
        return f"{line}: lower unlabelled.threshold, or train for longer" if is_silent else line

    def _semi_supervised(self) -> dict[str, Any]:
        """Return the metrics of the semi-supervised stage, which is never a second one."""
        if not self.whole_config.is_semi_supervised:
            return {}
        if self.whole_config.second.steps == 0:
            return self.metrics
        return {} if self.first is None else self.first.metrics

    def checkpoint(self, which: Literal["best", "last"] = "best") -> dict[str, Any]:
        """Load the best or the newest checkpoint and check its digest."""
        pattern = "best-*.pt" if which == "best" else "step-*.pt"
        paths = sorted((self.folder / CHECKPOINTS).glob(pattern))
        if not paths:
            raise CheckpointError(
                f"Expected a {which} checkpoint in {self.folder / CHECKPOINTS}, got none; "
                f"{self._why_no_checkpoint()}."
            )
        wanted = scored_weights(self.folder) if which == "best" else None
        return _load(paths[-1]) if wanted is None else self._scored(paths, wanted)

    def _scored(self, paths: Sequence[Path], weights: str) -> dict[str, Any]:
        """Load the checkpoint of the weights that the validation scores are of.

        A run that was stopped between the two files has a newer checkpoint without scores.
        """
        problems = []
        for path in reversed(paths):
            try:
                content = _load(path)
            except CheckpointError as problem:
                problems.append(problem)
                continue
            if digest_weights(content["network"]) == weights:
                return content
        if problems:
            raise problems[0]
        raise CheckpointError(
            f"Expected the network that {self.folder / SCORES} was measured with in "
            f"{self.folder / CHECKPOINTS}, got others; bring both from one copy of the run, or "
            "continue it with dense-imb train --resume."
        )

    def _why_no_checkpoint(self) -> str:
        if self.metrics:
            return "no validation had a score"
        if self.first is not None:
            return f"the second stage has not begun, the first one is a run in {self.first.folder}"
        return "the run has not come to its first validation"

    def weights(self, which: Literal["best", "last"] = "best") -> dict[str, Tensor]:
        """Load the state of the network."""
        return dict(self.checkpoint(which)["network"])

    def trained(
        self, which: Literal["best", "last"] = "best", *, device: str | torch.device | None = None
    ) -> Any:
        """Load the trained network, ready to use.

        Returns a `TrainedHits`, `TrainedImages`, `TrainedLabels` or `TrainedValues`.

        Args:
            which: best or newest checkpoint.
            device: device to run on; by default a GPU if there is one.
        """
        content = self.checkpoint(which)
        try:
            trained = self.recipe.trained(self.name, content, _device(device))
        except (OSError, ImportError, MemoryError, ValueError, RecursionError, OverflowError):
            raise
        except Exception as problem:  # whatever the weights and the setup lead to
            raise CheckpointError(
                f"Expected weights of {self.config.model.name} in {self.folder}, got others "
                f"({' '.join(str(problem).splitlines()[-1:]).strip() or type(problem).__name__})."
            ) from problem
        if self._natural is not None:
            trained.reading = replace(trained.reading, natural=self._natural)
        if self.read_out is not None:
            trained.reading = replace(trained.reading, read_out=self.read_out.read_out)
        return trained

    @cached_property
    def natural(self) -> NaturalRecord | None:
        """Map from outputs to natural probabilities; None for runs that are not finished."""
        record = read_natural(self.folder)
        self._check_weights(record, NATURAL)
        return record

    @cached_property
    def read_out(self) -> ReadOutRecord | None:
        """Map from predictions to mean values; None for other runs and unfinished ones."""
        record = read_read_out(self.folder)
        self._check_weights(record, READ_OUT)
        return record

    def _check_weights(self, record: NaturalRecord | ReadOutRecord | None, name: str) -> None:
        """Refuse what was fitted with other weights than the validation scores are of."""
        wanted = scored_weights(self.folder)
        if record is not None and record.weights and wanted not in (None, record.weights):
            raise CheckpointError(
                f"Expected {self.folder / name} of the network that {self.folder / SCORES} was "
                f"measured with, got that of another; dense-imb train {self.kind.name} --out "
                f"{self.folder} --resume fits it anew."
            )

    @property
    def _natural(self) -> Natural | None:
        return None if self.natural is None else self.natural.natural

    @property
    def _scores_folder(self) -> Path:
        """Folder of the validation scores: with natural probabilities or a read-out, if known."""
        if self.read_out is not None:
            return self.folder / READ_OUT
        return self.folder if self._natural is None else self.folder / NATURAL

    def scores(self) -> Any:
        """Load the scores of the best network on the validation samples.

        Returns a `ScoreHistogram` of hits, `SegmentationScores`, `ClassificationScores` or
        `ValueScores`.
        """
        return self.kind.load_scores(self._scores_folder / SCORES)

    def validation_events(self) -> EventProfile | None:
        """Load the profile of the validation events; None for runs of older versions.

        Runs on hits only.
        """
        self.require("hits", "validation_events()")
        return load_profile(self._scores_folder)

    def require(self, kind: str, what: str) -> None:
        """Refuse a run that was trained on another kind of data.

        Args:
            kind: the kind wanted, a name of `KINDS`.
            what: command or method that wants it.
        """
        if self.kind.name != kind:
            cures = {
                "hits": f"dense-imb denoise {self.folder} FILE OUT scores hits",
                "images": f"dense-imb segment {self.folder} IMAGES OUT writes masks",
                "labels": f"dense-imb evaluate {self.folder} TEST.csv measures it",
                "values": f"dense-imb predict {self.folder} IMAGES OUT writes maps of values",
            }
            raise Refused(
                f"a run on {kind} for {what}",
                f"{self.folder}, which was trained on {self.kind.description}",
                cures[self.kind.name],
            )

    def require_natural(self) -> None:
        """Refuse a run on hits whose scores are no natural probabilities, for a threshold."""
        if self._natural is None:
            raise Refused(
                "a run with natural probabilities for {threshold=auto}",
                f"{self.folder}, whose scores are as trained",
                f"fit them with dense-imb evaluate {literal(self.folder)} --calibrate, or take "
                "{retention=0.97}",
            )

    def geometry(self) -> Geometry:
        """Return the frame of the training events; runs on hits only."""
        self.require("hits", "geometry()")
        return geometry_of_setup(self.checkpoint()["setup"])

    def operating_point(
        self,
        *,
        retention: float | None = None,
        fakes: float | None = None,
        purity: float | None = None,
    ) -> OperatingPoint:
        """Choose a threshold on the stored validation scores; runs on hits only.

        Args:
            retention: fraction of the signal to keep (signal efficiency). By default that of the
                run, if neither `fakes` nor `purity` is given.
            fakes: number of noise hits kept per noise-only event.
            purity: fraction of signal among the kept hits.
        """
        self.require("hits", "operating_point()")
        aim = Aim.of(retention, fakes, purity, default=self.config.hits.retention)
        point: OperatingPoint = self.scores().point_at(aim)
        return point


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the run in a folder.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig, open_run, train
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> folder, rings = tempfile.mkdtemp(), simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> with HitsWriter(folder + "/rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(folder + "/rings.h5", signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> config = TrainConfig(hits, model=tiny, steps=2, validate_every=2)
        >>> _ = train(config, folder + "/run", is_quiet=True)
        >>> run = open_run(folder + "/run")
        >>> run.config.hits.noise, run.metrics["steps"]
        (50, 2)
    """
    return Run(folder)


def read_config(path: str | Path) -> TrainConfig:
    """Read the configuration of a run from its YAML file.

    Example:
        >>> from dense_imb import pretrained
        >>> from dense_imb.runs import read_config
        >>> config = read_config(pretrained("arc").folder / "config.yaml")
        >>> config.model.name, config.hits.noise
        ('hits:base', 200)
    """
    path = Path(path)
    check_confined(path.parent)
    return config_from(read_yaml(path), is_run=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read names and values from a YAML file."""
    try:
        stored = read_yaml_file(path)
    except FileNotFoundError:
        raise ValueError(f"Expected a YAML file at {path}, got none.") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"Expected text in UTF-8 in {path}, got other bytes; save the file as UTF-8."
        ) from None
    except yaml.YAMLError as problem:
        raise ValueError(f"Expected YAML in {path}, got {str(problem).splitlines()[0]}.") from None
    if not isinstance(stored, dict):
        raise ValueError(
            f"Expected a config with names and values in {path}, got {type(stored).__name__}."
        )
    return stored


def config_from(stored: dict[str, Any], *, is_run: bool = False) -> TrainConfig:
    """Build a configuration from the content of a YAML file, of an older version too.

    A file permits no import: `allow_import` is a record only, and left out.

    Args:
        stored: content of the file.
        is_run: the file is that of a run, see `upgrade`.
    """
    config: TrainConfig = build_dataclass(TrainConfig, upgrade(stored, is_run=is_run))
    return with_defaults(replace(config, allow_import=[]))


def _load(path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    check_weights(content, path)
    return content


def _format_steps(metrics: dict[str, Any], *, is_second: bool) -> str:
    line = f"{metrics['steps']} steps in {metrics['seconds']:.0f} s"
    if not is_second:
        return f"{line}, "
    if metrics.get("first_steps") is None:  # of an older version
        return f"second stage, {line}, "
    first = f"{metrics['first_steps']} steps in {metrics['first_seconds']:.0f} s"
    return f"stage 1: {first}; stage 2: {line}; "


def _device(wanted: str | torch.device | None) -> str | torch.device:
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")
