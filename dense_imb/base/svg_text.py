"""Small plots as inline SVG, for notebooks: no plotting library, in the colour of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dense_imb.base.html_text import text_cell

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 20, 34  # margins in pixels, for labels
_FONT = 11
_LEAST = 1e-9  # length of an axis relative to its limits; a shorter one has no round numbers


class SvgAxis(NamedTuple):
    """An axis of a small plot.

    Args:
        label: text below or beside the axis.
        low, high: limits; equal or infinite ones are widened.
    """

    label: str
    low: float
    high: float


class SvgMarks(NamedTuple):
    """Points or a line of a small plot.

    Args:
        x, y: coordinates; marks with NaN are left out.
        colour: colour in CSS.
        radius: radius of a point in pixels.
        is_line: whether the points are joined.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    radius: float = 1.8
    is_line: bool = False


def svg_plot(
    marks: Iterable[SvgMarks], x: SvgAxis, y: SvgAxis, *, title: str, size: tuple[int, int]
) -> str:
    """Return a plot with its frame, labels and limits.

    Args:
        marks: points and lines, the first ones below the others.
        x, y: axes.
        title: text above the plot.
        size: width and height of the frame in pixels, without labels.
    """
    x, y, inner = _widened(x), _widened(y), size
    width, height = inner[0] + _LEFT + _RIGHT, inner[1] + _TOP + _BOTTOM
    drawn = [_drawn(one, x, y, inner) for one in marks]
    frame = (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{inner[0]}" height="{inner[1]}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.4"/>'
    )
    bottom, middle = _TOP + inner[1], _TOP + inner[1] / 2
    texts = [
        _text(_LEFT, 13, title, "start"),
        _text(_LEFT + inner[0] / 2, bottom + 28, x.label, "middle"),
        *(
            _text(_LEFT + inner[0] * (tick - x.low) / (x.high - x.low), bottom + 14, text, "middle")
            for tick, text in ticks(x.low, x.high, inner[0] / 60)
        ),
        *(
            _text(_LEFT - 5, _TOP + inner[1] * (y.high - tick) / (y.high - y.low) + 4, text, "end")
            for tick, text in ticks(y.low, y.high, inner[1] / 35)
        ),
        _text(14, middle, y.label, "middle", f' transform="rotate(-90 14 {middle:.1f})"'),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" style="max-width: 100%" '
        f'font-family="sans-serif" font-size="{_FONT}" fill="currentColor">'
        f"{frame}{''.join(drawn)}{''.join(texts)}</svg>"
    )


def ticks(low: float, high: float, most: float) -> list[tuple[float, str]]:
    """Return round numbers within limits, and their texts.

    Args:
        low, high: limits.
        most: largest number of steps between the limits; below 1 counts as 1.

    Example:
        >>> ticks(-2.6, 89.6, 3)
        [(0.0, '0'), (50.0, '50')]
        >>> ticks(0.7, 0.8844, 4)
        [(0.7, '0.7'), (0.75, '0.75'), (0.8, '0.8'), (0.85, '0.85')]
    """
    length = (high - low) / max(most, 1.0)
    power = 10.0 ** math.floor(math.log10(length))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= length * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    numbers = [float(f"{k * step:.12g}") for k in range(first, min(last, first + 99) + 1)]
    return [(one, f"{one:.6g}") for one in numbers]


def _widened(axis: SvgAxis) -> SvgAxis:
    """Return an axis that has a length, for any limits."""
    low, high = sorted((axis.low, axis.high))
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(high - low)):
        return SvgAxis(axis.label, 0.0, 1.0)
    is_long = high - low > _LEAST * max(abs(low), abs(high), _LEAST)
    room = 0.0 if is_long else max(abs(low) / 10, 0.5)
    return SvgAxis(axis.label, low - room, high + room)


def _drawn(marks: SvgMarks, x: SvgAxis, y: SvgAxis, inner: tuple[int, int]) -> str:
    places = [
        (
            _LEFT + inner[0] * (float(one) - x.low) / (x.high - x.low),
            _TOP + inner[1] * (y.high - float(other)) / (y.high - y.low),
        )
        for one, other in zip(marks.x, marks.y, strict=True)
    ]
    inside = [
        (left, top)
        for left, top in places
        if _LEFT - 1 <= left <= _LEFT + inner[0] + 1 and _TOP - 1 <= top <= _TOP + inner[1] + 1
    ]
    colour = text_cell(marks.colour)
    if marks.is_line:
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top in inside)
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    # one path of round dots is far shorter than a circle each
    path = "".join(f"M{left:.1f} {top:.1f}h0" for left, top in inside)
    return (
        f'<path d="{path}" stroke="{colour}" stroke-width="{2 * marks.radius:g}" '
        'stroke-linecap="round" fill="none"/>'
    )


def _text(left: float, top: float, text: str, anchor: str, also: str = "") -> str:
    return (
        f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}"{also}>{text_cell(text)}</text>'
    )
