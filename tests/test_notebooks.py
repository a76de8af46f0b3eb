"""Objects in notebooks: safe and well-formed HTML, plots on the caller's axes, DataFrames."""

from __future__ import annotations

import builtins
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import dense_imb
from dense_imb.base.html_text import MOST_ROWS, html_table
from dense_imb.base.svg_text import SvgAxis, SvgMarks, svg_plot
from dense_imb.base.tabular import Tabular
from dense_imb.compare import ComparisonTable, Contestant
from dense_imb.curves.table import Column, Table, View
from dense_imb.hits import Events, Geometry, Sensors
from dense_imb.hits.table import Evaluation
from dense_imb.metrics import DoseScores, KeyPointScores
from dense_imb.metrics.operating_point import Aim
from dense_imb.runs import Run, open_run
from dense_imb.statistics import ClassStatistics
from dense_imb.tasks.images.evaluate import MEAN, ImagesTable
from dense_imb.tasks.labels.evaluate import LabelsTable
from dense_imb.tasks.values.evaluate import ValuesTable
from tests.metrics.processes import empty_scores, update

# a name from a file of a stranger: markup, mathtext, and an underscore that hides from legends
EVIL = '_</td></table><script>alert("x")</script><img src=x onerror=alert(1)>&$\\frac{'
TAGS = {"div", "span", "table", "tr", "td", "th", "svg", "path", "rect", "text", "polyline"}
ATTRIBUTES = {
    "style", "colspan", "xmlns", "width", "height", "viewbox", "role", "font-family", "font-size",
    "fill", "x", "y", "stroke", "stroke-opacity", "stroke-width", "stroke-linecap", "points", "d",
    "text-anchor", "transform",
}  # fmt: skip


class Checked(HTMLParser):
    """Fails on tags and attributes that we do not write, and on tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.cells: list[int] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        assert not any("url(" in (value or "") for _, value in attrs)
        self.open.append(tag)
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += int(dict(attrs).get("colspan") or 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def events() -> Events:
    rng = np.random.default_rng(0)
    return Events(
        Geometry(88, 128, 1000),
        np.array([0, 0, 40, 60]),
        *(rng.integers(1, high, 60) for high in (88, 128, 1001)),
        label=np.arange(60) % 3,
        hit={"direction": rng.random((60, 2)), EVIL: np.arange(60.0)},
        event={EVIL: np.array([7, 8, 9])},
    )


def sensor_events() -> Events:
    rng = np.random.default_rng(0)
    sensors = Sensors(rng.normal(0, 50, (20, 3)))
    time = np.array([5.0, math.nan, 1e30, *rng.normal(1e4, 10, 27)])
    return Events(sensors, np.array([0, 30]), t=time, sensor=rng.integers(0, 20, 30))


def evaluation() -> Evaluation:
    names = (
        "retention", "removal", "removal_at_97", "purity", "visible_retention", "visible_removal",
        "auc", "time_recovery", "time_recovery_ceiling", "false_alarm_hits_per_event",
        "false_alarm_event_share", "event_retention_q05", "event_retention_q50",
        "event_removal_q05", "event_removal_q50", "events_per_second", "occluded_share",
        "n_events", "n_signal", "n_noise",
    )  # fmt: skip
    rows = [{"scorer": one, **dict.fromkeys(names, 0.5), "auc": math.nan} for one in (EVIL, "a")]
    points = {"retention": 0.97, "fakes": 1.0, "purity": 0.9}
    classes = {EVIL: ({"class": 0, "n_hits": 9.0, "recall": 0.5, "precision": math.nan},)}
    return Evaluation(
        tuple(rows), Aim("retention", 0.97), (0.97,), EVIL, (EVIL,), points, ("a",), classes
    )


def images_table() -> ImagesTable:
    names = (
        "share", "n_pixels", "n_with", "average_precision", "threshold", "f1", "precision",
        "recall", "iou", "best_f1", "auto_threshold", "auto_f1", "tolerant_f1", "likeliest_iou",
        "recall_at_precision", "calibration_error", "likeliest_precision", "likeliest_recall",
        "n_images",
    )  # fmt: skip
    rows = [
        {"scorer": one, "class": k, "class_name": EVIL, **dict.fromkeys(names, 0.5)}
        for one in (EVIL, "blank")
        for k in (MEAN, "1", "2")
    ]
    return ImagesTable(tuple(rows), 2.0, 0.5)


def labels_table() -> LabelsTable:
    names = (
        "n_images", "accuracy", "balanced_accuracy", "head_accuracy", "middle_accuracy",
        "tail_accuracy", "macro_f1", "auc", "quadratic_kappa", "matthews", "calibration_error",
    )  # fmt: skip
    row = {"scorer": EVIL, "class": "all", **dict.fromkeys(names, 0.5), "tail_accuracy": math.nan}
    return LabelsTable((row,), {EVIL: [[1, 2], [3, 4]]}, (EVIL, "b"), 100, 20)


def values_table() -> ValuesTable:
    names = (
        "n", "n_images", "share", "balanced_mae", "skill", "mae", "rmse", "bias", "lit_ratio",
        "f1", "image_mae", "image_spread",
    )  # fmt: skip
    rows = [
        {"scorer": EVIL, "kind": kind, "part": EVIL, **dict.fromkeys(names, -0.5)}
        for kind in ("all", "cell", "bin")
    ]
    return ValuesTable(tuple(rows), 0.5, 3, True, (EVIL,))


def comparison_table() -> ComparisonTable:
    names = (EVIL, "plain", "fails")
    runs = [
        {"loss": name, "seed": seed, "ap": 0.5 + 0.1 * k + 0.01 * seed, "cpu_seconds": 1.0}
        for k, name in enumerate(names[:2])
        for seed in range(2)
    ]
    losses = [Contestant(name, "CrossEntropyLoss") for name in names]
    return ComparisonTable.from_runs(
        runs, ["ap"], losses, 10, plain="plain", failed={"fails": EVIL}, folder=EVIL, kind="images"
    )


def dose_scores() -> DoseScores:
    scores = DoseScores(["possible_dose_mask", EVIL, "PTV70"])
    dose = 70 * torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.cat([dose > -1, dose > 50, dose > 99], 1)
    scores.update(dose + 2.0, dose, masks, voxel_mm=(5.0, 5.0, 5.0))
    return scores


def key_points() -> KeyPointScores:
    scores = KeyPointScores([EVIL, "tail"])
    scores.update(torch.zeros(2, 2, 2), torch.ones(2, 2, 2))
    return scores


def class_statistics() -> ClassStatistics:
    counted = ClassStatistics(3)
    counted.update(torch.tensor([[0] * 90 + [1] * 10]))
    return counted


def sweep() -> Table:
    axis = Column("size", "pixels", (1.0, 2.0))
    return Table(EVIL, axis, (Column(EVIL, "a.u.", (5.0, math.nan), "loss"),), caption=EVIL)


TABLES: dict[str, Callable[[], Tabular]] = {
    make.__name__: make
    for make in (
        evaluation, images_table, labels_table, values_table, comparison_table, dose_scores,
        key_points, class_statistics,
    )
}  # fmt: skip
OTHERS: dict[str, Callable[[], object]] = {
    "events": events, "sensor_events": sensor_events, "no_events": lambda: events()[:0],
    "no_hits": lambda: events()[:1], "tensors": lambda: events().torch(), "sweep": sweep,
}  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of a stranger, whose texts are markup."""
    folder = tmp_path / "run <b>"
    folder.mkdir()
    config = {"hits": {"train": [EVIL]}, "loss": EVIL.replace("$", "")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_records(folder)
    return open_run(folder)


def write_records(folder: Path, **metrics: object) -> None:
    best = {"step": 20.0, "epoch": 1.0, "removal_at_97": 0.9, EVIL: 0.5, "auc": None}
    known = {
        "monitor": "removal_at_97", "best": best, "steps": 20, "seconds": 3.0, "parameters": 77,
        "samples": {"train": 8, "validation": 4, EVIL: 12}, "stopped": EVIL, "is_finished": False,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps({**known, **metrics}))
    (folder / "history.csv").write_text(
        "step,loss,removal_at_97\n10,0.5,0.8\n20,0.3,0.9\n30,0.2,0.7\n40,,\n"
    )


def own_axes() -> Axes:
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def draw(axes: Axes) -> None:
    """Draw for real: mathtext and fonts complain as late as here."""
    axes.figure.canvas.draw()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*TABLES, *OTHERS])
def test_html_is_well_formed_and_holds_no_markup_of_strangers(name):
    page = Checked({**TABLES, **OTHERS}[name]()._repr_html_())
    assert "alert" not in page.get_starttag_text()
    if name not in ("class_statistics", "sensor_events"):
        assert any('<script>alert("x")</script>' in text for text in page.texts)


@pytest.mark.parametrize("i", range(len(empty_scores())))
def test_every_score_has_html(i):
    for scores in (empty_scores()[i], update(empty_scores(), 0, 7)[i]):
        page = Checked(scores._repr_html_())
        assert page.texts[0] == repr(scores)
        assert sum(page.cells) > 0


@pytest.mark.parametrize("name", TABLES)
def test_a_plot_is_drawn_on_the_axes_of_the_caller(name):
    axes = own_axes()
    assert TABLES[name]().plot(axes) is axes
    draw(axes)
    assert len(axes.get_yticklabels()) >= 1


def test_bars_have_the_values_of_the_column():
    axes = dose_scores().plot(own_axes(), "share")
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([row["share"] if row["share"] == row["share"] else 0.0
                                    for row in dose_scores().rows().values()])  # fmt: skip
    assert axes.get_xlabel() == "share"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[::2] == ["possible_dose_mask", "PTV70"]


@pytest.mark.parametrize("name", TABLES)
def test_another_column_is_refused_with_the_names(name):
    with pytest.raises(ValueError, match="Expected `column` to be one of .*, got 'scorer'"):
        TABLES[name]().plot(own_axes(), "scorer")


def test_the_dots_of_a_comparison_are_its_runs():
    axes = comparison_table().plot(own_axes())
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert [list(one) for one in dots] == [pytest.approx([0.6, 0.61]), pytest.approx([0.5, 0.51])]
    assert axes.get_yticklabels()[0].get_text() == "plain"


@pytest.mark.parametrize("name", ["events", "sensor_events", "no_hits", "tensors"])
def test_events_are_drawn(name):
    axes = own_axes()
    for view in (("x", "y"), ("t", "y")):
        assert OTHERS[name]().plot(axes, view=view) is axes
    draw(axes)


def test_a_plot_of_an_event_has_its_hits():
    axes = events().plot(own_axes(), event=2, view="ty")
    one = events()[2]
    assert [len(part.get_offsets()) for part in axes.collections] == [
        int((one.label == k).sum()) for k in range(3)
    ]
    noise = np.stack([one.t, one.y], 1)[one.label == 0]
    assert np.array_equal(axes.collections[0].get_offsets(), noise)
    labels = [text.get_text().partition(":")[0] for text in axes.get_legend().get_texts()]
    assert labels == ["noise", "signal class 1", "signal class 2"]
    assert axes.get_xlabel() == "time (steps)"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"view": ("x", "z")}, r"Expected `view` with two of x, y, t, got \('x', 'z'\)"),
        ({"view": "x"}, "Expected `view` with two of x, y, t, got 'x'"),
        ({"view": "xx"}, "Expected `view` with two of x, y, t"),
        ({"event": 3}, "Expected an event from 0 to 2, got 3"),
        ({"ax": 5}, "Expected `ax` to be axes of matplotlib, got int; pass one of"),
    ],
)
def test_bad_arguments_of_a_plot_are_refused(arguments, problem):
    with pytest.raises((ValueError, IndexError, TypeError), match=problem):
        events().plot(**arguments)


def test_no_event_is_no_plot():
    with pytest.raises(ValueError, match="Expected at least one event to draw, got none"):
        events()[:0].plot()


def test_a_card_shows_the_first_event_with_hits():
    page = Checked(events()._repr_html_())
    assert "event 1" in page.texts
    assert {"noise: 14", "signal class 1: 13"} <= {text.strip() for text in page.texts}


def test_a_card_of_a_large_event_is_small():
    n = 200_000
    place = np.arange(n) % 80
    large = Events(Geometry(), np.array([0, n]), place, place, place + 1)
    page = large._repr_html_()
    assert len(page) < 80_000
    assert "a part of the hits" in page


def test_a_card_of_a_run_has_scores_history_and_state(run):
    page = Checked(run._repr_html_())
    assert page.texts[0] == "Run run <b>"
    assert {"removal at 97", "0.9", "20 in 3 s", "77"} <= set(page.texts)
    assert f"Ended early: {EVIL}" in page.texts


def test_a_run_without_records_has_a_card(run):
    (run.folder / "metrics.json").unlink()
    (run.folder / "history.csv").unlink()
    assert "No validation yet." in Checked(run._repr_html_()).texts


@pytest.mark.parametrize(
    "metrics",
    [
        {"best": {"step": None, "removal_at_97": "x" * 10_000}, "steps": EVIL, "monitor": []},
        {"best": [1, 2], "samples": 5},
        {"seconds": {"a": 1}},
        {"seconds": "soon", "parameters": [[]], "is_finished": False, "stopped": None},
    ],
)
def test_damaged_records_raise_nothing(run, metrics):
    write_records(run.folder, **metrics)
    page = run._repr_html_()
    Checked(page)
    assert len(page) < 20_000


@pytest.mark.parametrize("history", ["", "step\n", "step,loss\n1,inf\n2,1e308\n3,-1e308\n", "\0"])
def test_a_damaged_history_raises_nothing(run, history):
    (run.folder / "history.csv").write_text(history)
    Checked(run._repr_html_())


def test_a_run_draws_its_monitored_score(run):
    axes = run.plot(own_axes())
    draw(axes)
    curve, ring = axes.lines
    assert curve.get_ydata()[:3].tolist() == [0.8, 0.9, 0.7]
    assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == ([20.0], [0.9])
    assert axes.get_ylabel() == "removal at 97"
    both = run.plot(own_axes(), ["loss", "removal_at_97"])
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["loss", "removal at 97"]


def test_a_run_refuses_what_it_can_not_draw(run):
    with pytest.raises(ValueError, match="Expected `columns` among .*, got 'los'. Did you mean"):
        run.plot(own_axes(), "los")
    (run.folder / "history.csv").unlink()
    with pytest.raises(ValueError, match="Expected a validation in .*history.csv, got none yet"):
        run.plot(own_axes())


def test_a_network_of_the_package_has_a_card_and_no_history():
    network = dense_imb.pretrained("arc")
    page = Checked(network._repr_html_())
    assert {"Pretrained network arc", "88 x 128 x 1000", "AUC"} <= set(page.texts)
    assert repr(network) == "Pretrained('arc', hits, hits:base)"
    with pytest.raises(ValueError, match="come without the history of their training; `card"):
        network.plot(own_axes())


def test_names_of_strangers_are_no_formulas_in_a_sweep():
    view = View(regions=((EVIL, 1.0, 2.0),), diagonal=EVIL)
    draw(replace(sweep(), axis=Column(EVIL, EVIL, (1.0, 2.0)), view=view).plot(own_axes()))


def test_a_sweep_is_drawn():
    axis = Column("size", "pixels", (1.0, 2.0))
    table = Table("Losses", axis, (Column("MSE", "a.u.", (5.0, 7.0), "loss"),))
    axes = table.plot(own_axes())
    draw(axes)
    assert axes.lines[0].get_ydata().tolist() == [5.0, 7.0]


def test_plots_need_no_display_and_no_pyplot(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    axes = events().plot()
    draw(axes)
    assert "matplotlib.pyplot" not in sys.modules
    assert isinstance(axes.figure.canvas, FigureCanvasAgg)


@pytest.mark.parametrize("is_notebook", [False, True])
def test_where_pyplot_is_in_use_its_current_axes_are_taken(is_notebook, monkeypatch):
    from matplotlib import pyplot

    figure = pyplot.figure()  # the first one looks for the shell, which is a stub below
    if is_notebook:  # whose code may not have imported pyplot
        shell = SimpleNamespace(get_ipython=lambda: "a shell")
        monkeypatch.setitem(sys.modules, "IPython", shell)
        monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", None)
    assert events().plot() is pyplot.gca()
    pyplot.close(figure)


def test_cards_need_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for make in (events, evaluation, class_statistics):
        Checked(make()._repr_html_())


def test_a_long_table_is_cut():
    page = html_table([["class"], *([str(k)] for k in range(MOST_ROWS + 3))])
    assert Checked(page).texts[-1] == "and 3 more rows"
    assert str(MOST_ROWS - 1) in Checked(page).texts


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (0.0, 5e-324), (1.0, 1.0 + 1e-15), (-1e308, 1e308), (math.nan, 1.0),
     (math.inf, math.inf), (1e308, 1e308), (3.0, 2.0)],
)  # fmt: skip
def test_a_small_plot_stands_any_limits(low, high):
    axis = SvgAxis("x", low, high)
    marks = SvgMarks([low, high, math.nan, math.inf], [0.0, high, 1.0, low], "#000")
    for is_line in (False, True):
        page = svg_plot([marks._replace(is_line=is_line)], axis, axis, title=EVIL, size=(200, 150))
        Checked(page)
        assert "nan" not in page
        assert len(page) < 9000


def test_events_are_awkward_arrays_and_back():
    pytest.importorskip("awkward")
    whole = Events(Geometry(), np.array([0, 0, 2]), *np.arange(1, 7).reshape(3, 2))
    again = Events.from_awkward(whole.to_awkward(), Geometry())
    assert again.x.tolist() == [1, 2]
    assert again.offset.tolist() == [0, 0, 2]


def test_tables_are_data_frames():
    pytest.importorskip("pandas")
    frame = dose_scores().to_pandas()
    assert list(frame.columns)[:2] == ["structure", "n_patients"]
    assert frame["structure"].tolist() == ["possible_dose_mask", EVIL, "PTV70"]
    assert math.isnan(frame["mae"][2])
    table = evaluation()
    assert table.to_pandas().equals(table.to_pandas())
    assert len(table.to_pandas()) == len(table.rows)
    assert sweep().to_pandas().columns[0] == "size [pixels]"


def test_events_are_a_data_frame_with_a_row_a_hit():
    pytest.importorskip("pandas")
    frame = events().to_pandas()
    assert frame.index.names == ["event", "hit"]
    assert frame.loc[2].index.tolist() == list(range(20))
    assert frame["x"].tolist() == events().x.tolist()
    assert frame["direction_1"].tolist() == events().hit["direction"][:, 1].tolist()
    assert frame[EVIL].tolist() == [8] * 40 + [9] * 20
    assert frame[f"hit_{EVIL}"].tolist() == list(range(60))
    assert len(events().torch()[:0].to_pandas()) == 0


def test_a_history_is_a_data_frame(run):
    pytest.importorskip("pandas")
    frame = run.to_pandas()
    assert frame.index.tolist() == [10, 20, 30, 40]
    assert frame["loss"][20] == 0.3
    (run.folder / "history.csv").unlink()
    assert len(run.to_pandas()) == 0


@pytest.mark.parametrize("make", [*TABLES.values(), events, sweep])
def test_without_pandas_one_sentence_says_what_to_install(make, monkeypatch):
    imported = builtins.__import__

    def no_pandas(name, *rest):
        if name == "pandas":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(ImportError, match="Expected the library pandas, got none; pip install"):
        make().to_pandas()
