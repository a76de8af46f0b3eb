"""The parser that all commands share: bad input is one sentence with its cure."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

from dense_imb.base.refusals import Refused, in_python, nearest, refusal, render
from dense_imb.base.values import read_words

# a log has no use for ten pictures of a bar a second; tqdm reads this once, when it is imported
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "20")

# names that people know from other programs
_ALIASES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "batch": "batch_size",
    "epochs": "steps",
    "iterations": "steps",
    "output": "out",
    "gpu": "device",
    "model": "model.name",
}


class Namespace(argparse.Namespace):
    """Options of a command, by attribute or by name."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Refusal(Exception):
    """Carries a `Refused` out of argparse, which hides the ValueErrors of a type."""

    def __init__(self, problem: Refused) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Formatter(argparse.HelpFormatter):
    """Help that keeps the lines of examples and shows defaults."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(f"{indent}{line}\n" for line in text.splitlines())

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        if default in (None, False, argparse.SUPPRESS) or default == [] or action.nargs == 0:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """An argparse parser with types as annotations, and refusals as one sentence.

    Options are accepted with hyphens and with underscores.

    Args:
        description: text above the options.
        epilog: text below them, for example commands to copy.
        program: name of the program, in front of a refusal.
    """

    def __init__(
        self, description: str | None = None, epilog: str | None = None, program: str = "dense-imb"
    ) -> None:
        super().__init__(
            prog=program,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,  # an option cut short is one mistyped: a later one may begin alike
            exit_on_error=False,
        )

    def add_argument(self, *names: str, type: Any = None, **options: Any) -> argparse.Action:
        """Add an argument whose type is an annotation, for example `int | None`."""
        if type is not None:
            options["type"] = _converter(names[-1].lstrip("-"), type)
            options.setdefault("metavar", _metavar(names[-1], type, options))
        return super().add_argument(*names, **options)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Namespace:
        """Parse words; end the program with exit code 2 on bad input."""
        words = self._spelt([*(sys.argv[1:] if args is None else args)])
        try:
            options, others = self.parse_known_args(words, namespace or Namespace())
            if others:
                raise Refusal(self._unknown(others[0]))
        except Refusal as refused:
            self.refuse(refused.problem)
        except argparse.ArgumentError as problem:
            self.error(str(problem))
        return options

    def error(self, message: str) -> NoReturn:
        """Print one line and end the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def refuse(self, problem: Exception) -> NoReturn:
        """Print a refusal with the options of this parser, and end the program."""
        self.error(self.sentence(problem))

    def sentence(self, problem: Exception) -> str:
        """Return what a problem says, with the options of this command in their own spelling."""
        if isinstance(problem, Refused):
            return render(problem.sentence, self.write_option)
        return str(problem)

    def write_option(self, name: str, value: str | None) -> str:
        """Return an option as one types it; a Python argument if the command has no such option."""
        option = self.option_named(name)
        if option is None:
            return in_python(name, value)
        takes_none = self._option_string_actions[option].nargs == 0
        return option if value is None or takes_none else f"{option} {value}"

    def option_named(self, name: str) -> str | None:
        """Return the option with a name, or with a name that ends, or begins, with it."""
        options = {_plain(option): option for option in self._option_string_actions}
        if (plain := _plain(name)) in options:
            return options[plain]
        tails = [o for p, o in options.items() if p.endswith(f".{plain}")]
        if tails:  # rather of the run than of its second stage
            return min(tails, key=lambda option: ("second." in option, option.count(".")))
        return options.get(plain.rpartition(".")[2])

    def _spelt(self, words: list[str]) -> list[str]:
        """Return the words with options in the spelling of this parser."""
        options = {_plain(option): option for option in self._option_string_actions}
        spelt = []
        for word in words:
            name, joined, value = word.partition("=")
            if name.startswith("--") and _plain(name) in options:
                word = options[_plain(name)] + joined + value
            spelt.append(word)
        return spelt

    def _unknown(self, word: str) -> Refused:
        """Return the refusal of an option that does not exist."""
        if not word.startswith("-"):
            return refusal(f"Expected no further word, got {word!r}.")
        typed = _plain(word.partition("=")[0])
        near = self.option_named(_ALIASES.get(typed, typed))
        if near is None:
            by_tail = {_plain(o).rpartition(".")[2]: o for o in self._option_string_actions}
            by_name = {_plain(o): o for o in reversed(self._option_string_actions)}
            close = nearest(typed, [*by_name, *by_tail], cutoff=0.6)
            near = None if close is None else by_name.get(close) or by_tail[close]
        hint = "" if near is None else f" Did you mean {near}?"
        return refusal(f"Expected options that exist, got {word.partition('=')[0]}.{hint}")


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def _converter(name: str, hint: Any) -> Callable[[str], Any]:
    """Return a function that reads one word as its annotation says."""

    def convert(word: str) -> Any:
        try:
            return read_words(name, [word], hint)
        except Refused as problem:
            raise Refusal(problem) from None

    return convert


def _metavar(name: str, hint: Any, options: Mapping[str, Any]) -> str | None:
    choices = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is Literal:
        return "{" + ",".join(map(str, choices)) + "}"
    return None if name.startswith("-") else name.upper()


def quoted(words: Sequence[str]) -> str:
    """Return words as one types them."""
    return " ".join(shlex.quote(word) for word in words)


@contextmanager
def one_line_warnings(
    command: str, action: Literal["default", "always"] = "default", kind: type[Warning] = Warning
) -> Iterator[None]:
    """Show warnings as one line each on stderr.

    Args:
        command: command that the lines begin with.
        action: whether a warning is shown once from each place, or always.
        kind: kind of warnings.
    """

    def show(message: Warning | str, *_: Any) -> None:
        print(f"dense-imb {command}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter(action, kind)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
