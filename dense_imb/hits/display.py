"""Displays of one event: on axes of matplotlib, and in notebooks as a card with small plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.axes import (
    BLUE,
    BRIGHT_BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    choose_axes,
    plain_label,
)
from dense_imb.base.html_text import html_card, html_legend, html_table
from dense_imb.base.refusals import suggest
from dense_imb.base.svg_text import SvgAxis, SvgMarks, svg_plot
from dense_imb.hits.events import Array, Events
from dense_imb.hits.geometry import Geometry

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

_COLOURS = (RED, GREEN, PINK, ORANGE)  # further classes of signal
_SQUARE = 6.0  # views of space that are longer or taller than this have other scales
_MOST_MARKS = 1500  # hits of a kind in a card
_MOST_RANGED = 1_000_000  # hits whose smallest and largest values a card shows
_HEIGHT, _WIDEST = 136, 200  # of the frame of a small plot, in pixels
_Kind = tuple[str, NDArray[np.bool_], str]  # name, hits and colour


@dataclass(frozen=True)
class Coordinate:
    """A coordinate of the hits: values, label and limits of its axis."""

    values: NDArray[np.float64]
    label: str
    limits: tuple[float, float]

    @property
    def length(self) -> float:
        """Length of the axis."""
        return self.limits[1] - self.limits[0]


def coordinates(events: Events) -> dict[str, Coordinate]:
    """Return the coordinates of the hits by name: x, y, perhaps z, and t."""
    geometry, time = events.geometry, np.asarray(events.t, np.float64)
    position = np.asarray(events.position(), np.float64)
    if isinstance(geometry, Geometry):
        room = 0.02 * max(geometry.width, geometry.height)
        sides = {"x": geometry.width, "y": geometry.height}
        axes = {
            name: Coordinate(position[:, k], f"{name} (pixels)", (-room, side - 1 + room))
            for k, (name, side) in enumerate(sides.items())
        }
        return {**axes, "t": Coordinate(time, "time (steps)", (0, geometry.time_steps))}
    axes = {
        name: Coordinate(position[:, k], f"{name} (m)", with_room(geometry.position[:, k]))
        for k, name in enumerate("xyz"[: geometry.n_axes])
    }
    return {**axes, "t": Coordinate(time, "time (ns)", with_room(time))}


def with_room(values: NDArray[Any]) -> tuple[float, float]:
    """Return limits a little beyond the finite values."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = 0.03 * (high - low) or 0.5
    return low - room, high + room


def plot_event(
    events: Events, ax: Axes | None = None, *, event: int = 0, view: Sequence[str] = ("x", "y")
) -> Axes:
    """Draw the hits of one event in a flat view: `Events.plot`."""
    if not len(events):
        raise ValueError("Expected at least one event to draw, got none.")
    one = events[event].numpy()
    sides = coordinates(one)
    names = tuple(view)
    if len(names) != 2 or names[0] == names[1] or not set(names) <= set(sides):
        wrong = next((str(name) for name in names if name not in sides), "")
        raise ValueError(
            f"Expected `view` with two of {', '.join(sides)}, got {view!r}."
            f"{suggest(wrong, sides) if wrong else ''}"
        )
    axes = choose_axes(ax)
    horizontal, vertical = (sides[name] for name in names)
    for name, chosen, colour in _classes(one):
        axes.scatter(
            horizontal.values[chosen],
            vertical.values[chosen],
            s=8 if colour == GREY else 16,
            color=colour,
            label=plain_label(f"{name}: {int(chosen.sum()):,}"),
            linewidths=0,
        )
    axes.set(xlim=horizontal.limits, ylim=vertical.limits)
    axes.set(xlabel=horizontal.label, ylabel=vertical.label)
    if "t" not in names and 1 / _SQUARE < vertical.length / horizontal.length < _SQUARE:
        axes.set_aspect("equal")
    if one.n_hits:
        # beside the hits, which may lie anywhere
        axes.legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize="small",
            borderaxespad=0.2, columnspacing=1.0, handletextpad=0.2,
        )  # fmt: skip
    return axes


def card_of_events(events: Events) -> str:
    """Return events as HTML: their columns, and two views of the first event with hits."""
    number = _first_with_hits(events)
    parts = [html_table(_column_cells(events), n_left=2)]
    notes = []
    if number is not None:
        one = events[number].numpy()
        kinds = list(_classes(one, BRIGHT_BLUE))
        legend = [(f"{name}: {int(chosen.sum()):,}", colour) for name, chosen, colour in kinds]
        plots = "".join(_small_plots(one, kinds, f"event {number}"))
        parts.append(f"{plots}<div>{html_legend(legend)}</div>")
        if any(int(chosen.sum()) > _MOST_MARKS for _, chosen, _ in kinds):
            notes.append(f"The plots show a part of the hits of event {number}.")
    return html_card(repr(events), parts, notes)


def _first_with_hits(events: Events) -> int | None:
    if not events.n_hits:
        return None
    count = events.offset[1:] > events.offset[:-1]
    return int(torch.as_tensor(count).int().argmax())


def _classes(events: Events, blue: str = BLUE) -> Iterator[_Kind]:
    """Yield name, hits and colour of noise and of each class of signal that the events have.

    Args:
        events: events.
        blue: colour of the first class, and of hits without labels.
    """
    colours = (blue, *_COLOURS)
    if events.label is None:
        yield "hits", np.ones(events.n_hits, bool), blue
        return
    label = np.asarray(events.label)
    present = np.unique(label).tolist()
    for k in present:
        name = "noise" if k == 0 else "signal" if max(present) <= 1 else f"signal class {k:g}"
        yield name, label == k, GREY if k == 0 else colours[(int(k) - 1) % len(colours)]


def _small_plots(one: Events, kinds: Sequence[_Kind], title: str) -> Iterator[str]:
    """Yield the views of one event, in space and in time, as SVG."""
    sides = coordinates(one)
    up = sides["z" if "z" in sides else "y"]
    for horizontal in ("x", "t"):
        across = sides[horizontal]
        marks = []
        for _, chosen, colour in kinds:
            place = np.flatnonzero(chosen)
            place = place[:: max(1, -(-len(place) // _MOST_MARKS))]
            place = place[np.isfinite(across.values[place]) & np.isfinite(up.values[place])]
            values = across.values[place].tolist(), up.values[place].tolist()
            marks.append(SvgMarks(*values, colour, radius=1.3 if colour == GREY else 2.0))
        width = _WIDEST
        if horizontal != "t":  # pixels and metres are as long in both directions
            width = int(np.clip(_HEIGHT * across.length / up.length, _HEIGHT / 4, _WIDEST))
        yield svg_plot(
            marks,
            SvgAxis(across.label, *across.limits),
            SvgAxis(up.label, *up.limits),
            title=title if horizontal == "x" else "",
            size=(width, _HEIGHT),
        )


def _column_cells(events: Events) -> list[list[str]]:
    """Return the columns with entries for, type and range, as texts."""
    columns = [("hit", name, column) for name, column in events.hit_columns().items()]
    columns += [("event", name, column) for name, column in events.event.items()]
    return [
        ["column", "of each", "type", "range"],
        *([name, each, _type_text(column), _range_text(column)] for each, name, column in columns),
    ]


def _type_text(column: Array) -> str:
    kind = str(column.dtype).removeprefix("torch.")
    return f"{kind}{''.join(f' x {side}' for side in column.shape[1:])}"


def _range_text(column: Array) -> str:
    """Return the smallest and largest finite value; "" for texts and for very many values."""
    if len(column) > _MOST_RANGED:
        return ""
    values = column.detach().cpu().numpy() if isinstance(column, torch.Tensor) else column
    if values.dtype.kind not in "biuf":
        return ""
    values = values[np.isfinite(values)]
    return f"{values.min():.5g} to {values.max():.5g}" if values.size else ""
