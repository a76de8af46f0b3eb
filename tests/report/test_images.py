"""The report of a run on images says what was measured, and what is missing."""

from __future__ import annotations

import html
import json
import math
import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.data.images.labelled import IGNORED
from dense_imb.engine import CollapseWarning
from dense_imb.metrics import ScoreHistogram
from dense_imb.report.images import figures as image_figures
from dense_imb.report.images.measures import (
    chosen_images,
    fullest_slice,
    image_scores,
    sample_of,
    verdicts,
)
from dense_imb.report.images.source import ImagesSource
from dense_imb.runs import open_run, train
from dense_imb.tasks.images.evaluate import Blank, chosen_thresholds, evaluate_images
from dense_imb.tasks.images.recipe import open_images, open_test_images
from tests.report.reports import Page, pngs, quiet, strict_json
from tests.runs.pictures import tiny_images, write_folders

FIGURES = [
    "calibration", "images", "precision_recall", "sample_1", "sample_2", "sample_3", "training",
]  # fmt: skip


def trained_on(folder: Path, config) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        train(config, folder, is_quiet=True)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n=14)


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory) -> Path:
    images = {"validation_share": 0.3}
    config = tiny_images(folders, images=images, loss="CrossEntropyLoss(balance={})", steps=30)
    return trained_on(tmp_path_factory.mktemp("runs") / "lines", config)


@pytest.fixture
def run_folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "lines"))


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("dense_imb.report.write.draw_png", lambda draw, size: b"\x89PNG")


def test_the_page_stands_on_its_own(run_folder):
    report = quiet(run_folder)
    text = report.path.read_text()
    page = Page(text)
    assert len(page.sources) == page.tags.count("img") == len(FIGURES)
    assert pngs(run_folder) == FIGURES
    assert {"lines", "blank"} <= {*page.cells}
    assert report.headline in text
    assert report.notes == ()


@pytest.mark.usefixtures("_undrawn")
def test_the_captions_of_large_images_tell_of_their_blocks(run_folder, monkeypatch):
    assert "pixels as one" not in quiet(run_folder).path.read_text()
    monkeypatch.setattr("dense_imb.report.blocks.MOST", 10)
    text = quiet(run_folder).path.read_text()
    assert text.count("pixels as one, which shows an error if it holds any.") == 3


@pytest.mark.usefixtures("_undrawn")
def test_the_table_is_that_of_evaluate(run_folder):
    report = quiet(run_folder)
    run = open_run(run_folder)
    _, validation = open_images(run.config.images)
    thresholds = [chosen_thresholds(run.scores()), (0.0, 0.0)]
    wanted = evaluate_images([run.trained(), Blank(2)], validation, thresholds=thresholds)
    assert report.evaluation == wanted
    stored = strict_json(run_folder / "report.json")
    assert stored["evaluation"] == wanted.as_json()
    own = wanted["lines"]
    assert report.headline == (
        f"Average precision {own['average_precision']:.2f} on 4 validation images, F1 "
        f"{own['f1']:.2f} at the chosen threshold; a blank answer has "
        f"{wanted['blank']['share']:.2g}."
    )
    # on the validation images the threshold is the best one there is
    assert own["f1"] == pytest.approx(own["best_f1"], rel=1e-12)
    rows = stored["images"]
    n_true = sum((validation.label(i) == 1).sum() for i in range(4))
    assert sum(row["found"] + row["missed"] for row in rows) == n_true
    found, false, missed = (
        sum(row[name] for row in rows) for name in ("found", "false_alarms", "missed")
    )
    assert 2 * found / (2 * found + false + missed) == pytest.approx(own["f1"])


@pytest.mark.usefixtures("_undrawn")
def test_it_says_which_images_were_measured(run_folder, folders, tmp_path):
    others = write_folders(tmp_path / "others", n=3, seed=7)
    report = quiet(run_folder, test=others[0], masks=others[1])
    assert "on 3 test images" in report.headline
    assert [row["image"] for row in report.numbers["images"]] == ["000", "001", "002"]
    limited = quiet(run_folder, test=others[0], masks=others[1], n_events=2)
    assert "on 2 test images" in limited.headline
    assert limited.notes == ("The first 2 of 3 images were measured.",)
    images = {"test_share": 0.3, "validation_share": 0.3}
    config = tiny_images(folders, images=images, steps=4, validate_every=4)
    report = quiet(trained_on(tmp_path / "held", config))
    names = [row["image"] for row in report.numbers["images"]]
    assert names == open_test_images(config.images).names
    assert f"on {len(names)} test images" in report.headline
    assert "held out (test_share)" in report.path.read_text()


def _without_probabilities(run_folder: Path) -> None:
    path = run_folder / "natural" / "natural.json"
    stored = json.loads(path.read_text()) | {"natural": None, "why": "`Mine` has no inverse."}
    path.write_text(json.dumps(stored))


@pytest.mark.usefixtures("_undrawn")
def test_the_page_says_which_probabilities_it_shows(run_folder):
    text = html.unescape(quiet(run_folder).path.read_text())
    summary = open_run(run_folder).natural.summary()
    assert summary.startswith("probabilities: natural")
    assert f"<p>P{summary[1:]}.</p>" in text
    assert "A marker for each validation, with probabilities as trained." in text
    _without_probabilities(run_folder)
    text = html.unescape(quiet(run_folder).path.read_text())
    assert "<p>`Mine` has no inverse; scores rank, they are no probabilities" in text
    assert "a score of 0." in text
    assert "Below the diagonal" not in text


def _titles(draw, figure: Figure) -> list[str]:
    draw(figure)
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]


def test_scores_that_are_no_probabilities_are_called_scores(run_folder):
    for words, loss in (("probabilities", "ours"), ("scores", "Mine")):
        if loss == "Mine":
            _without_probabilities(run_folder)
        source = ImagesSource(open_run(run_folder), (), 100)
        source.read_records()
        source.measure(lambda n: lambda done: None)
        drawings = {one.name: one for part in source.sections() for one in part.drawings}
        titles = _titles(drawings["calibration"].draw, Figure())
        first = "Calibration" if words == "probabilities" else "Scores, no probabilities"
        assert titles == [first, f"Predicted {words} by truth"]
        output = {"probabilities": "Probability", "scores": "Score"}[words]
        of_sample = _titles(drawings["sample_1"].draw, Figure())[2]
        assert of_sample.startswith(f"{output} of foreground")
    assert "Overlap of the likeliest classes, as trained" in _titles(
        drawings["training"].draw, Figure()
    )


@pytest.mark.usefixtures("_undrawn")
def test_moved_images_leave_the_curves(run_folder, folders):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace(folders[0], "gone"))
    report = quiet(run_folder)
    assert report.evaluation is None
    (note,) = report.notes
    assert "validation images can't be read" in note
    assert "--test" in note
    assert pngs(run_folder) == ["training"]
    assert "(validation)" in report.headline
    assert quiet(run_folder, test=folders[0], masks=folders[1]).evaluation is not None


@pytest.mark.usefixtures("_undrawn")
def test_a_run_without_validation_has_a_page(run_folder):
    for path in [*run_folder.iterdir()]:
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = quiet(run_folder)
    assert report.headline == "No scores yet."
    assert any("first validation" in note for note in report.notes)


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"retention": 0.9}, "no `retention` with a run on images"),
        ({"test": ["a", "b"]}, "one folder of images, or one HDF5 file"),
        ({"masks": "m"}, "images to test on beside `masks`"),
        (
            {"test": "a", "masks": "m"},
            "Expected a folder of masks, got m, which does not exist",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(run_folder, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        quiet(run_folder, **options)


def test_volumes_of_several_classes_have_a_report(tmp_path):
    folders = write_folders(tmp_path, n=5, size=(8, 24, 20), n_classes=3, values=(0, 10, 20))
    images = {"patch": [8, 16, 16], "labels": [0, 10, 20], "validation_share": 0.5}
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    config = tiny_images(folders, images=images, model=model, steps=2, validate_every=2)
    folder = trained_on(tmp_path / "run", config)
    report = quiet(folder)
    assert {"sample_1", "precision_recall", "calibration"} <= {*pngs(folder)}
    cells = Page(report.path.read_text()).cells
    assert {"mean", "class 1 (value 10)", "class 2 (value 20)"} <= {*cells}
    assert "of 8 along axis 1" in report.numbers["samples"][0]["part"]
    assert {*report.numbers["curves"]} == {"1", "2"}


@pytest.mark.usefixtures("_undrawn")
def test_the_commands_of_the_page_work(run_folder, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = ImagesSource(open_run(run_folder), (folders[0],), 3, masks=folders[1])
    lines = [shlex.split(line)[1:] for line in source.commands().splitlines() if line[0] != "#"]
    assert [words[0] for words in lines] == ["train", "evaluate", "segment", "report"]
    for words in lines[1:]:
        assert main(words) == 0, words


def test_scores_of_an_image_are_worked_out_by_hand():
    logits = torch.tensor([[[3.0, 1.0, -1.0, -3.0, 9.0]]])
    row = image_scores(logits, np.array([1, 0, 1, 0, IGNORED], np.uint8), (0.0, 0.5))
    assert (row["found"], row["false_alarms"], row["missed"]) == (1, 1, 1)
    assert row["f1"] == row["precision"] == row["recall"] == row["share"] == 0.5
    assert row["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    nothing = image_scores(-torch.ones(1, 1, 4), np.zeros(4, np.uint8), (0.0, 0.0))
    assert math.isnan(nothing["f1"])
    assert nothing["share"] == 0


def test_an_ignored_pixel_is_no_error():
    called = np.array([0, 1, 2], np.uint8)
    assert verdicts(called, np.full(3, IGNORED, np.uint8)).tolist() == [5, 5, 5]


def test_the_samples_are_the_middle_the_worst_and_the_best():
    rows = [{"f1": f1, "false_alarms": n, "missed": 0} for f1, n in
            ((0.9, 1), (0.0, 2), (0.5, 3), (math.nan, 0), (0.0, 9), (0.6, 1))]  # fmt: skip
    assert [*chosen_images(rows)] == [2, 4, 0]
    assert [*chosen_images(rows[:1])] == [0]
    assert chosen_images(rows[3:4]) == {}


def test_the_slice_shown_has_most_foreground():
    label = np.zeros((9, 4, 9), np.uint8)
    label[2:5, 3, 1] = 2
    label[:, 0] = IGNORED
    assert fullest_slice(label) == (1, 3)


def map_and_scale(probability, threshold):
    """Return the axes of the map of probabilities, and those of its scale."""
    probability = np.asarray(probability, np.float32)
    truth = np.zeros(probability.shape, np.uint8)
    image = np.zeros((*truth.shape, 1), np.uint8)
    sample = sample_of("any", "a", "", {}, image, truth, probability, truth)
    figure = Figure(layout="constrained")
    image_figures.draw_sample(sample, ["spot"], threshold, figure)
    panel = next(one for one in figure.axes if one.get_title().startswith("Probability of fore"))
    (scale,) = panel.child_axes
    return panel, scale


def test_a_map_of_middling_probabilities_has_a_linear_scale():
    panel, scale = map_and_scale([[0.1, 0.5], [0.9, 0.4]], 0.4)
    assert panel.get_title() == "Probability of foreground"
    assert panel.images[0].get_clim() == (0, 1)
    assert scale.lines[-1].get_ydata() == [0.4]


@pytest.mark.parametrize("threshold", [3e-4, 0.9993, None])
def test_a_map_of_probabilities_near_an_edge_has_a_logit_scale(threshold):
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(8 - 2 * rng.standard_normal((40, 40))))
    probability = probability if threshold != 0.9993 else 1 - probability
    probability = probability.astype(np.float32).astype(np.float64)  # as a network gives it
    panel, scale = map_and_scale(probability, threshold)
    assert panel.get_title() == "Probability of foreground, logit scale"
    low, high = panel.images[0].get_clim()
    logits = np.log(probability) - np.log1p(-probability)
    assert low < np.quantile(logits, 0.01)
    assert high > np.quantile(logits, 0.99)
    np.testing.assert_allclose(panel.images[0].get_array(), np.clip(logits, low, high), atol=1e-3)
    labels = [one.get_text() for one in scale.get_yticklabels()]
    assert len(labels) >= 2
    assert {"0.001", "0.999"} & {*labels}
    if threshold is not None:
        place = float(scale.lines[-1].get_ydata()[0])
        assert place == pytest.approx(math.log(threshold / (1 - threshold)), abs=1e-6)


def test_a_map_of_one_probability_has_a_scale():
    for value in (0.0, 1e-12, 1.0):
        panel, scale = map_and_scale(np.full((4, 4), value), 0.0)
        assert np.isfinite(panel.images[0].get_clim()).all()
        assert len(scale.get_yticks()) >= 1


def test_reliability_is_the_share_in_each_bin():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(20_000, generator=generator)
    histogram = ScoreHistogram(scale="logit")
    histogram.update(logits, torch.rand(20_000, generator=generator) < logits.sigmoid())
    bins = image_figures.reliability(histogram)
    assert bins["pixels"].sum() == 20_000
    many = bins["pixels"] > 300
    np.testing.assert_allclose(bins["share"][many], bins["probability"][many], atol=0.06)
    recall, precision = image_figures.precision_recall(histogram)
    assert (np.diff(recall) >= 0).all()
    assert precision[-1] == pytest.approx(histogram.n_signal / 20_000)


def test_the_axes_show_the_numbers(run_folder):
    source = ImagesSource(open_run(run_folder), (), 500)
    source.measure(lambda n: lambda done: None)
    figure = Figure(layout="constrained")
    image_figures.draw_precision_recall(source.measured, ["foreground"], figure)
    (axes,) = figure.axes
    own = source.table["lines"]
    (line, dot, level) = axes.lines[:3]
    assert f"AP {own['average_precision']:.3f}" in line.get_label()
    recall, precision = float(dot.get_xdata()[0]), float(dot.get_ydata()[0])
    assert 2 * recall * precision / (recall + precision) == pytest.approx(own["f1"])
    assert level.get_ydata()[0] == pytest.approx(own["share"])


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_train_writes_the_report_at_its_end(folders, tmp_path, capsys):
    options = [f"--images.train={folders[0]}", f"--images.masks={folders[1]}", "--steps=2",
               "--images.patch=[32, 32]", "--batch_size=2"]  # fmt: skip
    assert main(["train", "images", f"--out={tmp_path / 'run'}", "--quiet", *options]) == 0
    *_, headline, path, _ = capsys.readouterr().out.splitlines()
    assert "a blank answer has" in headline
    assert Path(path).is_file()
