"""Docstrings of dense_imb as Markdown: arguments as a list of definitions, examples as code."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?):")
_ENTRY = re.compile(r"(\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*): (.*)")
_TITLES = {"Args": "Arguments"}


def to_markdown(docstring: str) -> str:
    """Return a cleaned docstring as Markdown.

    Args:
        docstring: text without the indentation of its source, as `inspect.getdoc` returns it.
    """
    parts = []
    for title, lines in _sections(docstring.splitlines()):
        body = textwrap.dedent("\n".join(lines)).strip("\n")
        if title in ("Args", "Attributes", "Raises"):
            parts.append(f":::{{rubric}} {_TITLES.get(title, title)}\n:::\n\n{_definitions(body)}")
        elif title:
            parts.append(f":::{{rubric}} {title}\n:::\n\n{_prose(body)}")
        else:
            parts.append(_prose(body))
    return "\n\n".join(parts)


def first_sentence(docstring: str) -> str:
    """Return the first paragraph in one line, for tables."""
    paragraph = docstring.strip().partition("\n\n")[0]
    return escaped(" ".join(paragraph.split()))


def escaped(text: str) -> str:
    """Return text in which `<` outside of code is no markup."""
    pieces = re.split(r"(`+[^`]*`+)", text)
    return "".join(
        piece if piece.startswith("`") else piece.replace("<", "&lt;").replace("*", "\\*")
        for piece in pieces
    )


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the lines of each section; prose has an empty title."""
    title, found = "", []
    for line in lines:
        match = _SECTION.fullmatch(line)
        is_end = title and line and not line.startswith(" ")
        if match or is_end:
            yield title, found
            title, found = (match[1] if match else ""), []
        if not match:
            found.append(line)
    yield title, found


def _definitions(body: str) -> str:
    entries: list[list[str]] = []
    terms: list[str] = []
    for line in body.splitlines():
        match = _ENTRY.fullmatch(line)
        if match:
            terms.append(", ".join(f"`{name.strip()}`" for name in match[1].split(",")))
            entries.append([match[2]])
        elif entries:
            entries[-1].append(line)
        else:  # a section without entries
            return _prose(body)
    made = []
    for term, (first, *others) in zip(terms, entries, strict=True):
        rest = textwrap.dedent("\n".join(others))
        text = _prose(f"{first}\n{rest}".strip("\n"))
        made.append(f"{term}\n: {textwrap.indent(text, '  ').lstrip()}")
    return "\n\n".join(made)


def _prose(text: str) -> str:
    """Return paragraphs as Markdown: doctests fenced, formulas (indented) as code."""
    made: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        start = next((k for k, line in enumerate(lines) if line.startswith(">>>")), len(lines))
        if start:
            made.append(_paragraph(lines[:start]))
        if start < len(lines):
            code = "\n".join(lines[start:])
            if made and start == 0 and made[-1].endswith("```") and ">>>" in made[-1]:
                made[-1] = f"{made[-1][:-4]}\n\n{code}\n```"  # one example with an empty line in it
            else:
                made.append(f"```pycon\n{code}\n```")
    return "\n\n".join(one for one in made if one)


def _paragraph(lines: list[str]) -> str:
    if lines and all(line.startswith("    ") for line in lines if line):
        formula = textwrap.dedent("\n".join(lines))
        return f"```text\n{formula}\n```"
    return "\n".join(escaped(line) for line in lines)
