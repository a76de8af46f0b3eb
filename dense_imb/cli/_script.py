"""What commands and scripts share: bad input is one line and exit code 2, never a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from jsonargparse import DefaultHelpFormatter, Namespace

from dense_imb.cli._parser import Parser


def guarded(program: str, action: Callable[[], int | None]) -> int:
    """Run it; 0 or its own code on success, 2 on bad input, 130 when stopped by hand."""
    try:
        return action() or 0
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError, ImportError) as problem:
        sentence = str(problem)
        if isinstance(problem, OSError) and problem.strerror:  # without "[Errno 28]"
            where = f": {problem.filename}" if problem.filename else ""
            sentence = f"{problem.strerror.rstrip('.')}{where}."
        print(f"{program}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130


class _AsWritten(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help whose description keeps its lines."""


def script_parser(docstring: str | None) -> Parser:
    """The parser of a script, whose docstring asks the question and shows the usage."""
    return Parser(description=docstring, formatter_class=_AsWritten)


def run_script(
    program: str,
    parser: Parser,
    run: Callable[[Namespace], int | None],
    arguments: Sequence[str] | None,
) -> int:
    """The `main` of a script in data_tools: parse, run, return the exit code."""
    Parser.commands = {}
    Parser.typed = sys.argv[1:] if arguments is None else list(arguments)
    parser.program = program
    options = parser.parse_args(list(Parser.typed))
    return guarded(program, lambda: run(options))
