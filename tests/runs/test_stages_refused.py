"""Second stages that can't be, and first stages that are another's: one sentence each."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dense_imb.config import MixingConfig, SamplingConfig, SecondConfig, TrainConfig
from dense_imb.engine import Interrupted
from dense_imb.runs import train
from dense_imb.tasks.recipe import Recipe
from tests.runs.staged import pictures, stop_at, two
from tests.runs.tiny import changed

fit_module = importlib.import_module("dense_imb.runs.train")

# networks of ten steps may well be blank
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"steps": -1}, "`second.steps` to be a number of at least 0, got -1"),
        ({"learning_rate": -1.0}, "`second.learning_rate` to be a number of at least 0, got -1"),
        ({"steps": 0}, "`second.loss` is set but `second.steps` is 0; add `second.steps=N`"),
        ({"loss": "FocalLos"}, "^second stage: .*FocalLos"),
        ({"mixing": MixingConfig("mixup", alpha=0.0)}, "^second stage: .*`alpha`"),
        ({"sampling": SamplingConfig("power", -1.0)}, "^second stage: .*`power`"),
    ],
)
def test_a_bad_second_stage_is_one_sentence(folders, tmp_path, second, told):
    with pytest.raises(ValueError, match=told) as refused:
        train(two(folders, **second), tmp_path / "run", is_quiet=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"loss": "torch.nn:MultiMarginLoss", "mixing": MixingConfig("mixup")}, "second stage: "),
        ({"sampling": SamplingConfig("class")}, "second stage: Expected an image of each class"),
    ],
)
def test_what_the_data_do_not_allow_in_the_second_stage_is_told_before_the_first(
    folders, tmp_path, second, told
):
    config = two(folders, **second)
    config.images.n_classes = 4  # of which one is nowhere
    with pytest.raises(ValueError, match=told):
        train(config, tmp_path / "run", is_quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_mistake_of_both_stages_is_told_of_the_first(folders, tmp_path):
    config = changed(two(folders, loss=None), loss="FocalLos")
    with pytest.raises(ValueError, match="^Expected") as refused:
        Recipe.of(config)
    assert "second stage" not in str(refused.value)


def between(config: TrainConfig, folder: Path) -> None:
    """A run whose second stage has not begun."""
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, config.steps)
        with pytest.raises(Interrupted):
            train(config, folder, is_quiet=True)


def test_the_first_stage_of_another_model_is_refused(folders, tmp_path):
    config = two(folders)
    between(config, tmp_path / "run")
    other = changed(config, second=SecondConfig())
    other.model = dataclasses.replace(config.model, options={"widths": [4]})
    train(other, tmp_path / "other", is_quiet=True)
    first = tmp_path / "run" / "first"
    # the whole folder
    shutil.move(first, tmp_path / "kept")
    shutil.copytree(tmp_path / "other", first)
    with pytest.raises(ValueError, match=r"first stage of this run.*\[4\].* there, .*\[4, 8\]"):
        train(config, tmp_path / "run", resume=True, is_quiet=True)
    # the checkpoints alone
    shutil.copy(tmp_path / "kept" / "config.yaml", first)
    told = r"FastUNet, \d+ parameters there, FastUNet, \d+ parameters here.*bring it back"
    with pytest.raises(ValueError, match=told):
        train(config, tmp_path / "run", resume=True, is_quiet=True)
    # a foreign folder
    (first / "config.yaml").unlink()
    with pytest.raises(ValueError, match="with files"):
        train(config, tmp_path / "run", resume=True, is_quiet=True)


def test_the_first_stage_of_other_data_is_refused(folders, tmp_path):
    config = two(folders)
    between(config, tmp_path / "run")
    images, masks = pictures(tmp_path / "more", n=6, seed=5)
    for folder in (tmp_path / "run", tmp_path / "run" / "first"):
        stored = yaml.safe_load((folder / "config.yaml").read_text())
        stored["images"] |= {"train": images, "masks": masks}
        (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    moved = changed(config, images=dataclasses.replace(config.images, train=images, masks=masks))
    with pytest.raises(ValueError, match=r"Expected the first stage of this run.*\(data: "):
        train(moved, tmp_path / "run", resume=True, is_quiet=True)


def test_files_of_others_are_refused_and_another_second_stage_too(folders, tmp_path):
    (tmp_path / "run" / "first").mkdir(parents=True)
    (tmp_path / "run" / "first" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="with files"):
        train(two(folders), tmp_path / "run", resume=True, is_quiet=True)
    between(two(folders), tmp_path / "another")
    with pytest.raises(ValueError, match="second.loss: FocalLoss there, LDAMLoss here"):
        train(two(folders, loss="LDAMLoss"), tmp_path / "another", resume=True, is_quiet=True)


def test_a_run_has_one_lock_for_both_stages(folders, tmp_path, monkeypatch):
    config, folder = two(folders), tmp_path / "run"
    begin = fit_module._begin_second
    told = []

    def meanwhile(*given: Any) -> Any:
        with pytest.raises(ValueError, match="no other process works in") as refused:
            train(config, folder, resume=True, is_quiet=True)
        told.append(refused)
        return begin(*given)

    monkeypatch.setattr(fit_module, "_begin_second", meanwhile)
    train(config, folder, is_quiet=True)
    assert told
