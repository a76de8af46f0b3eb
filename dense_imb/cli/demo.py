"""`dense-imb demo`: the main job from end to end."""

from __future__ import annotations

import sys

from dense_imb.cli._parser import Namespace, Parser, one_line_warnings

SUMMARY = "simulate, train, denoise, compare, report: a few minutes on a laptop"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Simulate a detector, train a network that tells its signal from noise, "
        "denoise a file that it has not seen, compare it with the classical rules, and write a "
        "report. Offline, on a CPU: about 3 minutes on 2 cores. Stopped by Ctrl-C, it goes on "
        "where it was when started again.",
        epilog="Example:\n  dense-imb demo --out demo",
    )
    parser.add_argument("--out", type=str, default="demo", help="the folder of data and run")
    parser.add_argument("--events", type=int, default=12_000, help="clean patterns to train on")
    parser.add_argument("--test-events", type=int, default=2000, help="held out, and denoised")
    parser.add_argument("--steps", type=int | None, help="of the training; fewer are quicker")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
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
                is_quiet=options.quiet,
            )
        except Interrupted as stopped:
            print(f"dense-imb demo: {stopped}; the same command goes on", file=sys.stderr)
            sys.exit(stopped.exit_code)
