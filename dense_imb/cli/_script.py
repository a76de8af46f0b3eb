"""Parts that commands and scripts share: bad input is one line and exit code 2, no traceback."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dense_imb.base.files import final_name, reason_of
from dense_imb.base.imports import installed_only
from dense_imb.base.refusals import Refused, is_shared, option
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.config import SAVED

_LONGEST = 2000  # characters of an error: a file may hold texts of any length


class Terminated(KeyboardInterrupt):
    """A signal such as SIGTERM asked the command to end.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


_CONTINUED = ("train", "compare", "demo")  # commands whose work is saved on SIGTERM


def guarded(parser: Parser, action: Callable[[], int | None]) -> int:
    """Run an action; return 0 or its own code, 2 on bad input, 130 or 143 when stopped."""
    received: list[int] = []
    try:
        # processes of a group are ended by their launcher
        ending = () if "RANK" in os.environ else (signal.SIGTERM, getattr(signal, "SIGHUP", None))
        numbers = (signal.SIGINT, *ending)
        with _raised(*numbers, unless_handled=True, received=received), installed_only():
            return action() or 0
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        sys.stderr.close()
        return 0
    except Exception as problem:
        if received:  # a library made another error of it
            return _stopped(parser.prog, received[0])
        return _refused(parser, problem)
    except KeyboardInterrupt as stop:
        return _stopped(parser.prog, stop.number if isinstance(stop, Terminated) else signal.SIGINT)


def _stopped(program: str, number: int) -> int:
    print(f"{program}: stopped", file=sys.stderr)
    if number == signal.SIGTERM and {*program.split()[1:2]} & {*_CONTINUED}:
        return SAVED  # it came before the work began, which can be continued all the same
    return 128 + number


def _refused(parser: Parser, problem: Exception) -> int:
    """Print the sentence of a problem that is no mistake of ours; raise others."""
    if isinstance(problem, (ValueError, TypeError, OSError, ImportError)):
        if is_shared(problem) and os.environ.get("RANK", "0") != "0":  # the first one says it
            return 2
        sentence = parser.sentence(problem)
        if isinstance(problem, OSError) and not isinstance(problem, Refused) and problem.strerror:
            sentence = _sentence_of_system(problem)  # without "[Errno 28]"
        print(f"{parser.prog}: error: {_one_line(sentence)}", file=sys.stderr)
        return 2
    if sentence := _sentence_of_device(problem, parser):
        print(f"{parser.prog}: error: {_one_line(sentence)}", file=sys.stderr)
        return 2
    if isinstance(problem, (OverflowError, RecursionError, MemoryError)):
        print(f"{parser.prog}: error: {_sentence_of_limits(problem)}", file=sys.stderr)
        return 2
    raise problem


@contextmanager
def continuable(program: str, cure: str) -> Iterator[None]:
    """End a command that can be continued with the exit code of one that was saved.

    Args:
        program: name in front of the sentence.
        cure: how to continue, in words.
    """
    try:
        with _raised(signal.SIGTERM, getattr(signal, "SIGUSR1", None)):
            yield
    except Terminated as stop:
        if os.environ.get("RANK", "0") == "0":
            name = signal.Signals(stop.number).name
            print(f"{program}: stopped by {name}; {cure}", file=sys.stderr)
        sys.exit(SAVED)


@contextmanager
def _raised(
    *numbers: int | None, unless_handled: bool = False, received: list[int] | None = None
) -> Iterator[None]:
    """Raise signals as `Terminated`, so that temporary files are removed; the second one kills.

    Args:
        numbers: the signals.
        unless_handled: leave those with a handler alone.
        received: list that the numbers of signals are added to.
    """
    owner = os.getpid()
    unhandled = (signal.SIG_DFL, signal.default_int_handler)

    def leave(number: int, frame: Any) -> NoReturn:
        if os.getpid() != owner:  # a worker, which owns no files
            os._exit(128 + number)
        if received is not None:
            received.append(number)
        if number == signal.SIGINT:  # often sent twice
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # signals arrive in no other
        for number in filter(None, numbers):
            if not unless_handled or signal.getsignal(number) in unhandled:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(sentence: str) -> str:
    """Return a sentence that quotes a hostile file: in one line, and short.

    Example:
        >>> print(_one_line("Expected a number, got 'a\\nb\\x1b'."))
        Expected a number, got 'a\\nb\\x1b'.
    """
    if len(sentence) > _LONGEST:
        sentence = f"{sentence[: _LONGEST // 2]} ... {sentence[-_LONGEST // 4 :]}"
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in sentence)


def _sentence_of_limits(problem: Exception) -> str:
    if isinstance(problem, MemoryError):
        return "Expected data that fit into memory, got more; use a part, or smaller batches."
    if isinstance(problem, RecursionError):
        return "Expected data of reasonable depth, got some that are nested too deep."
    return f"Expected numbers of reasonable size, got a larger one ({reason_of(problem)})."


def _sentence_of_device(problem: Exception, parser: Parser) -> str:
    """Return a sentence if memory lacks, or a GPU that each process has alone; else ""."""
    text = str(problem)
    if not isinstance(problem, RuntimeError):
        return ""
    if "Duplicate GPU detected" in text:  # NCCL's
        problem = Refused(
            "a GPU for each process",
            "several processes on one",
            "start one process for each GPU, or share the processors with {device=cpu}",
        )
        return parser.sentence(problem)
    if "can't allocate memory" in text:  # the processor's allocator
        return _sentence_of_limits(MemoryError())
    if type(problem).__name__ != "OutOfMemoryError" and "out of memory" not in text:
        return ""
    wanted = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    more = f"{wanted[1]} more" if wanted else "more"
    size = option("batch_size") if parser.option_named("batch_size") else "batches"
    problem = Refused(
        "data that fit into the memory of the GPU",
        more,
        f"use smaller {size}, free the GPU of other programs, or add {{device=cpu}}",
    )
    return parser.sentence(problem)


def _sentence_of_system(problem: OSError) -> str:
    name = final_name(str(problem.filename or ""))
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
