"""The site: it builds without a warning; links, names, options and pages are all there."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dense_imb import cli
from tests.docs.pages import DOCS, GENERATED, ROOT
from tests.limits import HANG_SECONDS
from tests.snapshots.public import packages

BUILD = DOCS / "build.py"
# pages that Sphinx adds: indexes, and the search
_ADDED = {"genindex.html", "py-modindex.html", "search.html"}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


class Page(HTMLParser):
    """Anchors, links and files of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.files: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon"):
            self.files.append(values["href"])
        if tag in ("img", "script", "source", "video") and "src" in values:
            self.files.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Return the folder of the built site."""
    for name in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "ignite"):
        pytest.importorskip(name, reason='the site needs the extra: pip install -e ".[docs]"')
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, str(BUILD), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """Return the parsed pages by path."""
    return {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob("*.html"))}


def targets(name: str, links: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the page and the anchor of each link within the site."""
    for link in links:
        parts = urlsplit(link)
        if not parts.scheme and not parts.netloc:
            path = os.path.normpath(Path(name).parent / unquote(parts.path)) if parts.path else name
            yield path, unquote(parts.fragment)


def test_no_link_is_broken(site, pages):
    broken = []
    for name, page in pages.items():
        for path, anchor in targets(name, page.links):
            exists = path in pages or (site / path).is_file()
            if not exists or (anchor and path in pages and anchor not in pages[path].anchors):
                broken.append(f"{name} -> {path}#{anchor}")
    assert broken == []


def test_pages_take_no_file_from_a_network(site, pages):
    for name, page in pages.items():
        for file in page.files:
            assert urlsplit(file).scheme in ("", "data"), f"{name} takes {file}"
        for path, _ in targets(name, page.files):
            assert path == name or (site / path).is_file(), f"{name} lacks {path}"


def test_every_page_is_reached_from_the_first(pages):
    reached, waiting = {"index.html"}, ["index.html"]
    while waiting:
        name = waiting.pop()
        new = {path for path, _ in targets(name, pages[name].links) if path in pages} - reached
        reached |= new
        waiting += new
    assert set(pages) - reached <= _ADDED
    written = {
        path.relative_to(DOCS).with_suffix(".html").as_posix()
        for path in DOCS.rglob("*.*")
        if path.suffix in (".md", ".ipynb") and path.relative_to(DOCS).parts[0] not in GENERATED
    }
    assert written <= set(pages)


def test_every_public_name_has_its_page(pages):
    missing = []
    for package in packages():
        module = importlib.import_module(package)
        if not hasattr(module, "__all__"):
            continue
        shelf = f"api/{package}.html"
        linked = {path for path, _ in targets(shelf, pages[shelf].links)}
        for name in module.__all__:
            value = getattr(module, name)
            is_there = any(
                Path(path).name.endswith(f".{name}.html")
                and any(anchor.endswith(f".{name}") for anchor in pages[path].anchors)
                for path in linked & set(pages)
            )
            if not is_there:
                missing.append(f"{package}.{name}: {type(value).__name__}")
    assert missing == []


def test_every_name_is_described(site):
    for path in (site / "api").glob("dense_imb*.html"):
        described = re.search(
            r'<dt class="sig.*?</dt>\s*<dd>(.*?)</dd>', path.read_text(), re.DOTALL
        )
        assert described is None or "<p>" in described[1], path.name


def test_every_option_is_on_the_page_of_its_command(site):
    for name, command in cli.COMMANDS.items():
        text = (site / "commands" / f"{name.replace(' ', '-')}.html").read_text(encoding="utf-8")
        for action in command.make_parser()._actions:
            for option in action.option_strings if action.dest != "help" else ():
                assert f">{option}</span>" in text, f"dense-imb {name} {option}"


def test_names_in_code_link_to_their_pages(pages):
    assert ("api/dense_imb.losses.ACBMSELoss.html", "") in targets(
        "value_losses.html", pages["value_losses.html"].links
    )
    assert ("commands/denoise.html", "") in targets("denoising.html", pages["denoising.html"].links)


def test_names_of_other_libraries_do_not_link_to_ours(site, pages):
    text = (site / "migration" / "monai.html").read_text(encoding="utf-8")
    theirs = re.search(r"(<a [^>]*>)?<code[^>]*>(<span[^>]*>)?FocalLoss\(to_onehot_y", text)
    assert theirs is not None
    assert theirs[1] is None
    assert "api/dense_imb.losses.FocalLoss.html" in {
        path for path, _ in targets("migration/monai.html", pages["migration/monai.html"].links)
    }


def test_every_notebook_can_be_downloaded(pages):
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        page = pages[f"notebooks/{path.stem}.html"]
        assert any(link.endswith(f"/{path.name}") for link in page.links), path.name
