"""The numbers that are drawn, not the pixels."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from dense_imb.curves import GradientShare, SignalSize, Table, draw, save_figure, sweep
from dense_imb.curves.figure import _spread
from dense_imb.curves.table import Column, View
from dense_imb.losses import ACBMSELoss


def table_of(*curves, x=(1.0, 2.0, 3.0), view=None):
    columns = tuple(Column(name, "a.u.", tuple(values), "loss") for name, values in curves)
    return Table("T", Column("x", "s", tuple(x)), columns, view=view or View())


def drawn(table, **options):
    axes = Figure(figsize=(7, 4), layout="constrained").add_subplot()
    canvas = FigureCanvasAgg(axes.figure)
    draw(table, axes, **options)
    canvas.draw()
    return axes


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_three_lines_on_the_callers_axes():
    axes = Figure().add_subplot()
    table = sweep(SignalSize(frame=(6, 10)), [ACBMSELoss(), nn.MSELoss()])
    draw(table, axes)

    assert tuple(lines(axes)["MSELoss"].get_xdata()) == table.axis.values
    assert tuple(lines(axes)["MSELoss"].get_ydata()) == table["MSELoss"]
    assert tuple(lines(axes)["ACBMSELoss"].get_ydata()) == table["ACBMSELoss"]
    assert axes.get_xlabel() == "Signal size [fraction of the frame]"
    assert axes.get_ylabel() == "Loss [a.u.]"
    assert axes.get_yscale() == "log"


def test_what_was_there_stays():
    axes = Figure().add_subplot()
    axes.plot([1, 2], [3, 4], label="theirs")
    draw(table_of(("a", (1.0, 2.0, 3.0))), axes)
    assert set(lines(axes)) == {"theirs", "a"}


def test_gradient_on_request():
    table = sweep(SignalSize(frame=(6, 10)), [nn.MSELoss()])
    axes = drawn(table, quantities=["gradient"])
    assert tuple(axes.lines[0].get_ydata()) == table.curves[1].values
    assert axes.get_ylabel() == "Gradient [a.u. per value]"
    with pytest.raises(ValueError, match=r"`quantities` among \('loss', 'gradient'\), got 'los'"):
        drawn(table, quantities=["los"])


def test_gap_stays_a_gap():
    axes = drawn(table_of(("a", (1.0, math.nan, 3.0)), ("b", (1.0, math.inf, 2.0))))
    for line in axes.lines:
        assert [math.isnan(value) for value in line.get_ydata()] == [False, True, False]


def test_labels_name_the_ends():
    axes = drawn(table_of(("low", (1.0, 1.0, 1.0)), ("high", (1.0, 5.0, 9.0))))
    labels = {text.get_text(): text for text in axes.texts}
    assert labels["low"].xy == (3.0, 1.0)
    assert labels["high"].xy == (3.0, 9.0)
    assert labels["low"].get_color() == lines(axes)["low"].get_color()
    assert axes.get_legend() is None


def test_label_of_a_line_that_ends_early():
    axes = drawn(table_of(("a", (1.0, 5.0, math.nan)), ("b", (1.0, 1.0, 1.0))))
    (label,) = [text for text in axes.texts if text.get_text() == "a"]
    assert label.xy == (2.0, 5.0)


def test_legend_inside_where_the_layout_makes_no_room():
    axes = Figure().add_subplot()
    canvas = FigureCanvasAgg(axes.figure)
    draw(table_of(("a", (1.0, 5.0, 9.0)), ("b", (1.0, 1.0, 2.0))), axes)
    canvas.draw()
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert axes.bbox.containsx(legend.get_window_extent().x0)
    assert axes.bbox.containsx(legend.get_window_extent().x1)
    assert not axes.texts


def test_legend_where_the_ends_meet():
    axes = drawn(table_of(("a", (1.0, 5.0, 0.0)), ("b", (9.0, 1.0, 0.0))))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_equal_curves_share_a_line():
    axes = drawn(table_of(("a", (1.0, 2.0, 3.0)), ("b", (1.0, 2.0, 3.0)), ("c", (3.0, 2.0, 1.0))))
    assert list(lines(axes)) == ["a,\nb", "c"]


def test_labels_do_not_overlap():
    axes = drawn(table_of(*((f"loss {i}", (0.0, 0.0, i / 10 + 5 * (i > 4))) for i in range(10))))
    boxes = sorted((Text.get_window_extent(t) for t in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 10
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_spread_moves_no_more_than_needed():
    assert _spread([0.1, 0.5, 0.9], [0.1] * 3) == pytest.approx([0.1, 0.5, 0.9])
    assert _spread([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.5, 0.6])
    assert _spread([1.0, 1.0], [0.1, 0.1]) == pytest.approx([0.85, 0.95])


def test_lines_differ_without_colour():
    axes = drawn(table_of(*((f"{i}", (1.0, i, i)) for i in range(8))))
    dashes = [str(line._unscaled_dash_pattern) for line in axes.lines]
    assert len(set(dashes)) == 8


def test_quantities_differ_by_style_and_losses_by_marker():
    curves = [
        Column(name, "a.u.", (1.0 + i, 2.0 + i, 3.0 + i + j), f"loss of {quantity}")
        for i, name in enumerate("ab")
        for j, quantity in enumerate(("blank", "best"))
    ]
    table = Table(
        "T",
        Column("x", "1", (1.0, 2.0, 3.0)),
        tuple(curves),
        view=View(("loss of blank", "loss of best")),
    )
    found = drawn(table).lines
    axes = Figure().add_subplot()
    draw(table, axes)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a", "b", "loss of blank", "loss of best"]
    assert [line.get_marker() for line in found] == ["o", "o", "s", "s"]
    assert [line.get_linestyle() for line in found] == ["-", "--", "-", "--"]


def test_symlog_shows_zero():
    axes = drawn(table_of(("a", (5.0, 0.0, 9e4)), view=View(y_scale="symlog")))
    assert axes.get_yscale() == "symlog"
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= 9e4


@pytest.mark.parametrize(("top", "scale"), [(9.0, "linear"), (11.0, "log")])
def test_less_than_a_decade_is_drawn_linearly(top, scale):
    axes = drawn(table_of(("a", (1.0, 2.0, top)), view=View(y_scale="log")))
    assert axes.get_yscale() == scale


def test_frequency_is_there_to_compare_with():
    axes = drawn(sweep(GradientShare(frame=(6, 10)), [nn.MSELoss()]))
    ends = (1 / 60, 0.5)
    assert any(tuple(line.get_xdata()) == tuple(line.get_ydata()) == ends for line in axes.lines)
    assert "share = frequency" in {text.get_text() for text in axes.texts}


def test_regions_and_inset():
    view = View(regions=(("outlier", 0.0, 1.1), ("easy", 1.1, 9.0)), zoom=(1.0, 2.0))
    axes = drawn(table_of(("a", (1.0, 2.0, 3.0)), view=view))
    assert {"outlier", "easy"} <= {text.get_text() for text in axes.texts}
    assert axes.get_xlim() == pytest.approx((1.0, 3.0), abs=0.01)
    (inset,) = axes.child_axes
    assert inset.get_xlim() == (1.0, 2.0)
    assert tuple(inset.lines[0].get_ydata()) == (1.0, 2.0, 3.0)


def test_odd_names_are_drawn():
    name = "Odd$name_{with=('every$thing', 1e-3), and=['much', 'more'], of='it'}"
    axes = drawn(table_of((name, (1.0, 2.0, 3.0))))
    (text,) = axes.texts
    assert text.get_text().replace("\n", " ").replace("\\", "") == name


def test_nothing_to_draw_is_a_figure(tmp_path):
    view = View(y_scale="log")
    save_figure(table_of(("a", [math.nan] * 3), ("b", [0.0] * 3), view=view), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_same_numbers_same_bytes(suffix, tmp_path):
    table = sweep(SignalSize(frame=(6, 10)), [nn.MSELoss()])
    for name in "ab":
        save_figure(table, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_no_display_and_no_pyplot(tmp_path):
    code = (
        "import sys, json, dense_imb.curves as curves, torch\n"
        "before = sorted(sys.modules)\n"
        "table = curves.sweep(curves.SignalSize(frame=(6, 10)), torch.nn.MSELoss())\n"
        f"curves.save_figure(table, {str(tmp_path / 'a.png')!r})\n"
        "print(json.dumps([before, 'matplotlib.pyplot' in sys.modules]))"
    )
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["MPLBACKEND"] = "TkAgg"  # a backend that would need a display
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    before, has_pyplot = json.loads(done.stdout)
    assert (tmp_path / "a.png").exists()
    assert not has_pyplot
    roots = {name.split(".")[0] for name in before}
    assert not roots & {"matplotlib", "monai", "segmentation_models_pytorch", "h5py"}
