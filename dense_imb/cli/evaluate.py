"""`dense-imb evaluate`: trained models and baselines in one table."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.cli._parser import Namespace, Parser

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.hits import Evaluation
    from dense_imb.runs import Run

SUMMARY = "measure trained models beside the baselines"
_FIGURE = "removal.png"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Measure trained models beside the classical baselines: each one's threshold "
        "is chosen on some events for a share of the signal to keep, and its scores are those of "
        "other events. Runs that were trained on images are measured on images with --masks, or "
        "on a CSV file with labels.",
        epilog="Examples:\n"
        "  dense-imb evaluate runs/unet clean.h5 --noise 100 200 500 --out table\n"
        "  dense-imb evaluate runs/cracks images --masks masks\n"
        "  dense-imb evaluate runs/isic test.csv --images images",
    )
    parser.add_argument(
        "paths",
        type=str,
        nargs="+",
        metavar="PATH",
        help="RUN ... FILE: folders of runs, and a labelled hits file; several files, or a quoted "
        "pattern, are one data set. Or RUN ... IMAGES: a folder of images, or an HDF5 file with "
        "data sets image and mask; none where the runs held out a test_share. Or RUN ... TEST.csv "
        "of classifiers, none for CIFAR's own test images",
    )
    parser.add_argument("--masks", type=str | None, help="the folder of the images' masks")
    parser.add_argument(
        "--images",
        type=str | None,
        help="of a CSV file: the folder of its images; by default that of the first run's",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        help="of images: distance in pixels within which a pixel counts as right",
    )
    parser.add_argument(
        "--precision", type=float, default=0.5, help="of images: at which recall is told"
    )
    parser.add_argument(
        "--validation",
        type=str | None,
        help="labelled hits file to choose the thresholds on; without it every fifth event of FILE",
    )
    parser.add_argument("--retention", type=float, default=0.97, help="share of signal to keep")
    parser.add_argument(
        "--noise",
        type=int,
        nargs="+",
        default=[],
        help="numbers of noise hits to add to each event of FILE, which is clean; a table for each",
    )
    parser.add_argument(
        "--signal", type=int | None, help="signal hits to keep, with --noise; all by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument(
        "--baselines",
        action=BooleanOptionalAction,
        default=True,
        help="whether the table has the baselines, their reaches scaled to the frame",
    )
    parser.add_argument(
        "--baseline",
        type=str,
        action="append",
        default=[],
        metavar="NAME",
        help='one more, "hit-density(radius_xy=5,radius_t=10)" say, quoted; may be repeated',
    )
    parser.add_argument("--events", type=int | None, help="look at so many first events only")
    parser.add_argument("--batch-size", type=int, default=256, help="events scored together")
    parser.add_argument(
        "--out",
        type=str | None,
        help="folder for evaluation.json and .csv, and with --noise a figure",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="how to print the table"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from importlib import import_module

    outputs = _outputs(options)
    runs, others = runs_among(options.paths)
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
    table = import_module(f"dense_imb.cli.evaluating.{kind}").evaluate(
        options, runs, others, outputs
    )
    for path in outputs:
        if path.name == _FIGURE:
            _draw(table, path)
        else:
            table.save(path)
    print(table.json() if options.format == "json" else table.text())


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


def _draw(found: Evaluation, path: Path) -> None:
    """Noise removal against noise, one line a scorer."""
    from matplotlib.figure import Figure

    from dense_imb.base.files import write_whole
    from dense_imb.curves import Column, Table
    from dense_imb.curves.figure import draw
    from dense_imb.curves.table import View

    levels = tuple(dict.fromkeys(float(row["noise"]) for row in found.rows))
    names = dict.fromkeys(str(row["scorer"]) for row in found.rows)
    curves = []
    for name in names:
        rows = [row for row in found.rows if row["scorer"] == name]
        values = tuple(100 * float(row["removal"]) for row in rows)
        curves.append(Column(name, "%", values, "noise removed"))
    table = Table(
        f"Noise removed at {100 * found.retention:g} % signal retention",
        Column("noise hits added", "per event", levels),
        tuple(curves),
        view=View(("noise removed",), "log" if min(levels) > 0 else "linear", y_range=(0.0, 100.0)),
    )
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    draw(table, axes)
    for line in axes.lines:
        line.set(marker="o", markersize=4, clip_on=False)  # measured here, drawn through between
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_xticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=200))
