"""Two stages: one config, each stage a run, and resumed in either."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.config import (
    MixingConfig,
    SamplingConfig,
    SecondConfig,
    TrainConfig,
    UnlabelledConfig,
    with_defaults,
)
from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.engine import Interrupted
from dense_imb.metrics import ScoreHistogram
from dense_imb.models import head_of
from dense_imb.report import write_report
from dense_imb.runs import SamplingWarning, open_run, train
from dense_imb.tasks.hits.scoring import is_signal
from dense_imb.tasks.recipe import build_task
from dense_imb.tasks.stages import stages_of
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import write_folders
from tests.runs.staged import pictures, stop_at, two
from tests.runs.tiny import assert_same_runs, changed, clean_events, tiny, write_events

fit_module = importlib.import_module("dense_imb.runs.train")

# networks of ten steps may well be blank
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(24))


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory) -> Path:
    """A run in two stages that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(two(folders), folder, is_quiet=True)
    return folder


def assert_same_two(got: Path, wanted: Path) -> None:
    assert_same_runs(got, wanted)
    assert_same_runs(got / "first", wanted / "first")
    assert open_run(got).metrics["first"] == open_run(wanted).metrics["first"]


def test_the_stages_of_a_config_are_whole_configs():
    config = TrainConfig(
        loss="CrossEntropyLoss",
        feature_loss="RangeLoss",
        patience=3,
        sampling=SamplingConfig("sqrt"),
        unlabelled=UnlabelledConfig(rest=True),
        labelled_share=0.1,
        second=SecondConfig(
            steps=7,
            parts="head",
            learning_rate=0.5,
            sampling=SamplingConfig("power", 0.3),
            mixing=MixingConfig("mixup"),
        ),
    )
    first, second = stages_of(config)
    assert first == with_defaults(changed(config, second=SecondConfig()))
    assert second is not None
    assert second.second == SecondConfig()
    assert (second.steps, second.loss, second.patience) == (7, "CrossEntropyLoss", 3)
    assert (second.optimizer.learning_rate, second.optimizer.parts) == (0.5, "head")
    assert second.sampling == SamplingConfig("power", 0.3)
    assert second.mixing == MixingConfig("mixup")
    assert second.labelled_share == 0.1
    assert not second.is_semi_supervised, "the labelled images only"
    assert second.feature_loss is None, "features that stay as they are have no loss"
    assert stages_of(changed(config, second=SecondConfig(7)))[1].feature_loss == "RangeLoss"


def test_the_first_stage_is_the_run_that_it_would_be_alone(folders, whole, tmp_path):
    alone = train(stages_of(two(folders))[0], tmp_path / "alone", is_quiet=True)
    assert_same_runs(whole / "first", alone.folder)
    assert open_run(whole / "first").config == alone.config


def test_the_second_stage_begins_from_the_best_network_of_the_first(folders, whole, tmp_path):
    """A warm start of the second config alone is the same."""
    first, second = stages_of(two(folders))
    best = open_run(whole / "first").metrics["best"]
    weights = open_run(whole / "first").weights("best")
    last = open_run(whole / "first").weights("last")
    if best["step"] < first.steps:
        assert any(not torch.equal(weights[name], last[name]) for name in weights)
    train(second, tmp_path / "again", warm_start=whole / "first", is_quiet=True)
    for kind in ("best", "last"):
        got, wanted = (open_run(f).weights(kind) for f in (tmp_path / "again", whole))
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_run_in_two_stages_is_read_as_its_second(folders, whole):
    run = open_run(whole)
    named = changed(two(folders), loss=run.whole_config.loss)
    assert run.whole_config == with_defaults(named)
    assert run.config == stages_of(named)[1]
    assert run.first is not None
    assert run.first.folder == whole / "first"
    assert run.first.first is None
    metrics = run.metrics
    assert metrics["is_finished"]
    assert metrics["first"] == run.first.metrics["best"]
    names = [metrics["first"]["average_precision"], metrics["best"]["average_precision"]]
    assert "average precision {:.4f} -> {:.4f}".format(*names) in run.summary()
    assert "stage 1: 6 steps in " in run.summary()
    assert "; stage 2: 4 steps in " in run.summary()
    weights = run.trained().network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in run.weights().items())


@pytest.mark.parametrize("parts", ["all", "head"])
def test_classifiers_are_trained_in_two_stages(tmp_path, parts):
    folder = write_tables(tmp_path / "data")
    second = SecondConfig(steps=4, loss="csce", parts=parts)
    config = of_table(folder, steps=4, validate_every=2, second=second)
    run = train(config, tmp_path / "run", is_quiet=True)
    assert [row["step"] for row in run.history] == [2, 4]
    assert "balanced accuracy" in run.summary()
    assert "class" in str(run.checkpoint()["setup"]["sampling"])
    before, after = run.first.weights("best"), run.weights("last")
    head = [name for name in before if name.startswith("head")] or [*before][-2:]
    for name in before:
        is_same = torch.equal(before[name], after[name])
        assert is_same == (parts == "head" and name not in head), name
    n_head = sum(before[name].numel() for name in head)
    told = run.checkpoint()["setup"].get("parts", "")
    assert told.startswith(f"{n_head} of ") if parts == "head" else not told


def test_a_denoiser_is_scored_by_the_loss_of_its_second_stage(events, tmp_path):
    """Values after logits: the reading is that of the network that came out."""
    second = SecondConfig(steps=4, loss="ACBMSELoss", sampling=SamplingConfig())
    config = tiny(events, loss="CrossEntropyLoss", steps=4, validate_every=4, second=second)
    run = train(config, tmp_path / "run", is_quiet=True)
    assert not run.trained().reading.is_logit
    assert run.first.trained().reading.is_logit
    held_out = build_task(run.config).validation
    shown = held_out.degraded(np.arange(len(held_out)), VALIDATION_EPOCH).torch()
    for one in (run, run.first):
        histogram = ScoreHistogram()
        histogram.update(one.trained().score(shown), is_signal(shown))
        assert histogram.auc() == one.scores().auc() == one.metrics["best"]["auc"]
    typed = ["evaluate", str(run.folder), str(run.first.folder), events, "--noise", "20"]
    assert main([*typed, "--no-baselines", "--quiet"]) == 0


def test_images_of_the_same_classes_are_told_of_once(tmp_path):
    config = two(write_folders(tmp_path, n_classes=2))
    with pytest.warns(SamplingWarning) as told:
        train(config, tmp_path / "run", is_quiet=True)
    assert [one.category for one in told].count(SamplingWarning) == 1


# stopped and resumed


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (3, "step 3 of stage 1 of 2"),
        (6, "step 6 of stage 1 of 2"),  # its last one: it must not begin with the second
        (8, "step 2 of stage 2 of 2"),
    ],
)
def test_a_signal_in_either_stage_is_obeyed_and_resumed_to_the_bit(
    folders, whole, tmp_path, step, told
):
    config, folder = two(folders), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, step)
        with pytest.raises(Interrupted, match=told) as stopped:
            train(config, folder, is_quiet=True)
    assert stopped.value.exit_code == 75
    assert not open_run(folder).metrics.get("is_finished")
    assert not (folder / "best.safetensors").exists() or step > 6
    train(config, folder, resume=True, is_quiet=True)
    assert_same_two(folder, whole)


@pytest.mark.parametrize("step", [1, 7])
def test_a_crash_in_either_stage_is_resumed_to_the_bit(folders, whole, tmp_path, monkeypatch, step):
    config, folder = two(folders), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, step, error=True)
        with pytest.raises(RuntimeError, match="killed"):
            train(config, folder, is_quiet=True)
    train(config, folder, resume=True, is_quiet=True)
    assert_same_two(folder, whole)


def test_a_crash_between_the_stages_trains_only_the_second(folders, whole, tmp_path, monkeypatch):
    config, folder = two(folders), tmp_path / "run"

    def crash(*_: Any) -> None:
        raise RuntimeError("killed")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_module, "_begin_second", crash)
        with pytest.raises(RuntimeError, match="killed"):
            train(config, folder, is_quiet=True)
    run = open_run(folder)
    assert "no validation of the second stage yet" in run.summary()
    with pytest.raises(ValueError, match="the second stage has not begun, the first one is a run"):
        run.weights()
    before = {path: path.stat().st_mtime_ns for path in (folder / "first").rglob("*.*")}
    stop_at(monkeypatch, 5, error=True)  # there are four steps left
    train(config, folder, resume=True, is_quiet=True)
    assert {path: path.stat().st_mtime_ns for path in (folder / "first").rglob("*.*")} == before
    assert_same_two(folder, whole)


def test_a_second_stage_that_has_begun_needs_the_first_no_more(folders, whole, tmp_path):
    config, folder = two(folders), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, 8)
        with pytest.raises(Interrupted):
            train(config, folder, is_quiet=True)
    shutil.rmtree(folder / "first")
    train(config, folder, resume=True, is_quiet=True)
    assert_same_runs(folder, whole)
    assert open_run(folder).metrics["first"] == open_run(whole).metrics["first"]


def test_a_first_stage_that_stops_early_is_followed_by_the_second(folders, tmp_path):
    config = changed(two(folders, learning_rate=1e-9), patience=1)
    config.optimizer.learning_rate = 0.0  # nothing becomes better
    run = train(config, tmp_path / "run", is_quiet=True)
    assert "has not improved" in run.first.metrics["stopped"]
    assert run.first.metrics["steps"] == 4
    assert run.metrics["is_finished"]


def test_no_second_stage_follows_a_first_one_that_collapsed(folders, tmp_path):
    config, folder = two(folders), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_module, "_begin_second", lambda *_: None)
        stop_at(patched, 7, error=True)
        with pytest.raises(RuntimeError):
            train(changed(config, save_every=60.0), folder, is_quiet=True)
    path = folder / "first" / "metrics.json"
    path.write_text(path.read_text().replace('"stopped": null', '"stopped": "collapsed: blank"'))
    with pytest.raises(ValueError, match="a finished first stage in .* was stopped .*collapsed"):
        train(config, folder, resume=True, is_quiet=True)


# parts


def test_the_head_alone_is_trained_from_another_run_only(folders, whole, tmp_path):
    config = stages_of(two(folders))[0]
    config.optimizer.parts = "head"
    with pytest.raises(
        ValueError, match=r"for `optimizer.parts=head`, got none.* add `warm_start=RUN`"
    ):
        train(config, tmp_path / "none", is_quiet=True)
    two_heads = changed(config, second=SecondConfig(4))
    with pytest.raises(ValueError, match="all layers but the head would stay random"):
        train(two_heads, tmp_path / "none", is_quiet=True)
    run = train(config, tmp_path / "run", warm_start=whole, is_quiet=True)
    before, after = open_run(whole).weights(), run.weights("last")
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    network = run.trained().network
    wanted = [id(weight) for weight in head_of(network).parameters()]
    assert moved == [name for name, w in network.named_parameters() if id(w) in wanted]
    assert len(run.checkpoint("last")["optimizer"]["state"]) == len(moved)
    # resumed, no other run is needed; and all parts are another setup
    train(config, run.folder, resume=True, is_quiet=True)
    config.optimizer.parts = "all"
    with pytest.raises(ValueError, match="optimizer.parts: head there, all here"):
        train(config, run.folder, resume=True, is_quiet=True)


# commands


def test_a_run_in_two_stages_is_one_command(folders, tmp_path, capsys):
    folder = tmp_path / "run"
    typed = [
        "train", "images", "--out", str(folder),
        "--images.train", folders[0], "--images.masks", folders[1],
        "--images.patch", "[32, 32]", "--model.options", '{"widths": [4, 8]}', "--steps", "4",
        "--batch_size", "4", "--second.steps", "2", "--second.loss", "FocalLoss(balance={})",
        "--second.sampling.kind", "sqrt", "--resume",
    ]  # fmt: skip
    assert main([*typed, "--report", "false"]) == 0
    told = capsys.readouterr()
    assert "first stage -> second stage: average precision" in told.out
    assert "stage 1 of 2" in told.err
    assert "stage 2 of 2" in told.err
    assert open_run(folder).config.sampling.kind == "sqrt"
    report = write_report(folder, show_progress=False)
    page = report.path.read_text()
    assert f"that of a second stage; the first one is {folder / 'first'}" in page
    assert "FocalLoss(balance={})" in page
    assert report.numbers["config"]["second"]["steps"] == 2
    assert main([*typed, "--report", "false", "--quiet"]) == 0
    assert "finished before, nothing was left to do" in capsys.readouterr().out
    assert main(["segment", str(folder), folders[0], str(tmp_path / "masks"), "--quiet"]) == 0
    assert main(["export", str(folder), str(tmp_path / "network.pt2"), "--quiet"]) == 0
    told = "after a first stage with `CrossEntropyLoss`"
    assert told in (tmp_path / "network.pt2.md").read_text()
    runs = [str(folder), str(folder / "first")]
    assert main(["evaluate", *runs, folders[0], "--masks", folders[1]]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "images", "--help"])
    assert "--second.steps 500" in capsys.readouterr().out
