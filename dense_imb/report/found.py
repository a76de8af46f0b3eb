"""What there is to report of a run, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dense_imb.hits.masking import Progress
from dense_imb.metrics.score_table import ScoreTable
from dense_imb.report.drawing import Drawing, Rows
from dense_imb.runs import Run
from dense_imb.runs.stages import FIRST, describe_stages

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

TRAINING = "Training"  # heading
N_EVENTS = 500  # measured, unless more are asked for


@dataclass
class Found:
    """What there is to report, whatever the run was trained on; see `OfHits` and `OfImages`.

    Args:
        run: opened.
        test: what was asked to measure on.
        n_events: as of `write_report`.
        name: of the network in the table.
        notes: what is missing, and what else a reader should know.
        history, metrics, environment: the run's own records.
        first_history, first_metrics: those of a first stage.
    """

    run: Run
    test: tuple[str, ...]
    n_events: int
    name: str
    notes: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    first_history: list[dict[str, float]] = field(default_factory=list)
    first_metrics: dict[str, Any] = field(default_factory=dict)

    unit: ClassVar[str]  # of the progress
    sections: ClassVar[tuple[str, ...]]  # headings of the page, in their order
    figure_names: ClassVar[tuple[str, ...]]  # names that a figure may have

    def measure(self, progress: Callable[[int], Progress]) -> None:
        """Make the table, where there are a network and data.

        Args:
            progress: takes the number of units to come, and gives what is told as they are done.
        """
        raise NotImplementedError

    @property
    def table(self) -> ScoreTable | None:
        """None where the network or the data are missing."""
        raise NotImplementedError

    def headline(self) -> str:
        """The result in a sentence."""
        raise NotImplementedError

    def tables(self) -> dict[str, list[str]]:
        """HTML of the tables of a section."""
        raise NotImplementedError

    def drawings(self) -> Sequence[Drawing]:
        """The figures, in their order."""
        raise NotImplementedError

    def numbers(self) -> dict[str, Any]:
        """What tables and figures show."""
        raise NotImplementedError

    def commands(self) -> str:
        """What to type to repeat it all, and to use it."""
        raise NotImplementedError

    def read_records(self) -> None:
        """The run's own records; a missing or damaged one is told."""
        try:
            self.history = self.run.history()
        except (ValueError, TypeError, OSError) as problem:
            self.notes.append(f"No training curves: history.csv can't be read ({said(problem)}).")
        try:
            self.metrics = self.run.metrics()
        except (ValueError, TypeError, OSError) as problem:
            self.notes.append(
                f"No validation scores: metrics.json can't be read ({said(problem)})."
            )
        path = self.run.folder / "environment.json"
        try:
            self.environment = dict(json.loads(path.read_text()))
        except (ValueError, TypeError, OSError) as problem:
            self.notes.append(
                f"Versions unknown: environment.json can't be read ({said(problem)})."
            )
        if (first := self.run.first) is not None:
            told = f"The network is that of a second stage; the first one is {first.folder}"
            if FIRST in self.metrics:
                told += f", a run of its own ({describe_stages(self.metrics, self.run.folder)})"
            self.notes.append(f"{told}.")
            try:
                self.first_history, self.first_metrics = first.history(), first.metrics()
            except (ValueError, TypeError, OSError) as problem:
                self.notes.append(
                    f"The records of the first stage can't be read ({said(problem)})."
                )
        if self.metrics.get("stopped"):
            self.notes.append(f"The run was ended early: {self.metrics['stopped']}.")
        elif not self.metrics and not self.history:
            self.notes.append("The run has not come to its first validation yet.")
        elif self.metrics.get("is_finished") is False:
            self.notes.append(
                f"The run is not finished: {self.metrics['steps']} of "
                f"{self.run.config.steps} steps."
            )

    def drawing_of_training(
        self, draw: Callable[[Rows, float | None, Figure], None], alt: str, caption: str
    ) -> Drawing:
        """The history of all stages, one after the other.

        Args:
            draw: takes the rows and the step at which the second stage begins, None without one.
            alt, caption: of the figure.
        """
        rows, start = self.history, None
        if self.first_history:
            start = self.first_history[-1]["step"]
            second = [{**row, "step": row["step"] + start} for row in self.history]
            rows = [*self.first_history, {"step": start}, *second]  # no line from one to the other
            caption += (
                " At the vertical line the first stage ends; the steps of the second are counted "
                "on from there."
            )
        return Drawing(
            "training", TRAINING, lambda to: draw(rows, start, to), (9.5, 9), alt, caption
        )


def said(problem: Exception) -> str:
    """A problem as part of a sentence."""
    if isinstance(problem, OSError) and problem.filename and problem.strerror:
        return f"{problem.strerror}: {problem.filename}"
    return str(problem).rstrip(".")
