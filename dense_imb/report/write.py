"""Writing the report of a run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import refuse_inputs, write_whole
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.config import KINDS
from dense_imb.inspection.report import strict
from dense_imb.metrics.score_table import ScoreTable
from dense_imb.report.drawing import Rows, column, draw_png
from dense_imb.report.facts import run_facts
from dense_imb.report.page import is_report, render_page
from dense_imb.report.source import ReportSource
from dense_imb.runs import open_run
from dense_imb.tasks.kind import Kind, has_report, kind_named, module_of_kind

FORMAT, _VERSION = "dense-imb-report", 1
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Args:
        path: path of the page.
        numbers: content of the JSON file beside it.
        headline: result in a sentence.
        evaluation: table of scores; None if the network or the data are missing.
        notes: remarks for the reader, and what is missing.

    Example:
        >>> from pathlib import Path
        >>> from dense_imb.report import Report
        >>> report = Report(Path("run/report.html"), {"run": "run"}, "removed 99 %", None, notes=())
        >>> report.path.name, report.evaluation is None  # nothing was measured
        ('report.html', True)
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
    images: str | None = None,
    targets: str | None = None,
    cells: str | None = None,
    counted: str | None = None,
    out: _Path | None = None,
    n_events: int | None = None,
    retention: float | None = None,
    allow_overlap: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Report:
    """Measure a run beside its baselines; write report.html, report.json and figures/*.png.

    An earlier report in the folder of the run is replaced, each file whole or not at all. The
    report lists missing data or weights, and shows what there is.

    The data to measure on are those of `test`. Without it:

        hits    every second validation event; the others choose the thresholds
        images  the images of `test_share`, else the validation images
        labels  the validation images; CIFAR's test images if validation has images of its own
        values  the images of `test_share`, else the validation images

    Args:
        run_folder: folder of a run.
        test: data to measure on: labelled hits files, where clean ones get the run's own
            degradation; a folder of images or an HDF5 file; a CSV file, or an archive of CIFAR.
        masks: folder of the masks of test images.
        images: folder of the images that a CSV file names; by default that of the run.
        targets: folder of the maps of values of test images; of an HDF5 file, the name of their
            data set.
        cells: folder of the cells of test images; of an HDF5 file, the name of their data set.
        counted: folder of maps that are nonzero where a pixel of test images counts; of an HDF5
            file, the name of their data set.
        out: path of the page; the JSON file goes beside it, figures are not written as files.
            By default report.html in the folder of the run.
        n_events: largest number of events or images to measure (of events, to choose thresholds
            on, too); by default 500, or 10,000 whole images.
        retention: fraction of the signal to keep, for hits; by default that of the run.
        allow_overlap: do not compare the data of `test` with those that the run was trained on.
        overwrite: replace files that are no earlier report of the run.
        show_progress: show a progress bar on stderr.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from PIL import Image
        >>> from dense_imb import LabelsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.report import write_report
        >>> folder, rng = pathlib.Path(tempfile.mkdtemp()), np.random.default_rng(0)
        >>> for i in range(12):
        ...     pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        ...     Image.fromarray(pixels).save(folder / f"{i}.png")
        >>> rows = "".join(f"{i}.png,{int(i > 7)}\\n" for i in range(12))
        >>> _ = (folder / "train.csv").write_text("name,label\\n" + rows)
        >>> tiny = ModelConfig("resnet32", {"depth": 8, "width": 4})
        >>> labels = LabelsConfig(str(folder / "train.csv"))
        >>> config = TrainConfig(labels=labels, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder / "run", is_quiet=True, device="cpu")
        >>> report = write_report(folder / "run", show_progress=False)
        >>> report.path.name, report.evaluation["commonest"]["balanced_accuracy"]
        ('report.html', 0.5)
    """
    if n_events is not None:
        check_at_least("n_events", n_events, 1)
    run = open_run(run_folder)
    paths = (test,) if isinstance(test, str) else tuple(test or ())
    kind = _source_of(run.kind)
    given: dict[str, Any] = {"masks": masks, "images": images, "retention": retention}
    given |= {"targets": targets, "cells": cells, "counted": counted}
    options = _own_options(kind, given)
    source = kind(run, paths, kind.most if n_events is None else n_events, **options)
    source.allow_overlap = allow_overlap
    path = run.folder / "report.html" if out is None else Path(out)
    if path.suffix != ".html":
        raise Refused("`out` to end in .html", path, argument="out")
    _refuse_existing(path, is_own=out is None, overwrite=overwrite)
    refuse_inputs([path, path.with_suffix(".json")], [*paths, masks, images, targets, cells])
    if path.parent.exists() and not os.access(path.parent, os.W_OK):  # measuring takes long
        raise ValueError(f"Expected a folder to write to, got {path.parent}, which is read-only.")
    started = time.monotonic()
    source.read_records()
    with tqdm(
        desc="report", unit=source.unit, file=sys.stderr, disable=not show_progress, total=0
    ) as bar:

        def progress(n_coming: int) -> Callable[[int], object]:
            bar.reset(total=n_coming)
            update: Callable[[int], object] = bar.update
            return update

        source.measure(progress)
        bar.set_description("report, figures")
        sections = source.sections()
        drawings = [drawing for section in sections for drawing in section.drawings]
        pngs = {drawing.name: draw_png(drawing.draw, drawing.size) for drawing in drawings}
    headline, date = source.headline(), datetime.now().astimezone().isoformat(" ", "minutes")
    numbers = _numbers(source, headline, time.monotonic() - started) | {"date": date}
    page = render_page(
        name=source.name,
        headline=headline,
        origin=f"Measured {date} on {source.measured_on}.",
        notes=source.notes,
        sections=sections,
        pngs=pngs,
        facts=run_facts(source),
        config=yaml.safe_dump(asdict(run.whole_config), sort_keys=False),
        commands=source.commands(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if out is None:
        _write_figures(path.parent / "figures", pngs, source.figure_names)
    stored = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    write_whole(path.with_suffix(".json"), partial(_write_bytes, stored.encode()))
    # names of files may be no UTF-8
    write_whole(path, partial(_write_bytes, page.encode(errors="replace")))
    return Report(path, numbers, headline, source.table, tuple(source.notes))


def _source_of(kind: Kind) -> type[ReportSource]:
    source: type[ReportSource] = module_of_kind("dense_imb.report", kind, "report").Source
    return source


def _own_options(kind: type[ReportSource], given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a kind takes; refuse those of other kinds."""
    for name, value in given.items():
        if value is not None and name not in kind.options:
            kinds = [one for name in KINDS if has_report(one := kind_named(name))]
            sources = [_source_of(one) for one in kinds]
            takers = " or ".join(one.kind for one in sources if name in one.options)
            raise Refused(
                f"no {{{name}}} with a run on {kind.kind}",
                value,
                f"it is for runs on {takers}",
                argument=name,
            )
    return {name: given[name] for name in kind.options}


def _write_figures(folder: Path, pngs: dict[str, bytes], names: Sequence[str]) -> None:
    """Write the figures, and remove those of an earlier report that has more of them."""
    folder.mkdir(exist_ok=True)
    for name, png in pngs.items():
        write_whole(folder / f"{name}.png", partial(_write_bytes, png))
    for name in {*names} - {*pngs}:
        (folder / f"{name}.png").unlink(missing_ok=True)


def _write_bytes(content: bytes, to: Path) -> None:
    to.write_bytes(content)


def _refuse_existing(path: Path, *, is_own: bool, overwrite: bool) -> None:
    """Refuse to replace files, except an earlier report in the folder of the run."""
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name, got the folder {path}.")
    for existing in (path, path.with_suffix(".json")):
        if overwrite or not existing.exists():
            continue
        start = existing.read_bytes()[:2000]
        if is_own and (is_report(start) or f'"{FORMAT}"'.encode() in start):
            continue
        raise RefusedFile(
            f"no file at {existing}",
            "one that is no report of dense-imb" if is_own else "one",
            "choose another name or overwrite it with {overwrite}",
        )


def _columns(rows: Rows) -> dict[str, list[float]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: column(rows, name).tolist() for name in names}


def _numbers(source: ReportSource, headline: str, seconds: float) -> dict[str, Any]:
    """Return everything that the page and its figures show, as strict JSON."""
    first = source.first_history
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "version": _VERSION,
        "run": source.name,
        "headline": headline,
        "notes": source.notes,
        "test": list(source.test),
        "metrics": source.metrics,
        "history": _columns(source.history),
        **({"first_history": _columns(first)} if first else {}),
        "config": asdict(source.run.whole_config),
        "environment": source.environment,
        "report_seconds": round(seconds, 1),
        **({} if source.table is None else {"evaluation": source.table.as_json()}),
        **source.numbers(),
    }
    known: dict[str, Any] = strict(numbers)
    return known
