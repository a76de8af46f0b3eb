"""The command `dense-imb`: arguments in, library calls out, one file a command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dense_imb import __version__
from dense_imb.base.refusals import suggest
from dense_imb.base.threads import sleep_while_waiting, use_threads
from dense_imb.cli import (
    compare,
    convert,
    curves,
    demo,
    denoise,
    evaluate,
    export,
    inspect,
    losses,
    nnunet_path,
    predict,
    report,
    segment,
    simulate,
    train,
)
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import guarded

_JOBS = """Begin with
  dense-imb demo

Four jobs
  1. Denoise sparse detector data:
       dense-imb inspect hits.h5
       dense-imb train hits --out runs/hits --hits.train hits.h5
       dense-imb denoise runs/hits raw.h5 clean.h5
  2. Segment images, or use our losses in MONAI, plain torch, smp or nnU-Net:
       dense-imb inspect images --masks masks
       dense-imb train images --out runs/images --images.train images --images.masks masks
       dense-imb segment runs/images images segmented
       dense-imb losses
  3. Predict maps of values in which what matters is rare: dose, heat maps, times:
       dense-imb inspect images --targets targets
       dense-imb train values --out runs/dose --values.train images --values.targets targets
       dense-imb predict runs/dose images predicted
  4. Draw how losses respond, ours and any other:
       dense-imb curves --loss torch.nn:HuberLoss"""
_USAGE = "usage: dense-imb COMMAND ..., or dense-imb COMMAND --help, or dense-imb --version"


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        summary: one line of help.
        make_parser: returns the parser of its options.
        run: runs it.
    """

    summary: str
    make_parser: Callable[[], Parser]
    run: Callable[[Namespace], int | None]


COMMANDS: dict[str, Command] = {
    module.__name__.rpartition(".")[2].replace("_", "-"): Command(
        module.SUMMARY, module.make_parser, module.run
    )
    for module in (
        compare, convert, curves, demo, denoise, evaluate, export, inspect, losses, nnunet_path,
        predict, report, segment, simulate,
    )
}  # fmt: skip
COMMANDS |= {
    f"train {kind}": Command(summary, train.parser_maker(kind), train.run)
    for kind, summary in train.SUMMARIES.items()
}
COMMANDS = dict(sorted(COMMANDS.items()))


def help_text() -> str:
    """Return the help of `dense-imb` alone: the four jobs and the commands."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {one.summary}" for name, one in COMMANDS.items())
    return (
        f"{_USAGE}\n\nSegmentation, autoencoders and hits when almost every pixel is of the wrong "
        f"class.\n\n{_JOBS}\n\nCommands\n{commands}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 on bad input."""
    sleep_while_waiting()
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if not words or words[0] in ("-h", "--help", "help"):
        return _printed(help_text())
    if words[0] == "--version":
        print(f"dense-imb {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name == "train":
        if not rest or rest[0] in ("-h", "--help"):
            return _printed(train.help_text())
        if rest[0] not in train.SUMMARIES:
            return _refused(name, train.kind_refusal(rest))
        name, rest = f"train {rest[0]}", rest[1:]
    if name not in COMMANDS:
        names = [*dict.fromkeys(one.split()[0] for one in COMMANDS)]
        near = suggest(name, names)
        return _refused("", f"Expected a command, {', '.join(names)}, got {name!r}.{near}")
    command = COMMANDS[name]
    parser = command.make_parser()
    parser.prog = f"dense-imb {name}"
    options = parser.parse_args(rest)

    def run() -> int | None:
        use_threads(getattr(options, "threads", None), getattr(options, "devices", 1))
        return command.run(options)

    return guarded(parser, run)


def _printed(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        sys.stderr.close()
    return 0


def _refused(name: str, sentence: str) -> int:
    print(f"{f'dense-imb {name}'.strip()}: error: {sentence}", file=sys.stderr)
    return 2


def entry_point() -> None:
    """Run the installed command."""
    try:
        code = main()
    except KeyboardInterrupt:  # before the command began
        print("dense-imb: stopped", file=sys.stderr)
        code = 130
    finally:  # a late Ctrl-C ends it without a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
