"""Extension of Sphinx: writes the pages of names, commands and experiments, and links code."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from api_pages import pages_of_api
from catalogue_page import catalogue_page
from command_pages import pages_of_commands
from docstrings import to_markdown
from experiment_pages import link_experiments, pages_of_experiments
from links import LinkedCode, resolve_name
from public_names import qualified_names, read_packages
from sources import add_download, keep_spreads_together


class Docstring(SphinxDirective):
    """Show the docstring of a module: `{docstring} dense_imb.hits.format`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        return self.parse_text_to_nodes(to_markdown(inspect.getdoc(module) or ""))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    packages = read_packages()
    source = Path(app.srcdir)
    _write(source / "api", [*pages_of_api(packages), ("catalogue", catalogue_page())])
    _write(source / "commands", pages_of_commands())
    _write(source / "experiments", pages_of_experiments(source.parent / "experiments"))
    app.connect("source-read", _change_source)
    app.add_config_value("dense_imb_names", qualified_names(packages), "env")
    app.add_directive("docstring", Docstring)
    app.add_post_transform(LinkedCode)
    app.connect("missing-reference", resolve_name)
    app.connect("html-page-context", _collapse, priority=400)  # before the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _change_source(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = keep_spreads_together(link_experiments(source[0]))
    if page.startswith("notebooks/"):
        source[0] = add_download(source[0], page.removeprefix("notebooks/"))


def _collapse(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Show only the open branch in the side bar: hundreds of names would slow down every page."""
    toctree = context.get("toctree")
    if toctree is not None:
        context["toctree"] = lambda **options: toctree(**{**options, "collapse": True})


def _write(folder: Path, pages: Iterable[tuple[str, str]]) -> None:
    """Write pages into a folder that holds nothing else; unchanged ones keep their time."""
    folder.mkdir(exist_ok=True)
    written = set()
    for name, text in pages:
        path = folder / f"{name}.md"
        written.add(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in set(folder.iterdir()) - written:
        path.unlink()
