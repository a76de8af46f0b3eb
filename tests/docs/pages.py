"""Pages of the documentation as they are written: blocks of code, and lines of commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("api", "commands", "experiments", "_build")
# a block of code, with the comment in front of it that says why it isn't run
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>[^\n]*?) -->\s*\n)?"
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    flags=re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`(dense-imb [^`]+)`(?!`)")


class Block(NamedTuple):
    """One block of code of a page.

    Args:
        language: language of its fence.
        text: its lines, without the indentation of the fence.
        line: number of the line of its fence.
        reason: why it isn't run; None for a block that is.
    """

    language: str
    text: str
    line: int
    reason: str | None


def written_pages() -> list[str]:
    """Return the pages of the site and README, relative to the root."""
    pages = (path.relative_to(ROOT) for path in sorted(DOCS.rglob("*.md")))
    return ["README.md", *(str(path) for path in pages if path.parts[1] not in GENERATED)]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of code of a page."""
    whole = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            match["language"],
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            whole.count("\n", 0, match.start("fence")) + 1,
            match["reason"],
        )
        for match in _BLOCK.finditer(whole)
    ]


def commands_of(page: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the words behind `dense-imb` of each command in a block of a page."""
    for block in blocks_of(page):
        if block.reason is not None or block.language not in ("bash", "console", "sh"):
            continue
        lines = block.text.replace("\\\n", " ").splitlines()
        for line in lines:
            if block.language == "console" and not line.startswith("$ "):
                continue  # output
            for words in split_commands(line.removeprefix("$ ")):
                if (own := _own_words(words)) is not None:
                    yield block.line, own


def inline_commands_of(page: str) -> list[list[str]]:
    """Return the words behind `dense-imb` of each command in the text of a page."""
    whole = (ROOT / page).read_text(encoding="utf-8")
    return [match[1].split()[1:] for match in _INLINE.finditer(_BLOCK.sub("", whole))]


def split_commands(line: str) -> list[list[str]]:
    """Return the words of each command in a line of a shell, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    is_redirected = False
    for word in lexer:
        if set(word) <= set("|&;"):
            commands.append([])
            is_redirected = False
        elif set(word) <= set("<>"):
            is_redirected = True
        elif not is_redirected:
            commands[-1].append(word)
    return commands


def _own_words(words: list[str]) -> list[str] | None:
    for k, word in enumerate(words):
        if word.rpartition("/")[2] == "dense-imb":
            return words[k + 1 :]
        if words[k : k + 2] == ["-m", "dense_imb"]:
            return words[k + 2 :]
    return None
