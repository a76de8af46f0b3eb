"""HTML of objects in notebooks: tables and pictures in a card, on light and on dark pages.

Every text is escaped, because names and values may come from files of strangers. Colours are those
of the page or lie between light and dark, and no style reaches beyond its own element.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MOST_ROWS = 50  # of a table
_MOST_LETTERS = 300  # of a cell
_LINE = "1px solid rgba(128, 128, 128, 0.35)"


def html_card(title: str, parts: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Return a title, tables and pictures beside each other, and sentences below them.

    Args:
        title: text of the first line.
        parts: HTML made by the functions of this module or by `svg_plot`.
        notes: sentences, as text.

    Example:
        >>> "<b>" in html_card("<b>", [])
        False
    """
    row = "".join(f'<div style="overflow-x: auto">{part}</div>' for part in parts)
    below = "".join(
        f'<div style="font-size: 85%; opacity: 0.75; margin-top: 0.3em">{text_cell(note)}</div>'
        for note in notes
    )
    return (
        f'<div style="max-width: 80em"><div style="font-weight: 600; margin-bottom: 0.4em">'
        f'{text_cell(title)}</div><div style="display: flex; flex-wrap: wrap; gap: 0.8em 1.6em; '
        f'align-items: flex-start">{row}</div>{below}</div>'
    )


def html_table(rows: Sequence[Sequence[str]], *, has_header: bool = True, n_left: int = 1) -> str:
    """Return a table; of a long one the first rows, and the number of the others.

    Args:
        rows: texts of the cells, row by row, equally many in each.
        has_header: whether the first row holds the names of the columns.
        n_left: number of columns that are aligned to the left; numbers stand to the right.

    Example:
        >>> "&lt;script&gt;" in html_table([["loss", "F1"], ["<script>", "0.5"]])
        True
    """
    header, body = ([*rows[:1]], rows[1:]) if has_header else ([], rows)
    lines = [_line(row, "th", n_left) for row in header]
    lines += [_line(row, "td", n_left) for row in body[:MOST_ROWS]]
    if len(body) > MOST_ROWS:
        width = len(body[0])
        rest = f"and {len(body) - MOST_ROWS:,} more rows"
        lines.append(f'<tr><td colspan="{width}" style="{_style("left", 400)}">{rest}</td></tr>')
    return (
        '<table style="border-collapse: collapse; font-variant-numeric: tabular-nums; '
        f'font-size: inherit; color: inherit; margin: 0">{"".join(lines)}</table>'
    )


def html_legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return a dot and a text for each entry.

    Args:
        entries: text and colour in CSS of each.
    """
    return " ".join(
        f'<span style="white-space: nowrap; margin-right: 0.8em"><span style="color: '
        f'{text_cell(colour)}">&#9679;</span> {text_cell(text)}</span>'
        for text, colour in entries
    )


def text_cell(text: object) -> str:
    """Return a text as HTML without markup of its own; a very long one is cut.

    Example:
        >>> text_cell('<img src=x onerror="alert(1)">')
        '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    whole = str(text)
    return escape(whole if len(whole) <= _MOST_LETTERS else f"{whole[:_MOST_LETTERS]} ...")


def _line(cells: Sequence[str], tag: str, n_left: int) -> str:
    weight = 600 if tag == "th" else 400
    return "<tr>{}</tr>".format(
        "".join(
            f'<{tag} style="{_style("left" if k < n_left else "right", weight)}">'
            f"{text_cell(cell)}</{tag}>"
            for k, cell in enumerate(cells)
        )
    )


def _style(side: str, weight: int) -> str:
    return (
        f"text-align: {side}; font-weight: {weight}; padding: 0.15em 0.7em 0.15em 0; "
        f"border: 0; border-bottom: {_LINE}; background: transparent; color: inherit; "
        f"vertical-align: bottom; white-space: {'nowrap' if weight == 400 else 'normal'}"
    )
