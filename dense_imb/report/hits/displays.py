"""Displays of an event: its hits before and after denoising, in space and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Geometry, Sensors
from dense_imb.hits.display import Coordinate, coordinates, with_room
from dense_imb.report.drawing import BLUE, RED
from dense_imb.report.hits.measures import VERDICTS, EventSample

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
_GREY, _PALE = "#8A8A8A", "#D0D0D0"
# for each of `VERDICTS`: colour, marker, size, filled or not
_MARKS = ((BLUE, "o", 22, True), (RED, "^", 34, False), (_GREY, "x", 9, True),
          ("#000000", "s", 26, False))  # fmt: skip
_DOT = ("#9A9A9A", ".", 14, True)  # noise of events in space, which are crowded
_MANY = 400  # hits; marks of larger events are smaller
_MOST_SENSORS = 5000  # places of sensors that are drawn
_WIDTH = 3.55  # of a view, in inches
_LEGEND, _LABELS, _DEEP = 0.6, 0.7, 3.8  # heights in inches
_SQUARE = 6.0  # views of space that are longer or taller than this have other scales
_TIMES = "viridis"


@dataclass(frozen=True)
class _Views:
    """Views of an event, by the names of their axes.

    Args:
        flat: horizontal and vertical axis of each flat view.
        deep: the three axes of the view in depth.
        deep_first: whether the view in depth comes above the flat ones.
        is_crowded: whether noise is drawn as small dots, and colours show the time.
    """

    flat: tuple[tuple[str, str], ...]
    deep: tuple[str, str, str]
    deep_first: bool = False
    is_crowded: bool = False


@dataclass(frozen=True)
class _Part:
    """Some hits of an event that look alike.

    Args:
        chosen: (n_hits,) the hits.
        name: name in the legend.
        mark: colour, marker, size, and whether it is filled.
        times: earliest and latest time of the colours; None if colours show no time.
        is_gone: whether the view in depth omits them.
    """

    chosen: NDArray[np.bool_]
    name: str
    mark: tuple[str, str, int, bool]
    times: tuple[float, float] | None = None
    is_gone: bool = False


def draw_sample(sample: EventSample, figure: Figure) -> None:
    """Draw an event before and after denoising.

    Hits on a grid are drawn in x-y and in x-y-time, and in time and y if some hide behind others
    in their pixel. Hits of a table of sensors are drawn in space and in flat views of it, where
    colours show the time, and in time and depth.
    """
    views, axes, rows = _views_of(sample), coordinates(sample.events), _rows(sample)
    grid = figure.add_gridspec(len(rows), 2, height_ratios=[height for _, height in rows])
    coloured: list[Any] = []
    for place, (title, parts) in enumerate(_columns(sample, views)):
        for row, (names, height) in enumerate(rows):
            has_depth = len(names) == 3
            view: Any = figure.add_subplot(
                grid[row, place], **({"projection": "3d"} if has_depth else {})
            )
            if row == 0:
                view.set_title(title)
            _draw_sensors(view, sample.events.geometry, names)
            for part in parts:
                drawn = _draw_part(view, part, axes, names)
                coloured += [drawn] if part.times is not None and drawn is not None else []
            sides = [axes[name] for name in names]
            if has_depth:
                _dress_deep(view, sides, views.is_crowded)
                continue
            _dress_flat(view, *sides)
            if names == views.flat[-1]:
                below = -0.5 / max(height - _LABELS - _LEGEND, 0.5)
                view.legend(
                    loc="upper center", bbox_to_anchor=(0.5, below), ncols=2, columnspacing=1.0
                )
    if coloured:
        bar = figure.colorbar(
            coloured[0], ax=figure.axes, location="bottom", fraction=0.02, aspect=60
        )
        bar.set_label("time of signal hits (ns)")


def _columns(sample: EventSample, views: _Views) -> list[tuple[str, list[_Part]]]:
    """Return title and hits of both columns: before and after denoising."""
    is_signal = np.asarray(sample.events.label) > 0
    noise = _DOT if views.is_crowded else _MARKS[2]
    marks = (*_MARKS[:2], noise, _MARKS[3])
    times = None
    if views.is_crowded:
        times = with_room(np.asarray(sample.events.t, np.float64)[is_signal])
    before = [
        _Part(~is_signal, "noise", noise),
        _Part(is_signal, "signal", _MARKS[0], times),
    ]
    after = [
        _Part(sample.verdict == k, VERDICTS[k], marks[k], None if k else times, k == 2)
        for k in (2, 0, 3, 1)
    ]
    return [("Before: truth", before), ("After: verdicts", after)]


def sample_size(sample: EventSample) -> tuple[float, float]:
    """Return the size of the figure of an event, in inches."""
    is_crowded = _views_of(sample).is_crowded
    return 8.5, sum(height for _, height in _rows(sample)) + 0.6 * is_crowded


def describe_views(sample: EventSample) -> str:
    """Return the views of an event as text: "x-y and x-y-time"."""
    words = {"t": "time"}
    names = ["-".join(words.get(name, name) for name in view) for view, _ in _rows(sample)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _views_of(sample: EventSample) -> _Views:
    geometry = sample.events.geometry
    if geometry.n_axes == 3:
        return _Views((("x", "z"), ("y", "z"), ("t", "z")), ("x", "y", "z"), True, True)
    has_hidden = sample.n_hidden > 0 or isinstance(geometry, Sensors)
    time = (("t", "y"),) if has_hidden else ()
    return _Views((("x", "y"), *time), ("x", "t", "y"))


def _rows(sample: EventSample) -> list[tuple[tuple[str, ...], float]]:
    """Return the views from top to bottom with their heights, which hold labels and a legend."""
    views, axes = _views_of(sample), coordinates(sample.events)
    rows: list[tuple[tuple[str, ...], float]] = []
    for horizontal, vertical in views.flat:
        height = 1.8
        if horizontal != "t":
            height = _WIDTH * axes[vertical].length / axes[horizontal].length
        height = min(max(height, 1.0), 6.0) + _LABELS
        is_last = (horizontal, vertical) == views.flat[-1]
        rows.append(((horizontal, vertical), height + _LEGEND * is_last))
    deep = (views.deep, _DEEP)
    return [deep, *rows] if views.deep_first else [*rows, deep]


def _draw_sensors(axes: Any, geometry: Geometry | Sensors, names: tuple[str, ...]) -> None:
    """Draw the places of the sensors in a view of space; those close together as one."""
    if not isinstance(geometry, Sensors) or "t" in names:
        return
    columns = ["xyz".index(name) for name in names]
    place = geometry.position[:, columns]
    step = float(np.ptp(geometry.position, axis=0).max()) / 200 or 1.0
    _, first = np.unique(np.round(place / step), axis=0, return_index=True)
    if len(first) <= _MOST_SENSORS:
        style = {"s": 5, "color": _PALE, "marker": ".", "zorder": 0, "linewidths": 0}
        style |= {"depthshade": False} if len(names) == 3 else {}
        axes.scatter(*place[first].T, **style)


def _draw_part(
    view: Any, part: _Part, axes: Mapping[str, Coordinate], names: tuple[str, ...]
) -> Any:
    """Draw some hits in a view; return the marks, None if the view omits them."""
    has_depth = len(names) == 3
    if has_depth and part.is_gone:
        return None
    colour, mark, size, is_filled = part.mark
    values = [axes[name].values[part.chosen] for name in names]
    scale = float(np.clip(np.sqrt(_MANY / max(len(part.chosen), 1)), 0.35, 1.0))
    scale = max(scale, 0.7) if part.name not in ("noise", "noise removed") else scale
    style: dict[str, Any] = {"marker": mark, "label": f"{part.name}: {len(values[0])}"}
    style |= {"s": scale * size * (0.7 if has_depth else 1)}
    style |= {"zorder": 2 + 2 * (mark not in "x."), "linewidths": 1.3 * scale}
    style |= {"depthshade": False} if has_depth else {}
    if part.times is not None:
        style |= {"c": axes["t"].values[part.chosen], "cmap": _TIMES, "linewidths": 0}
        style |= dict(zip(("vmin", "vmax"), part.times, strict=True))
    elif mark in "x.":
        style |= {"c": colour, "linewidths": 0.8 if mark == "x" else 0}
    else:
        style |= {"edgecolors": colour, "facecolors": colour if is_filled else "none"}
    return view.scatter(*values, **style)


def _dress_flat(view: Any, horizontal: Coordinate, vertical: Coordinate) -> None:
    view.locator_params(axis="x", nbins=6)
    view.set(xlim=horizontal.limits, ylim=vertical.limits)
    view.set(xlabel=horizontal.label, ylabel=vertical.label)
    is_space = not (horizontal.label.startswith("time") or vertical.label.startswith("time"))
    if is_space and 1 / _SQUARE < vertical.length / horizontal.length < _SQUARE:
        view.set(aspect="equal")


def _dress_deep(view: Any, sides: list[Coordinate], is_crowded: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    view.set(**{f"{n}lim": side.limits for n, side in zip("xyz", sides, strict=True)})
    view.set(**{f"{n}label": side.label for n, side in zip("xyz", sides, strict=True)})
    view.computed_zorder = False  # errors lie over signal, and signal over noise
    view.yaxis.labelpad = 9
    if is_crowded:
        view.set_box_aspect(_box(sides), zoom=1.05)
        view.tick_params(labelsize=8)
    else:
        view.set_box_aspect((1, 1.3, 1), zoom=0.84)
    for axis in (view.xaxis, view.yaxis, view.zaxis):
        axis.set_major_locator(MaxNLocator(5))


def _box(sides: list[Coordinate]) -> tuple[float, ...]:
    """Return the sides of the box around a detector: its own, unless one is far longer."""
    longest = max(side.length for side in sides)
    return tuple(max(side.length / longest, 0.4) for side in sides)
