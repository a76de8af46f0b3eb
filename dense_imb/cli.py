"""The command `dense-imb`: arguments in, library calls out."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from dense_imb import __version__

# No value that a user types may name an import; what a command needs is looked up by our own code.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["dense_imb"])


class _Parser(ArgumentParser):
    """An ArgumentParser that says what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        sentence = " ".join(str(message).split())
        self.exit(
            2, f"{parser.prog.split(' [')[0]}: error: {sentence} (--help lists the options)\n"
        )


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
        signature = str(inspect.signature(explained)).replace("'", "")
        print(f"{options.name}{signature}\n\n{inspect.getdoc(explained)}")
    elif options.format == "json":
        print(json.dumps([entry._asdict() for entry in CATALOGUE], indent=1))
    else:
        width = max(len(entry.name) for entry in CATALOGUE)
        for entry in CATALOGUE:
            print(f"{entry.name:{width}}  {entry.formula}  [{entry.source}]")


# name -> (its parser, what it does, one line of help)
_COMMANDS: dict[str, tuple[Callable[[], _Parser], Callable[[Any], None], str]] = {
    "losses": (_losses_parser, _losses, "list every loss with its formula"),
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
    parser = _build_parser()
    options = parser.parse_args(None if arguments is None else list(arguments))
    _, run, _ = _COMMANDS[options.command]
    try:
        run(options[options.command])
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError) as problem:
        print(f"dense-imb {options.command}: error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dense-imb {options.command}: stopped", file=sys.stderr)
        return 130
    return 0


def entry_point() -> None:
    """What the installed command runs."""
    sys.exit(main())
