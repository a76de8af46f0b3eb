"""Parts that commands and scripts share: bad input is one line and exit code 2, no traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dense_imb.base.imports import installed_only
from dense_imb.base.refusals import Refused
from dense_imb.cli._parser import Namespace, Parser

_PARTIAL = re.compile(r"\.\d+\.partial$")  # ending of the temporary name of a file being written


def guarded(parser: Parser, action: Callable[[], int | None]) -> int:
    """Run an action; return 0 or its own code, 2 on bad input, 130 when stopped by hand."""
    try:
        with installed_only():
            return action() or 0
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError, ImportError) as problem:
        sentence = parser.sentence(problem)
        if isinstance(problem, OSError) and not isinstance(problem, Refused) and problem.strerror:
            sentence = _sentence_of_system(problem)  # without "[Errno 28]"
        print(f"{parser.prog}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130


def _sentence_of_system(problem: OSError) -> str:
    name = _PARTIAL.sub("", str(problem.filename or ""))
    if isinstance(problem, FileExistsError) and name:
        return f"Expected a folder at {name}, got a file."
    if isinstance(problem, NotADirectoryError) and name:
        return f"Expected folders on the way to {name}, got a file."
    return f"{(problem.strerror or '').rstrip('.')}{name and ': '}{name}."


def folder_for_outputs(folder: Path) -> None:
    """Make the folder before the work, so that its result is not lost at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Expected a folder to write to, got {folder}, which is read-only.")


def script_parser(docstring: str | None) -> Parser:
    """Return the parser of a script, whose docstring asks the question and shows the usage."""
    return Parser(description=docstring)


def run_script(
    program: str,
    parser: Parser,
    run: Callable[[Namespace], int | None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the words of a script, run it, and return the exit code."""
    parser.prog = program
    options = parser.parse_args(arguments)
    return guarded(parser, lambda: run(options))
