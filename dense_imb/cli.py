"""The command `dense-imb`: arguments in, library calls out."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from dense_imb import __version__

# No value that a user types may name an import; what a command needs is looked up by our own code.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["dense_imb"])


# what jsonargparse calls the types of our options
_KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}


class _Parser(ArgumentParser):
    """An ArgumentParser that says in one line what was wanted, what came, and the cure."""

    typed: ClassVar[Sequence[str]] = ()  # the arguments: a parser knows its own part of them only

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join(str(message).split())
        command = next((word for word in self.typed if word in _COMMANDS), None)
        if unknown := re.match(r"unrecognized arguments: (.*)", sentence):
            sentence = f"Expected options that exist, got {unknown[1]}."
            options = _COMMANDS[command][0]()._option_string_actions if command else []
            near = difflib.get_close_matches(re.split("[= ]", unknown[1])[0], options, n=1)
            sentence += f" Did you mean {near[0]}?" if near else ""
        elif wrong := re.match(r'Parser key "([^"]+)": .*(?:Given|Got) value: (.*)', sentence):
            kind = r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])"
            kinds = [
                choices or _KINDS.get(name, name) for name, choices in re.findall(kind, sentence)
            ]
            wanted = " or ".join(one for one in dict.fromkeys(kinds) if one != "NoneType")
            key = wrong[1].split(".")[-1]
            sentence = f"Expected `{key}` to be {wanted}, got {wrong[2]}."
        elif invalid := re.search(r"invalid choice: (\S+)", sentence):
            near = difflib.get_close_matches(invalid[1].strip("'"), _COMMANDS, n=1)
            sentence = f"Expected a command, {', '.join(_COMMANDS)}, got {invalid[1]}."
            sentence += f" Did you mean {near[0]}?" if near else ""
        elif '"command"' in sentence:
            sentence = f"Expected a command, {', '.join(_COMMANDS)}, got none."
        program = f"dense-imb {command}" if command else "dense-imb"
        self.exit(2, f"{program}: error: {sentence} (--help lists the options)\n")


def _losses_parser() -> _Parser:
    parser = _Parser(
        description="List the losses with their formulas, or explain one of them.",
        epilog="Example: dense-imb losses acb_mse_loss",
    )
    parser.add_argument(
        "name", type=str | None, nargs="?", help="a public name of dense_imb.losses to explain"
    )
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="how to print the list"
    )
    return parser


def _losses(options: Namespace) -> None:
    from dense_imb import losses
    from dense_imb.losses._checks import check_choice
    from dense_imb.losses.catalogue import CATALOGUE

    if options.name is not None:
        check_choice("name", options.name, losses.__all__)
        explained = getattr(losses, options.name)
        # annotations are quoted, being strings; the defaults keep their quotes
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(explained)))
        print(f"{options.name}{signature}\n\n{inspect.getdoc(explained)}")
    elif options.format == "json":
        print(json.dumps([entry._asdict() for entry in CATALOGUE], indent=1))
    else:
        width = max(len(entry.name) for entry in CATALOGUE)
        for entry in CATALOGUE:
            print(f"{entry.name:{width}}  {entry.formula}  [{entry.source}]")


def _curves_parser() -> _Parser:
    parser = _Parser(
        description="Draw how losses respond: figures, their numbers and captions. Without options "
        "the three published figures and a gallery of every scenario for our losses.",
        epilog='Example: dense-imb curves --loss "ACBMSELoss(hit_weight=2.0)" '
        "--loss torch.nn:HuberLoss --scenario recovery",
    )
    parser.add_argument("--out", type=str, default="figures", help="the folder to write to")
    # plain strings: what they name is looked up, and imported where they say so, by our own code
    parser.add_argument(
        "--loss",
        type=str,
        action="append",
        default=[],
        help="a name of `dense-imb losses` or package.module:Class, with options as literals, "
        "balance={} for a Balance(); may be repeated",
    )
    parser.add_argument(
        "--scenario",
        type=str,
        action="append",
        default=[],
        help="published, signal-size, recovery, probability, class-frequency, value-error, "
        "collapse[-logits] or gradient-share[-logits]; may be repeated; all by default",
    )
    parser.add_argument("--frame", type=str | None, help="frame size, 128x88 by default")
    parser.add_argument("--value", type=float | None, help="value of a hit, 100 by default")
    parser.add_argument("--points", type=int | None, help="points of a curve, 200 at most")
    parser.add_argument(
        "--format",
        type=str,
        nargs="+",
        default=["png", "svg"],
        help="of png, svg, pdf, json; the numbers come as CSV, too",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace figures that exist")
    return parser


def _curves(options: Namespace) -> None:
    import torch

    from dense_imb.curves import CurveWarning, parse_losses, write_figures

    def one_line(message: Warning | str, *_: Any) -> None:
        print(f"dense-imb curves: warning: {message}", file=sys.stderr)

    frame = None
    if options.frame is not None:
        height, by, width = options.frame.partition("x")
        if not (by and height.isdecimal() and width.isdecimal()):
            raise ValueError(f"Expected `--frame` as 128x88, got {options.frame!r}.")
        frame = (int(height), int(width))
    torch.set_num_threads(1)  # frames are small: on a busy machine threads wait for each other
    with warnings.catch_warnings():
        warnings.simplefilter("always", CurveWarning)
        warnings.showwarning = one_line  # type: ignore[assignment]
        write_figures(
            options.out,
            losses=parse_losses(options.loss),
            scenarios=options.scenario,
            formats=options.format,
            overwrite=options.overwrite,
            report=print,
            frame=frame,
            value=options.value,
            points=options.points,
        )


def _simulate_parser() -> _Parser:
    parser = _Parser(
        description="Simulate events of a time-of-flight detector, and write a hits file. Without "
        "--signal and --noise the patterns are clean and filled, to be degraded later.",
        epilog="Example: dense-imb simulate tof.h5 --pattern arc --signal 30 --noise 200",
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
    return parser


def _simulate(options: Namespace) -> None:
    from tqdm.auto import tqdm

    from dense_imb.hits import PATTERNS, Degradation, Geometry, HitsWriter, degrade, simulate
    from dense_imb.losses._checks import check_at_least, check_choice

    check_at_least("events", options.events, 0)
    geometry = Geometry(options.width, options.height, options.time_steps)
    degradation = Degradation(signal=options.signal, noise=options.noise)
    is_degraded = options.signal is not None or options.noise > 0
    for name in options.pattern:
        check_choice("pattern", name, PATTERNS)
    writer = HitsWriter(options.file, geometry, overwrite=options.overwrite)
    with writer, tqdm(total=options.events, desc="simulate", unit="event") as bar:
        for first in range(0, max(options.events, 1), _SIMULATED_AT_ONCE):
            count = min(_SIMULATED_AT_ONCE, options.events - first)
            events = simulate(
                options.pattern,
                count,
                options.seed,
                geometry,
                first_event=first,
                patterns_per_event=options.patterns_per_event,
                n_photons=options.photons,
            )
            if is_degraded:
                index = range(first, first + count)
                events = degrade(events, degradation, seed=options.seed, event_index=[*index])
            writer.append(events)
            bar.update(count)
    print(f"{options.file}: {writer.n_events} events, {writer.n_hits} hits")


_SIMULATED_AT_ONCE = 256  # events whose arrays still fit the cache

# name -> (its parser, what it does, one line of help)
_COMMANDS: dict[str, tuple[Callable[[], _Parser], Callable[[Any], None], str]] = {
    "curves": (_curves_parser, _curves, "draw how losses respond"),
    "losses": (_losses_parser, _losses, "list every loss with its formula"),
    "simulate": (_simulate_parser, _simulate, "make a hits file of simulated events"),
}


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="dense-imb",
        description="Segmentation and autoencoders when almost every pixel is of the wrong class.",
        version=__version__,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, (make_parser, _, summary) in _COMMANDS.items():
        commands.add_subcommand(name, make_parser(), help=summary)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 on bad input."""
    _Parser.typed = sys.argv[1:] if arguments is None else list(arguments)
    options = _build_parser().parse_args(list(_Parser.typed))
    _, run, _ = _COMMANDS[options.command]
    try:
        run(options[options.command])
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError) as problem:
        sentence = str(problem)
        if isinstance(problem, OSError) and problem.filename and problem.strerror:
            sentence = f"{problem.strerror}: {problem.filename}."
        print(f"dense-imb {options.command}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dense-imb {options.command}: stopped", file=sys.stderr)
        return 130
    return 0


def entry_point() -> None:
    """What the installed command runs."""
    sys.exit(main())
