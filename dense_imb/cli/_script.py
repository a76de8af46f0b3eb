"""What commands and scripts share: bad input is one line and exit code 2, never a traceback."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import Namespace

from dense_imb.cli._parser import Parser

_OPTION = re.compile(r" \((\w+)=([^()]+), (--[\w-]+)((?: [^()]*)?)\)")  # with its argument


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
            # a file is written under another name, which nobody has heard of
            name = re.sub(r"\.\d+\.partial$", "", str(problem.filename or ""))
            sentence = f"{problem.strerror.rstrip('.')}{name and ': '}{name}."
            if isinstance(problem, FileExistsError) and name:
                sentence = f"Expected a folder at {name}, got a file."
            elif isinstance(problem, NotADirectoryError) and name:
                sentence = f"Expected folders on the way to {name}, got a file."
        sentence = _with_options(sentence, program.rpartition(" ")[2])
        print(f"{program}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130


def _with_options(sentence: str, command: str) -> str:
    """A library sentence names an argument and its option: here there are options only.

    One that the command has under --images. is written so; one that it lacks helps nobody.
    """
    found = _OPTION.search(sentence)
    make_parser = Parser.commands.get(command)
    known = make_parser()._option_string_actions if found and make_parser else None

    def option_of(match: re.Match[str]) -> str:
        name, value, option, words = match.groups()
        of_images = f"--images.{name}"
        if known is None or option in known:
            return f" ({option}{words})"
        if of_images in known:
            return f" ({of_images} {shlex.quote(value)})"
        return ""

    return _OPTION.sub(option_of, sentence)


def folder_for_outputs(folder: Path) -> None:
    """Make the folder before the work, so that its result is not lost at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Expected a folder to write to, got {folder}, which is read-only.")


def script_parser(docstring: str | None) -> Parser:
    """The parser of a script, whose docstring asks the question and shows the usage."""
    return Parser(description=docstring)


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
