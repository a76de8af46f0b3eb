"""`dense-imb simulate`: a hits file of simulated events."""

from __future__ import annotations

import sys

from dense_imb.cli._parser import Namespace, Parser

SUMMARY = "make a hits file of simulated events"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Simulate events of a time-of-flight detector, and write a hits file. Without "
        "--signal and --noise the patterns are clean and filled, to be degraded later.",
        epilog="Example:\n  dense-imb simulate tof.h5 --pattern arc --signal 30 --noise 200",
    )
    parser.add_argument("file", type=str, help="the hits file to write")
    parser.add_argument("--events", type=int, default=20_000, help="events to make")
    parser.add_argument(
        "--pattern",
        type=str,
        nargs="+",
        default=["arc"],
        help="arc, cross, line, v, parabola, ring, hemisphere, torch; several are drawn alike",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--width", type=int, default=88, help="of the frame, in pixels")
    parser.add_argument("--height", type=int, default=128, help="of the frame, in pixels")
    parser.add_argument("--time-steps", type=int, default=1000, help="times run from 1 to this")
    parser.add_argument("--photons", type=int, default=1500, help="of each pattern")
    parser.add_argument("--patterns-per-event", type=int, default=1, help="in each event")
    parser.add_argument("--signal", type=int | None, help="signal hits to keep; all by default")
    parser.add_argument("--noise", type=int, default=0, help="noise hits to add to each event")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from dense_imb.base.checks import check_choice
    from dense_imb.data.events.simulated import write_simulated
    from dense_imb.hits import PATTERNS, Degradation, Geometry

    degradation = Degradation(signal=options.signal, noise=options.noise)
    for name in options.pattern:
        check_choice("pattern", name, PATTERNS)
    writer = write_simulated(
        options.file,
        options.events,
        pattern=options.pattern,
        seed=options.seed,
        geometry=Geometry(options.width, options.height, options.time_steps),
        patterns_per_event=options.patterns_per_event,
        n_photons=options.photons,
        degradation=degradation if options.signal is not None or options.noise > 0 else None,
        overwrite=options.overwrite,
        progress=not options.quiet,
        on_shortage=lambda told: print(f"dense-imb simulate: note: {told}", file=sys.stderr),
    )
    print(f"{options.file}: {writer.n_events} events, {writer.n_hits} hits")
