"""Reports to test with."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dense_imb.report import Report, write_report

FIGURES = ["events", "profile", "removal", "sample_1", "sample_2", "scores", "training"]
_VOID = ("meta", "img", "br", "link", "input")


class Page(HTMLParser):
    """Checks that tags are balanced, and notes what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data.replace("\N{NO-BREAK SPACE}", " ")


def quiet(folder: Path, **options: object) -> Report:
    return write_report(folder, show_progress=False, **options)


def strict_json(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def pngs(folder: Path) -> list[str]:
    found = [*(folder / "figures").iterdir()]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)
    return sorted(path.stem for path in found)
