"""`dense-imb report`: measure a run and write a page with its scores and figures."""

from __future__ import annotations

import sys

from dense_imb.cli._maps import add_maps
from dense_imb.cli._parser import Namespace, Parser, print_next
from dense_imb.cli._threads import add_threads

SUMMARY = "measure a run and write a page with its scores and figures"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Measure a run beside its baselines, and write RUN/report.html. The page needs "
        "no network; its numbers are in RUN/report.json and its figures in RUN/figures. An earlier "
        "report of the run is replaced.",
        epilog="Examples:\n  dense-imb report runs/arc --test test.h5\n"
        "  dense-imb report runs/cracks --test images --masks masks\n"
        "  dense-imb report runs/skin --test test.csv --images images\n"
        "  dense-imb report runs/dose --test images --targets dose",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--events",
        type=int | None,
        help="largest number of events or images to measure; by default 500, or 10,000 whole "
        "images",
    )
    parser.add_argument(
        "--retention",
        type=float | None,
        help="fraction of the signal to keep (signal efficiency), for hits; by default that of "
        "the run",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="FILE",
        help="path of the page; its numbers go beside it, figures are not written as files",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are no report of the run"
    )
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    data = parser.add_argument_group("test data")
    data.add_argument(
        "--test",
        type=str,
        nargs="+",
        default=[],
        metavar="PATH",
        help="data to measure on: labelled hits files, where clean ones get the run's degradation; "
        "a folder of images or an HDF5 file; a CSV file or an archive of CIFAR. By default the "
        "test images that the run held out, else its validation data",
    )
    data.add_argument(
        "--masks", type=str | None, metavar="FOLDER", help="folder of the masks of test images"
    )
    data.add_argument(
        "--images",
        type=str | None,
        metavar="FOLDER",
        help="folder of the images that a CSV file names; by default that of the run",
    )
    add_maps(data, "as in the run", " of test images")
    data.add_argument(
        "--allow-overlap",
        action="store_true",
        help="do not compare the test data with those that the run was trained on",
    )
    return parser


def run(options: Namespace) -> None:
    """Report as the options say."""
    from dense_imb.report import write_report

    report = write_report(
        options.run,
        test=options.test,
        masks=options.masks,
        images=options.images,
        targets=options.targets,
        cells=options.cells,
        counted=options.counted,
        out=options.out,
        n_events=options.events,
        retention=options.retention,
        allow_overlap=options.allow_overlap,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    for note in report.notes:
        print(f"dense-imb report: note: {note}", file=sys.stderr)
    print(report.headline)
    print(report.path)
    print_next("export", options.run, "model.onnx")
