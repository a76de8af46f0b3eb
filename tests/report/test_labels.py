"""The report of a classifier of whole images shows its scores, its classes and its errors."""

from __future__ import annotations

import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.engine import CollapseWarning
from dense_imb.report.labels import figures
from dense_imb.report.labels.measures import LabelMeasures, WrongImage, confident_errors
from dense_imb.report.labels.source import LabelsSource
from dense_imb.runs import open_run, train
from dense_imb.tasks.labels.evaluate import evaluate_labels
from dense_imb.tasks.labels.recipe import open_cifar_test, open_classified
from dense_imb.tasks.labels.trained import Commonest
from tests.report.reports import Page, pngs, quiet, strict_json
from tests.runs.labelled_pictures import CLASSES, of_table, tiny_classes, write_cifar, write_tables

FIGURES = ["class_accuracy", "confusion", "training", "worst"]


def trained_in(folder: Path, config) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        train(config, folder, is_quiet=True)
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> str:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def trained(tables, tmp_path_factory) -> Path:
    config = of_table(tables, labels={"validation_share": 0.4, "many": 15, "few": 5})
    return trained_in(tmp_path_factory.mktemp("runs") / "skin", config)


@pytest.fixture
def run_folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "skin"))


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("dense_imb.report.write.draw_png", lambda draw, size: b"\x89PNG")


def test_the_page_stands_on_its_own(run_folder):
    report = quiet(run_folder)
    text = report.path.read_text()
    page = Page(text)
    assert len(page.sources) == page.tags.count("img") == len(FIGURES)
    assert pngs(run_folder) == FIGURES
    assert {"skin", Commonest.name, *CLASSES} <= {*page.cells}
    assert report.headline in text
    assert report.notes == ()


@pytest.mark.usefixtures("_undrawn")
def test_the_table_is_that_of_evaluate(run_folder):
    report = quiet(run_folder)
    run = open_run(run_folder)
    network, (_, validation) = run.trained(), open_classified(run.config.labels)
    wanted = evaluate_labels(
        [network, Commonest(network.reading.train_counts)], validation, network.reading
    )
    assert report.evaluation.as_json() == wanted.as_json()
    stored = strict_json(run_folder / "report.json")
    assert stored["evaluation"] == wanted.as_json()
    own, rule = wanted["skin"], wanted[Commonest.name]
    assert f"Balanced accuracy {own['balanced_accuracy']:.2f}" in report.headline
    assert f"on {len(validation)} validation images" in report.headline
    assert f"has {rule['balanced_accuracy']:.2f} and {rule['accuracy']:.2f}" in report.headline
    n_wrong = len(validation) - np.trace(np.array(wanted.confusion["skin"]))
    assert len(stored["worst"]) == min(n_wrong, figures.MOST_WORST)
    assert all(row["true"] != row["predicted"] for row in stored["worst"])


@pytest.mark.usefixtures("_undrawn")
def test_it_says_which_images_were_measured(run_folder, tables, tmp_path):
    test = f"{tables}/test.csv"
    moved = shutil.copytree(f"{tables}/images", tmp_path / "moved")
    config = run_folder / "config.yaml"
    stored = config.read_text()
    config.write_text(stored.replace(f"{tables}/images", f"{tables}/gone"))
    report = quiet(run_folder, test=test, images=str(moved))
    assert "test images" in report.headline
    config.write_text(stored)
    limited = quiet(run_folder, test=test, n_events=4)
    assert "on 4 test images" in limited.headline
    (note,) = limited.notes
    assert note.startswith("4 of ")
    assert "evenly spaced" in note


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize(("share", "which"), [(0.5, "test"), (0.0, "validation")])
def test_cifar_has_a_report_too(tmp_path, share, which):
    archive = write_cifar(tmp_path)
    config = tiny_classes(labels={"train": archive, "validation_share": share}, steps=2,
                          validate_every=2)  # fmt: skip
    folder = trained_in(tmp_path / "run", config)
    report = quiet(folder)
    test = open_cifar_test(config.labels)
    assert report.evaluation["run"]["n_images"] == len(test)
    assert f"on {len(test)} {which} images" in report.headline
    again = quiet(folder, test=archive)
    assert again.evaluation.as_json() == report.evaluation.as_json()
    with pytest.raises(ValueError, match="no `images` with CIFAR"):
        quiet(folder, test=archive, images="folder")


@pytest.mark.usefixtures("_undrawn")
def test_moved_images_leave_the_curves(run_folder, tables):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("train.csv", "gone.csv"))
    report = quiet(run_folder)
    assert report.evaluation is None
    (note,) = report.notes
    assert "validation images can't be read" in note
    assert "gone.csv" in note
    assert pngs(run_folder) == ["training"]
    assert "(validation)" in report.headline
    assert quiet(run_folder, test=f"{tables}/test.csv").evaluation is not None


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
        (
            {"retention": 0.9},
            "no `retention` with a run on labels, got 0.9; it is for runs on hits",
        ),
        ({"masks": "m"}, "no `masks` with a run on labels, got m; it is for runs on images"),
        ({"test": ["a", "b"]}, "one CSV file, or one archive of CIFAR, to test on, got 2"),
        ({"images": "m"}, "a CSV file beside `images` m, got none"),
        ({"test": "missing.csv"}, "missing.csv"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(run_folder, options, sentence):
    with pytest.raises((ValueError, OSError), match=sentence):
        quiet(run_folder, **options)


@pytest.mark.usefixtures("_undrawn")
def test_the_commands_of_the_page_work(run_folder, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = LabelsSource(
        open_run(run_folder), (f"{tables}/test.csv",), 8, images=f"{tables}/images"
    )
    lines = [shlex.split(line)[1:] for line in source.commands().splitlines() if line[0] != "#"]
    assert [words[0] for words in lines] == ["train", "evaluate", "export", "report"]
    for words in lines[1:]:
        assert main(words) == 0, words


def test_the_worst_errors_are_the_most_confident():
    truth = np.array([0, 1, 2, 1, 0])
    probability = np.array(
        [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.7, 0.2, 0.1], [0, 1, 0], [0.2, 0.8, 0]]
    )
    assert confident_errors(probability, truth).tolist() == [4, 2, 1]
    assert confident_errors(probability, truth, most=2).tolist() == [4, 2]
    assert confident_errors(probability[3:4], truth[3:4]).tolist() == []


@pytest.fixture(scope="module")
def measured(trained) -> LabelMeasures:
    source = LabelsSource(open_run(trained), (), 500)
    source.measure(lambda n: lambda done: None)
    return source.measured


def drawn(draw) -> Figure:
    figure = Figure(layout="constrained")
    draw(figure)
    FigureCanvasAgg(figure).draw()
    return figure


def test_bars_are_the_accuracy_of_each_class_by_number_of_training_images(measured):
    accuracy, images = drawn(lambda to: figures.draw_class_accuracy(measured, to)).axes
    rows = [row for row in measured.table.rows if row["scorer"] == "skin"][1:]
    rows.sort(key=lambda row: -row["n_trained_on"])
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx(
        [row["accuracy"] for row in rows], nan_ok=True
    )
    heights = [bar.get_height() for bar in images.patches]
    assert heights == [row["n_trained_on"] for row in rows]
    assert heights == sorted(heights, reverse=True)
    labels = [text.get_text() for text in images.get_xticklabels()]
    assert labels == [row["class"] for row in rows]
    own = measured.table["skin"]
    legend = [text.get_text() for text in accuracy.figure.legends[0].get_texts()]
    for name in ("head", "middle", "tail"):
        if any(name in words for words in legend):
            (words,) = (words for words in legend if words.startswith(name))
            assert f"mean {own[f'{name}_accuracy']:.2f}" in words


def test_the_confusion_shows_every_count(measured):
    axes, _ = drawn(lambda to: figures.draw_confusion(measured, to)).axes
    counts = np.array(measured.table.confusion["skin"])
    assert [int(text.get_text()) for text in axes.texts] == counts.ravel().tolist()
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, counts / counts.sum(1, keepdims=True))
    assert axes.get_ylabel().startswith("true")
    assert axes.get_xlabel().startswith("predicted")


def test_wrong_images_name_truth_and_prediction(measured):
    pixels = np.zeros((3, 8, 6), np.uint8)
    wrong = [WrongImage("a.png", pixels, "nevus $1$", "_other", 0.987)] * 5
    figure = drawn(lambda to: figures.draw_worst(wrong, to))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["true: nevus \\$1\\$\npredicted:  _other 0.99"] * 5


@pytest.mark.parametrize("n_classes", [2, 40])
def test_any_number_of_classes_is_drawn(measured, n_classes):
    from dataclasses import replace

    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 9, (n_classes, n_classes))
    confusion[1] = 0  # a class without images
    names = tuple(f"kind {k}" for k in range(n_classes))
    counts = tuple(int(n) for n in rng.integers(1, 500, n_classes))
    table = replace(measured.table, confusion={"skin": confusion.tolist()}, class_names=names)
    groups = {"head": tuple(range(n_classes)), "middle": (), "tail": ()}
    other = replace(measured, table=table, train_counts=counts, groups=groups)
    drawn(lambda to: figures.draw_class_accuracy(other, to))
    drawn(lambda to: figures.draw_confusion(other, to))
    history = [{"step": 1.0, "loss": 1.0, "head_accuracy": 0.5}, {"step": 2.0}]
    drawn(lambda to: figures.draw_label_training(history, names, groups, to))


def test_gradient_shares_of_many_classes_are_those_of_head_middle_and_tail():
    shares = {f"gradient_share_class_{k}": 0.1 for k in range(10)}
    shares["gradient_share_class_9"] = float("nan")  # not in the batch
    groups = {"head": (0, 1), "middle": (), "tail": tuple(range(2, 10))}
    names = [f"kind {k}" for k in range(10)]
    figure = drawn(
        lambda to: figures.draw_label_training([{"step": 1.0, **shares}], names, groups, to)
    )
    (panel,) = (axes for axes in figure.axes if axes.get_title() == "Share of the loss's gradient"
                or axes.get_title(loc="left") == "Share of the loss's gradient")  # fmt: skip
    assert {line.get_label(): line.get_ydata()[0] for line in panel.lines} == pytest.approx(
        {"head": 0.2, "tail": 0.7}
    )
