"""The page of a report: sections as data, and the template that shows them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dense_imb import __version__

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

_TEMPLATE = "page.html.jinja"
_MARK = b'<meta name="generator" content="dense-imb '  # in the pages of every version


@dataclass(frozen=True)
class Table:
    """A table of a section.

    Args:
        header: names of the columns.
        rows: texts of the cells, row by row.
        own: first cell of the rows to highlight.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    own: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure of a section.

    Args:
        name: name of the file, without .png.
        draw: function that draws on an empty figure.
        size: width and height in inches.
        alt: description for readers who can't see it.
        caption: explanation below the figure.
    """

    name: str
    draw: Callable[[Figure], None]
    size: tuple[float, float]
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A section of the page: tables, then paragraphs, then figures; an empty one is not shown.

    Args:
        title: heading of the section.
        tables, paragraphs, drawings: content of the section.
    """

    title: str
    tables: Sequence[Table] = ()
    paragraphs: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()


def is_report(content: bytes) -> bool:
    """Return whether a file begins like the pages made here."""
    return _MARK in content[:2000]


def render_page(
    *,
    name: str,
    headline: str,
    origin: str,
    notes: Sequence[str],
    sections: Sequence[Section],
    pngs: Mapping[str, bytes],
    facts: Mapping[str, str],
    config: str,
    commands: str,
    subject: str = "run",
) -> str:
    """Render the page as HTML that needs no other file.

    Args:
        name: name of the run.
        headline: result of the run in a sentence.
        origin: date of the page and names of the test data, in a sentence.
        notes: remarks that a reader must not miss.
        sections: content, in its order.
        pngs: content of each figure, by the name of its drawing.
        facts: origin of the run, by name.
        config: text of config.yaml.
        commands: commands that repeat and use the run.
        subject: noun of what the page shows.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE).render(
        version=__version__,
        name=name,
        headline=headline,
        origin=origin,
        notes=notes,
        sections=[one for one in sections if one.tables or one.paragraphs or one.drawings],
        images={key: base64.b64encode(png).decode("ascii") for key, png in pngs.items()},
        facts=facts,
        config=config,
        commands=commands,
        subject=subject,
    )
