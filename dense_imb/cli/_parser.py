"""The parser that all commands share: bad input is one sentence with its cure."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, get_args, get_origin

from dense_imb.base.refusals import Refused, in_python, nearest, refusal, render
from dense_imb.base.values import read_words

# ten updates of a progress bar a second would flood a log file; tqdm reads this when it is imported
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "20")

# names of options in other programs
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

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Write the value of an option once, as Python 3.13 does: "-h, --help [all]"."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        is_unset = default in (None, False, argparse.SUPPRESS) or default == []
        if is_unset or action.nargs == 0 or "default" in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class _Annotated(argparse._ActionsContainer):
    """Arguments whose types are annotations, for example `int | None`."""

    def add_argument(self, *names: str, type: Any = None, **options: Any) -> argparse.Action:
        """Add an argument with an annotation as its type."""
        if type is not None:
            options["type"] = _converter(_plain(names[-1]), type)
            if names[0].startswith("-"):
                options.setdefault("metavar", type_metavar(type))
        return super().add_argument(*names, **options)


class _Group(_Annotated, argparse._ArgumentGroup):
    pass


class Parser(_Annotated, argparse.ArgumentParser):
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
            allow_abbrev=False,  # a shortened option may fit another one in a later version
            exit_on_error=False,
            add_help=False,
        )
        self.add_help_option()

    def add_help_option(self) -> None:
        """Add the option --help."""
        self.add_argument("-h", "--help", action="help", help="show this help")

    def add_argument_group(self, *args: Any, **options: Any) -> _Group:
        """Add a titled group of options."""
        group = _Group(self, *args, **options)
        self._action_groups.append(group)
        return group

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Namespace:
        """Parse words; end the program with exit code 2 on bad input."""
        words = self._ordered(self._spelt([*(sys.argv[1:] if args is None else args)]))
        try:
            options, others = self.parse_known_args(words, namespace or Namespace())
            if others:
                raise Refusal(self._unknown(others[0]))
        except Refusal as refused:
            self.refuse(refused.problem)
        except argparse.ArgumentError as problem:
            self.refuse(self._refusal_of(problem))
        return options

    def error(self, message: str) -> NoReturn:
        """Refuse missing words and end the program; argparse calls this for nothing else."""
        self.refuse(self._missing())

    def refuse(self, problem: Exception) -> NoReturn:
        """Print a refusal in one line and end the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {self.sentence(problem)}\n")

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
        # a command without sections calls model.name --model
        return options.get(plain.rpartition(".")[2]) or options.get(plain.removesuffix(".name"))

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

    def _ordered(self, words: list[str]) -> list[str]:
        """Return the words with files behind a list of numbers moved in front of the options.

        argparse would read `--noise 20 FILE` as a list of three words and fewer files.
        """
        if all(action.option_strings for action in self._actions):
            return words
        ordered: list[str] = []
        moved: list[str] = []
        n_read = -1  # numbers of the list that is being read; -1 outside of one
        for word in words:
            if word.startswith("--"):
                action = self._option_string_actions.get(word)
                n_read = 0 if action is not None and _is_list_of_numbers(action) else -1
            elif n_read >= 0 and _is_number(word):
                n_read += 1
            elif n_read > 0:
                moved.append(word)
                continue
            ordered.append(word)
        first = next((k for k, word in enumerate(ordered) if word.startswith("-")), len(ordered))
        return [*ordered[:first], *moved, *ordered[first:]]

    def _refusal_of(self, problem: argparse.ArgumentError) -> Refused:
        """Return the refusal of an option with too few or too many words."""
        name = (problem.argument_name or "").split("/")[-1]
        action = self._option_string_actions.get(name)
        if action is None:
            return self._missing()
        if action.nargs == 0:
            return refusal(f"{name} takes no value; type {name} alone.")
        return Refused(f"a value behind {name}", "none", f"for example {name} {_example(action)}")

    def _missing(self) -> Refused:
        words = [str(one.metavar or one.dest) for one in self._actions if not one.option_strings]
        return Refused(f"{self.prog} {' '.join(words)}", "fewer words", "--help shows examples")

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
        hint = " --help lists them." if near is None else f" Did you mean {near}?"
        return refusal(f"Expected options that exist, got {word.partition('=')[0]}.{hint}")


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def _is_list_of_numbers(action: argparse.Action) -> bool:
    return action.nargs in ("+", "*") and getattr(action.type, "hint", None) in (int, float)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _converter(name: str, hint: Any) -> Callable[[str], Any]:
    """Return a function that reads one word as its annotation says."""

    def convert(word: str) -> Any:
        try:
            return read_words(name, [word], hint)
        except Refused as problem:
            raise Refusal(problem) from None

    convert.hint = hint  # type: ignore[attr-defined]
    return convert


def type_metavar(hint: Any) -> str:
    """Return the placeholder of a value in a help text, for example N for a whole number.

    Example:
        >>> type_metavar(int | None), type_metavar(list[float]), type_metavar(Literal["a", "b"])
        ('N', 'X', '{a,b}')
    """
    choices = [one for one in (get_args(hint) or (hint,)) if one is not type(None)]
    if all(isinstance(choice, str) for choice in choices):
        return "{" + ",".join(choices) + "}"
    names = {int: "N", float: "X", str: "TEXT", bool: "{true,false}"}
    elements = [get_args(one)[0] for one in (hint, *choices) if get_origin(one) is list]
    return names.get((elements or choices)[0], "{...}")


def _example(action: argparse.Action) -> str:
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    if (text := str(metavar or "VALUE")).startswith("{"):
        return text.strip("{}").partition(",")[0]
    return {"N": "10", "X": "0.5"}.get(text, text)


def quoted(words: Sequence[str]) -> str:
    """Return words as one types them."""
    return " ".join(shlex.quote(word) for word in words)


def print_next(*words: object) -> None:
    """Print the command to type next, as the last line of a command."""
    print(f"next: dense-imb {quoted([str(word) for word in words])}")


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
