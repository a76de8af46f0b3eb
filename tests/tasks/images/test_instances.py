"""Losses per instance of segmenters: the loss gets the map of its crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.cli import main
from dense_imb.config import SecondConfig, UnlabelledConfig
from dense_imb.data.images.instances import (
    check_instances,
    label_instances,
    nearest_instance,
    write_instances,
)
from dense_imb.data.images.labelled import IGNORED, open_labelled
from dense_imb.engine import Callback, Interrupted, Loop
from dense_imb.runs import open_run, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.images.recipe import open_images
from dense_imb.tasks.images.task import ImagesOptions, ImagesReading, ImagesTask
from dense_imb.tasks.mean_teacher import PseudoLoss
from dense_imb.tasks.recipe import Recipe, build_task
from tests.engine.test_loop import Signal
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import assert_same_runs

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
padded = pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.PatchWarning")
CPU = torch.device("cpu")
PER_INSTANCE = 'CrossEntropyLoss(per="instance")'


class Recording(nn.Module):
    """A loss of a user's that wants instances, and keeps what it is given."""

    per, feeds_on = "instance", "logits"

    def forward(self, logits, target, *, instance=None, mask=None):
        self.given = target, instance, mask
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n_classes=3)


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"))


def whole_maps(data: object, places: np.ndarray) -> np.ndarray:
    return np.stack([label_instances(data.label(i)) for i in places.tolist()])


@pytest.mark.parametrize(
    "loss",
    [
        PER_INSTANCE,
        f"torch.nn:CrossEntropyLoss + {PER_INSTANCE}",
        'DiceLoss(per="instance")',
        'DiceLoss(per="instance") + CrossEntropyLoss',
    ],
)
def test_the_loss_gets_the_map_that_training_makes_by_itself(folders, loss):
    images = {"patch": [40, 48], "flips": False}
    task = build_task(tiny_images(folders, images=images, loss=loss))
    samples = np.array([0, 3, 4])
    batch = task.batch(samples, 0, CPU)
    assert batch.instance.dtype == torch.int32
    np.testing.assert_array_equal(batch.instance, whole_maps(task.train, samples))
    output = torch.linspace(-1, 1, 3 * 3 * 40 * 48).view(3, 3, 40, 48)
    assert task.cost_of(output, batch).isfinite()
    assert task.describe()["instances"] == "components"
    assert task.cost(task.network, batch) > 0
    assert len(task.gradient_shares(task.network, batch)) == 3


def test_a_loss_of_a_users_own_gets_target_map_and_mask(two_classes):
    images = open_labelled(*two_classes)
    loss, reading = Recording(), ImagesReading(2, (90.0,), (20.0,), (64, 64))
    task = ImagesTask(nn.Conv2d(1, 1, 1), loss, TrainingData(images, images), reading)
    batch = task.batch(np.arange(4), 1, CPU)
    task.cost(task.network, batch)
    target, instance, mask = loss.given
    assert instance is batch.instance
    assert not instance[~mask].any()  # around the images
    assert (instance > 0).sum() == (target == 1).sum() > 0
    for numbers, label in zip(instance.numpy(), batch.label.numpy(), strict=True):
        check_instances(numbers, label)


def test_losses_per_class_see_no_map(folders):
    task = build_task(tiny_images(folders))
    assert task.batch(np.arange(2), 0, CPU).instance is None
    assert not task.train.has_instances
    assert "instances" not in task.describe()


@pytest.mark.parametrize("kind", ["nearest", "folder"])
def test_nearest_and_stored_maps(folders, tmp_path, kind):
    place = "nearest" if kind == "nearest" else str(tmp_path / "maps")
    if kind == "folder":
        write_instances(open_labelled(*folders), place)
    images = {"instances": place, "patch": [40, 48], "flips": False}
    task = build_task(tiny_images(folders, images=images, loss=PER_INSTANCE))
    batch = task.batch(np.arange(2), 0, CPU)
    wanted = [nearest_instance(one) for one in whole_maps(task.train, np.arange(2))]
    np.testing.assert_array_equal(batch.instance, np.stack(wanted))
    assert task.describe()["instances"].startswith("nearest" if kind == "nearest" else "stored")


def test_crops_hold_the_numbers_of_the_whole(folders):
    task = build_task(tiny_images(folders, images={"patch": [16, 16]}, loss=PER_INSTANCE))
    samples = np.arange(40)
    batch = task.batch(samples, 0, CPU)
    n_whole = whole_maps(task.train, samples % len(task.train)).reshape(40, -1).max(1)
    for numbers, label, n in zip(batch.instance, batch.label, n_whole, strict=True):
        check_instances(numbers.numpy(), label.numpy())
        assert numbers.max() <= n
        assert ((numbers > 0) == (label > 0)).all()
    assert (batch.instance.flatten(1).amax(1) == 2).any()  # one of two is in view, and keeps its 2


def test_each_component_counts_the_same_whatever_its_size(folders):
    images = {"above": 0, "patch": [24, 24], "foreground": 1.0}  # two lines of one class
    task = build_task(tiny_images(folders, images=images, loss=PER_INSTANCE))
    batch = task.batch(np.arange(8), 0, CPU)
    output = torch.randn(8, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    error = nn.functional.binary_cross_entropy_with_logits(
        output[:, 0], batch.label.float(), reduction="none"
    )
    objects, empty = [], []
    for one, label, number in zip(error, batch.label, batch.instance, strict=True):
        objects += [one[number == r].mean() for r in number[number > 0].unique()]
        empty.append(one[label == 0].mean())
    assert len(objects) > 8  # some crops hold both lines
    wanted = (torch.stack(objects).mean() + torch.stack(empty).mean()) / 2
    torch.testing.assert_close(task.cost_of(output, batch), wanted)


@padded
@pytest.mark.parametrize("step", [5, 7])
def test_a_resumed_run_is_the_same_to_the_bit(folders, tmp_path, monkeypatch, step):
    config = tiny_images(
        folders, images={"instances": "nearest", "patch": [64, 32]}, loss=PER_INSTANCE
    )
    whole = train(config, tmp_path / "whole", is_quiet=True)
    monkeypatch.setattr(Loop, "_makes_ahead", True)
    signal_at = Signal(step)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "again", is_quiet=True)
    monkeypatch.setattr(RunFiles, "on_step", Callback.on_step)
    again = train(config, tmp_path / "again", is_quiet=True, resume=True)
    assert_same_runs(again.folder, whole.folder)


def test_the_command_trains_per_instance(two_classes, tmp_path):
    words = ["train", "images", "--out", str(tmp_path / "run"), "--images.train", two_classes[0],
             "--images.masks", two_classes[1], "--images.patch", "[32, 32]", "--steps", "2",
             "--batch_size", "4", "--model.options", "{widths: [4, 8]}", "--quiet",
             "--report", "false", "--loss", PER_INSTANCE]  # fmt: skip
    assert main(words) == 0
    assert open_run(tmp_path / "run").checkpoint("last")["setup"]["instances"] == "components"


def test_labels_that_are_hidden_and_a_loss_of_pseudo_labels(folders):
    unlabelled = UnlabelledConfig(rest=True)
    config = tiny_images(folders, loss=PER_INSTANCE, labelled_share=0.5, unlabelled=unlabelled)
    sentence = (
        r'A loss of pseudo-labels takes no per="instance": .* components; add '
        "`unlabelled.loss=CrossEntropyLoss`"
    )
    with pytest.raises(ValueError, match=sentence):
        Recipe.of(config)
    with pytest.raises(ValueError, match=sentence):
        PseudoLoss(Recording(), is_dense=True)
    unlabelled.loss = "CrossEntropyLoss"
    task = build_task(config)
    batch = task.batch(np.arange(2), 0, CPU)
    assert batch.labelled.instance is not None
    task.follow(task.network, 0)
    assert task.cost(task.network, batch).isfinite()


def test_mixing_is_refused(folders):
    config = tiny_images(folders, loss=PER_INSTANCE)
    config.mixing.kind = "mixup"
    sentence = "no mixing of images with a loss per instance, got mixup, in which objects of two"
    with pytest.raises(ValueError, match=sentence):
        Recipe.of(config)
    plain = build_task(tiny_images(folders, mixing=config.mixing))
    with pytest.raises(ValueError, match=sentence):
        ImagesTask(
            plain.network, Recording(), plain.data, plain.reading, ImagesOptions(mixer=plain.mixer)
        )


def test_maps_that_no_loss_takes_are_refused(folders):
    config = tiny_images(folders, images={"instances": "nearest"})
    with pytest.raises(ValueError, match=r"`images.instances` changes nothing without a loss per"):
        Recipe.of(config)
    config.second = SecondConfig(steps=5, loss=PER_INSTANCE)
    assert Recipe.of(config).second is not None
    assert not build_task(config).batch(np.arange(1), 0, CPU).instance
    config.images.instances = "nearst"
    with pytest.raises(ValueError, match=r"`images.instances` as components.*did you mean 'near"):
        build_task(config)


def test_ignored_pixels_belong_to_no_instance(folders):
    images = {"instances": "nearest", "ignore_index": 2, "n_classes": 2, "patch": [40, 48]}
    task = build_task(tiny_images(folders, images=images, loss=PER_INSTANCE))
    batch = task.batch(np.arange(4), 0, CPU)
    is_ignored = batch.label == IGNORED
    assert is_ignored.any()
    assert not batch.instance[is_ignored].any()
    assert batch.instance[~is_ignored].all()
    assert task.cost(task.network, batch).isfinite()


def test_validation_images_have_no_maps(folders):
    train_images, validation = open_images(tiny_images(folders).images)
    assert not train_images.has_instances
    assert not validation.has_instances
