"""The report of a run that was trained on hits."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dense_imb.hits import Evaluation
from dense_imb.hits.masking import Progress
from dense_imb.report import figures, page
from dense_imb.report.drawing import Drawing
from dense_imb.report.figures import score_bins, steps_of
from dense_imb.report.found import TRAINING, Found, said
from dense_imb.report.measure import (
    VERDICTS,
    Measured,
    by_number_of_hits,
    measure,
    test_events,
    validation_events,
)
from dense_imb.report.text import ERRORS, SCORES, number, percent
from dense_imb.tasks.hits.trained import TrainedHits

_SAMPLES = "Events before and after"
_COLUMNS = (
    ("signal kept", "retention"),
    ("noise removed", "removal"),
    ("purity", "purity"),
    ("AUC", "auc"),
    ("avg. precision", "average_precision"),
)
_QUANTILES = {
    "q05": "5 % of events below",
    "q25": "25 % below",
    "q50": "half below",
    "q75": "75 % below",
    "q95": "95 % below",
}


@dataclass
class OfHits(Found):
    """What there is to report of a denoiser.

    Args:
        retention: as of `write_report`.
        measured: None where the network or the events are missing.
        adds_noise: to the test events.
    """

    retention: float = 0.97
    measured: Measured | None = None
    adds_noise: bool = False

    unit: ClassVar[str] = "event"
    sections: ClassVar[tuple[str, ...]] = (SCORES, _SAMPLES, ERRORS, TRAINING)
    figure_names: ClassVar[tuple[str, ...]] = (
        "removal", "training", "scores", "sample_1", "sample_2", "events",
    )  # fmt: skip

    @property
    def table(self) -> Evaluation | None:
        return None if self.measured is None else self.measured.evaluation

    def measure(self, progress: Callable[[int], Progress]) -> None:
        test = None
        if self.test:
            # asked for by name: what is wrong with it ends the report
            test, self.adds_noise = test_events(self.run, [*self.test], self.n_events)
            if "/hit/label" not in test.source.columns:
                self.notes.append(
                    "The hits of the test events have no labels: all of them are taken for signal."
                )
        network: TrainedHits
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.notes.append(f"No scores: the network can't be loaded ({said(problem)}).")
            return
        validation = None
        try:
            validation = validation_events(self.run)
        except (ValueError, OSError) as problem:
            self.notes.append(
                f"The validation events can't be read ({said(problem)})."
                + ("" if test else " Bring the files back, or give others with --test.")
            )
        if validation is None and test is None:
            return
        try:
            self.measured = measure(
                network,
                validation,
                test,
                retention=self.retention,
                n_events=self.n_events,
                progress=progress,
            )
        except ValueError as problem:
            if test is not None:
                raise
            self.notes.append(f"No scores: {said(problem)}")
            return
        self.name = network.name
        self.notes += self.measured.evaluation.notes

    def headline(self) -> str:
        measured, name = self.measured, self.name
        wanted = f"{100 * self.retention:g}"
        validated = (self.metrics.get("best") or {}).get(f"removal_at_{wanted}")
        parts = []
        if validated is not None:
            parts.append(
                f"{percent(validated)} of the noise removed at {wanted} % of the signal kept "
                "(validation)"
            )
        if measured is not None:
            own = measured.evaluation[name]
            where = "test" if self.test else "half of the validation events"
            parts.append(
                f"{percent(own['removal'])} removed at {percent(own['retention'])} kept ({where})"
            )
            if (best := best_baseline(measured.evaluation, name)) is not None:
                row = measured.evaluation[best]
                parts.append(
                    f"best baseline, {best}: {percent(row['removal'])} at "
                    f"{percent(row['retention'])}"
                )
        if not parts:
            return "No scores yet."
        sentence = "; ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}."

    def tables(self) -> dict[str, list[str]]:
        if self.table is None:
            return {}
        return {
            SCORES: _scores(self.table, self.name, self.adds_noise),
            ERRORS: [_quantiles(self.table, self.name)],
        }

    def drawings(self) -> list[Drawing]:
        drawn = []
        measured, name = self.measured, self.name
        if measured is not None:
            own = measured.scores[name]
            drawn.append(
                Drawing(
                    "removal",
                    SCORES,
                    lambda to: figures.draw_removal(measured, name, to),
                    (9.5, 4.9),
                    "Noise removed against signal kept, for the network and the baselines.",
                    "Noise removed for each share of signal kept, on the events of the table. "
                    "Right: the upper end, on a logarithmic scale of the noise that is left; a "
                    "line ends where none is left. The vertical line is the wanted retention.",
                )
            )
            drawn.append(
                Drawing(
                    "scores",
                    ERRORS,
                    lambda to: figures.draw_scores(own, to),
                    (8.5, 4),
                    "Histogram of the network's score for signal and for noise, log counts.",
                    "The network's score of the hits by truth, on a logit scale; log counts.",
                )
            )
            for k, sample in enumerate(measured.samples):
                counts = ", ".join(f"{n} {words}" for words, n in sample.counts().items())
                drawn.append(
                    Drawing(
                        f"sample_{k + 1}",
                        _SAMPLES,
                        lambda to, one=sample: figures.draw_sample(one, to),  # type: ignore[misc]
                        (8.5, 9.8),
                        f"{sample.title}, in x-y and x-y-time: {counts}.",
                        f"{sample.title} (number {sample.number}): {counts}. Hits hidden behind a "
                        "later one in their pixel get its score, and count nowhere. Below: the "
                        "same in x, y and time, without the noise removed.",
                    )
                )
            if len(measured.events):
                drawn.append(
                    Drawing(
                        "events",
                        ERRORS,
                        lambda to: figures.draw_events(measured, name, to),
                        (9.5, 4),
                        "Retention and removal of single events, and against the number of hits.",
                        "Left: the share of events whose signal kept, or noise removed, is at most "
                        "so much. Right: means of events grouped by their number of hits.",
                    )
                )
        if self.history:
            drawn.append(
                self.drawing_of_training(
                    lambda rows, second, to: figures.draw_training(rows, to, second),
                    "Loss, noise removal, AUC, learning rate and gradient shares against the step.",
                    "A mark for each validation. Removal stands on a logarithmic scale of the "
                    "noise that is left.",
                )
            )
        return drawn

    def numbers(self) -> dict[str, Any]:
        measured = self.measured
        found: dict[str, Any] = {
            "retention": self.retention,
            "noise_added_to_test": self.adds_noise,
        }
        if measured is None:
            return found
        own = measured.scores[self.name]
        edges, signal, noise = score_bins(own.histogram)
        curves = {name: steps_of(scores.histogram) for name, scores in measured.scores.items()}
        return found | {
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

    def commands(self) -> str:
        run, test = self.run, self.test
        folder = shlex.quote(str(run.folder))
        files = shlex.join(test) if test else "test.h5"
        wanted = f"--retention {self.retention:g}"
        data = run.config.hits
        # without a test file it is the validation data that tell what a file looks like
        is_clean = self.adds_noise if test else data.noise not in (0, [0, 0])
        extra = ""
        if is_clean and isinstance(data.noise, int):
            extra = f" --noise {data.noise}"
            extra += f" --signal {data.signal}" if isinstance(data.signal, int) else ""
        lines = [
            "# the same network again, in a new folder",
            f"dense-imb train --config {shlex.quote(str(run.folder / 'config.yaml'))} --out again",
            "# scores beside the baselines",
            f"dense-imb evaluate {folder} {files}{extra} {wanted}",
            "# a score and a verdict for each hit of a file of yours",
            f"dense-imb denoise {folder} raw.h5 clean.h5 {wanted}",
            "# this page",
            f"dense-imb report {folder}{' --test ' + files if test else ''} {wanted} "
            f"--events {self.n_events}",
        ]
        return "\n".join(lines)


def best_baseline(table: Evaluation, name: str) -> str | None:
    """The one that removes most noise, by name."""
    others = [row for row in table.rows if row["scorer"] != name]
    found = [row for row in others if float(row["removal"]) == float(row["removal"])]
    return str(max(found, key=lambda row: float(row["removal"]))["scorer"]) if found else None


def _scores(table: Evaluation, name: str, adds_noise: bool) -> list[str]:
    further = [r for r in table.retentions if r != table.retention]
    header = ["", *(title for title, _ in _COLUMNS)]
    header += [f"removed at {100 * r:g} %" for r in further]
    rows = []
    for row in table.rows:
        cells = [str(row["scorer"])]
        for _, key in _COLUMNS:
            is_score = key in ("auc", "average_precision")
            value = float(row[key])
            cells.append(number(value, ".4f") if is_score else percent(value))
        cells += [percent(row[f"removal_at_{100 * r:g}"]) for r in further]
        rows.append([*cells, number(float(row["events_per_second"]), ",.0f")])
    first = table.rows[0]
    seen = (
        f"Each threshold was chosen to keep {100 * table.retention:g} % of the signal, and the "
        f"table says what it kept: {table.chosen_on}; {float(first['n_signal']):,.0f} signal and "
        f"{float(first['n_noise']):,.0f} noise hits, those hidden behind others in their pixel "
        f"({percent(first['occluded_share'])} of the signal) not counted."
    )
    if adds_noise:
        seen += " The test events were clean, and degraded as the run's own events are."
    return [page.table([*header, "events per second"], rows, own=name), page.paragraph(seen)]


def _quantiles(table: Evaluation, name: str) -> str:
    best = best_baseline(table, name)
    header = ["within single events", *_QUANTILES.values()]
    rows = []
    for scorer in (name, best):
        if scorer is None:
            continue
        for key, words in (("removal", "noise removed"), ("retention", "signal kept")):
            row = table[scorer]
            cells = [percent(row[f"event_{key}_{q}"]) for q in _QUANTILES]
            rows.append([f"{scorer}: {words}", *cells])
    return page.table(header, rows)
