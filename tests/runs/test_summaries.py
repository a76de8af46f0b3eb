"""What a run tells of its stages, its samples and its teacher."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.config import TrainConfig, UnlabelledConfig
from dense_imb.metrics import SegmentationScores
from dense_imb.report import write as write_module
from dense_imb.report import write_report
from dense_imb.runs import Run, open_run, train
from dense_imb.runs.stages import describe_stages
from dense_imb.tasks.images.kind import KIND
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.staged import pictures, stop_at, two
from tests.runs.tiny import changed, clean_events, tiny, write_events

# networks of ten steps may well be blank
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
SEMI = {"labelled_share": 0.5, "unlabelled": UnlabelledConfig(rest=True, threshold=0.4)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pictures(tmp_path_factory.mktemp("pictures"), n=14)


def test_a_segmenter_is_summed_up_at_its_threshold(tmp_path):
    folders = write_folders(tmp_path, 8)
    config = tiny_images(folders, loss="BalancedSoftmaxLoss", steps=2, validate_every=2)
    run = train(config, tmp_path / "run", is_quiet=True)
    f1, logit = run.scores().best_f1()[1]
    p = 1 / (1 + math.exp(-logit))
    line = run.summary().splitlines()[1]
    assert line.endswith(
        f"F1 {f1:.3f} at the threshold p = {p:.3g} chosen there (validation images)"
    )
    assert "dice" not in line  # at 1/2 it says nothing of a balanced loss
    # the history holds the scores as trained, which fall into other bins of the histogram
    assert run.history[-1]["best_f1"] == pytest.approx(f1, abs=0.05)
    assert run.history[-1]["dice"] <= f1


def test_the_summary_names_the_mean_of_several_classes_only():
    scores = SegmentationScores(3)
    scores.update(torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 2]]]))
    line = KIND.headline({"average_precision": 0.5}, scores)
    assert "at the thresholds chosen there (validation images, mean of 2 foreground" in line
    assert line.count("validation images") == 1


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory) -> Path:
    """A segmenter in two stages, the first one with images without labels."""
    folder = tmp_path_factory.mktemp("told") / "two"
    train(changed(two(folders), **SEMI), folder, is_quiet=True)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Run:
    """The same, to be changed."""
    return open_run(shutil.copytree(trained, tmp_path / "two"))


def edit_metrics(folder: Path, change: Any) -> None:
    stored = json.loads((folder / "metrics.json").read_text())
    change(stored)
    (folder / "metrics.json").write_text(json.dumps(stored))


# steps and stages


def test_metrics_tell_what_the_first_stage_took(run):
    metrics, first = run.metrics, run.first.metrics
    assert (metrics["first_steps"], metrics["steps"]) == (6, 4)
    assert metrics["first_seconds"] == first["seconds"]
    edit_metrics(run.folder, lambda m: m.update(first_seconds=51.2, seconds=17.0))
    assert run.summary().startswith(
        f"{run.folder}: stage 1: 6 steps in 51 s; stage 2: 4 steps in 17 s; "
    )
    edit_metrics(run.folder, lambda m: m.pop("first_steps"))  # as older runs have it
    assert f"{run.folder}: second stage, 4 steps in 17 s, " in run.summary()


def test_a_resumed_second_stage_still_knows_what_the_first_took(folders, trained, tmp_path):
    config, folder = changed(two(folders), **SEMI), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, 8, error=True)
        with pytest.raises(RuntimeError):
            train(config, folder, is_quiet=True)
    shutil.rmtree(folder / "first")
    metrics = train(config, folder, resume=True, is_quiet=True).metrics
    assert metrics["first_steps"] == 6
    assert metrics["first_seconds"] >= 0


def test_the_better_network_is_told_by_its_folder(run):
    for score, is_told in ((2.0, True), (-2.0, False)):
        edit_metrics(run.folder, lambda m, s=score: m["first"].update(average_precision=s))
        sentence = f"; the network in {run.folder / 'first'} is the better one"
        assert (sentence in run.summary()) == is_told


def test_stages_of_hits_are_compared_in_percent():
    name = "removal_at_97"
    metrics = {"monitor": name, "first": {name: 0.3231}, "best": {name: 0.3432}}
    wanted = "first stage -> second stage: noise removed at 97 %: 32.31 % -> 34.32 %"
    assert describe_stages(metrics, "run") == wanted


def test_a_first_stage_is_called_by_its_run_too(run, folders, tmp_path, capsys):
    assert (run.name, run.first.name) == ("two", "two/first")
    assert open_run(run.folder / "first").trained().name == "two/first"
    runs = [str(run.folder), str(run.folder / "first")]
    assert main(["evaluate", *runs, folders[0], "--masks", folders[1], "--quiet"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:3] == "two"]
    assert {*rows} == {"two", "two/first"}
    file = tmp_path / "network.pt2"
    assert main(["export", runs[1], str(file), "--quiet"]) == 0
    assert "two/first" in file.with_suffix(".pt2.md").read_text()


def test_a_run_that_is_only_named_first_is_called_so(run, tmp_path):
    alone = shutil.copytree(run.folder / "first", tmp_path / "alone" / "first")
    assert open_run(alone).name == "first"
    for above in ("no config: [", (alone / "config.yaml").read_text()):  # of a single stage
        (tmp_path / "alone" / "config.yaml").write_text(above)
        assert open_run(alone).name == "first"


# samples and teacher


def test_samples_of_images_are_counted(run):
    # 14 images, 3 of which validate; half of the others have labels
    assert run.first.metrics["samples"] == {"train": 5, "unlabelled": 6, "validation": 3}
    assert run.metrics["samples"] == {"train": 5, "validation": 3}
    told = "\n5 labelled images, 6 without labels, 3 to validate on\n"
    assert told in run.summary()
    assert told in run.first.summary()
    for folder in (run.folder, run.first.folder):  # as older runs have it
        edit_metrics(folder, lambda m: m.pop("samples"))
    assert "to validate on" not in run.summary()


@pytest.mark.parametrize("kind", ["hits", "classes"])
def test_samples_of_hits_and_of_classes_are_counted(kind, tmp_path):
    steps: dict[str, Any] = {"steps": 2, "validate_every": 2, **SEMI}
    if kind == "hits":
        config: TrainConfig = tiny(write_events(tmp_path / "clean.h5", clean_events(20)), **steps)
        counted, what = {"train": 8, "unlabelled": 7, "validation": 5}, ("events", "hits")
    else:
        config = of_table(write_tables(tmp_path / "data"), **steps)
        counted, what = None, ("images", "images")
    got = train(config, tmp_path / "run", is_quiet=True)
    found = got.metrics["samples"]
    assert counted in (None, found)
    assert abs(found["train"] - found["unlabelled"]) <= 3
    assert f"\n{found['train']} labelled {what[0]}, {found['unlabelled']} without" in got.summary()
    assert "confident pseudo-labels at the end: " in got.summary()
    assert f" % of the {what[1]}" in got.summary()
    plain = changed(config, labelled_share=1.0, unlabelled=UnlabelledConfig())
    got = train(plain, tmp_path / "plain", is_quiet=True)
    assert "unlabelled" not in got.metrics["samples"]
    assert got.metrics["samples"]["train"] == found["train"] + found["unlabelled"]
    assert "without labels" not in got.summary()
    assert "pseudo-labels" not in got.summary()


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"sure_share": 0.941}, "94.1 % of the pixels"),
        ({"sure_share": 0.01}, "1 % of the pixels"),
        (
            {"sure_share": 0.0031},
            "0.31 % of the pixels: lower unlabelled.threshold, or train for longer",
        ),
        (
            {"sure_share": 0.941, "sure_share_0": 0.941, "sure_share_1": 0.0, "sure_share_2": 0.0},
            "94.1 % of the pixels, all of them of class 0: lower unlabelled.threshold, "
            "or train for longer",
        ),
        (
            {"sure_share": 0.941, "sure_share_0": 0.94, "sure_share_1": 0.0, "sure_share_2": 0.001},
            "94.1 % of the pixels",
        ),
        (
            {"sure_share": 0.0, "sure_share_0": 0.0, "sure_share_1": 0.0},
            "0 % of the pixels: lower unlabelled.threshold, or train for longer",
        ),
    ],
)
def test_it_is_told_whether_the_teacher_was_sure(run, last, told):
    def change(metrics: dict[str, Any]) -> None:
        kept = {n: v for n, v in metrics["last"].items() if not n.startswith("sure_share")}
        metrics["last"] = {**kept, **last}

    edit_metrics(run.folder / "first", change)
    wanted = f"confident pseudo-labels at the end: {told}"
    for one in (run, run.first):
        assert wanted in one.summary().splitlines()
    edit_metrics(run.folder / "first", lambda m: m.update(is_finished=False))
    assert wanted.replace("at the end", "so far") in run.summary().splitlines()


# the report


def facts_of(page: str) -> dict[str, str]:
    table = page.split('<table class="facts">')[1].split("</table>")[0]
    rows = [row.split("</td><td>") for row in table.split("<tr><td>")[1:]]
    return {name: value.split("</td>")[0] for name, value in rows}


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Figures in place of pictures."""
    found: list[Figure] = []

    def draw_png(draw: Any, size: tuple[float, float]) -> bytes:
        found.append(figure := Figure(figsize=size))
        draw(figure)
        return b"\x89PNG"

    monkeypatch.setattr(write_module, "draw_png", draw_png)
    return found


def test_the_report_tells_both_stages(run, drawn):
    report = write_report(run.folder, show_progress=False)
    facts = facts_of(report.path.read_text())
    assert facts["first stage, folder"] == str(run.folder / "first")
    for stage, steps, loss, sampling, of in (
        ("first", 6, "CrossEntropyLoss", "instance", run.first),
        ("second", 4, "FocalLoss", "class", run),
    ):
        assert facts[f"{stage} stage, steps"] == f"{steps} of {steps}"
        assert facts[f"{stage} stage, loss"] == loss
        assert facts[f"{stage} stage, sampling"] == sampling
        assert facts[f"{stage} stage, training"] == f"{of.metrics['seconds']:.0f} s"
    assert facts["labelled share"] == "0.5 of the training images"
    assert facts["samples"] == "5 labelled images, 6 without labels, 3 to validate on"
    assert facts["without labels"] == "the training images left out by the labelled share"
    assert facts["pseudo-labels"] == run.format_teacher()


def test_the_report_of_a_second_stage_alone_tells_what_it_noted(run, drawn):
    shutil.rmtree(run.folder / "first")
    facts = facts_of(write_report(run.folder, show_progress=False).path.read_text())
    assert facts["first stage, steps"] == "6 of 6"
    assert facts["first stage, loss"] == "CrossEntropyLoss"


def test_unlabelled_images_from_elsewhere_are_told_by_their_place(run, drawn):
    path = run.folder / "config.yaml"
    text = path.read_text().replace("rest: true", "rest: false")
    path.write_text(text.replace("unlabelled:\n  train: null", "unlabelled:\n  train: other/pics"))
    facts = facts_of(write_report(run.folder, show_progress=False).path.read_text())
    assert facts["without labels"] == "other/pics"


def test_the_curves_of_both_stages_stand_one_after_the_other(run, drawn):
    report = write_report(run.folder, show_progress=False)
    axes = next(a for one in drawn for a in one.axes if a.get_title().startswith("Loss, mean"))
    curve, line = axes.lines
    losses = [row["loss"] for row in run.history]
    before = [row["loss"] for row in run.first.history]
    assert curve.get_xdata().tolist() == [2, 4, 6, 6, 8, 10]
    np.testing.assert_array_equal(curve.get_ydata(), [*before, np.nan, *losses])
    assert [*line.get_xdata()] == [6, 6]
    assert report.numbers["history"]["step"] == [2, 4]
    assert report.numbers["first_history"]["loss"] == before
    assert "At the vertical line the first stage ends" in report.path.read_text()


def test_a_single_stage_has_no_line(run, drawn):
    report = write_report(run.folder / "first", show_progress=False)
    axes = next(a for one in drawn for a in one.axes if a.get_title().startswith("Loss, mean"))
    (curve,) = axes.lines
    assert curve.get_xdata().tolist() == [2, 4, 6]
    assert "vertical line" not in report.path.read_text()
    facts = facts_of(report.path.read_text())
    assert (facts["steps"], facts["loss"]) == ("6 of 6", "CrossEntropyLoss")


def test_the_report_of_images_asks_for_nothing_of_hits(run, drawn):
    page = write_report(run.folder, show_progress=False).path.read_text()
    again = page.split("Commands to repeat and use it")[1]
    assert "--events" not in again
    assert "--retention" not in again
    few = write_report(run.folder, n_events=2, show_progress=False).path.read_text()
    assert f"dense-imb report {run.folder} --events 2" in few


def test_the_report_says_which_scores_are_at_the_threshold(run, drawn):
    report = write_report(run.folder, show_progress=False)
    page = report.path.read_text()
    assert "Precision, recall and IoU are at the thresholds of F1; likeliest: each" in page
    row = report.evaluation.rows[1]
    p, r = row["precision"], row["recall"]
    if p + r > 0:
        assert row["f1"] == pytest.approx(2 * p * r / (p + r))
        assert row["iou"] == pytest.approx(row["f1"] / (2 - row["f1"]))
