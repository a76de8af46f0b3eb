"""The axes show the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dense_imb.hits import (
    Degradation,
    Events,
    Geometry,
    Sensors,
    available_baselines,
    degrade,
    evaluate,
)
from dense_imb.hits.baselines import HitDensity
from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram
from dense_imb.report.hits import displays, figures
from dense_imb.report.hits.measures import EventSample, HitMeasures, _Recorder
from dense_imb.report.hits.profiles import ScoreProfile, profiles_of, values_along
from dense_imb.report.images import figures as image_figures
from dense_imb.report.images.measures import sample_of
from tests.report.conftest import clean_events


@pytest.fixture(scope="module")
def measured() -> HitMeasures:
    """Hit density as the network, for it needs no training."""
    events = degrade(clean_events(40, 3), Degradation(signal=8, noise=(20, 60)), seed=3)
    recorder = _Recorder("hit density")
    table = evaluate(available_baselines()[0], None, events, watch=recorder, batch_size=16)
    counts = np.concatenate(recorder.counts)
    return HitMeasures(table, recorder.scores, counts, recorder.samples(), recorder.profiles)


def axes_of(draw) -> dict[str, object]:
    figure = Figure(figsize=(9, 5), layout="constrained")
    draw(figure)
    figure.canvas.draw()
    return {axes.get_title(loc="left") or axes.get_title(): axes for axes in figure.axes}


def histogram_of(signal: list[float], noise: list[float]) -> ScoreHistogram:
    histogram = ScoreHistogram()
    is_signal = torch.tensor([True] * len(signal) + [False] * len(noise))
    histogram.update(torch.tensor([*signal, *noise]), is_signal)
    return histogram


def test_steps_are_those_of_every_threshold():
    retention, kept = figures.removal_steps(histogram_of([0.2, 0.6, 0.9], [0.1, 0.3, 0.7, 0.7]))
    # at 0.9; 0.6 (two noise above); 0.2 (three)
    np.testing.assert_allclose(retention, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(kept, [0, 0, 2 / 4, 3 / 4], atol=1e-12)
    for only_one_class in (histogram_of([], [0.5]), histogram_of([0.5], [])):
        assert len(figures.removal_steps(only_one_class)[0]) == 0


def test_removal_stands_on_both_panels(measured):
    axes = axes_of(lambda to: figures.draw_removal(measured, "hit density", to))
    whole, zoom = axes["Whole curve"], axes["High retention"]
    retention, kept = figures.removal_steps(measured.scores["hit density"].histogram)
    widest = max(whole.lines, key=lambda line: line.get_linewidth() * (len(line.get_xdata()) > 2))
    np.testing.assert_allclose(widest.get_xdata(), 100 * retention)
    np.testing.assert_allclose(widest.get_ydata(), 100 * (1 - kept))
    labels = {line.get_label(): line for line in zoom.lines}
    assert "identity, blank" in labels
    assert {"blurred hits", "median filter", "hit density"} <= {*labels}
    row = measured.evaluation["hit density"]
    (x,), (y,) = labels["operating point"].get_data()
    assert (x, y) == pytest.approx((100 * row["retention"], 1 - row["removal"]))
    assert zoom.get_xlim()[0] == 90
    assert zoom.get_yscale() == "log"
    bottom, top = zoom.get_ylim()
    assert bottom > top  # less noise left is better, and higher
    named = {tick.get_text() for tick in zoom.get_yticklabels()}
    assert {"0", "90", "99"} <= named
    # every line is told apart without its colour
    styles = [line.get_linestyle() + str(line.get_linewidth()) for line in zoom.lines[:-2]]
    dashes = {str(line._unscaled_dash_pattern) for line in zoom.lines[:-2]}
    assert len(dashes) == len(styles)


def test_curves_of_training_are_those_of_the_history():
    names = ("loss", "auc", "learning_rate", "recall_at_half", "lit_at_half")
    names += tuple(f"gradient_share_{kind}" for kind in ("signal", "noise", "empty"))
    history = [
        {
            "step": 10.0 * k,
            "removal_at_97": 1 - 0.1**k,
            **{n: (k + j) / 20 for j, n in enumerate(names)},
        }
        for k in (1, 2, 3)
    ]
    history[1]["auc"] = float("nan")
    del history[0]["gradient_share_empty"]
    axes = axes_of(lambda to: figures.draw_training(history, to))
    assert len(axes) == 6
    assert axes["Loss, mean since the last validation"].lines[0].get_ydata().tolist() == [
        0.05, 0.1, 0.15,
    ]  # fmt: skip
    (line,) = axes["Noise removed (%) at a retention"].lines
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.01, 0.001])
    assert line.get_xdata().tolist() == [10, 20, 30]
    assert np.isnan(axes["AUC"].lines[0].get_ydata()).tolist() == [False, True, False]
    shares = axes["Share of the loss's gradient"].lines
    assert [line.get_label() for line in shares] == ["signal", "noise", "empty"]
    assert np.isnan(shares[2].get_ydata()[0])


@pytest.mark.parametrize(
    "history",
    [
        [{"step": 1.0}],
        [{"step": 1.0, "loss": float("nan"), "removal_at_97": float("nan")}],
        [{"step": 1.0, "loss": 3.0, "removal_at_97": 1.0, "removal_at_99.5": 0.0}],
    ],
    ids=["nothing", "nan", "perfect"],
)
def test_any_history_is_drawn(history):
    axes_of(lambda to: figures.draw_training(history, to))


def test_the_histogram_counts_every_hit():
    histogram = histogram_of([0.2, 0.6, 0.9, 1.0], [0.0, 0.1, 0.3])
    edges, signal, noise = figures.score_bins(histogram)
    logit = np.log(np.array([0.2, 0.6, 0.9]) / (1 - np.array([0.2, 0.6, 0.9])))
    wanted, _ = np.histogram([*logit, 20.4], edges)
    assert signal.tolist() == wanted.tolist()
    assert noise.sum() == 3
    assert (np.diff(edges) > 0).all()
    point = OperatingPoint(0.6, "probability", 0.75, 1, 1, 4, 3)
    scores = HitScores(point)
    label = torch.tensor([1, 1, 0])
    scores.update(torch.tensor([0.7, 0.9, 0.1]), label, torch.zeros(3, dtype=torch.int64))
    (axes,) = axes_of(lambda to: figures.draw_scores(scores, to)).values()
    assert axes.get_yscale() == "log"
    (line,) = axes.lines
    assert line.get_xdata()[0] == pytest.approx(np.log(0.6 / 0.4))
    patches = {patch.get_label(): patch for patch in axes.patches}
    assert patches["signal"].get_data().values.sum() == 2
    assert patches["noise"].get_data().values.sum() == 1


@pytest.mark.parametrize("threshold", [0.0, float("inf")])
def test_thresholds_at_the_ends_are_drawn(threshold):
    scores = HitScores(OperatingPoint(threshold, "probability", 1, 0, 0.5, 1, 1))
    label = torch.tensor([1, 0])
    scores.update(torch.ones(2), label, torch.zeros(2, dtype=torch.int64))
    axes_of(lambda to: figures.draw_scores(scores, to))


def test_every_verdict_has_its_mark(measured):
    (first, *_) = measured.samples
    events = first.events
    verdict = np.arange(events.n_hits) % 4
    axes = axes_of(lambda to: displays.draw_sample(EventSample("any", 0, events, verdict), to))
    after = axes["After: verdicts"]
    counts = {c.get_label(): len(c.get_offsets()) for c in after.collections}
    assert counts == {
        f"{name}: {(verdict == k).sum()}": (verdict == k).sum()
        for k, name in enumerate(displays.VERDICTS)
    }
    looks = {
        (str(c.get_paths()[0].vertices.tolist()), c.get_facecolor().size) for c in after.collections
    }
    assert len(looks) == 4  # told apart without colour
    before = axes["Before: truth"]
    assert sum(len(c.get_offsets()) for c in before.collections) == events.n_hits
    (deep,) = [one for title, one in axes.items() if getattr(one, "name", "") == "3d"]
    assert deep.get_ylabel() == "time (steps)"


def telescope_event(n_axes: int = 3) -> Events:
    """Two strings of four floors, 31 sensors a floor; six signal hits move downwards."""
    rng = np.random.default_rng(2)
    floor = np.repeat(np.arange(8), 31)
    place = np.stack([100.0 * (floor // 4), 0 * floor, 40.0 * (floor % 4)], 1)
    place = (place + rng.uniform(-0.2, 0.2, place.shape))[
        :, [0, 2, 1] if n_axes == 2 else [0, 1, 2]
    ]
    sensor = np.r_[rng.integers(0, len(place), 30), [120, 95, 94, 60, 33, 1]]
    time = np.r_[rng.uniform(0, 900, 30), 400 + 50 * np.arange(6)]
    label = (np.arange(36) >= 30).astype(np.uint8)
    return Events(Sensors(place[:, :n_axes]), np.array([0, 36]), t=time, sensor=sensor, label=label)


def sensor_views(n_axes: int) -> tuple[list, np.ndarray, Events]:
    events = telescope_event(n_axes)
    verdict = np.where(events.label > 0, np.arange(36) % 2, 2 + (np.arange(36) < 3))
    figure = Figure(layout="constrained")
    displays.draw_sample(EventSample("any", 0, events, verdict), figure)
    FigureCanvasAgg(figure).draw()
    return figure.axes, verdict, events


def test_an_event_of_sensors_is_drawn_in_space_and_its_colours_are_times():
    axes, verdict, events = sensor_views(3)
    labels = [(one.get_xlabel(), one.get_ylabel()) for one in axes]
    flat = [("x (m)", "z (m)"), ("y (m)", "z (m)"), ("time (ns)", "z (m)")]
    assert labels == 2 * [("x (m)", "y (m)"), *flat] + [("time of signal hits (ns)", "")]
    after = {c.get_label(): c for c in axes[5].collections if not c.get_label().startswith("_")}
    kept = after["signal kept: 3"]
    chosen = verdict == 0
    np.testing.assert_allclose(kept.get_array(), events.t[chosen])
    np.testing.assert_allclose(kept.get_offsets(), events.position()[chosen][:, [0, 2]])
    assert kept.get_clim() == axes[1].collections[-1].get_clim()  # one scale before and after
    assert {*after} == {"signal kept: 3", "signal lost: 3", "noise kept: 3", "noise removed: 27"}
    deep = {c.get_label() for c in axes[4].collections}
    assert "noise removed: 27" not in deep
    assert "signal lost: 3" in deep
    sensors = axes[1].collections[0].get_offsets()
    assert 8 <= len(sensors) <= 16  # 248 sensors: those of a floor are one dot or two


def test_sensors_of_a_plane_are_drawn_in_it_and_in_time():
    axes, _, events = sensor_views(2)
    labels = [(one.get_xlabel(), one.get_ylabel()) for one in axes]
    assert labels == 2 * [("x (m)", "y (m)"), ("time (ns)", "y (m)"), ("x (m)", "time (ns)")]
    height = displays.sample_size(EventSample("any", 0, events, np.zeros(36, np.int64)))[1]
    assert 6 < height < 16


def test_hidden_hits_have_a_view_in_which_they_are_apart():
    frame = Geometry(4, 3, 9)
    x, t = np.array([1, 1, 2]), np.array([3, 8, 5])
    events = Events(frame, np.array([0, 3]), x, x, t, np.array([1, 0, 1], np.uint8))
    sample = EventSample("any", 0, events, np.array([0, 3, 1]), n_hidden=1)
    assert displays.describe_views(sample) == "x-y, time-y and x-time-y"
    figure = Figure(layout="constrained")
    displays.draw_sample(sample, figure)
    after = next(one for one in figure.axes[3:] if one.get_xlabel() == "time (steps)")
    drawn = {c.get_label(): c.get_offsets().tolist() for c in after.collections}
    assert drawn["signal kept: 1"] == [[3, 1]]
    assert drawn["noise kept: 1"] == [[8, 1]]
    shown = EventSample("any", 0, events, np.array([0, 3, 1]))
    assert displays.describe_views(shown) == "x-y and x-time-y"


def test_profiles_show_the_quantiles_of_every_bin(measured):
    time, y = measured.profiles
    assert (time.label, y.label) == ("time (steps)", "y (pixels)")
    histogram = measured.scores["hit density"].histogram
    assert time.counts[1].sum() == y.counts[1].sum() == histogram.n_signal
    assert time.counts[0].sum() == histogram.n_noise
    axes = axes_of(
        lambda to: figures.draw_profiles(
            measured.profiles, measured.scores["hit density"].operating_point, to
        )
    )
    drawn = {p.get_label(): p.get_data() for p in axes["Against time"].patches}
    np.testing.assert_array_equal(drawn["signal"].values, time.quantile(0.5, is_signal=True))


def test_a_profile_of_sensors_has_a_bin_for_each_floor():
    events = telescope_event()
    time, depth = profiles_of(events)
    assert len(depth.edges) == 5
    for profile, value in zip((time, depth), values_along(events), strict=True):
        profile.update(value, np.full(36, 0.5), events.label > 0)
        assert profile.counts.sum() == 36
    floor = np.bincount((events.sensor[30:] // 31) % 4, minlength=4)
    assert depth.counts[1].sum(1).tolist() == floor.tolist()
    few = ScoreProfile("z (m)", np.array([0.0, 1.0]))
    few.update(np.full(9, 0.5), np.full(9, 0.9), np.ones(9, bool))
    assert np.isnan(few.quantile(0.5, is_signal=True)).all()


def test_a_frame_of_one_pixel_is_drawn():
    one = np.array([0])
    events = Events(Geometry(1, 1, 1), np.array([0, 1]), one, one, one + 1, one + 1)
    axes_of(lambda to: displays.draw_sample(EventSample("any", 0, events, np.array([0])), to))


def test_single_events_add_up(measured):
    both = axes_of(lambda to: figures.draw_events(measured, to))
    axes = both["Events with more hits"]
    row = measured.evaluation["hit density"]
    events = measured.events
    assert events[:, 1].sum() == row["n_signal"]
    assert events[:, 3].sum() == row["n_noise"]
    assert events[:, 2].sum() / events[:, 1].sum() == pytest.approx(row["retention"])
    assert 1 - events[:, 4].sum() / events[:, 3].sum() == pytest.approx(row["removal"])
    groups = figures.by_number_of_hits(events)
    for line, name in zip(axes.lines, ("removal", "retention"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), [100 * g[name] for g in groups])
    drawn = {patch.get_label(): patch.get_data() for patch in both["Hits per event"].patches}
    assert {name: data.values.sum() for name, data in drawn.items()} == dict.fromkeys(
        ("all hits", "signal hits", "kept hits"), len(events)
    )
    assert len(groups) > 4
    assert sum(g["n_events"] for g in groups) == len(events)
    weights = [g["hits"] * g["n_events"] for g in groups]
    assert sum(weights) == pytest.approx(events[:, 0].sum())


def test_no_legend_lies_on_a_curve(measured):
    """Legends stand beside the axes, or in room made for them."""
    history = [
        {
            "step": 10.0 * k,
            **{f"removal_at_{r}": 1 - 0.1**k for r in (90, 95, 97, 99)},
            **{f"gradient_share_{n}": k / 10 for n in ("signal", "noise", "empty")},
            **dict.fromkeys(("loss", "auc", "recall_at_half", "lit_at_half"), k / 10),
        }
        for k in range(11)
    ]
    for draw in (
        lambda to: figures.draw_training(history, to),
        lambda to: figures.draw_events(measured, to),
    ):
        figure = Figure(figsize=(9.5, 9), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.canvas.draw()
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        boxes = [legend.get_window_extent() for legend in legends if legend is not None]
        assert boxes
        for axes in figure.axes:
            for line in axes.lines:
                for x, y in line.get_transform().transform(line.get_xydata()):
                    assert not any(box.contains(x, y) for box in boxes), line.get_label()
            words = [axes.title, axes.xaxis.label, *axes.get_xticklabels()]
            shown = [word.get_window_extent() for word in words if word.get_text()]
            assert not any(box.overlaps(one) for box in boxes for one in shown)


def test_the_recorder_keeps_the_scores_of_evaluate(measured):
    for row in measured.evaluation.rows:
        scores = measured.scores[row["scorer"]].scores()
        assert scores["removal"] == pytest.approx(row["removal"])
    assert HitDensity.name in measured.scores


def _sample_of(truth, verdict):
    shape = truth.shape
    return sample_of(
        "typical", "0", "", {}, np.zeros((*shape, 1), np.uint8), truth,
        np.zeros(shape, np.float32), verdict,
    )  # fmt: skip


def _colours(handles):
    return {to_hex(handle.get_facecolor()) for handle in handles}


def test_the_legends_of_a_sample_name_every_colour_and_share_none():
    truth = np.array([[0, 1, 1], [2, 2, 3]], np.uint8)
    figure = Figure(layout="constrained")
    sample = _sample_of(truth, np.array([[2, 1, 3], [4, 1, 1]]))
    image_figures.draw_sample(sample, ["arc", "$ring", "_line"], None, figure)
    of_truth = figure.axes[1].get_legend()
    assert [text.get_text() for text in of_truth.get_texts()] == ["arc", r"\$ring", " _line"]
    of_errors = figure.legends[0]
    words = [text.get_text().partition(":")[0] for text in of_errors.get_texts()]
    assert words == ["background (pale)", "found", "false alarm", "missed", "wrong class"]
    assert not _colours(of_truth.get_patches()) & _colours(of_errors.get_patches())
    FigureCanvasAgg(figure).draw()  # no formula in a name


def test_the_truth_of_one_class_is_named_too():
    figure = Figure(layout="constrained")
    sample = _sample_of(np.eye(3, dtype=np.uint8), np.eye(3, dtype=np.int64))
    image_figures.draw_sample(sample, ["foreground"], 0.5, figure)
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["foreground"]


@pytest.mark.parametrize(("best", "top"), [(0.04, 0.06), (0.97, 1.45), (math.nan, 1.45)])
def test_the_panel_of_small_scores_ends_near_them(best, top):
    history = [
        {"step": 10.0 * k, "average_precision": best * k, "average_precision_1": best * k / 2}
        for k in range(2)
    ]
    figure = Figure()
    image_figures.draw_image_training(history, ["arc", "ring"], figure)
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "Average precision"
                 or axes.get_title() == "Average precision")  # fmt: skip
    low, high = panel.get_ylim()
    assert low < 0
    assert math.isnan(best) or high > best
    assert high <= top
    assert max(panel.get_yticks()) <= 1.04
