"""A segmenter that learns from images without masks as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dense_imb.cli import main
from dense_imb.config import UnlabelledConfig
from dense_imb.data.images.labelled import IGNORED
from dense_imb.engine import Callback, Interrupted, Loop
from dense_imb.losses import Balance, BalancedSoftmaxLoss, CrossEntropyLoss
from dense_imb.runs import open_run, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.images import pseudo_labels as unlabelled_images
from dense_imb.tasks.images.pseudo_labels import ImagesPseudoLabels
from dense_imb.tasks.images.recipe import open_images, split_labelled_images
from dense_imb.tasks.images.task import probability_of
from dense_imb.tasks.mean_teacher import PseudoLoss, as_trained
from dense_imb.tasks.recipe import Recipe, build_task
from tests.engine.test_loop import Signal
from tests.runs.pictures import lines, tiny_images, write_folders
from tests.runs.tiny import assert_same_runs

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
padded = pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.PatchWarning")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n=12)


def semi(folders, *, share: float = 0.5, **unlabelled):
    """Half of the labels are hidden."""
    options = {"rest": True, "threshold": 0.6, **unlabelled}
    changes = options.pop("changes", {})
    return tiny_images(
        folders, labelled_share=share, unlabelled=UnlabelledConfig(**options), **changes
    )


class Knowing(nn.Module):
    """A teacher that sees a line where it is bright."""

    def forward(self, shown):
        return 20 * (shown - 2.4)


def test_labels_of_the_rest_are_not_seen(folders):
    config = semi(folders)
    task = build_task(config)
    train_images, _ = open_images(config.images)
    labelled, rest = split_labelled_images(train_images, 0.5)
    assert task.task.train.names == labelled.names
    assert task.unlabelled.images.names == rest.names
    assert not set(labelled.names) & set(rest.names)
    assert sorted([*labelled.names, *rest.names]) == sorted(train_images.names)


def test_who_has_labels_does_not_depend_on_the_seed(folders):
    names = [build_task(replace(semi(folders), seed=seed)).task.train.names for seed in (0, 1)]
    assert names[0] == names[1]


def test_a_strong_view_keeps_the_places_of_the_teachers_labels(folders):
    """A teacher that knows says where lines are; the hidden masks agree, pixel by pixel."""
    config = semi(folders, strong="none", changes={"images": {"flips": False, "patch": [40, 48]}})
    task = build_task(config)
    places = np.arange(task.unlabelled.n_images)
    views = task.unlabelled.views(places, places, 0, CPU)
    pseudo, sure = task.unlabelled.label_views(Knowing(), views, 0.9)
    truth = np.stack([task.unlabelled.images.label(i) for i in places])
    known = (pseudo.label != IGNORED).numpy()
    assert known.mean() == pytest.approx(float(sure.sum()))
    assert float(sure[1]) == pytest.approx((pseudo.label == 1).float().mean())
    assert known.mean() > 0.9
    assert (pseudo.label.numpy()[known] == truth[known]).mean() > 0.99
    assert (pseudo.label.numpy()[truth == 1] == 1).mean() > 0.6


@pytest.mark.parametrize("strong", ["randaugment", "photometric", "hits"])
def test_strong_views_differ_from_weak_ones_and_not_from_themselves(folders, strong):
    task = build_task(semi(folders, strong=strong))
    samples, places = np.arange(4), np.array([0, 1, 2, 0])

    def strong_views(chosen):
        views = task.unlabelled.views(samples[chosen], places[chosen], 2, CPU)
        return views, task.unlabelled.label_views(Knowing(), views, 0.6)[0]

    views, pseudo = strong_views(slice(None))
    _, again = strong_views(slice(2, None))
    assert not torch.equal(views.shown, pseudo.shown)
    assert torch.equal(pseudo.shown[2:], again.shown)
    assert torch.equal(pseudo.label[2:], again.label)
    assert not torch.equal(views.shown[0], views.shown[3])  # another crop of the same image


@padded
def test_around_a_small_image_there_is_no_label(folders):
    task = build_task(semi(folders, changes={"images": {"patch": [64, 64]}}))
    views = task.unlabelled.views(np.arange(2), np.arange(2), 0, CPU)
    pseudo, _ = task.unlabelled.label_views(Knowing(), views, 0.6)
    assert (~views.is_image).sum() == 2 * (64 * 64 - 40 * 48)
    assert (pseudo.label[~views.is_image] == IGNORED).all()


def test_the_strong_view_fits_the_images(folders, tmp_path):
    assert build_task(semi(folders)).unlabelled.strong == "randaugment"
    pixels, mask = lines(8, (40, 48))
    for name, image, wanted in (
        ("floats", pixels / 255.0, "photometric"),
        ("frames", np.where(mask > 0, 3.0, 0.0), "hits"),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["image"], file["mask"] = image, mask
        config = semi((str(tmp_path / f"{name}.h5"), None))
        assert build_task(config).unlabelled.strong == wanted
        with pytest.raises(ValueError, match=r"images of 8 bits with 1 or 3 channels"):
            build_task(semi((str(tmp_path / f"{name}.h5"), None), strong="randaugment"))


def test_the_cost_is_that_of_both_parts(folders):
    task = build_task(replace(semi(folders, ramp=0.5, weight=0.7), loss="CrossEntropyLoss"))
    task.network.eval()  # batch norms of one batch would mix both parts
    batch = task.batch(np.arange(4), 0, CPU)
    task.follow(task.network, 0)
    with torch.no_grad():
        labelled = task.task.cost(task.network, batch.labelled)
        assert torch.allclose(task.cost(task.network, batch), labelled)  # the ramp begins at 0
        task.teacher.n_steps.fill_(2.5)  # of 5 steps: half of the weight
        pseudo, sure = task.unlabelled.label_views(task.teacher.network, batch.unlabelled, 0.6)
        of_pseudo = task.unlabelled.cost(task.network(pseudo.shown), pseudo)
        cost = task.cost(task.network, batch)
    assert 0 < sure.sum() < 1
    assert torch.allclose(cost, labelled + 0.35 * sure.sum() * of_pseudo, atol=1e-6)


def test_without_a_sure_pixel_there_is_nothing_to_pay(folders):
    task = build_task(semi(folders, threshold=0.999999, ramp=0))
    batch = task.batch(np.arange(4), 0, CPU)
    task.follow(task.network, 3)
    cost = task.cost(task.network.eval(), batch)
    labelled = task.task.cost(task.network, batch.labelled)
    assert torch.isfinite(cost)
    assert torch.allclose(cost, labelled)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(ignore_index=-100), CrossEntropyLoss(balance=Balance())]
)
def test_pixels_without_a_label_pull_at_nothing(loss):
    pseudo_loss = PseudoLoss(loss, is_dense=True)
    output = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    output.requires_grad_(True)
    label = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    label[:, 2:] = IGNORED
    pseudo_loss(output, label).backward()
    assert (output.grad[:, :, 2:] == 0).all()
    assert (output.grad[:, :, :2] != 0).all()
    nothing = pseudo_loss(output, torch.full_like(label, IGNORED))
    assert nothing == 0
    assert nothing.requires_grad


@pytest.mark.parametrize("step", [5, 7])
@pytest.mark.parametrize("sampling", ["instance", "reverse"])
def test_a_resumed_run_is_the_same_to_the_bit(folders, tmp_path, monkeypatch, sampling, step):
    """The teacher, and what it thinks of each image, are in the checkpoint.

    Batches made ahead wait for a validation, after which images are drawn by other labels.
    """
    # a teacher that sees a line in every third image: those are drawn more often from then on
    monkeypatch.setattr(
        ImagesPseudoLabels,
        "content",
        lambda self, teacher, places, device: np.stack(
            [np.full_like(places, 9), places % 3 == 0], 1
        ),
    )
    config = semi(folders, sampling=sampling, ramp=0.1)
    whole = train(config, tmp_path / "whole", is_quiet=True)
    monkeypatch.setattr(Loop, "_makes_ahead", True)
    signal_at = Signal(step)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "again", is_quiet=True)
    monkeypatch.setattr(RunFiles, "on_step", Callback.on_step)
    again = train(config, tmp_path / "again", is_quiet=True, resume=True)
    assert_same_runs(again.folder, whole.folder)
    teacher = whole.checkpoint("last")["teacher"]
    assert teacher["n_steps"] == 10
    assert bool(teacher["content"].any()) == (sampling == "reverse")


def test_images_are_drawn_by_the_teachers_labels(folders):
    task = build_task(semi(folders, sampling="reverse", ramp=0))
    n = task.unlabelled.n_images
    task.teacher.content[:, 0] = 100
    task.teacher.content[0, 1] = 5  # one image has a line
    number = (np.arange(1000) + 0.5) / 1000
    drawn = np.bincount(task._places(number), minlength=n) / 1000
    assert (
        drawn[0] > 0.7
    )  # of classes that n and 1 images hold, the second is drawn n times as often
    assert drawn[1:].max() - drawn[1:].min() < 0.01


def test_a_teacher_is_asked_about_whole_images(folders):
    task = build_task(semi(folders, sampling="mean"))
    task.teacher.network = Knowing()
    task.refresh(CPU, 0, 1)
    truth = np.stack(
        [np.bincount(task.unlabelled.images.label(i).ravel(), minlength=2) for i in range(4)]
    )
    assert task.teacher.content[:4, 1].numpy() == pytest.approx(truth[:, 1], rel=0.4)
    # half of the images by each of two processes
    both = task.teacher.content.clone()
    for process in range(2):
        task.refresh(CPU, process, 2)
        mine = task.teacher.content[process::2]
        assert torch.equal(mine, both[process::2])
        assert not task.teacher.content[1 - process :: 2].any()


def test_a_folder_of_images_without_masks(folders, tmp_path, capsys):
    other = tmp_path / "unlabelled"
    other.mkdir()
    pixels, _ = lines(5, (60, 50), seed=9)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(other / f"{i}.png")
    out = tmp_path / "run"
    words = [
        "train",
        "images",
        "--out",
        str(out),
        "--images.train",
        folders[0],
        "--images.masks",
        folders[1],
    ]
    words += ["--images.patch", "32", "32", "--steps", "6", "--batch_size", "4", "--quiet"]
    words += ["--report", "false", "--unlabelled.train", str(other), "--unlabelled.ratio", "2"]
    words += ["--model.options", json.dumps({"widths": [4, 8]})]
    assert main(words) == 0
    rows = open_run(out).history
    assert all(0 <= row["sure_share"] <= 1 for row in rows)
    setup = open_run(out).checkpoint("last")["setup"]["unlabelled"]
    assert "5 images" in setup
    assert "randaugment 2 x 9" in setup
    # other images without masks are another run
    Image.fromarray(pixels[0, ::-1].copy()).save(other / "0.png")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert "unlabelled: 5 images" in capsys.readouterr().err


def test_an_empty_folder_is_refused_in_words(folders, tmp_path, capsys):
    empty = tmp_path / "nothing"
    empty.mkdir()
    words = [
        "train",
        "images",
        "--out",
        str(tmp_path / "run"),
        "--images.train",
        folders[0],
        "--quiet",
    ]
    words += ["--images.masks", folders[1], "--unlabelled.train", str(empty)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "Expected" in told
    assert str(empty) in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rest": True, "share": 1.0}, "`labelled_share` below 1 with `unlabelled.rest`, got 1"),
        (
            {"rest": True, "train": "x"},
            "one of `unlabelled.rest` and `unlabelled.train`, got both: x",
        ),
        ({"rest": False}, "unlabelled samples with options of `unlabelled`, got none"),
        ({"threshold": 1.0}, "`unlabelled.threshold` from 0 to below 1, got 1.0"),
        ({"decay": 1.0}, "`unlabelled.decay` from 0 to below 1, got 1.0"),
        ({"ratio": 0}, "`unlabelled.ratio`"),
        ({"weight": -1.0}, "`unlabelled.weight`"),
        ({"ramp": 1.5}, "`unlabelled.ramp` between 0 and 1, got 1.5"),
        ({"magnitude": 40}, "`unlabelled.magnitude` up to 30, got 40"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(changes, told):
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        Recipe.of(semi(("nowhere", "nowhere"), **changes))


def test_a_loss_that_leaves_nothing_out_is_refused(folders):
    with pytest.raises(ValueError, match=r"pseudo-labels that can leave pixels out.*DiceLoss"):
        build_task(semi(folders, loss="monai.losses:DiceLoss(sigmoid=True)"))


def test_one_channel_is_the_probability_of_the_second_class():
    logits = torch.tensor([[[2.0]]])
    both = probability_of(logits)
    assert torch.allclose(both.sum(1), torch.ones(1, 1))
    assert both[0, 1, 0] > 0.5
    assert torch.allclose(probability_of(torch.tensor([[[0.0], [2.0]]])), both)


def test_images_of_other_channels_are_refused(folders, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((40, 48, 3), np.uint8))
    config = semi(folders, rest=False, train=str(tmp_path))
    with pytest.raises(ValueError, match=r"with 1 channel in 2-D, as the network was trained"):
        build_task(config)


def test_a_teacher_of_balanced_softmax_answers_as_the_training_data_are():
    """Its logits are of classes alike; with 99 background pixels to 1 they say another thing."""
    logits = torch.tensor([[[0.0]]])
    balanced = BalancedSoftmaxLoss(class_counts=[99, 1])
    trained = as_trained(balanced, logits, [99, 1])
    assert torch.allclose(probability_of(trained).flatten(), torch.tensor([0.99, 0.01]))
    both = torch.tensor([[[0.0], [0.0]]])
    assert torch.allclose(as_trained(balanced, both, [99, 1]), trained)
    assert torch.allclose(
        as_trained(CrossEntropyLoss(balance=Balance()), logits, [99, 1]).diff(dim=1),
        trained.diff(dim=1),
    )
    assert as_trained(CrossEntropyLoss(), logits, [99, 1]) is logits


def test_a_strong_view_moves_no_pixel_away_from_its_label(folders, monkeypatch):
    asked = []

    def spy(images, samples, **options):
        asked.append(options)
        return images

    monkeypatch.setattr(unlabelled_images, "rand_augment", spy)
    task = build_task(semi(folders, operations=3, magnitude=7))
    views = task.unlabelled.views(np.arange(2), np.arange(2), 4, CPU)
    pseudo, _ = task.unlabelled.label_views(Knowing(), views, 0.6)
    assert torch.equal(pseudo.shown, views.shown)  # as the spy changes nothing
    assert asked == [{"operations": 3, "magnitude": 7, "moves": False, "seed": 0, "epoch": 4}]


def test_a_loss_of_features_sees_the_labelled_ones(folders):
    """The features of both parts are caught together; those of the first have labels."""
    config = semi(folders, ramp=0, changes={"feature_loss": "RangeLoss(max_pixels=4000)"})
    task = build_task(config)
    task.network.eval()
    batch = task.batch(np.arange(4), 0, CPU)
    task.follow(task.network, 1)
    plain = build_task(replace(config, feature_loss=None))
    plain.follow(plain.network.eval(), 1)
    of_features = task.cost(task.network, batch) - plain.cost(plain.network, batch)
    alone = task.task.cost(task.network, batch.labelled)
    alone = alone - plain.task.cost(plain.network, batch.labelled)
    assert of_features > 0
    assert torch.allclose(of_features, alone, atol=1e-5)
