"""The parser that all commands share: what it refuses, it refuses in one line."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

# No value that a user types may name an import; what a command needs is looked up by our own code.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["dense_imb"])


# a log has no use for ten pictures of a bar a second; tqdm reads this once, when it is imported
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "20")

# what jsonargparse calls the types of our options
_KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}

_EXAMPLES = {"patch": "128, 128", "names": "background, crack"}  # of lists


class _AsWritten(DefaultHelpFormatter):
    """Help in which a text of several lines keeps them: an example can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)


class Parser(ArgumentParser):
    """An ArgumentParser that says in one line what was wanted, what came, and the cure."""

    typed: ClassVar[Sequence[str]] = ()  # the arguments: a parser knows its own part of them only
    commands: ClassVar[Mapping[str, Callable[[], Parser]]] = {}  # the others, to suggest names of

    program = "dense-imb"  # what the line begins with; a script has its own name

    def __init__(self, *args: Any, **options: Any) -> None:
        # an option cut short is one mistyped: a later option may begin alike
        options = {"formatter_class": _AsWritten, **options}
        super().__init__(*args, allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join(str(message).split())
        command = next((word for word in self.typed if word in self.commands), None)
        if unknown := re.match(r"unrecognized arguments: (.*)", sentence):
            sentence = f"Expected options that exist, got {unknown[1]}."
            options = (
                self.commands[command]()._option_string_actions
                if command
                else self._option_string_actions
            )
            near = difflib.get_close_matches(re.split("[= ]", unknown[1])[0], options, n=1)
            sentence += f" Did you mean {near[0]}?" if near else ""
        elif wrong := re.match(
            r'Parser key "([^"]+)"(?: element \d+)?: .*(?:Given|Got) value: (.*)', sentence
        ):
            kind = r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])"
            kinds = [
                choices or _KINDS.get(name, name) for name, choices in re.findall(kind, sentence)
            ]
            wanted = " or ".join(one for one in dict.fromkeys(kinds) if one != "NoneType")
            key = wrong[1].split(".")[-1]
            sentence = f"Expected `{key}` to be {wanted}, got {wrong[2]}."
            if "list" in wanted:
                sentence += f" Write --{wrong[1]} '[{_EXAMPLES.get(key, '0, 255')}]'."
        elif invalid := re.search(r"invalid choice: (\S+)", sentence):
            near = difflib.get_close_matches(invalid[1].strip("'"), self.commands, n=1)
            sentence = f"Expected a command, {', '.join(self.commands)}, got {invalid[1]}."
            sentence += f" Did you mean {near[0]}?" if near else ""
        elif option := re.search(r"does not accept option '([^']+)'", sentence):
            known = self.commands[command]()._option_string_actions if command else {}
            near = difflib.get_close_matches(f"--{option[1]}", known, n=1)
            sentence = f"Expected names of a config, got `{option[1]}`."
            sentence += f" Did you mean `{near[0][2:]}`?" if near else ""
        elif broken := re.match(r"Problems parsing config: (.*)", sentence):
            sentence = f"Expected plain YAML in a config, got a problem: {broken[1]}."
        elif foreign := re.match(r"Unexpected config: (.*)", sentence):
            sentence = f"Expected a config with names and values, got {foreign[1]}."
        elif missing := re.search(r"File does not exist: (.*)", sentence):
            sentence = f"Expected a file, got {missing[1]}, which does not exist."
        elif '"command"' in sentence:
            sentence = f"Expected a command, {', '.join(self.commands)}, got none."
        program = f"{self.program} {command}" if command else self.program
        self.exit(2, f"{program}: error: {sentence} (--help lists the options)\n")


@contextmanager
def one_line_warnings(
    command: str, action: Literal["default", "always"] = "default", kind: type[Warning] = Warning
) -> Iterator[None]:
    """Warnings as one line each on stderr, not as Python shows them.

    Args:
        command: what the lines begin with.
        action: whether warnings of a kind are shown once from each place, or always.
        kind: of warnings.
    """

    def show(message: Warning | str, *_: Any) -> None:
        print(f"dense-imb {command}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter(action, kind)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
