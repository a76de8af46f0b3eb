"""`dense-imb demo`: denoising from simulation to report."""

from __future__ import annotations

import sys

from dense_imb.cli._parser import Namespace, Parser, one_line_warnings
from dense_imb.cli._script import continuable
from dense_imb.cli._threads import add_threads

SUMMARY = "simulate, train, denoise, compare and report within a minute on a laptop"
_CURE = "repeat the command to continue"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Simulate a detector, train a network that separates its signal from noise, "
        "denoise a test file, compare with the classical rules, and write a report. Needs no "
        "internet and no GPU: less than a minute on 2 CPU cores. A demo that was stopped by Ctrl-C "
        "continues when the command is repeated.",
        epilog="Example:\n  dense-imb demo --out demo",
    )
    parser.add_argument(
        "--out", type=str, default="demo", metavar="FOLDER", help="folder of the data and the run"
    )
    parser.add_argument("--events", type=int, default=4000, help="number of clean training events")
    parser.add_argument("--test-events", type=int, default=1000, help="number of test events")
    parser.add_argument("--steps", type=int | None, help="number of training steps; by default 600")
    parser.add_argument("--seed", type=int, default=0, help="random seed of everything")
    parser.add_argument(
        "--with-unet", action="store_true", help="also train a network of frames: 2 minutes more"
    )
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    return parser


@continuable("dense-imb demo", _CURE)
def run(options: Namespace) -> None:
    """Run the demo as the options say."""
    from dense_imb.base.checks import check_at_least
    from dense_imb.demo import STEPS, demo
    from dense_imb.engine import Interrupted

    for name, least in (("events", 100), ("test_events", 10)):
        check_at_least(name, options[name], least)
    with one_line_warnings("demo"):
        try:
            demo(
                options.out,
                events=options.events,
                test_events=options.test_events,
                steps=STEPS if options.steps is None else options.steps,
                seed=options.seed,
                with_unet=options.with_unet,
                is_quiet=options.quiet,
            )
        except Interrupted as stopped:
            print(f"dense-imb demo: {stopped}; {_CURE}", file=sys.stderr)
            sys.exit(stopped.exit_code)
