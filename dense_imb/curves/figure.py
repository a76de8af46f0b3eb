"""Figures of tables, on given axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dense_imb.base.axes import plain_label
from dense_imb.base.files import write_whole
from dense_imb.curves.table import Column, Table, View

if TYPE_CHECKING:  # importing dense_imb.curves must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

# Okabe and Ito's colours without the yellow, which is faint on white
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#56B4E9", "#E69F00")
_STYLES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (3, 1.5)),
    (0, (6, 2, 1.5, 2, 1.5, 2)),
    (0, (10, 3)),
    (0, (1.5, 4)),
)
_MARKERS = "os^Dv<>PX"
_SHADES = ("#DADADA", "#FFFFFF", "#EDEDED")
_LABEL_SIZE = 8.0  # points
_RC: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dense-imb",  # the same figure is the same file
}


class _Line(NamedTuple):
    """Curves of one loss; `label` names all losses that share them."""

    label: str
    colour: str
    style: Any  # None: one style for each quantity, and a marker for each line
    marker: str
    curves: tuple[Column, ...]


def draw(table: Table, axes: Axes, *, quantities: Sequence[str] | None = None) -> None:
    """Draw the curves of a table on given axes.

    Losses with equal curves share a line. In a figure with a layout engine
    (layout="constrained"), lines are labelled at their right ends, or by a legend beside the axes
    where the ends meet. In other figures the legend stands inside.

    Args:
        table: table from `sweep` or `Table.read`.
        axes: matplotlib axes; they are not cleared.
        quantities: columns to draw, for example ["gradient"]; by default those of the table's
            view.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from dense_imb.curves import SignalSize, draw, sweep
        >>> from dense_imb.losses import ACBMSELoss
        >>> axes = Figure(layout="constrained").add_subplot()
        >>> draw(sweep(SignalSize(frame=(10, 10), points=9), {"ACB-MSE": ACBMSELoss()}), axes)
        >>> axes.get_xlabel()
        'Signal size [fraction of the frame]'
    """
    quantities = tuple(table.view.quantities if quantities is None else quantities)
    known = tuple(dict.fromkeys(curve.quantity for curve in table.curves))
    for quantity in quantities:
        if quantity not in known:
            raise ValueError(f"Expected `quantities` among {known}, got {quantity!r}.")
    lines = _lines(table, quantities)
    curves = [curve for line in lines for curve in line.curves]

    axes.set_title(plain_label(table.title), fontsize=10, loc="left")
    axes.set_xlabel(_label(table.axis.name, table.axis.unit))
    # several quantities share their first word, for example "loss"
    name = quantities[0] if len(quantities) == 1 else quantities[0].split()[0]
    axes.set_ylabel(_label(name, curves[0].unit))
    axes.set_xscale(table.view.x_scale)
    _plot(axes, table, lines)
    _set_y_scale(axes, table.view, curves)
    axes.margins(x=0.001)  # a tick at either end is still drawn
    _shade(axes, table.view.regions)
    if table.view.diagonal:
        _draw_diagonal(axes, table)
    styles = _style_handles(quantities) if len(quantities) > 1 else []
    if axes.figure.get_layout_engine() is None:
        handles, _ = axes.get_legend_handles_labels()
        _add_legend(axes, [*_one_each(handles), *styles], loc="best")
    else:
        if styles:
            axes.add_artist(_add_legend(axes, styles, loc="best"))
        _name_lines(axes, table, lines)
    if table.view.zoom is not None:
        _zoom(axes, table, lines)


def save_figure(table: Table, path: str | Path) -> None:
    """Draw a table to a .png, .svg or .pdf file, whole or not at all.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.curves import SignalSize, save_figure, sweep
        >>> from dense_imb.losses import ACBMSELoss
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "size.svg"
        >>> table = sweep(SignalSize(frame=(10, 10), points=9), {"ACB-MSE": ACBMSELoss()})
        >>> save_figure(table, path)
        >>> path.read_text().count("<svg")
        1
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = Path(path)
    form = path.suffix.removeprefix(".")
    # without a date the same numbers give the same bytes
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with rc_context(_RC):
        # a Figure without pyplot needs no display
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        draw(table, figure.add_subplot())
        write_whole(path, lambda to: figure.savefig(to, format=form, dpi=200, metadata=metadata))


def _lines(table: Table, quantities: Sequence[str]) -> list[_Line]:
    """Return one line for each loss, or for each group of losses with equal curves."""
    groups: list[tuple[list[str], tuple[Column, ...]]] = []
    for name in dict.fromkeys(curve.name for curve in table.curves):
        curves = tuple(
            curve for curve in table.curves if curve.name == name and curve.quantity in quantities
        )
        for names, others in groups:
            if all(_equal(*pair) for pair in zip(curves, others, strict=True)):
                names.append(name)
                break
        else:
            groups.append(([name], curves))
    return [
        _Line(
            ",\n".join(map(_printable, names)),
            _COLOURS[position % len(_COLOURS)],
            _STYLES[position % len(_STYLES)] if len(quantities) == 1 else None,
            "" if len(quantities) == 1 else _MARKERS[position % len(_MARKERS)],
            curves,
        )
        for position, (names, curves) in enumerate(groups)
    ]


def _printable(name: str) -> str:
    # a dollar would start a formula; a long line would leave no room for the curves
    return textwrap.fill(name.replace("$", r"\$"), 34)


def _equal(curve: Column, other: Column) -> bool:
    return all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(curve.values, other.values, strict=True)
    )


def _label(name: str, unit: str) -> str:
    return plain_label(f"{name[:1].upper()}{name[1:]}" + (f" [{unit}]" if unit != "1" else ""))


def _set_y_scale(axes: Axes, view: View, curves: Sequence[Column]) -> None:
    peaks = [max(filter(math.isfinite, curve.values), default=0.0) for curve in curves]
    peaks = [peak for peak in peaks if peak > 0]
    lows = [value for curve in curves for value in curve.values if value > 0]
    if view.y_scale == "symlog" and peaks:
        # linear from 0 up to two decades below the lowest peak
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(min(peaks) / 100)))
        axes.set_ylim(bottom=0)
    elif view.y_scale == "log" and peaks:
        # less than a decade leaves a logarithmic axis with one tick
        if max(peaks) > 10 * min(lows):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    if view.y_range is not None:
        axes.set_ylim(view.y_range)


def _plot(axes: Axes, table: Table, lines: Sequence[_Line]) -> None:
    for line in lines:
        for curve, style in zip(line.curves, _STYLES, strict=False):
            axes.plot(
                table.axis.values,
                [value if math.isfinite(value) else math.nan for value in curve.values],
                color=line.colour,
                linestyle=style if line.style is None else line.style,
                linewidth=1.6,
                marker=line.marker,
                markevery=range(
                    len(curve.values) // 12, len(curve.values), len(curve.values) // 6 + 1
                ),
                markersize=4,
                label=line.label,
            )


def _shade(axes: Axes, regions: Sequence[tuple[str, float, float]], *, above: bool = False) -> None:
    """Shade the regions in view; narrow ones are named along their side."""
    low, high = axes.get_xlim()
    for (name, start, stop), shade in zip(regions, _SHADES * len(regions), strict=False):
        start, stop = max(start, low), min(stop, high)
        left, right = (_in_axes(axes, x, 1.0)[0] for x in (start, stop))
        if right <= left:
            continue
        axes.axvspan(start, stop, color=shade, linewidth=0, zorder=0)
        is_wide = right - left > 0.1
        axes.text(
            (left + right) / 2 if is_wide else right + 0.01,
            1.02 if above else 0.98,
            plain_label(name),
            transform=axes.transAxes,
            rotation=0 if is_wide else 90,
            ha="center" if is_wide else "left",
            va="bottom" if above else "top",
            fontsize=_LABEL_SIZE,
            style="italic",
        )


def _in_axes(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Return a point of the data as fractions of the axes."""
    place, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    return float(place), float(height)


def _draw_diagonal(axes: Axes, table: Table) -> None:
    ends = [table.axis.values[0], table.axis.values[-1]]
    axes.plot(ends, ends, color="#999999", linewidth=4, alpha=0.5, zorder=1)
    axes.annotate(
        plain_label(table.view.diagonal),
        xy=(ends[0], ends[0]),
        xytext=(40, 4),
        textcoords="offset points",
        fontsize=_LABEL_SIZE,
        color="#555555",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _style_handles(quantities: Sequence[str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="#555555", linestyle=style, label=plain_label(quantity))
        for quantity, style in zip(quantities, _STYLES, strict=False)
    ]


def _one_each(handles: Sequence[Any]) -> list[Any]:
    """Return the first of the lines with each label."""
    return list({handle.get_label(): handle for handle in reversed(handles)}.values())[::-1]


def _add_legend(axes: Axes, handles: Sequence[Any], **place: Any) -> Legend:
    return axes.legend(
        handles=handles, fontsize=_LABEL_SIZE, frameon=False, handlelength=3.5, **place
    )


def _name_lines(axes: Axes, table: Table, lines: Sequence[_Line]) -> None:
    """Label the lines at their right ends, or in a legend where the ends meet."""
    ends = []
    for line in lines:
        drawn = [
            (x, y)
            for x, y in zip(table.axis.values, line.curves[0].values, strict=True)
            if math.isfinite(y)
        ]
        if drawn:
            heights = [min(max(_in_axes(axes, x, y)[1], 0.0), 1.0) for x, y in drawn]
            # among lines that end together, the one from above is named above
            ends.append((round(heights[-1], 2), sum(heights) / len(heights), drawn[-1], line))
    ends.sort(key=lambda end: end[:2])
    if len(ends) > 1 and ends[-1][0] - ends[0][0] < 0.1:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        if table.view.zoom is not None:  # the inset needs the width
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3}
        _add_legend(axes, _one_each(axes.get_legend_handles_labels()[0]), **place)
        return
    row = _LABEL_SIZE * 1.35 * axes.figure.dpi / 72 / axes.get_window_extent().height
    heights = _spread(
        [height for height, *_ in ends],
        [row * (1 + line.label.count("\n")) for *_, line in ends],
    )
    for height, (*_, end, line) in zip(heights, ends, strict=True):
        axes.annotate(
            line.label,
            xy=end,
            xytext=(1.06, height),
            textcoords="axes fraction",
            color=line.colour,
            fontsize=_LABEL_SIZE,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.colour,
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _spread(centres: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Move rising centres apart just enough that labels of these sizes do not overlap."""
    placed = list(centres)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + (sizes[i] + sizes[i - 1]) / 2)
    for i in reversed(range(len(placed))):
        above = 1.0 if i == len(placed) - 1 else placed[i + 1] - sizes[i + 1] / 2
        placed[i] = min(placed[i], above - sizes[i] / 2)
    return placed


def _zoom(axes: Axes, table: Table, lines: Sequence[_Line]) -> None:
    inset = axes.inset_axes((0.36, 0.31, 0.6, 0.5))
    inset.set_xscale("log")
    _plot(inset, table, lines)
    inset.set_xlim(table.view.zoom)
    inset.set_ylim(axes.get_ylim())
    inset.tick_params(labelsize=_LABEL_SIZE - 1)
    _shade(inset, table.view.regions, above=True)
