"""How is a simulated data set made? Training, validation and test files from one seed.

    python data_tools/make.py tof --train 20000 --validation 2000 --test 2000 --pattern arc
    python data_tools/make.py tof --train 20000 --signal 30 --noise 200
    python data_tools/make.py kinds --pattern arc ring line cross --frequency 60 25 10 5 \
        --patterns-per-event 1 3 --signal 60 --noise 200     (four classes, two of them rare)

Writes tof/train.h5, tof/validation.h5 and tof/test.h5, clean and filled, to be degraded while
training; with --signal or --noise also degraded versions of the same events, train_noisy.h5 and
so on. No two parts share an event. Run again after a stop, it makes what is missing only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser

PARTS = ("train", "validation", "test")


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=str, help="folder of the files")
    for part, count in zip(PARTS, (20_000, 2_000, 2_000), strict=True):
        parser.add_argument(f"--{part}", type=int, default=count, help="events; 0 for no file")
    parser.add_argument(
        "--pattern",
        type=str,
        nargs="+",
        default=["arc"],
        help="arc, cross, line, v, parabola, ring, hemisphere, torch; several are equally frequent "
        "without --frequency",
    )
    parser.add_argument(
        "--frequency",
        type=float,
        nargs="+",
        default=[],
        help="relative frequency of each pattern, in any unit: 60 25 10 5",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--width", type=int, default=88, help="width of the frame in pixels")
    parser.add_argument("--height", type=int, default=128, help="height of the frame in pixels")
    parser.add_argument("--time-steps", type=int, default=1000, help="last time step")
    parser.add_argument("--photons", type=int, default=1500, help="photons of each pattern")
    parser.add_argument(
        "--patterns-per-event",
        type=int,
        nargs="+",
        default=[1],
        help="patterns in each event: a number, or the ends of a range",
    )
    parser.add_argument("--signal", type=int | None, help="signal hits of degraded events")
    parser.add_argument("--noise", type=int, default=0, help="noise hits of degraded events")
    parser.add_argument("--overwrite", action="store_true", help="make all files again")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.base.checks import check_at_least
    from dense_imb.base.files import write_whole
    from dense_imb.base.refusals import Refused
    from dense_imb.data.events.simulated import write_simulated
    from dense_imb.hits import Degradation, Geometry, HitsFile, simulate

    geometry = Geometry(options.width, options.height, options.time_steps)
    versions: dict[str, Degradation | None] = {"": None}
    if options.signal is not None or options.noise:
        versions["_noisy"] = Degradation(signal=options.signal, noise=options.noise)
    if len(options.patterns_per_event) > 2:
        raise Refused(
            "{patterns_per_event} with a number, or the two ends of a range",
            " ".join(map(str, options.patterns_per_event)),
        )
    low, high = options.patterns_per_event[0], options.patterns_per_event[-1]
    frequency = options.frequency or None
    # refuse bad patterns before anything is written
    simulate(options.pattern, 0, 0, patterns_per_event=(low, high), frequency=frequency)
    for name in PARTS:
        check_at_least(name, options[name], 0)
    check_at_least("photons", options.photons, 1)
    folder = Path(options.folder)
    settings = {k: v for k, v in vars(options).items() if k not in ("folder", "overwrite")}
    # as in recipes from before ranges and frequencies
    settings["patterns_per_event"] = low if low == high else [low, high]
    settings["frequency"] = frequency
    recipe = folder / "recipe.json"
    if recipe.exists() and not options.overwrite:
        old = json.loads(recipe.read_text())
        differ = [k for k in settings if old.get(k) != settings[k]]
        if differ:
            raise Refused(
                f"the settings of {recipe}, {differ[0]} = {old.get(differ[0])}",
                settings[differ[0]],
                "choose another folder or pass {overwrite}",
            )
    folder.mkdir(parents=True, exist_ok=True)
    if options.overwrite:  # a stop in the middle leaves no file of other settings
        for part in PARTS:
            for suffix in ("", "_noisy"):
                (folder / f"{part}{suffix}.h5").unlink(missing_ok=True)
    write_whole(recipe, lambda path: path.write_text(json.dumps(settings, indent=1) + "\n"))
    first_event = 0
    for part in PARTS:
        for suffix, degradation in versions.items():
            path = folder / f"{part}{suffix}.h5"
            if options[part] == 0:
                continue
            if path.exists():
                with HitsFile(path, in_memory=False) as made:
                    if len(made) != options[part] or made.geometry != geometry:
                        raise ValueError(
                            f"Expected {path} with {options[part]} events of {geometry}, got "
                            f"{len(made)} of {made.geometry}; remove it."
                        )
                print(f"{path}: there already")
                continue
            writer = write_simulated(
                path,
                options[part],
                pattern=options.pattern,
                seed=options.seed,
                geometry=geometry,
                first_event=first_event,
                patterns_per_event=(low, high),
                frequency=frequency,
                n_photons=options.photons,
                degradation=degradation,
                on_shortage=lambda note: print(f"make.py: note: {note}", file=sys.stderr),
            )
            print(f"{path}: {writer.n_events} events, {writer.n_hits} hits")
        first_event += options[part]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("make.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
