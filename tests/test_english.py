"""Plain English: what docstrings begin with, names that say nothing, help texts without a noun.

`python tests/test_english.py [PACKAGE]` prints the counts of each room.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "dense_imb"

# rooms that are not finished; empty this set
NOT_YET: frozenset[str] = frozenset()

KINDS = ("docstrings", "names", "help texts")
_OPENINGS = ("What", "Which", "Where", "How", "From", "Of")
_NAMES = ("told", "found")


class Finding(NamedTuple):
    """One place that is not plain English."""

    room: str
    kind: str
    where: str
    text: str


def findings_of(package: Path) -> list[Finding]:
    """Return every finding of a package."""
    listed = []
    for path in sorted(package.rglob("*.py")):
        inner = path.relative_to(package)
        for kind, line, text in findings_in(path.read_text(encoding="utf-8")):
            listed.append(Finding(inner.parts[0], kind, f"{inner}:{line}", text))
    return listed


def findings_in(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield the kind, line and text of every finding in a file."""
    for node in ast.walk(ast.parse(source)):
        yield from ((kind, getattr(node, "lineno", 1), text) for kind, text in _findings_at(node))


def _findings_at(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        docstring = ast.get_docstring(node) or ""
        if re.match(rf"({'|'.join(_OPENINGS)})\b", docstring):
            yield "docstrings", docstring.splitlines()[0]
        for name, text in arguments_in(docstring):
            if _begins_with_of(text):
                yield "help texts", f"{name}: {text}"
    for name in _names_made_at(node):
        plain = name.lower().strip("_")
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if plain in _NAMES or plain.endswith("_told") or (is_function and plain.startswith("of_")):
            yield "names", name
    if isinstance(node, ast.keyword) and node.arg == "help":
        text = node.value.value if isinstance(node.value, ast.Constant) else None
        if isinstance(text, str) and _begins_with_of(text):
            yield "help texts", text


def _names_made_at(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, (ast.ExceptHandler, ast.alias)):
        yield (node.name if isinstance(node, ast.ExceptHandler) else node.asname) or ""


def arguments_in(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield the name and text of every entry of a docstring's `Args:`."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if section:
        entry = r"^ {4}(\w[\w, *]*):[ \n]\s*((?:.*\n?)(?:^ {5,}.*\n?)*)"
        for name, text in re.findall(entry, section[1], re.MULTILINE):
            yield name, " ".join(text.split())


def _begins_with_of(text: str) -> bool:
    return re.match(r"of\b", text, re.IGNORECASE) is not None


def table_of(package: Path) -> str:
    """Return the counts of each room, as text."""
    listed = findings_of(package)
    rooms = sorted({path.relative_to(package).parts[0] for path in package.rglob("*.py")})
    lines = [f"{'':18}" + "".join(f"{kind:>12}" for kind in KINDS)]
    for room in (*rooms, "all"):
        counts = [
            sum(one.kind == kind and room in (one.room, "all") for one in listed) for kind in KINDS
        ]
        if any(counts) or room == "all":
            lines.append(f"{room:18}" + "".join(f"{count:>12}" for count in counts))
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_finished_rooms_speak_plain_english(kind: str) -> None:
    wrong = [one for one in findings_of(PACKAGE) if one.kind == kind and one.room not in NOT_YET]
    assert not wrong, "\n".join(f"{one.where}: {one.text}" for one in wrong)


def test_every_unfinished_room_exists() -> None:
    assert not [room for room in NOT_YET if not (PACKAGE / room).exists()]


def test_each_kind_is_seen() -> None:
    source = '''
"""Which file this is."""

def of_hits(found):
    """Return them.

    Args:
        found: of all hits,
            the first.
        n: a number: of hits.
    """
    self.told, how_told = found, 1
    parser.add_argument("--n", help="of each run")
'''
    assert sorted((kind, text) for kind, _, text in findings_in(source)) == [
        ("docstrings", "Which file this is."),
        ("help texts", "found: of all hits, the first."),
        ("help texts", "of each run"),
        ("names", "found"),
        ("names", "how_told"),
        ("names", "of_hits"),
        ("names", "told"),
    ]


def test_other_words_are_plain() -> None:
    source = '"""Offer; whatever, fromage."""\nofficial = founded = untold = 1\n'
    assert not list(findings_in(source))


if __name__ == "__main__":
    print(table_of(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE))
