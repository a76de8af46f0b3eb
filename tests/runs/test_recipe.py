"""A recipe is the check of a configuration, made once and handed on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dense_imb.config import SamplingConfig, SecondConfig, TrainConfig, with_defaults
from dense_imb.runs import Recipe, open_run, train
from dense_imb.tasks import recipe as module
from dense_imb.tasks.images.recipe import PatchWarning
from dense_imb.tasks.kind import kind_of
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.staged import pictures
from tests.runs.tiny import clean_events, tiny, write_events


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("hits") / "a.h5", clean_events(16))


def test_the_text_of_a_loss_is_parsed_once(path, tmp_path, monkeypatch):
    texts: list[str] = []
    parse = module.parse_spec

    def counting(text: str):
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(module, "parse_spec", counting)
    train(tiny(path, loss="BalancedSoftmaxLoss", steps=2), tmp_path / "run", is_quiet=True)
    assert texts == ["BalancedSoftmaxLoss"]


def test_a_run_folder_gives_the_recipe_that_it_was_trained_from(path, tmp_path):
    config = tiny(path, steps=2, second=SecondConfig(2, sampling=tiny(path).sampling))
    run = train(config, tmp_path / "run", is_quiet=True)
    recipe, _ = Recipe.of(config).resolved()
    assert Recipe.read(open_run(run.folder).whole_config) == recipe
    assert open_run(run.folder).recipe == recipe.last
    assert recipe.config.second.steps == 0
    assert recipe.whole_config == with_defaults(replace(config, loss="BalancedSoftmaxLoss"))


def test_reading_builds_no_loss_and_checking_does(path):
    config = tiny(path, loss="torch.nn:NoSuchLoss")
    assert Recipe.read(config).config == with_defaults(config)
    with pytest.raises(ValueError, match="NoSuchLoss"):
        Recipe.of(config)


def test_the_kind_follows_the_section_that_names_data(path, tmp_path):
    folders = write_folders(tmp_path)
    assert kind_of(tiny(path)).name == "hits"
    assert kind_of(tiny_images(folders)).name == "images"
    with pytest.raises(ValueError, match=r"Expected training data, got none; .*`labels.train=CSV`"):
        kind_of(TrainConfig())
    both = replace(tiny(path), images=tiny_images(folders).images)
    with pytest.raises(
        ValueError, match="one kind of training data, got hits.train and images.train"
    ):
        kind_of(both)


def test_progressive_sampling_arrives_at_the_end_of_the_run(tmp_path):
    folders = pictures(tmp_path, n=10)  # of which every second one lacks the last class
    config = tiny_images(folders, steps=12, sampling=SamplingConfig("progressive"))
    task = Recipe.of(config).build_task()
    n_steps = task.n_samples // config.batch_size  # of an epoch
    assert task.sampling is not None
    assert task.sampling.n_epochs == -(-config.steps // n_steps)


def test_options_that_change_nothing_are_refused(path):
    for hits, wrong in (({"noise": 0, "profiles": ["blob"]}, "hits.profiles"),):
        with pytest.raises(ValueError, match=f"`{wrong}` changes nothing while `hits.noise` is 0"):
            Recipe.of(tiny(path, hits=hits))


def test_a_crop_larger_than_every_image_is_warned_of(tmp_path):
    folders = write_folders(tmp_path, size=(24, 24))
    with pytest.warns(PatchWarning, match=r"images.patch \[40, 24\] is larger .* 24 x 24"):
        Recipe.of(tiny_images(folders, images={"patch": [40, 24]})).build_task()
