"""From the folder of a run to its report."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import write_whole
from dense_imb.inspection.report import strict
from dense_imb.metrics.score_table import ScoreTable
from dense_imb.report import page
from dense_imb.report.drawing import Rows, column, picture
from dense_imb.report.found import N_EVENTS, Found
from dense_imb.report.hits import OfHits
from dense_imb.report.images import OfImages
from dense_imb.report.text import whole_page
from dense_imb.runs import Run, open_run

FORMAT, _VERSION = "dense-imb-report", 1
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Report:
    """What `write_report` made.

    Args:
        path: the page.
        numbers: what the JSON beside it holds.
        headline: the result in a sentence.
        evaluation: the table, an `Evaluation` of hits or a `ImagesTable` of images; None
            where the network or the data are missing.
        notes: what a reader should know, what is missing for one.
    """

    path: Path
    numbers: dict[str, Any]
    headline: str
    evaluation: ScoreTable | None
    notes: tuple[str, ...]


def write_report(
    run_folder: _Path,
    *,
    test: str | Sequence[str] | None = None,
    masks: str | None = None,
    out: _Path | None = None,
    n_events: int = N_EVENTS,
    retention: float | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Report:
    """Measure a run beside what needs no training; write report.html, report.json, figures/*.png.

    The report in the folder of the run is derived from it, and made again without asking: an
    earlier report and its figures are replaced, each file whole or not at all. What is missing
    (the data, the network) is said in the report, which shows what there is.

    Args:
        run_folder: the folder of a run.
        test: labelled hits files to measure on, noisy, or clean: then the run's own degradation
            is added. Without any every second validation event is measured, and the others
            choose the thresholds. Of a run on images a folder of images, or an HDF5 file;
            without any the run's `test_share`, or else its validation images.
        masks: the folder of the masks of the images of `test`.
        out: another place for the page; its numbers go beside it, and no figures. What exists
            there is kept, unless `overwrite`.
        n_events: at most so many to choose thresholds on, and so many to measure; of images, to
            measure.
        retention: of hits: share of the signal to keep; that of the run's config by default.
        overwrite: replace files that are no earlier report of the run.
        show_progress: a bar on stderr.
    """
    check_at_least("n_events", n_events, 1)
    run = open_run(run_folder)
    asked = (test,) if isinstance(test, str) else tuple(test or ())
    found = _found(run, asked, masks, n_events, retention)
    path = run.folder / "report.html" if out is None else Path(out)
    if path.suffix != ".html":
        raise ValueError(f"Expected `out` to end in .html, got {path}.")
    _refuse(path, is_own=out is None, overwrite=overwrite)
    started = time.monotonic()
    found.read_records()
    with tqdm(
        desc="report", unit=found.unit, file=sys.stderr, disable=not show_progress, total=0
    ) as bar:

        def progress(n_coming: int) -> Callable[[int], object]:
            bar.reset(total=n_coming)
            update: Callable[[int], object] = bar.update
            return update

        found.measure(progress)
        bar.set_description("report, figures")
        pictures = [
            page.Picture(one.name, one.section, picture(one.draw, one.size), one.alt, one.caption)
            for one in found.drawings()
        ]
    headline = found.headline()
    numbers = _numbers(found, headline, time.monotonic() - started)
    content = whole_page(found, headline, pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    if out is None:
        folder = path.parent / "figures"
        folder.mkdir(exist_ok=True)
        for one in pictures:
            write_whole(folder / f"{one.name}.png", partial(_write_bytes, one.png))
        for name in {*found.figure_names} - {one.name for one in pictures}:  # of an earlier report
            (folder / f"{name}.png").unlink(missing_ok=True)
    stored = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    write_whole(path.with_suffix(".json"), partial(_write_bytes, stored.encode()))
    write_whole(path, partial(_write_bytes, content.encode()))
    return Report(path, numbers, headline, found.table, tuple(found.notes))


def _found(
    run: Run, test: tuple[str, ...], masks: str | None, n_events: int, retention: float | None
) -> Found:
    if run.config.trains_on_images:
        if retention is not None:
            raise ValueError(
                f"Expected no `retention` with a run on images, got {retention}; their threshold "
                "is that of the best F1."
            )
        return OfImages(run, test, n_events, run.name, masks=masks)
    if masks is not None:
        raise ValueError(f"Expected no `masks` with a run on hits, got {masks}.")
    if run.config.trains_on_classes:
        raise ValueError(
            f"Expected a run on hits or on images with masks to report on, got {run.folder}, a "
            "classifier of whole images; dense-imb evaluate RUN TEST.csv measures it."
        )
    retention = run.config.hits.retention if retention is None else retention
    if not 0 < retention <= 1:
        raise ValueError(f"Expected `retention` above 0 and up to 1, got {retention}.")
    return OfHits(run, test, n_events, run.name, retention=retention)


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


def _columns(rows: Rows) -> dict[str, list[float]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: column(rows, name).tolist() for name in names}


def _numbers(found: Found, headline: str, seconds: float) -> dict[str, Any]:
    """Strict JSON of everything that the page and its figures show."""
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "version": _VERSION,
        "run": found.name,
        "headline": headline,
        "notes": found.notes,
        "test": list(found.test),
        "metrics": found.metrics,
        "history": _columns(found.history),
        **({"first_history": _columns(found.first_history)} if found.first_history else {}),
        "config": asdict(found.run.whole_config),
        "environment": found.environment,
        "report_seconds": round(seconds, 1),
        **({} if found.table is None else {"evaluation": found.table.as_json()}),
        **found.numbers(),
    }
    found_strict: dict[str, Any] = strict(numbers)
    return found_strict
