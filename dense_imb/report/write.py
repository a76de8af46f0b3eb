"""From the folder of a run to its report."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dense_imb._files import write_whole
from dense_imb.hits import Evaluation
from dense_imb.inspection.report import strict
from dense_imb.losses._checks import check_at_least
from dense_imb.report import figures, page, text
from dense_imb.report.figures import picture, score_bins, steps_of
from dense_imb.report.found import Found, measure_run, read_records
from dense_imb.report.measure import VERDICTS, by_number_of_hits
from dense_imb.training import open_run

FORMAT, _VERSION = "dense-imb-report", 1
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Report:
    """What `write_report` made.

    Args:
        path: the page.
        numbers: what the JSON beside it holds.
        headline: the result in a sentence.
        evaluation: the table; None where the network or the events are missing.
        notes: what a reader should know, what is missing for one.
    """

    path: Path
    numbers: dict[str, Any]
    headline: str
    evaluation: Evaluation | None
    notes: tuple[str, ...]


def write_report(
    run_folder: _Path,
    *,
    test: str | Sequence[str] | None = None,
    out: _Path | None = None,
    n_events: int = 500,
    retention: float | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Report:
    """Measure a run beside the baselines, and write report.html, report.json and figures/*.png.

    The report in the folder of the run is derived from it, and made again without asking: an
    earlier report and its figures are replaced, each file whole or not at all. What is missing
    (the data, the network) is said in the report, which shows what there is.

    Args:
        run_folder: the folder of a run.
        test: labelled hits files to measure on, noisy, or clean: then the run's own degradation
            is added. Without any every second validation event is measured, and the others
            choose the thresholds.
        out: another place for the page; its numbers go beside it, and no figures. What exists
            there is kept, unless `overwrite`.
        n_events: at most so many to choose thresholds on, and so many to measure.
        retention: share of the signal to keep; that of the run's config by default.
        overwrite: replace files that are no earlier report of the run.
        show_progress: a bar on stderr.
    """
    check_at_least("n_events", n_events, 1)
    run = open_run(run_folder)
    retention = run.config.retention if retention is None else retention
    if not 0 < retention <= 1:
        raise ValueError(f"Expected `retention` above 0 and up to 1, got {retention}.")
    path = run.folder / "report.html" if out is None else Path(out)
    if path.suffix != ".html":
        raise ValueError(f"Expected `out` to end in .html, got {path}.")
    _refuse(path, is_own=out is None, overwrite=overwrite)
    started = time.monotonic()
    files = (test,) if isinstance(test, str) else tuple(test or ())
    found = Found(run, files, retention, n_events, run.name)
    read_records(found)
    with tqdm(
        desc="report", unit="event", file=sys.stderr, disable=not show_progress, total=0
    ) as bar:

        def progress(n_coming: int) -> Callable[[int], object]:
            bar.reset(total=n_coming)
            update: Callable[[int], object] = bar.update
            return update

        measure_run(found, progress)
        bar.set_description("report, figures")
        pictures = _pictures(found)
    headline = text.headline(found)
    numbers = _numbers(found, headline, time.monotonic() - started)
    content = text.whole_page(found, headline, pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    if out is None:
        folder = path.parent / "figures"
        folder.mkdir(exist_ok=True)
        for one in pictures:
            write_whole(folder / f"{one.name}.png", partial(_write_bytes, one.png))
        for name in {*_NAMES} - {one.name for one in pictures}:  # of an earlier report
            (folder / f"{name}.png").unlink(missing_ok=True)
    stored = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    write_whole(path.with_suffix(".json"), partial(_write_bytes, stored.encode()))
    write_whole(path, partial(_write_bytes, content.encode()))
    table = None if found.measured is None else found.measured.evaluation
    return Report(path, numbers, headline, table, tuple(found.notes))


_NAMES = ("removal", "training", "scores", "sample_1", "sample_2", "events")


def _write_bytes(content: bytes, to: Path) -> None:
    to.write_bytes(content)


def _refuse(path: Path, *, is_own: bool, overwrite: bool) -> None:
    """Keep what exists, but for an earlier report in its own place."""
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name, got the folder {path}.")
    for existing in (path, path.with_suffix(".json")):
        if overwrite or not existing.exists():
            continue
        start = existing.read_bytes()[:2000]
        if is_own and (page.is_ours(start) or f'"{FORMAT}"'.encode() in start):
            continue
        raise FileExistsError(
            f"Expected no file at {existing}, got one{' of other origin' * is_own}; choose another "
            "name or overwrite it (overwrite=True, --overwrite)."
        )


def _pictures(found: Found) -> list[page.Picture]:
    pictures = []
    measured, name = found.measured, found.name
    if measured is not None:
        own = measured.scores[name]
        pictures.append(
            page.Picture(
                "removal",
                text.SCORES,
                picture(lambda to: figures.draw_removal(measured, name, to), (9.5, 4.9)),
                "Noise removed against signal kept, for the network and the baselines.",
                "Noise removed for each share of signal kept, on the events of the table. Right: "
                "the upper end, on a logarithmic scale of the noise that is left; a line ends "
                "where none is left. The vertical line is the wanted retention.",
            )
        )
        pictures.append(
            page.Picture(
                "scores",
                text.ERRORS,
                picture(lambda to: figures.draw_scores(own, to), (8.5, 4)),
                "Histogram of the network's score for signal and for noise, log counts.",
                "The network's score of the hits by truth, on a logit scale; log counts.",
            )
        )
        for k, sample in enumerate(measured.samples):
            counts = ", ".join(f"{n} {words}" for words, n in sample.counts().items())
            pictures.append(
                page.Picture(
                    f"sample_{k + 1}",
                    text.SAMPLES,
                    picture(lambda to, one=sample: figures.draw_sample(one, to), (8.5, 9.8)),  # type: ignore[misc]
                    f"{sample.title}, in x-y and x-y-time: {counts}.",
                    f"{sample.title} (number {sample.number}): {counts}. Hits hidden behind a "
                    "later one in their pixel get its score, and count nowhere. Below: the same "
                    "in x, y and time, without the noise removed.",
                )
            )
        if len(measured.events):
            pictures.append(
                page.Picture(
                    "events",
                    text.ERRORS,
                    picture(lambda to: figures.draw_events(measured, name, to), (9.5, 4)),
                    "Retention and removal of single events, and against the number of hits.",
                    "Left: the share of events whose signal kept, or noise removed, is at most so "
                    "much. Right: means of events grouped by their number of hits.",
                )
            )
    if found.history:
        pictures.append(
            page.Picture(
                "training",
                text.TRAINING,
                picture(lambda to: figures.draw_training(found.history, to), (9.5, 9)),
                "Loss, noise removal, AUC, learning rate and gradient shares against the step.",
                "A mark for each validation. Removal stands on a logarithmic scale of the noise "
                "that is left.",
            )
        )
    return pictures


def _numbers(found: Found, headline: str, seconds: float) -> dict[str, Any]:
    """Strict JSON of everything that the page and its figures show."""
    measured, run = found.measured, found.run
    history = dict.fromkeys(name for row in found.history for name in row)
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "version": _VERSION,
        "run": found.name,
        "headline": headline,
        "retention": found.retention,
        "notes": found.notes,
        "test": list(found.test),
        "noise_added_to_test": found.adds_noise,
        "metrics": found.metrics,
        "history": {n: [row.get(n, math.nan) for row in found.history] for n in history},
        "config": asdict(run.config),
        "environment": found.environment,
        "report_seconds": round(seconds, 1),
    }
    if measured is not None:
        own = measured.scores[found.name]
        edges, signal, noise = score_bins(own.histogram)
        curves = {name: steps_of(scores.histogram) for name, scores in measured.scores.items()}
        numbers |= {
            "evaluation": measured.evaluation.as_json(),
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
    found_strict: dict[str, Any] = strict(numbers)
    return found_strict
