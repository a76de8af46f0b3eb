"""The loss of a run that names none: what `inspect` recommends, kept in the configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dense_imb.cli import main
from dense_imb.config import HitsConfig, SecondConfig, TrainConfig, UnlabelledConfig
from dense_imb.inspection import inspect_hits, inspect_images, text_of
from dense_imb.losses.foreign.recommended import recommended_for_pixels
from dense_imb.runs import Recipe, open_run, train
from dense_imb.runs.read import config_from
from dense_imb.tasks.images.recipe import ImagesRecipe
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

# networks of ten steps may well be blank
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
SHORT = {"steps": 2, "validate_every": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), 8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("hits") / "a.h5", clean_events(16))


@pytest.mark.parametrize(
    ("class_counts", "loss"),
    [
        ([9986, 14], "BalancedSoftmaxLoss"),
        ([14, 9986], "BalancedSoftmaxLoss"),
        ([10, 1], "CrossEntropyLoss"),
        ([1000, 0], "CrossEntropyLoss"),
        ([10_000, 100, 1], "CrossEntropyLoss"),
        ([10_000, 100, 0], "CrossEntropyLoss"),
    ],
)
def test_the_loss_for_pixels(class_counts, loss):
    assert recommended_for_pixels(class_counts).loss == loss


def test_train_and_inspect_agree_on_images(folders, tmp_path):
    inspection = inspect_images(*folders, show_progress=False)
    run = train(tiny_images(folders, **SHORT), tmp_path / "run", is_quiet=True)
    recommended = inspection.numbers["recommended_loss"]["loss"]
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["loss"] == open_run(run.folder).config.loss == recommended
    assert f"begin with {recommended}" in text_of(inspection)


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"model": {"name": "hits:tiny", "options": {}}}, "CrossEntropyLoss"),
        ({}, "BalancedSoftmaxLoss"),
        ({"hits": {"output": "value", "pixels": "frame"}}, "ACBMSELoss"),
    ],
)
def test_hits_and_frames_have_a_loss_each(path, tmp_path, changes, loss):
    run = train(tiny(path, **SHORT, **changes), tmp_path / "run", is_quiet=True)
    assert run.config.loss == loss
    assert f"begin with {loss} on" in text_of(inspect_hits(path, show_progress=False)) or (
        loss != "BalancedSoftmaxLoss"
    )


def test_the_command_says_which_loss_it_takes(folders, tmp_path, capsys):
    words = ["train", "images", "--images.train", folders[0], "--images.masks", folders[1],
             "--model.options", '{"widths": [4, 8]}', "--images.patch", "32", "32", "--steps", "2",
             "--batch-size", "4", "--report", "false", "--quiet"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("loss: BalancedSoftmaxLoss, as `dense-imb inspect` recommends for a fo")
    assert line.endswith(" %; --loss overrides")
    assert main([*words, "--out", str(tmp_path / "b"), "--loss", "FocalLoss"]) == 0
    assert "loss: " not in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "a"), "--resume"]) == 0  # it is named by now
    assert "loss: " not in capsys.readouterr().out


def test_a_resumed_run_keeps_the_loss_that_its_data_chose(folders, tmp_path, monkeypatch):
    config = tiny_images(folders, **SHORT)
    train(config, tmp_path / "run", is_quiet=True)
    monkeypatch.setattr(ImagesRecipe, "choose_loss", lambda recipe: 1 / 0)
    assert train(config, tmp_path / "run", resume=True, is_quiet=True).metrics["steps"] == 2


def test_both_stages_take_the_loss_that_the_data_choose(folders):
    config = tiny_images(folders, second=SecondConfig(2))
    recipe, sentence = Recipe.of(config).resolved()
    assert recipe.second is not None
    assert recipe.config.loss == recipe.second.config.loss == "BalancedSoftmaxLoss"
    assert recipe == Recipe.of(recipe.whole_config)
    assert "BalancedSoftmaxLoss" in sentence
    named = replace(config, second=SecondConfig(2, loss="FocalLoss"))
    second = Recipe.of(named).resolved()[0].second
    assert second is not None
    assert second.config.loss == "FocalLoss"


def test_a_named_loss_stays(folders):
    recipe = Recipe.of(tiny_images(folders, loss="FocalLoss"))
    assert recipe.resolved() == (recipe, "")


def test_mixing_takes_the_default_loss(folders, tmp_path):
    config = config_from(
        {"images": {"train": folders[0], "masks": folders[1], "patch": [32, 32]},
         "model": {"options": {"widths": [4, 8]}}, "mixing": {"kind": "mixup"}, "batch_size": 4,
         **SHORT}
    )  # fmt: skip
    assert train(config, tmp_path / "run", is_quiet=True).config.loss == "BalancedSoftmaxLoss"


def test_pseudo_labels_do_not_change_the_default(folders):
    rest = {"labelled_share": 0.5, "unlabelled": UnlabelledConfig(rest=True)}
    recipe, _ = Recipe.of(tiny_images(folders, **rest)).resolved()
    assert recipe.config.loss == "BalancedSoftmaxLoss"
    assert recipe.build_task() is not None


def test_whole_images_keep_cross_entropy(tmp_path):
    table = of_table(write_tables(tmp_path))
    assert Recipe.of(table).config.loss == "CrossEntropyLoss"


@pytest.mark.parametrize(
    "stored", [{"data": {"train": "a.h5"}}, {"hits": {"train": "a.h5"}, "pixels": "frame"}]
)
def test_older_files_keep_the_older_default(stored):
    assert config_from(stored).loss == "CrossEntropyLoss"


def test_runs_without_a_loss_keep_the_older_default():
    stored = {"images": {"train": "images", "masks": "masks"}}
    assert config_from(stored, is_run=True).loss == "CrossEntropyLoss"
    assert config_from(stored).loss == TrainConfig(hits=HitsConfig()).loss == "auto"


def test_a_used_folder_is_refused_before_the_images_are_read(folders, tmp_path, capsys):
    out = Path(tmp_path / "used")
    out.mkdir()
    (out / "note").write_text("mine")
    words = ["--images.train", folders[0], "--images.masks", folders[1], "--out", str(out)]
    assert main(["train", "images", *words]) == 2
    assert "with files" in capsys.readouterr().err
