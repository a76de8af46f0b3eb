"""The command `dense-imb`: arguments in, library calls out, one file a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from dense_imb import __version__
from dense_imb.cli import (
    compare,
    curves,
    demo,
    denoise,
    evaluate,
    export,
    inspect,
    losses,
    report,
    segment,
    simulate,
    train,
)
from dense_imb.cli._parser import Parser
from dense_imb.cli._script import guarded

# each has `make_parser`, `run` and one line of help, `SUMMARY`
_COMMANDS: dict[str, ModuleType] = {
    "compare": compare,
    "curves": curves,
    "demo": demo,
    "denoise": denoise,
    "evaluate": evaluate,
    "export": export,
    "inspect": inspect,
    "losses": losses,
    "report": report,
    "segment": segment,
    "simulate": simulate,
    "train": train,
}

_FIRST = """Begin with
  dense-imb demo
The three jobs: look at data, train a network, use it (--help of a command says more):
  dense-imb inspect images --masks masks
  dense-imb train --out run --images.train images --images.masks masks
  dense-imb segment run images segmented"""


def _build_parser() -> Parser:
    parser = Parser(
        prog="dense-imb",
        description="Segmentation and autoencoders when almost every pixel is of the wrong class.",
        version=__version__,
        epilog=_FIRST,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, command in _COMMANDS.items():
        commands.add_subcommand(name, command.make_parser(), help=command.SUMMARY)
    return parser


def _with_lists(typed: Sequence[str]) -> list[str]:
    """The words typed; a command may write some of them as lists for its parser."""
    command = _COMMANDS.get(typed[0]) if typed else None
    as_lists: Callable[[Sequence[str]], list[str]] | None = getattr(command, "as_lists", None)
    return [*typed] if as_lists is None else as_lists(typed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 on bad input."""
    Parser.commands = {name: command.make_parser for name, command in _COMMANDS.items()}
    Parser.typed = sys.argv[1:] if arguments is None else list(arguments)
    parser = _build_parser()
    try:
        options = parser.parse_args(_with_lists(Parser.typed))
    except ImportError as problem:
        parser.error(f"Expected nothing to import in a config, got: {problem}")
    command = _COMMANDS[options.command]
    return guarded(f"dense-imb {options.command}", lambda: command.run(options[options.command]))


def entry_point() -> None:
    """What the installed command runs."""
    sys.exit(main())
