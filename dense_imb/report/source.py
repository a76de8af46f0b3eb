"""The base of all reports: the records of a run, and the contract of a kind of run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dense_imb.hits.masking import Progress
from dense_imb.metrics.score_table import ScoreTable
from dense_imb.report.drawing import Rows
from dense_imb.report.page import Drawing, Section
from dense_imb.runs import Run
from dense_imb.runs.seen import describe_overlap
from dense_imb.runs.stages import FIRST, describe_stages

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure


@dataclass
class ReportSource:
    """Base class of the reports: a subclass for each kind of run measures it and fills sections.

    Args:
        run: the run.
        test: paths of the data to measure on; () for the run's own.
        n_samples: largest number of samples to measure.
        name: name of the network in the table.
        notes: what is missing, and other remarks for the reader.
        history, metrics, environment: records of the run.
        first_history, first_metrics: records of a first stage.
        allow_overlap: do not compare the test data with those that the run was trained on.
    """

    run: Run
    test: tuple[str, ...]
    n_samples: int
    name: str = field(init=False)
    notes: list[str] = field(default_factory=list, init=False)
    history: list[dict[str, float]] = field(default_factory=list, init=False)
    metrics: dict[str, Any] = field(default_factory=dict, init=False)
    environment: dict[str, Any] = field(default_factory=dict, init=False)
    first_history: list[dict[str, float]] = field(default_factory=list, init=False)
    first_metrics: dict[str, Any] = field(default_factory=dict, init=False)
    allow_overlap: bool = field(default=False, init=False)

    own_data: ClassVar[str] = "the run's own data"  # measured without test data, in words
    kind: ClassVar[str]  # hits, images, labels or values
    unit: ClassVar[str]  # one sample, in words
    options: ClassVar[frozenset[str]]  # arguments of `write_report` that this kind takes
    most: ClassVar[int] = 500  # samples to measure, unless asked otherwise
    figure_names: ClassVar[tuple[str, ...]]  # all names that a figure may have

    def __post_init__(self) -> None:
        self.name = self.run.name

    @property
    def measured_on(self) -> str:
        """Names of the test data, or a description of the run's own data, once measured."""
        where: str = getattr(self, "where", "")
        return ", ".join(self.test) or (f"{where} of the run" if where else self.own_data)

    def measure(self, progress: Callable[[int], Progress]) -> None:
        """Measure the network, if it and the data are there; note what is missing.

        Args:
            progress: takes the number of samples to come, and returns a function that takes
                the number of samples just done.
        """
        raise NotImplementedError

    @property
    def table(self) -> ScoreTable | None:
        """The table of scores; None if the network or the data are missing."""
        raise NotImplementedError

    def headline(self) -> str:
        """Return the result in a sentence."""
        raise NotImplementedError

    def sections(self) -> list[Section]:
        """Return the content of the page, in its order."""
        raise NotImplementedError

    def numbers(self) -> dict[str, Any]:
        """Return the numbers behind tables and figures, for report.json."""
        raise NotImplementedError

    def uses(self) -> list[tuple[str, str]]:
        """Return commands that measure and use the network, each with its purpose."""
        raise NotImplementedError

    def report_options(self) -> str:
        """Return the options that make this report again, as typed."""
        raise NotImplementedError

    def commands(self) -> str:
        """Return the commands that repeat the run, use it and make this page again."""
        folder = shlex.quote(str(self.run.folder))
        config = shlex.quote(str(self.run.folder / "config.yaml"))
        again = joined(self.report_options(), "--allow-overlap" if self.allow_overlap else "")
        every = [
            ("train the same network again, in a new folder",
             f"dense-imb train {self.kind} --config {config} --out again"),
            *self.uses(),
            ("make this page again", f"dense-imb report {folder} {again}".rstrip()),
        ]  # fmt: skip
        return "\n".join(line for purpose, typed in every for line in (f"# {purpose}", typed))

    @property
    def is_probability(self) -> bool:
        """Whether the network's outputs are probabilities."""
        return self.run.natural is None or self.run.natural.is_probability

    def describe_probabilities(self) -> list[str]:
        """Describe the probabilities of tables and figures in a sentence; [] where unknown."""
        if self.run.natural is None:
            return []
        line = self.run.natural.summary()
        return [f"{line[0].upper()}{line[1:]}."]

    def read_records(self) -> None:
        """Read the records of the run; note those that are missing or damaged."""
        try:
            self.history = self.run.history
        except (ValueError, TypeError, OSError) as problem:
            self.note("No training curves: history.csv can't be read", problem)
        try:
            self.metrics = self.run.metrics
        except (ValueError, TypeError, OSError) as problem:
            self.note("No validation scores: metrics.json can't be read", problem)
        path = self.run.folder / "environment.json"
        try:
            self.environment = dict(json.loads(path.read_text()))
        except (ValueError, TypeError, OSError) as problem:
            self.note("Versions unknown: environment.json can't be read", problem)
        self._read_first_stage()
        if self.metrics.get("stopped"):
            self.notes.append(f"The run was ended early: {self.metrics['stopped']}.")
        elif not self.metrics and not self.history:
            self.notes.append("The run has not come to its first validation yet.")
        elif self.metrics.get("is_finished") is False:
            self.notes.append(
                f"The run is not finished: {self.metrics['steps']} of "
                f"{self.run.config.steps} steps."
            )

    def _read_first_stage(self) -> None:
        first = self.run.first
        if first is None:
            return
        sentence = f"The network is that of a second stage; the first one is {first.folder}"
        if FIRST in self.metrics:
            sentence += f", a run of its own ({describe_stages(self.metrics, self.run.folder)})"
        self.notes.append(f"{sentence}.")
        try:
            self.first_history, self.first_metrics = first.history, first.metrics
        except (ValueError, TypeError, OSError) as problem:
            self.note("The records of the first stage can't be read", problem)

    def note_overlap(self, samples: Any) -> None:
        """Note test samples that the run was trained or validated on, unless that is allowed."""
        if self.test and not self.allow_overlap:
            sentence = describe_overlap([self.run], samples, self.n_samples)
            if sentence:
                self.notes.append(f"{sentence[0].upper()}{sentence[1:]}.")

    def note(self, sentence: str, problem: Exception, cure: str = "") -> None:
        """Note what is missing and why."""
        self.notes.append(f"{sentence} ({as_clause(problem)}).{cure and ' '}{cure}")

    def training_section(
        self, draw: Callable[[Rows, Figure, float | None], None], alt: str, caption: str
    ) -> Section:
        """Return the section with the training curves of all stages, one after the other.

        Args:
            draw: draws rows of the history on a figure; takes the step at which a second stage
                begins, too, None without one.
            alt, caption: texts of the figure.
        """
        rows, start = self.history, None
        if not rows:
            return Section("Training")
        if self.first_history:
            start = self.first_history[-1]["step"]
            second = [{**row, "step": row["step"] + start} for row in rows]
            # the row in between breaks the line from one stage to the other
            rows = [*self.first_history, {"step": start}, *second]
            caption += (
                " At the vertical line the first stage ends; the steps of the second are counted "
                "on from there."
            )
        drawing = Drawing("training", lambda to: draw(rows, to, start), (9.5, 9), alt, caption)
        return Section("Training", drawings=[drawing])


def sample_limit(n_samples: int, most: int) -> str:
    """Return the option that limits the samples, as typed; "" for the default."""
    return "" if n_samples == most else f"--events {n_samples}"


def as_clause(problem: Exception) -> str:
    """Return an error as part of a sentence."""
    if isinstance(problem, OSError) and problem.filename and problem.strerror:
        return f"{problem.strerror}: {problem.filename}"
    return str(problem).rstrip(".")


def joined(*words: str) -> str:
    """Return the words that are not empty, with spaces between them."""
    return " ".join(word for word in words if word)


def quoted(paths: Sequence[str], placeholder: str) -> str:
    """Return paths as typed, or a placeholder if there are none."""
    return shlex.join(paths) if paths else placeholder
