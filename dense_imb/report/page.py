"""The page: HTML that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from dense_imb import __version__

GENERATOR = f'<meta name="generator" content="dense-imb {__version__}">'
_OURS = b'<meta name="generator" content="dense-imb '  # whatever the version
_STYLE = """
:root { color-scheme: light; }
body { background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .3rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.headline { font-size: 1.1rem; } .note { border-left: 4px solid #d55e00; padding-left: .7rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right;
  vertical-align: bottom; white-space: nowrap; }
th { white-space: normal; } th:first-child, td:first-child { text-align: left; }
tr.own { font-weight: 600; }
tr.own td { background: #e8f1f8; } table.facts td { text-align: left; white-space: normal;
  overflow-wrap: anywhere; vertical-align: top; }
table.facts td:first-child { overflow-wrap: normal; white-space: nowrap; }
figure { margin: 1rem 0; } .wide img { height: auto; max-width: 100%; min-width: 38rem; }
figcaption { color: #444; font-size: .9rem; }
pre { background: #f5f5f5; font-size: .85rem; overflow-x: auto; padding: .7rem; }
"""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Args:
        name: of its file, without .png.
        section: the heading it stands under.
        png: the file.
        alt: what it shows, for who can't see it.
        caption: how to read it.
    """

    name: str
    section: str
    png: bytes
    alt: str
    caption: str


def is_ours(content: bytes) -> bool:
    """Whether a file begins as the pages made here."""
    return _OURS in content[:2000]


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page; title as text, parts as HTML."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            GENERATOR,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of a class of the style."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], own: str = "") -> str:
    """A table that scrolls where the screen is narrow; the row that begins with `own` stands out.

    Example:
        >>> table(["scorer", "AUC"], [["a < b", "0.9"]]).count("&lt;")
        1
    """
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = [f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>']
    for row in rows:
        kind = ' class="own"' if own and row[0] == own else ""
        lines.append(f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def facts(known: Mapping[str, str]) -> str:
    """Names and values beside each other."""
    rows = [f"<tr><td>{escape(n)}</td><td>{escape(v)}</td></tr>" for n, v in known.items()]
    return "\n".join(['<table class="facts"><tbody>', *rows, "</tbody></table>"])


def figure(picture: Picture) -> str:
    """The picture, in the page itself."""
    encoded = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><div class="wide"><img alt="{escape(picture.alt)}" '
        f'src="data:image/png;base64,{encoded}"></div>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, content: str) -> str:
    """HTML that opens on demand."""
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"
