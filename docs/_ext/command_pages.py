"""Pages of the commands, from their parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from dense_imb import cli
from dense_imb.cli import train
from docstrings import escaped

_INTRODUCTION = """# Commands

`dense-imb COMMAND --help` prints what these pages say. Options are accepted with hyphens and with
underscores. Bad input ends a command with one sentence and exit code 2.
"""


def pages_of_commands() -> Iterator[tuple[str, str]]:
    """Yield the name and the Markdown of each page."""
    yield "index", _page_of_all()
    for name, command in cli.COMMANDS.items():
        yield page_name(name), _page_of_command(name, command)


def page_name(command: str) -> str:
    """Return the name of the page of a command: "train hits" has the page train-hits."""
    return command.replace(" ", "-")


def _page_of_all() -> str:
    rows = [
        f"| [`dense-imb {name}`]({page_name(name)}.md) | {escaped(command.summary)} |"
        for name, command in cli.COMMANDS.items()
    ]
    table = "\n".join(["| command | purpose |", "| --- | --- |", *rows])
    listed = "\n".join(page_name(name) for name in cli.COMMANDS)
    jobs = cli.help_text().partition("\n\n")[2].partition("\n\nCommands\n")[0]
    _, _, jobs = jobs.partition("\n\n")
    return (
        f"{_INTRODUCTION}\n{table}\n\n## Where to begin\n\n```text\n{jobs}\n```\n\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )


def _page_of_command(name: str, command: cli.Command) -> str:
    parser = command.make_parser()
    parser.prog = f"dense-imb {name}"
    parts = [
        f"# dense-imb {name}",
        _paragraphs(parser.description or ""),
        f"```text\n{(parser.usage or _usage(parser)).replace(' ' * 7, '')}\n```",
        _examples(parser.epilog or ""),
    ]
    if isinstance(parser, train.TrainParser):
        parts.append(_first_options(parser))
    parts.append(f"```{{program}} dense-imb {name}\n```")
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.dest != "help"]
        if actions:
            title = str(group.title)
            parts.append(f"## {title[0].upper()}{title[1:]}")
            parts += [_option(parser, one) for one in actions]
    return "\n\n".join(part for part in parts if part) + "\n"


def _usage(parser: argparse.ArgumentParser) -> str:
    text = parser.format_usage().removeprefix("usage: ")
    words = " ".join(text.split()).removeprefix(parser.prog).strip()
    positional = re.sub(r"\[-.*?\](?= |$)", "", words)
    return f"{parser.prog} {' '.join(['[OPTION ...]', *positional.split()])}"


def _examples(epilog: str) -> str:
    """Return the examples of a command as code to copy, with the lines that follow them."""
    head, _, lines = epilog.partition("\n")
    if not head.startswith("Example"):
        return _paragraphs(epilog)
    commands = "\n".join(line.strip() for line in lines.splitlines())
    return f"```bash\n{commands}\n```"


def _paragraphs(text: str) -> str:
    return "\n\n".join(_text(part) for part in text.split("\n\n"))


def _first_options(parser: train.TrainParser) -> str:
    parser.shows_all = False
    short = parser.format_help()
    parser.shows_all = True
    names = re.findall(r"^  (--[\w.-]+)", short, flags=re.MULTILINE)
    listed = ", ".join(f"{{option}}`{name} <{parser.prog} {name}>`" for name in names)
    return f"The options that matter first: {listed}."


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    text = formatter._expand_help(action) if action.help else ""
    value = formatter._format_args(action, _metavar(action)) if action.nargs != 0 else ""
    names = action.option_strings or [value]
    if not action.option_strings:
        value = ""
    head = ", ".join(f"{name} {value}".strip() for name in names)
    return f":::{{option}} {head}\n{_sentence(text)}\n:::"


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest if not action.option_strings else action.dest.upper()


def _sentence(text: str) -> str:
    """Return a help text with its default in code, as a command line takes it."""
    match = re.fullmatch(r"(.*) \(default: (.*)\)", text, flags=re.DOTALL)
    if match is None:
        return _text(text)
    default = {"True": "true", "False": "false"}.get(match[2], match[2])
    return f"{_text(match[1])} (default: `{default}`)"


def _text(text: str) -> str:
    """Return text in one line, with options in code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    marked = [
        piece if piece.startswith("`") else re.sub(r"(?<!\S)(--[a-z][\w.-]*\w)", r"`\1`", piece)
        for piece in pieces
    ]
    return escaped("".join(marked))
