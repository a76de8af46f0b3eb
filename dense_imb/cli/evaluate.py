"""`dense-imb evaluate`: trained models and baselines in one table."""

from __future__ import annotations

import glob
import sys
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dense_imb import __version__
from dense_imb.base.files import refuse_inputs
from dense_imb.base.refusals import Refused, RefusedFile, refusal
from dense_imb.cli._aims import add_aims
from dense_imb.cli._device import add_device, chosen_device
from dense_imb.cli._maps import add_maps
from dense_imb.cli._parser import Namespace, Parser, print_next
from dense_imb.cli._threads import add_threads

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.hits import Evaluation
    from dense_imb.runs import Run

SUMMARY = "measure trained models beside the baselines"
_FIGURE = "removal.png"
_NOT_KEPT = ("out", "overwrite", "format", "quiet")  # options that change no number
_OF_HITS = ("validation", "noise", "signal", "baseline", "events")


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Measure trained models beside baselines, on data that they were not trained "
        "on. The runs decide the kind of data: hits, images with masks, whole images, or maps of "
        "values. "
        "Thresholds are chosen on validation data, never on the data that scores are measured on. "
        "Of hits the table shows the retention (signal efficiency), the removal (background "
        "rejection), the purity and the noise hits kept per noise-only event. "
        "Several processes, started with torchrun or accelerate launch, share the events of hits.",
        epilog="Examples:\n"
        "  dense-imb evaluate runs/unet clean.h5 --noise 100 200 500 --out table\n"
        "  dense-imb evaluate runs/cracks images --masks masks\n"
        "  dense-imb evaluate runs/isic test.csv --images images\n"
        "  dense-imb evaluate runs/dose images --targets dose\n"
        "  dense-imb evaluate runs/old --calibrate",
    )
    parser.add_argument(
        "paths",
        type=str,
        nargs="+",
        metavar="PATH",
        help="folders of runs, then the test data: hits files, or a folder of images, or a CSV "
        "file. Runs that held out test images (images.test_share), and runs on CIFAR, need none",
    )
    parser.add_argument(
        "--pretrained",
        type=str | None,
        metavar="NAME",
        help="network of hits that comes with the package, arc or km3net, beside the runs",
    )
    parser.add_argument(
        "--baselines",
        action=BooleanOptionalAction,
        default=True,
        help="rows of the baselines in the table",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="folder for evaluation.json and evaluation.csv, and for a figure with --noise",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="first fit slope and bias of the probabilities of each run on its validation data, "
        "and keep them in the run; without test data nothing else is done",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier table in FOLDER, and with --calibrate earlier natural "
        "probabilities of the runs",
    )
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="format of the printed table"
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="do not compare the test data with those that the runs were trained on",
    )
    add_device(parser)
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    hits = parser.add_argument_group("hits")
    hits.add_argument(
        "--validation",
        type=str | None,
        metavar="FILE",
        help="labelled hits file, or a quoted pattern of several, to choose the thresholds on; by "
        "default the validation data of the runs, as denoise and report do; without a run, or "
        "with --noise, every fifth event of the test data",
    )
    add_aims(hits, "0.97")
    hits.add_argument(
        "--noise",
        type=int,
        nargs="+",
        default=[],
        help="numbers of noise hits to add to each clean event; one table for each number",
    )
    hits.add_argument(
        "--signal",
        type=int | None,
        help="number of signal hits to keep in each event, with --noise; by default all",
    )
    hits.add_argument("--seed", type=int, default=0, help="random seed of the added noise")
    hits.add_argument(
        "--baseline",
        type=str,
        action="append",
        default=[],
        metavar="NAME",
        help='a further baseline, for example "hit-density(radius_xy=5,radius_t=10)"; can be '
        "repeated",
    )
    hits.add_argument(
        "--events",
        type=int | None,
        help="largest number of events, from the beginning of the file; by default all",
    )
    hits.add_argument("--batch-size", type=int, default=256, help="number of events in a batch")
    images = parser.add_argument_group("images with masks")
    images.add_argument("--masks", type=str | None, metavar="FOLDER", help="folder of the masks")
    images.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        help="distance in pixels within which a pixel counts as correct",
    )
    images.add_argument(
        "--precision", type=float, default=0.5, help="precision at which recall is reported"
    )
    labels = parser.add_argument_group("whole images")
    labels.add_argument(
        "--images",
        type=str | None,
        metavar="FOLDER",
        help="folder of the images that the CSV file names; by default that of the first run",
    )
    values = parser.add_argument_group("images with maps of values")
    add_maps(values, "as in the first run")
    values.add_argument(
        "--raw",
        action="store_true",
        help="measure predictions as trained only, without the read-out of the runs",
    )
    return parser


def run(options: Namespace) -> None:
    """Measure as the options say."""
    from importlib import import_module

    from dense_imb.engine.processes import joined
    from dense_imb.runs.pretrained import pretrained

    outputs = _outputs(options)
    runs, others = runs_among(options.paths)
    beside = (options.validation, options.masks, options.images, options.targets, options.cells)
    refuse_inputs(outputs, [*others, *beside])
    if options.calibrate:
        runs = _calibrated(options, runs)
        if not others and not any(run.config.images.test_share > 0 for run in runs):
            return
    own = list(runs)
    if options.pretrained is not None:
        runs = [pretrained(options.pretrained), *runs]
    kinds = {one.kind.name: one for one in runs}
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise Refused(
            "runs on one kind of data",
            f"{first.folder} on {first.kind.description} and {second.folder} on "
            f"{second.kind.description}",
            "evaluate them one by one",
        )
    kind = next(iter(kinds), "images" if options.masks is not None else "hits")
    _check_own(options, kind)
    evaluate_kind = import_module(f"dense_imb.cli.evaluating.{kind}").evaluate
    with joined(chosen_device(options)) as processes:
        shared = {"processes": processes} if kind == "hits" else {}  # others: each measures all
        table = evaluate_kind(options, runs, others, outputs, **shared)
    if not processes.is_main:
        return
    for path in outputs:
        if path.name == _FIGURE:
            _draw(table, path)
        else:
            table.save(path, made_by=_made_by(options, runs, others))
    print(table.json() if options.format == "json" else table.text())
    if own and options.format == "text":
        _print_next(options, own[0], others)


def _made_by(options: Namespace, runs: list[Run], others: list[str]) -> dict[str, Any]:
    """Return what a table was made by: weights of the runs, digests of the data, options."""
    from dense_imb.data.images.sources import digest_tree
    from dense_imb.engine.checkpoint import digest_weights

    beside = (options.validation, options.masks, options.images, options.targets, options.cells)
    given = [path for path in (*others, *beside) if path is not None]
    # patterns of hits files too
    paths = [Path(one) for path in given for one in (sorted(glob.glob(path)) or [path])]
    kept = {name: value for name, value in vars(options).items() if name not in _NOT_KEPT}
    return {
        "version": __version__,
        "runs": {str(run.folder): digest_weights(run.weights()) for run in runs},
        "data": {str(path): digest_tree(path) for path in paths if path.exists()},
        "options": kept,
    }


def _check_own(options: Namespace, kind: str) -> None:
    """Refuse options of maps of values with runs on other data, and of masks with such runs."""
    own: dict[str, tuple[str, ...]] = {"values": ("targets", "cells", "counted", "raw")}
    if kind == "values":
        own |= {"images": ("masks",), "labels": ("images",), "hits": _OF_HITS}
    for other, names in own.items():
        for name in names if other != kind else ():
            if getattr(options, name):
                raise refusal(
                    f"{{{name}}} is an option for runs on {other}, but these are on {kind}; drop "
                    "it."
                )


def _calibrated(options: Namespace, runs: list[Run]) -> list[Run]:
    """Calibrate the runs, and print a line for each; return them anew."""
    from dense_imb.engine.launch import is_launched
    from dense_imb.runs import calibrate

    if is_launched():
        raise refusal("{calibrate} works in one process; start it without torchrun.")
    if not runs:
        raise Refused("a run for {calibrate}", "none", "name its folder first")
    device, new = chosen_device(options), []
    to = sys.stdout if options.format == "text" else sys.stderr  # a table in JSON stays one
    for run in runs:
        new.append(calibrate(run, overwrite=options.overwrite, device=device))
        assert new[-1].natural is not None
        print(f"{run.folder}: {new[-1].natural.summary()}", file=to)
        print(
            f"{run.folder}: reports and exported files made before are old now; repeat dense-imb "
            "report and export",
            file=to,
        )
    return new


def _print_next(options: Namespace, run: Run, others: list[str]) -> None:
    """Print the command that shows the scores of the first run in a page."""
    from dense_imb.tasks.kind import has_report

    if not has_report(run.kind):
        return
    names = ("masks", "images", "targets", "cells", "counted")
    options_of_data = {name: getattr(options, name) for name in names}
    words = [w for name, value in options_of_data.items() if value for w in (f"--{name}", value)]
    print_next("report", run.folder, *(["--test", *others] if others else []), *words)


def runs_among(paths: list[str]) -> tuple[list[Run], list[str]]:
    """Split paths into runs and others."""
    from dense_imb.runs import open_run

    folders = [path for path in paths if (Path(path) / "config.yaml").is_file()]
    return [open_run(path) for path in folders], [path for path in paths if path not in folders]


def _outputs(options: Namespace) -> list[Path]:
    if options.out is None:
        return []
    names = ["evaluation.json", "evaluation.csv", *([_FIGURE] if len(options.noise) > 1 else [])]
    outputs = [Path(options.out) / name for name in names]
    existing = [path for path in outputs if path.exists()]
    if existing and not options.overwrite:
        raise RefusedFile(
            f"no file at {existing[0]}", "one", "choose another folder or {overwrite}"
        )
    return outputs


def _draw(evaluation: Evaluation, path: Path) -> None:
    """Draw noise removal against noise, one line for each scorer."""
    from matplotlib.figure import Figure

    from dense_imb.base.files import write_whole
    from dense_imb.curves import Column, Table
    from dense_imb.curves.figure import draw
    from dense_imb.curves.table import View

    levels = tuple(dict.fromkeys(float(row["noise"]) for row in evaluation.rows))
    names = dict.fromkeys(str(row["scorer"]) for row in evaluation.rows)
    curves = []
    for name in names:
        rows = [row for row in evaluation.rows if row["scorer"] == name]
        values = tuple(100 * float(row["removal"]) for row in rows)
        curves.append(Column(name, "%", values, "noise removed"))
    table = Table(
        f"Background rejection of thresholds that {evaluation.aim}",
        Column("noise hits added", "per event", levels),
        tuple(curves),
        view=View(("noise removed",), "log" if min(levels) > 0 else "linear", y_range=(0.0, 100.0)),
    )
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    draw(table, axes)
    for line in axes.lines:
        line.set(
            marker="o", markersize=4, clip_on=False
        )  # the measured points; the line connects them
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_xticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=200))
