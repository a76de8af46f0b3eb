"""Pages of the experiments, from the README of each folder in experiments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_README = re.compile(r"\.\./experiments/(?:(\w+)/)?README\.md")


def pages_of_experiments(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the Markdown of each page; "index" is that of `folder` itself."""
    readmes = sorted(folder.glob("*/README.md"))
    listed = "\n".join(path.parent.name for path in readmes)
    toctree = f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    yield "index", _text_of(folder / "README.md") + toctree
    for path in readmes:
        yield path.parent.name, _text_of(path)


def link_experiments(text: str) -> str:
    """Return the source of a page whose links to a README lead to the page made of it."""
    return _README.sub(lambda match: f"experiments/{match[1] or 'index'}.md", text)


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("](../docs/", "](../")
