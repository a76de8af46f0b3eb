"""`dense-imb report`: a page that shows what a run is worth."""

from __future__ import annotations

import sys

from dense_imb.cli._parser import Namespace, Parser

SUMMARY = "make the report of a run: a page with its scores and figures"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Measure a run beside what needs no training, and write RUN/report.html, a "
        "page that needs no network, with its numbers in RUN/report.json and its figures in "
        "RUN/figures. An earlier report of the run is replaced: all of it can be made again.",
        epilog="Examples:\n  dense-imb report runs/arc --test test.h5\n"
        "  dense-imb report runs/cracks --test images --masks masks",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--test",
        type=str,
        nargs="+",
        default=[],
        help="labelled hits files to measure on; clean ones are degraded as the run's own are. "
        "Without any, every second validation event is measured. Of a run on images a folder of "
        "images or an HDF5 file; without any the images of test_share, else of the validation",
    )
    parser.add_argument("--masks", type=str | None, help="the folder of the masks of test images")
    parser.add_argument(
        "--events",
        type=int,
        default=500,
        help="at most so many to choose on and to measure; of images, to measure",
    )
    parser.add_argument(
        "--retention",
        type=float | None,
        help="of hits: share of signal to keep; by default the run's",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        help="another place for the page; its numbers go beside it, and no figures",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are no report of the run"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Report as the options say."""
    from dense_imb.report import write_report

    report = write_report(
        options.run,
        test=options.test,
        masks=options.masks,
        out=options.out,
        n_events=options.events,
        retention=options.retention,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    for note in report.notes:
        print(f"dense-imb report: note: {note}", file=sys.stderr)
    print(report.headline)
    print(report.path)
