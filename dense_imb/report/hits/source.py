"""Source of a report on hits."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dense_imb.base.refusals import Refused
from dense_imb.config import scores_hits
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Evaluation, Sensors
from dense_imb.hits.masking import Progress
from dense_imb.hits.table import is_hiding
from dense_imb.report.facts import number, percent
from dense_imb.report.hits import displays, figures
from dense_imb.report.hits.measures import (
    VERDICTS,
    EventSample,
    HitMeasures,
    by_number_of_hits,
    measure_hits,
    stored_scores,
    test_events,
    validation_events,
)
from dense_imb.report.page import Drawing, Section, Table
from dense_imb.report.source import ReportSource, as_clause, joined, quoted

_COLUMNS = (
    ("signal efficiency (retention)", "retention", percent),
    ("background rejection (removal)", "removal", percent),
    ("purity", "purity", percent),
    ("AUC", "auc", lambda value: number(value, ".4f")),
    ("avg. precision", "average_precision", lambda value: number(value, ".4f")),
)
_VISIBLE_COLUMNS = (
    ("retention, visible hits", "visible_retention", percent),
    ("removal, visible hits", "visible_removal", percent),
)
_QUANTILES = {
    "q05": "5 % of events below",
    "q25": "25 % below",
    "q50": "half below",
    "q75": "75 % below",
    "q95": "95 % below",
}


@dataclass
class HitsSource(ReportSource):
    """Report of a denoiser.

    Args:
        retention: fraction of the signal to keep; None for that of the run.
        measured: measurements; None if the network or the events are missing.
        adds_noise: whether noise was added to the test events.

    Example:
        >>> from dense_imb.report.hits import Source
        >>> Source.own_data  # measured without test data
        'every second validation event of the run'
        >>> sorted(Source.options)  # arguments of `write_report` for runs on hits
        ['retention']
    """

    retention: float | None = None
    measured: HitMeasures | None = None
    adds_noise: bool = False

    own_data: ClassVar[str] = "every second validation event of the run"
    kind: ClassVar[str] = "hits"
    unit: ClassVar[str] = "event"
    options: ClassVar[frozenset[str]] = frozenset({"retention"})
    figure_names: ClassVar[tuple[str, ...]] = (
        "removal", "training", "scores", "profile", "sample_1", "sample_2", "events",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.run.config.hits.retention if self.retention is None else self.retention
        if not 0 < wanted <= 1:
            raise Refused("`retention` above 0 and up to 1", wanted, argument="retention")
        self.wanted = wanted

    @property
    def table(self) -> Evaluation | None:
        return None if self.measured is None else self.measured.evaluation

    def measure(self, progress: Callable[[int], Progress]) -> None:
        test = self._test_events()
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.note("No scores: the network can't be loaded", problem)
            return
        validation = None
        try:
            validation = validation_events(self.run)
        except (ValueError, OSError) as problem:
            cure = "" if test else "Bring the files back, or report on others with --test FILES."
            self.note("The validation events can't be read", problem, cure)
        if validation is None and test is None:
            return
        try:
            self.measured = measure_hits(
                network,
                validation,
                test,
                retention=self.wanted,
                n_events=self.n_samples,
                stored=stored_scores(self.run),
                progress=progress,
            )
        except ValueError as problem:
            if test is not None:
                raise
            self.notes.append(f"No scores: {as_clause(problem)}.")
            return
        self.name = network.name
        self.notes += self.measured.evaluation.notes

    def _test_events(self) -> VirtualEvents | None:
        """Open the events asked for by name: an error in them ends the report."""
        if not self.test:
            return None
        events, self.adds_noise = test_events(self.run, [*self.test], self.n_samples)
        if "/hit/label" not in events.source.columns:
            self.notes.append("The test hits have no labels: all of them count as signal.")
        self.note_overlap(events)
        return events

    def headline(self) -> str:
        measured, wanted = self.measured, f"{100 * self.wanted:g}"
        validated = (self.metrics.get("best") or {}).get(f"removal_at_{wanted}")
        parts = []
        if validated is not None:
            parts.append(
                f"{percent(validated)} of the noise removed at {wanted} % of the signal kept "
                "(validation)"
            )
        if measured is not None:
            own = measured.evaluation[self.name]
            where = "test" if self.test else "every second validation event"
            parts.append(
                f"{percent(own['removal'])} removed at {percent(own['retention'])} kept ({where})"
            )
            if (best := best_baseline(measured.evaluation, self.name)) is not None:
                row = measured.evaluation[best]
                parts.append(
                    f"best baseline, {best}: {percent(row['removal'])} at "
                    f"{percent(row['retention'])}"
                )
        if not parts:
            return "No scores yet."
        sentence = "; ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}."

    def sections(self) -> list[Section]:
        training = self.training_section(
            figures.draw_training,
            "Loss, noise removal, AUC, learning rate and gradient shares against the step.",
            "A marker for each validation, with scores as trained. Removal has a logarithmic scale "
            "of the noise that is left.",
        )
        if self.measured is None:
            return [training]
        return [*self._measured_sections(self.measured), training]

    def _measured_sections(self, measured: HitMeasures) -> list[Section]:
        name, own = self.name, measured.scores[self.name]
        removal = Drawing(
            "removal",
            lambda to: figures.draw_removal(measured, name, to),
            (9.5, 4.9),
            "Noise removed against signal kept, for the network and the baselines.",
            "Noise removed for each share of signal kept, on the events of the table. Right: the "
            "upper end, with a logarithmic scale of the noise that is left; a line ends where none "
            "is left. The vertical line is the wanted retention.",
        )
        scores = Drawing(
            "scores",
            lambda to: figures.draw_scores(own, to),
            (8.5, 4),
            "Histogram of the network's score for signal and for noise, log counts.",
            "The network's score of signal and of noise, on a logit scale; counts are logarithmic.",
        )
        events = Drawing(
            "events",
            lambda to: figures.draw_events(measured, to),
            (9.5, 3.4),
            "Numbers of hits of events, and retention and removal against them.",
            "Left: hits of an event before and after denoising. Right: means of events grouped by "
            "their number of hits.",
        )
        profile = Drawing(
            "profile",
            lambda to: figures.draw_profiles(measured.profiles, own.operating_point, to),
            (9.5, 3.8),
            "Quantiles of the score of signal and noise against the time and a coordinate.",
            "The network's scores along the time and along the detector: medians, and bands that "
            "hold 80 % of the hits. Hits above the threshold are kept.",
        )
        samples = [self._display(k, sample) for k, sample in enumerate(measured.samples)]
        return [
            Section(
                "Scores",
                [self._score_table(), self._point_table()],
                [self._conditions(), *self.describe_probabilities(), self._fakes()],
                [removal],
            ),
            Section("Events before and after", drawings=samples),
            Section(
                "Errors",
                [self._quantile_table()],
                drawings=[scores, *([profile, events] if len(measured.events) else [])],
            ),
        ]

    def _display(self, number: int, sample: EventSample) -> Drawing:
        """Return the figure of an event before and after denoising."""
        counts = ", ".join(f"{n} {words}" for words, n in sample.counts().items())
        views = displays.describe_views(sample)
        caption = f"{sample.title} (number {sample.number}): {counts}. Views: {views}"
        if isinstance(sample.events.geometry, Sensors):
            caption += "; the view in depth omits the noise removed."
            if sample.events.geometry.n_axes == 3:
                caption += " Colours show the time of signal hits; pale dots are sensors."
        else:
            caption += "; the last one omits the noise removed."
            caption += f" Hidden behind others in their pixel: {sample.n_hidden}"
            caption += self._words_on_hidden(sample)
        return Drawing(
            f"sample_{number + 1}",
            lambda to: displays.draw_sample(sample, to),
            displays.sample_size(sample),
            f"{sample.title}, in {views}: {counts}.",
            caption,
        )

    def _words_on_hidden(self, sample: EventSample) -> str:
        """Return how hidden hits got their verdicts, as the end of a sentence."""
        if not sample.n_hidden:
            return "."
        if scores_hits(self.run.config.model.name):
            return ", each with a score of its own."
        if self.run.config.hits.output == "value":
            return ", scored by their own time."
        return ", with the score of the hit in front."

    def _score_table(self) -> Table:
        table = self.table
        assert table is not None
        further = [f"{100 * r:g}" for r in table.retentions if r != table.retention]
        columns = [*_COLUMNS, *(_VISIBLE_COLUMNS if is_hiding(table.rows) else ())]
        header = ["", *(title for title, *_ in columns)]
        header += [*(f"removed at {r} %" for r in further), "events per second"]
        rows = [
            [
                str(row["scorer"]),
                *(form(row[key]) for _, key, form in columns),
                *(percent(row[f"removal_at_{r}"]) for r in further),
                number(row["events_per_second"], ",.0f"),
            ]
            for row in table.rows
        ]
        return Table(header, rows, own=self.name)

    def _point_table(self) -> Table:
        """Return the three operating points of the network and of the best baseline."""
        table = self.table
        assert table is not None
        header, *rows = table.point_table()
        return Table(header, rows)

    def _fakes(self) -> str:
        table = self.table
        assert table is not None
        sentence = (
            "Operating points are chosen on the validation events, and measured on the events of "
            "the table."
        )
        return " ".join([sentence, *table.point_notes()])

    def _conditions(self) -> str:
        table = self.table
        assert table is not None
        first = table.rows[0]
        sentence = (
            f"Each threshold was chosen to keep {100 * table.retention:g} % of the signal; the "
            f"table shows what it kept. Events: {table.chosen_on}; {float(first['n_signal']):,.0f} "
            f"signal and {float(first['n_noise']):,.0f} noise hits."
        )
        if is_hiding(table.rows):
            sentence += (
                f" Hits hidden behind others in their pixel ({percent(first['occluded_share'])} "
                "of the signal) are counted as all others are; the columns of visible hits leave "
                "them out."
            )
        if self.adds_noise:
            sentence += " The test events were clean, and degraded as the run's own events are."
        return sentence

    def _quantile_table(self) -> Table:
        table = self.table
        assert table is not None
        scorers = [self.name, best_baseline(table, self.name)]
        rows = [
            [
                f"{scorer}: {words}",
                *(percent(table[scorer][f"event_{key}_{quantile}"]) for quantile in _QUANTILES),
            ]
            for scorer in scorers
            if scorer is not None
            for key, words in (("removal", "noise removed"), ("retention", "signal kept"))
        ]
        return Table(["within single events", *_QUANTILES.values()], rows)

    def numbers(self) -> dict[str, Any]:
        measured = self.measured
        known = {"retention": self.wanted, "noise_added_to_test": self.adds_noise}
        if measured is None:
            return known
        edges, signal, noise = figures.score_bins(measured.scores[self.name].histogram)
        curves = {
            name: figures.removal_steps(scores.histogram)
            for name, scores in measured.scores.items()
        }
        return known | {
            "curves": {
                name: {"retention": kept.tolist(), "removal": (1 - left).tolist()}
                for name, (kept, left) in curves.items()
            },
            "score_histogram": {
                "logit_edges": edges.tolist(),
                "signal": signal.tolist(),
                "noise": noise.tolist(),
            },
            "by_number_of_hits": by_number_of_hits(measured.events),
            "samples": [
                {"event": sample.number, "title": sample.title, **sample.counts()}
                for sample in measured.samples
            ],
            "verdicts": list(VERDICTS),
        }

    def uses(self) -> list[tuple[str, str]]:
        folder, wanted = shlex.quote(str(self.run.folder)), f"--retention {self.wanted:g}"
        data = self.run.config.hits
        # without a test file the validation data show what a file looks like
        is_clean = self.adds_noise if self.test else data.noise not in (0, [0, 0])
        noise = ""
        if is_clean and isinstance(data.noise, int):
            noise = f"--noise {data.noise}"
            noise += f" --signal {data.signal}" if isinstance(data.signal, int) else ""
        files = quoted(self.test, "test.h5")
        return [
            (
                "compare its scores with the baselines",
                joined("dense-imb evaluate", folder, files, noise, wanted),
            ),
            (
                "score and filter the hits of your own file",
                f"dense-imb denoise {folder} raw.h5 clean.h5 {wanted}",
            ),
        ]

    def report_options(self) -> str:
        test = f"--test {quoted(self.test, '')}" if self.test else ""
        return joined(test, f"--retention {self.wanted:g}", f"--events {self.n_samples}")


def best_baseline(table: Evaluation, name: str) -> str | None:
    """Return the name of the baseline that removes most noise."""
    return table.best_of([str(row["scorer"]) for row in table.rows if row["scorer"] != name])
