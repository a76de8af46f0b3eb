"""The page of a comparison, and its scores at equal operating points."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.compare import ComparisonTable, Contestant, compare, write_page
from dense_imb.compare.benchmark import Settings
from dense_imb.compare.contestants import PLAIN
from dense_imb.compare.examples import _plane, draw_examples, make_examples, shown_losses
from dense_imb.compare.figure import draw, draw_objects
from dense_imb.compare.images import ImagesBenchmark
from dense_imb.compare.objects import CURVE, HalfScores, Objects, Scores, read_curve, recall_at
from dense_imb.compare.table import holm
from dense_imb.report.images.figures import VERDICT_COLOURS
from dense_imb.report.images.measures import VERDICTS
from dense_imb.report.page import is_report
from dense_imb.runs import open_run
from dense_imb.tasks.images.recipe import open_images, open_test_images
from tests.compare.test_failures import Mine
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

LOSSES = [Contestant(PLAIN, "CrossEntropyLoss", False), Contestant("ours", "HardMiningLoss"),
          Contestant("broken", Mine("raise"))]  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory):
    folders = write_folders(tmp_path_factory.mktemp("pictures"), n=12)
    return tiny_images(folders, images={"test_share": 0.25})


@pytest.fixture(scope="module")
def table(config, tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    folder = tmp_path_factory.mktemp("compared") / "all"
    return compare(config, folder, losses=LOSSES, n_seeds=2, steps=4, say=lambda line: None,
                   is_quiet=True)  # fmt: skip


def test_the_page_has_scores_objects_examples_and_failures(table):
    path = write_page(table)
    assert path == Path(table.folder) / "comparison.html"
    page = path.read_text()
    assert is_report(page.encode())
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Scores", "Objects found at a number of false ones", "Examples", "Losses",
        "Origin of the comparison", "Commands to repeat and use it",
    ]  # fmt: skip
    assert page.count("data:image/png;base64,") == 3
    assert "got RuntimeError: the kernel is missing (after 0 steps)" in page
    for loss, text in table.losses.items():
        assert loss in page
        assert text in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_curve_and_the_score_are_those_of_the_network(table, config):
    """The threshold is chosen on validation images, the recall measured on test images."""
    pytest.importorskip("scipy")
    _, validation = open_images(config.images)
    network = open_run(table.run_folder("ours", 0)).trained(device="cpu")
    scores = Scores(2)
    for i in range(len(validation)):
        scores.update(network.logits(validation.image(i)), validation.label(i))
    chosen, measured = Objects(scores.thresholds()), Objects(scores.thresholds())
    test = open_test_images(config.images)
    for objects, images in ((chosen, validation), (measured, test)):
        for i in range(len(images)):
            objects.update(network.logits(images.image(i)), images.label(i))
    (point,) = measured.at(chosen.thresholds_at(1))
    run = next(run for run in table.runs if run["loss"] == "ours" and run["seed"] == 0)
    assert run["object_recall"] == point.recall
    assert run["false_objects"] == point.false_objects
    stored = read_curve(table.run_folder("ours", 0) / CURVE)
    assert stored == measured.points()
    assert (chosen.at(chosen.thresholds_at(1))[0]).false_objects <= 1


def test_the_examples_are_test_images_with_verdicts(table, config):
    examples = make_examples(table)
    names = set(open_test_images(config.images).names)
    assert {one.title.rpartition(": ")[2] for one in examples} <= names
    for one in examples:
        assert set(one.verdict) == {PLAIN, "ours"}
        truth = one.truth > 0
        for verdict in one.verdict.values():
            assert verdict.shape == truth.shape
            assert np.isin(verdict[truth], (1, 3)).all()
            assert np.isin(verdict[~truth], (0, 2)).all()
    figure = Figure()
    draw_examples(examples, figure)
    assert len(figure.axes) == 3 * len(examples)


def test_large_images_are_shown_around_their_objects(tmp_path):
    label = np.zeros((700, 300), np.uint8)
    label[600:610, 20] = 1
    plane = _plane(label)
    assert label[plane].sum() == 10
    assert label[plane].shape == (224, 224)
    volume = np.zeros((5, 300, 30), np.uint8)
    volume[3, 290, 10:20] = 1
    assert volume[_plane(volume)].sum() == 10
    assert volume[_plane(volume)].shape == (224, 30)


def rows_of(**values: list[float]) -> ComparisonTable:
    runs = [{"loss": name, "seed": seed, "ap": value, "cpu_seconds": 1.0}
            for name, of_loss in values.items() for seed, value in enumerate(of_loss)]  # fmt: skip
    losses = [Contestant(name, "FocalLoss") for name in values]
    return ComparisonTable.from_runs(runs, ["ap"], losses, 10, plain="a")


def test_the_figures_show_the_first_losses_and_plain_cross_entropy():
    table = rows_of(a=[0.1, 0.2], b=[0.5, 0.6], c=[0.4, 0.5], d=[0.3, 0.4])
    assert shown_losses(table) == ["b", "c", "a"]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_p_values_are_corrected_for_the_number_of_losses(n):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    values = {"a": rng.normal(0.1, 0.05, 4).tolist()}
    values |= {f"x{k}": rng.normal(0.2 + k / 50, 0.1, 4).tolist() for k in range(n)}
    table = rows_of(**values)
    alone = {row["loss"]: row["p_alone"] for row in table.rows if row["loss"] != "a"}
    for name, p in alone.items():
        assert p == pytest.approx(stats.ttest_rel(values[name], values["a"]).pvalue)
    corrected = {row["loss"]: row["p"] for row in table.rows if row["loss"] != "a"}
    ordered = sorted(alone, key=alone.__getitem__)
    largest = 0.0
    for place, name in enumerate(ordered):  # the definition, step by step
        largest = max(largest, min(1.0, (n - place) * alone[name]))
        assert corrected[name] == pytest.approx(largest)
    assert ("Holm" in table.text()) == (n > 1)
    assert f"corrected for {n} losses" in table.text() or n == 1


def test_a_lead_among_many_losses_is_less_certain():
    pytest.importorskip("scipy")
    few = rows_of(a=[0.50, 0.52, 0.51], b=[0.58, 0.63, 0.60])
    many = rows_of(a=[0.50, 0.52, 0.51], b=[0.58, 0.63, 0.60],
                   **{f"c{k}": [0.50, 0.52, 0.51] for k in range(9)})  # fmt: skip
    assert few.level() == []
    assert "a" in many.level()


def test_holm_of_no_tests_is_empty():
    assert holm([]) == []
    assert math.isnan(holm([math.nan])[0])


def test_recall_at_a_number_stops_where_it_is_exceeded():
    curve = [(0.5, 1.0), (4.0, 0.9), (2.0, 0.7), (0.0, 0.1)]
    assert [recall_at(curve, n) for n in (0, 2, 3, 4)] == [0.1, 0.7, 0.7, 1.0]


def test_the_curve_of_objects_is_drawn_with_the_number(table):
    figure = Figure()
    draw_objects({"ours": [[(4.0, 0.9), (0.0, 0.1)]], PLAIN: [[(2.0, 0.5)]]}, 1.0, figure)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["ours"][0] == 0.1
    assert lines["ours"][-1] == 0.9
    assert lines[PLAIN][0] == 0.0


def test_the_figure_of_objects_has_the_rows_of_the_table(table):
    """A threshold of validation images makes another number of false objects on test images."""
    figure = Figure()
    curves = {"ours": [[(4.0, 0.9), (0.0, 0.1)]]}
    draw_objects(curves, 1.0, figure, points={"ours": (3.2, 0.25)})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [(*dot.get_xdata(), *dot.get_ydata()) for dot in dots] == [(3.2, 0.25)]
    pytest.importorskip("scipy")
    header = table.cells()[0]
    place = header.index("objects found")
    assert header[place + 1] == "false objects"
    runs = [run["false_objects"] for run in table.runs if run["loss"] == "ours"]
    (ours,) = [row for row in table.rows if row["loss"] == "ours"]
    assert ours["false_objects"] == pytest.approx(sum(runs) / len(runs))
    page = write_page(table).read_text()
    assert '<th scope="col">false objects</th>' in page
    assert "dotted line is the number of the table" not in page
    figure = Figure()
    draw(table, figure)
    assert "false objects" not in [axes.get_title(loc="left") for axes in figure.axes]


def test_found_and_missed_have_one_colour_in_all_figures(table):
    figure = Figure()
    draw_examples(make_examples(table), figure)
    (legend,) = figure.legends
    named = {
        text.get_text(): patch.get_facecolor()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    for name in ("found", "false alarm", "missed"):
        assert named[name] == to_rgba(VERDICT_COLOURS[VERDICTS.index(name)])


@pytest.mark.parametrize("n_channels", [1, 2])
def test_f1_at_one_half_counts_the_likeliest_class(n_channels):
    logits = torch.tensor([[[9.0, -1.0, 1.0, 2.0, 1.0]]])
    if n_channels == 2:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    half = HalfScores(2)
    half.update(logits, np.array([1, 1, 0, 1, 255], np.uint8))
    assert half.f1() == pytest.approx(2 * 2 / (3 + 3))


@pytest.mark.parametrize("natural", [None, object()])
def test_f1_at_one_half_needs_natural_probabilities(table, config, monkeypatch, natural):
    run = open_run(table.run_folder("ours", 0))
    network = run.trained(device="cpu")
    object.__setattr__(network, "reading", SimpleNamespace(natural=natural))
    monkeypatch.setattr(network, "logits", lambda image: torch.zeros(1, 1, *image.shape[1:]))
    monkeypatch.setattr(run, "trained", lambda: network)
    row = ImagesBenchmark(config, Settings()).measure(run)
    assert math.isnan(row["natural_f1"]) is (natural is None)


def test_a_column_that_no_loss_has_is_left_out():
    runs = [{"loss": n, "seed": 0, "ap": 0.5, "natural_f1": v, "cpu_seconds": 1.0}
            for n, v in (("a", math.nan), ("b", math.nan))]  # fmt: skip
    losses = [Contestant("a", "FocalLoss"), Contestant("b", "LDAMLoss")]
    table = ComparisonTable.from_runs(runs, ["ap", "natural_f1"], losses, 10)
    assert table.known_scores == ("ap",)
    runs[0]["natural_f1"] = 0.25
    text = ComparisonTable.from_runs(runs, ["ap", "natural_f1"], losses, 10).text()
    assert "F1 at 1/2 of the natural probability, - where a loss has none" in text


def test_the_number_of_false_objects_can_be_chosen(config, tmp_path):
    options = {"n_seeds": 1, "steps": 2, "say": lambda line: None, "is_quiet": True}
    losses = [PLAIN, "focal"]
    table = compare(config, tmp_path / "out", losses=losses, false_objects=3, **options)
    assert "at most 3 false objects an image" in table.text()
    with pytest.raises(ValueError, match=r"another \(false_objects differ\)"):
        compare(config, tmp_path / "out", losses=losses, false_objects=2, **options)
    with pytest.raises(ValueError, match="`false_objects`"):
        compare(config, tmp_path / "other", losses=losses, false_objects=-1, **options)


@pytest.mark.parametrize("kind", ["hits", "labels"])
def test_other_kinds_have_a_page_too(kind, tmp_path):
    if kind == "hits":
        path = write_events(tmp_path / "clean.h5", clean_events(40))
        config = tiny(path, hits={"validation_share": 0.4})
    else:
        config = of_table(write_tables(tmp_path / "tables", (40, 25, 10)))
    table = compare(config, tmp_path / "out", losses=[PLAIN, "focal"], n_seeds=1, steps=2,
                    say=lambda line: None, is_quiet=True)  # fmt: skip
    page = write_page(table).read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "Objects found" not in page


def test_the_command_ends_with_the_place_of_the_page(config, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", config.images.train, "--masks", config.images.masks, "--out", str(out),
             "--steps", "2", "--seeds", "1", "--widths", "4", "8", "--quiet", "--false-objects",
             "2", "--loss", "cross-entropy", "--loss", "focal"]  # fmt: skip
    assert main(words) == 0
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[0].startswith("2 losses x 1 seed x 2 steps")
    last = lines[-1]
    assert last.startswith(f"{out}/comparison.html: the page")
    assert (out / "comparison.html").stat().st_size > 50_000
    assert json.loads((out / "plan.json").read_text())["asked"]["false_objects"] == 2


def test_the_command_compares_a_loss_of_the_user(config, tmp_path, capsys, monkeypatch):
    (tmp_path / "compared_losses.py").write_text(
        "from torch import nn\nclass Mine(nn.BCEWithLogitsLoss):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["compare", config.images.train, "--masks", config.images.masks, "--out", "out",
             "--steps", "2", "--seeds", "1", "--widths", "4", "8", "--quiet", "--loss",
             "cross-entropy", "--loss", "mine=compared_losses:Mine"]  # fmt: skip
    assert main(words) == 2
    assert "add --allow-import compared_losses" in capsys.readouterr().err
    assert main([*words, "--allow-import", "compared_losses"]) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed
    if "To train with it: dense-imb train images --config out/mine-0" in printed:
        assert "--allow-import compared_losses" in printed
