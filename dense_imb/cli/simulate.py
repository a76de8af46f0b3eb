"""`dense-imb simulate`: write a hits file of simulated events."""

from __future__ import annotations

import sys

from dense_imb.cli._parser import Namespace, Parser, print_next

SUMMARY = "write a hits file of simulated events"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Simulate events of a time-of-flight detector and write a hits file. Without "
        "--signal and --noise the events are clean and complete, to be degraded in training.",
        epilog="Example:\n  dense-imb simulate tof.h5 --pattern arc --signal 30 --noise 200",
    )
    parser.add_argument("file", type=str, metavar="FILE", help="hits file to write")
    parser.add_argument("--events", type=int, default=20_000, help="number of events")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    events = parser.add_argument_group("events")
    events.add_argument(
        "--pattern",
        type=str,
        nargs="+",
        default=["arc"],
        metavar="NAME",
        help="patterns: arc, cross, line, v, parabola, ring, hemisphere, torch; several are "
        "equally likely",
    )
    events.add_argument(
        "--patterns-per-event", type=int, default=1, help="number of patterns in each event"
    )
    events.add_argument(
        "--photons", type=int, default=1500, help="number of photons of each pattern"
    )
    events.add_argument(
        "--signal",
        type=int | None,
        help="number of signal hits to keep; by default all. With 0 and --noise the events are "
        "noise-only, to choose thresholds by --fakes",
    )
    events.add_argument(
        "--noise", type=int, default=0, help="number of noise hits to add to each event"
    )
    frame = parser.add_argument_group("frame")
    frame.add_argument("--width", type=int, default=88, help="width in pixels")
    frame.add_argument("--height", type=int, default=128, help="height in pixels")
    frame.add_argument(
        "--time-steps", type=int, default=1000, help="number of time steps; times begin at 1"
    )
    return parser


def run(options: Namespace) -> None:
    """Simulate as the options say."""
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
        on_shortage=lambda note: print(f"dense-imb simulate: note: {note}", file=sys.stderr),
    )
    print(f"{options.file}: {writer.n_events} events, {writer.n_hits} hits")
    print_next("inspect", options.file)
