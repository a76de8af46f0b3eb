"""A segmenter from folders of images and masks: it learns, resumes to the bit, refuses in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.cli import main
from dense_imb.data.images.labelled import IGNORED, open_labelled
from dense_imb.engine import Interrupted
from dense_imb.runs import open_run, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.images.evaluate import (
    Blank,
    chosen_thresholds,
    evaluate_images,
    logit_of_class,
)
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.images.task import ImagesReading
from dense_imb.tasks.recipe import build_task
from tests.engine.test_loop import Signal
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import assert_same_content

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
padded = pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.PatchWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"))


def quiet(config, folder: Path, **options):
    return train(config, folder, is_quiet=True, **options)


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory: pytest.TempPathFactory):
    config = tiny_images(folders, steps=150, validate_every=50, loss="CrossEntropyLoss(balance={})")
    return quiet(config, tmp_path_factory.mktemp("runs") / "lines")


def test_it_learns_to_find_the_rare_class(trained, folders):
    images = open_labelled(*folders)
    table = evaluate_images([trained.trained(device="cpu"), Blank(2)], images)
    blank, own = table["blank"], table["lines"]
    assert blank["average_precision"] == pytest.approx(blank["share"], rel=1e-6)
    assert own["average_precision"] > 0.8 > 10 * blank["average_precision"]
    assert blank["likeliest_iou"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"images": {"patch": None}, "loss": "HardMiningLoss(balance={})"},
        {"loss": "ACBMSELoss"},
        {"loss": "BalancedSoftmaxLoss"},
        {"loss": "torch.nn:BCEWithLogitsLoss"},
        {"loss": "monai.losses:DiceLoss(sigmoid=True)"},
        {"loss": "CrossEntropyLoss + 0.5 * monai.losses:DiceLoss(sigmoid=True)"},
    ],
    ids=str,
)
def test_every_kind_of_loss_trains(folders, tmp_path, change):
    run = quiet(tiny_images(folders, **change), tmp_path / "run")
    assert run.metrics["is_finished"]
    assert 0 < run.history[-1]["average_precision"] <= 1


def test_the_parts_of_a_sum_are_logged(folders, tmp_path):
    loss = "CrossEntropyLoss + 0.5 * monai.losses:DiceLoss(sigmoid=True)"
    run = quiet(tiny_images(folders, loss=loss), tmp_path / "run")
    for row in run.history:
        assert row["loss_CrossEntropyLoss"] > 0
        assert 0 < row["loss_DiceLoss"] < 1.01


def test_several_classes(tmp_path):
    folders = write_folders(tmp_path, n_classes=4)
    run = quiet(tiny_images(folders, loss="BalancedSoftmaxLoss(balance={})"), tmp_path / "run")
    row = run.history[-1]
    assert {f"average_precision_{k}" for k in (1, 2, 3)} <= row.keys()
    assert sum(row[f"gradient_share_class_{k}"] for k in range(4)) == pytest.approx(1)
    probability = run.trained(device="cpu").probability(open_labelled(*folders).image(0))
    assert probability.shape == (4, 40, 48)
    torch.testing.assert_close(probability.sum(0), torch.ones(40, 48))


def test_the_gradient_is_looked_at_where_every_class_is(tmp_path):
    folders = write_folders(tmp_path, n=12, n_classes=3)
    for path in sorted(Path(folders[1]).iterdir())[:11]:  # the rarest class in one image only
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 2, 0, mask).astype(np.uint8)).save(path)
    task = build_task(tiny_images(folders, images={"patch": [40, 48]}))
    batch = task.batch(task.probe(2), 0, torch.device("cpu"))
    assert {0, 1, 2} <= set(batch.label.unique().tolist())
    assert len(set(task.probe(7).tolist())) == 7


def test_masks_without_foreground_are_refused(tmp_path):
    folders = write_folders(tmp_path, n=6)
    for path in Path(folders[1]).iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    with pytest.raises(ValueError, match="images to train on with a pixel of another class than 0"):
        build_task(tiny_images(folders))


def test_validation_masks_without_foreground_are_refused(tmp_path):
    folders, others = write_folders(tmp_path / "a"), write_folders(tmp_path / "b", n=2)
    for path in Path(others[1]).iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    images = {"validation": others[0], "validation_masks": others[1]}
    with pytest.raises(ValueError, match=r"images to validate on .* got none in .*b.masks"):
        build_task(tiny_images(folders, images=images))
    images = {"validation": folders[0], "validation_masks": folders[1]}
    with pytest.raises(ValueError, match=r"images to train on .* got none in .*b.masks"):
        build_task(tiny_images(others, images=images))


def test_volumes(tmp_path):
    folders = write_folders(tmp_path, n=5, size=(12, 20, 24))
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    config = tiny_images(folders, images={"patch": [8, 16, 16]}, model=model, steps=4)
    run = quiet(config, tmp_path / "run")
    image = open_labelled(*folders).image(0)
    assert run.trained(device="cpu").probability(image).shape == (2, 12, 20, 24)


def test_a_resumed_run_is_the_same_to_the_bit(folders, tmp_path, monkeypatch):
    config = tiny_images(folders, loss="HardMiningLoss(balance={})")
    whole = quiet(config, tmp_path / "whole")
    signal_at = Signal(7)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    again = quiet(config, tmp_path / "again", resume=True)
    assert_same_content(whole.weights("last"), again.weights("last"))
    assert [row["step"] for row in again.history] == [5.0, 10.0]


def test_windows_cover_an_image_larger_than_a_patch(trained, folders):
    segmenter = trained.trained(device="cpu")
    image = np.tile(open_labelled(*folders).image(0), (1, 3, 2))
    assert segmenter.logits(image).shape == (1, 1, 120, 96)
    assert segmenter.logits(image[:, :17, :9]).shape == (1, 1, 17, 9)


@pytest.mark.parametrize("loss", ["HardMiningLoss(balance={})", "torch.nn:CrossEntropyLoss"])
def test_ignored_pixels_pull_at_nothing(tmp_path, loss):
    folders = write_folders(tmp_path, n=3, n_classes=3)
    for path in Path(folders[1]).iterdir():
        pixels = np.array(Image.open(path))
        pixels[:20] = 77
        Image.fromarray(pixels).save(path)
    images = {"ignore_index": 77, "patch": [40, 48], "flips": False}
    task = build_task(tiny_images(folders, images=images, loss=loss))
    batch = task.batch(np.arange(2), 0, torch.device("cpu"))
    assert (batch.label[:, :20] == IGNORED).all()
    pulls = []
    batch.shown.requires_grad_()
    task.network.register_forward_hook(lambda *_: pulls.append(_[2].retain_grad() or _[2]))
    task.cost(task.network, batch).backward()
    gradient = pulls[0].grad
    assert not gradient[:, :, :20].any()
    assert gradient[:, :, 20:].any()


@pytest.mark.parametrize("n_classes", [1, 3])
def test_the_logit_of_a_class_is_that_of_its_probability(n_classes):
    logits = torch.randn(2, n_classes, 5, dtype=torch.double)
    wanted = (
        torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1)
        if n_classes == 1
        else logits.softmax(1)
    )
    for k in range(max(n_classes, 2)):
        torch.testing.assert_close(logit_of_class(logits, k).sigmoid(), wanted[:, k])


def test_a_reading_comes_back_from_its_text():
    reading = ImagesReading(3, (1.0, 2.0), (0.5, 0.1), (32, 48), True, (0, 7, 9))
    assert ImagesReading.from_text(reading.as_text()) == reading


def test_evaluate_prints_a_table(trained, folders, tmp_path, capsys):
    out = tmp_path / "table"
    arguments = [str(trained.folder), folders[0], "--masks", folders[1], "--out", str(out)]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "F1 within 2 px" in printed
    assert "8 images" in printed
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert [row["scorer"] for row in rows] == ["lines", "lines", "blank", "blank"]


def test_evaluate_alone_takes_the_images_that_no_run_saw(trained, folders, tmp_path, capsys):
    images = {"test_share": 0.25}
    runs = [
        quiet(tiny_images(folders, images=images, steps=4, seed=seed), tmp_path / f"held_{seed}")
        for seed in (0, 1)
    ]
    names = [str(run.folder) for run in runs]
    assert main(["evaluate", *names, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    test = open_test_images(runs[0].config.images)
    thresholds = [chosen_thresholds(run.scores()) for run in runs]
    wanted = evaluate_images(
        [run.trained() for run in runs], test, thresholds=thresholds
    ).finite_rows()
    assert rows[:4] == wanted
    # the other run was trained on those images
    assert main(["evaluate", *names, str(trained.folder)]) == 2
    assert "hold out the same images" in capsys.readouterr().err
    assert main(["evaluate", str(trained.folder)]) == 2
    refused = capsys.readouterr().err
    assert f"name them, dense-imb evaluate {trained.folder} IMAGES --masks MASKS, or" in refused
    assert "or train with --images.test_share 0.2." in refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hits": {"train": "a.h5"}}, "one kind of training data, got hits.train and images.train"),
        ({"hits": {"retention": 0.9}}, "`hits.retention` is an option of hits, but the run trains"),
        ({"images": {"patches": 0}}, "Expected `patches`"),
        ({"images": {"foreground": 2.0}}, "`foreground` between 0 and 1"),
        ({"images": {"patch": [8]}}, "`patch` with a number for each of the 2 dimensions"),
        ({"images": {"masks": None}}, "masks"),
    ],
    ids=str,
)
def test_what_can_not_be_trained_is_refused(folders, tmp_path, change, sentence):
    from dataclasses import replace

    from dense_imb.config import HitsConfig

    data = change.pop("hits", None)
    config = tiny_images(folders, **change)
    if data:
        config = replace(config, hits=HitsConfig(**data))
    with pytest.raises(ValueError, match=sentence):
        quiet(config, tmp_path / "run")


def test_a_run_of_images_scores_no_hits(trained):
    with pytest.raises(ValueError, match=r"a run on hits for .*, got .* on images with masks"):
        trained.geometry()
    with pytest.raises(ValueError, match="operating_point"):
        trained.operating_point()


def test_a_run_says_what_came_out(trained):
    assert "average precision" in open_run(trained.folder).summary()
