"""A network of values from images and maps: it learns, resumes to the bit, refuses in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.data.values.pairs import open_values
from dense_imb.engine import Interrupted
from dense_imb.losses import ValueBins
from dense_imb.metrics.values import ValueScores
from dense_imb.runs import open_run, train
from dense_imb.runs.write import SCORES, RunFiles
from dense_imb.tasks.recipe import ParsedLoss, Recipe, build_task
from dense_imb.tasks.values.recipe import open_test_images, scale_bins
from dense_imb.tasks.values.task import ValuesReading
from tests.data.values.value_files import save_npy, spots, write_hdf5, write_values
from tests.engine.test_loop import Signal
from tests.runs.tiny import assert_same_content
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
SPARSE = "BalancedRegressionLoss('l1', 'masks')"


def quiet(config, folder: Path, **options):
    return train(config, folder, is_quiet=True, **options)


def test_it_learns_rare_values(trained, folders):
    assert trained.history[-1]["skill"] > 0.5
    assert "% below that of a blank map" in trained.summary()
    data = open_values(*folders)
    error = [
        np.abs(trained.trained(device="cpu").predict(data.image(i)).numpy() - data.target(i)).mean()
        for i in range(len(data))
    ]
    assert np.mean(error) < np.mean([np.abs(data.target(i)).mean() for i in range(len(data))]) * 50


def test_the_default_loss_is_balanced_where_maps_are_mostly_empty(folders, tmp_path):
    recipe, sentence = Recipe.of(tiny_values(folders)).resolved()
    edges = recipe.opened.train.bin_edges(recipe.opened.tally)
    chosen = f'BalancedRegressionLoss("mse", ValueBins({list(edges)}, power=0.5))'
    assert recipe.config.loss == chosen
    assert sentence.startswith(f"loss: {chosen}, as `dense-imb inspect` recommends for maps in")
    targets = [np.load(path) + 1 for path in sorted(Path(folders[1]).iterdir())]
    dense = folders[0], save_npy(tmp_path / "dense", targets)
    recipe, _ = Recipe.of(tiny_values(dense)).resolved()
    assert recipe.config.loss == "torch.nn:MSELoss"


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "torch.nn:L1Loss"},
        {"loss": "torch.nn:SmoothL1Loss", "model": {"name": "autoencoder", "options": {}}},
        {"model": {"name": "autoencoder", "options": {"latent": None}}},
        {"loss": "BalancedRegressionLoss('huber')", "values": {"patch": None}},
        {"loss": "ACBMSELoss + 0.5 * torch.nn:L1Loss"},
        {"loss": "ACBMSELoss + 0.5 * torch.nn:L1Loss", "values": {"patch": [48, 64]}},
        {"mixing": "mixup"},
        {"mixing": "balanced-mixup"},
        {"mixing": "unimix"},
        {"sampling": "class", "values": {"patch": [48, 64]}},
        {"labelled_share": 0.5},
        {"second": 5},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::dense_imb.tasks.pixels.PatchWarning")
@pytest.mark.filterwarnings("ignore::dense_imb.tasks.recipe.SamplingWarning")
def test_every_way_of_training(folders, tmp_path, change):
    from dense_imb.config import MixingConfig, SamplingConfig, SecondConfig

    change = dict(change)
    for name, kind in (("mixing", MixingConfig), ("sampling", SamplingConfig)):
        if name in change:
            change[name] = kind(change[name])
    if "second" in change:
        change["second"] = SecondConfig(change["second"])
    run = quiet(tiny_values(folders, **change), tmp_path / "run")
    assert run.metrics["is_finished"]
    assert np.isfinite(run.history[-1]["skill"])


def test_volumes_with_several_channels(tmp_path):
    images, targets = spots(5, (12, 20, 24))
    both = np.stack([targets, 2 * targets], 1)
    folders = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", both)
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    values = {"patch": [8, 16, 16], "names": ["one", "two"]}
    config = tiny_values(folders, values=values, model=model, steps=4)
    run = quiet(config, tmp_path / "run")
    predictor = run.trained(device="cpu")
    assert predictor.predict(open_values(*folders).image(0)).shape == (2, 12, 20, 24)
    assert predictor.reading.names == ("one", "two")


@pytest.mark.parametrize("loss", ["ACBMSELoss", "torch.nn:MSELoss"])
def test_a_resumed_run_is_the_same_to_the_bit(folders, tmp_path, monkeypatch, loss):
    config = tiny_values(folders, loss=loss)
    whole = quiet(config, tmp_path / "whole")
    signal_at = Signal(7)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    again = quiet(config, tmp_path / "again", resume=True)
    assert_same_content(whole.weights("last"), again.weights("last"))
    assert [row["step"] for row in again.history] == [5.0, 10.0]
    assert [row["skill"] for row in again.history] == [row["skill"] for row in whole.history]


def test_a_loss_over_overlapping_cells_trains(bits, tmp_path):
    values = {"cells": "cells", "cell_kind": "bits"}
    run = quiet(tiny_values(bits, values=values, loss=SPARSE), tmp_path / "run")
    assert {"mae_spot", "mae_upper"} <= run.history[-1].keys()
    assert "mean over cells" in run.summary()
    scores = ValueScores.load(run.folder / SCORES)  # as trained
    cells = {row["cell"]: row for row in scores.cell_rows() if row["scorer"] == "prediction"}
    assert cells["spot"]["n"] == 9 * 2
    mean = (cells["spot"]["mae"] + cells["upper"]["mae"]) / 2
    assert run.metrics["best"]["balanced_mae"] == pytest.approx(mean)


def test_pixels_in_no_cell_count_nowhere_if_the_loss_leaves_them_out(bits, tmp_path):
    values = {"cells": "cells", "cell_kind": "bits"}
    task = build_task(tiny_values(bits, values=values, loss=SPARSE))
    assert task.reading.only_cells
    network = torch.nn.Conv2d(1, 1, 1)
    tally = task.tally_read_out(network, torch.device("cpu"), 0, 1)
    inside = sum(int((task.validation.cell_map(i) != 0).sum()) for i in range(2))
    assert int(tally.moments(0)[0][0].sum()) == inside
    task.validate(network, torch.device("cpu"), 0, 1)
    assert task.scores.scores.rows()[0]["n"] == inside
    assert not build_task(tiny_values(bits, values=values)).reading.only_cells


def test_a_sum_hands_the_cells_to_the_parts_that_want_them(bits):
    values = {"cells": "cells", "cell_kind": "bits"}
    task = build_task(tiny_values(bits, values=values, loss=f"{SPARSE} + 2 * torch.nn:L1Loss"))
    batch = task.batch(np.arange(3), 0, torch.device("cpu"))
    output = torch.zeros_like(batch.target)
    alone = build_task(tiny_values(bits, values=values, loss=SPARSE))
    wanted = alone.cost_of(output, batch) + 2 * batch.target.abs().mean()
    torch.testing.assert_close(task.cost_of(output, batch), wanted)


def test_label_cells_enter_a_loss_as_labels_or_as_masks(tmp_path):
    images, targets = spots(6, (40, 48))
    cells = np.zeros(targets.shape, np.uint8)
    cells[:, 20:], cells[:, :, 40:] = 1, 2
    path = write_hdf5(tmp_path / "a.h5", image=images, target=targets, cells=cells)
    values = {"cells": "cells", "patch": [40, 48], "flips": False}
    costs = []
    for partition in ("labels", "masks"):
        loss = f"BalancedRegressionLoss('l1', '{partition}')"
        task = build_task(tiny_values(path, values=values, loss=loss))
        batch = task.batch(np.arange(3), 0, torch.device("cpu"))
        costs.append(float(task.cost_of(torch.zeros_like(batch.target), batch)))
    mean = [float(batch.target[:, 0][batch.cells == k].abs().mean()) for k in range(3)]
    assert costs == pytest.approx([np.mean(mean)] * 2)


def test_crops_hold_lit_pixels_and_keep_values_with_their_image(folders):
    values = {"foreground": 1.0, "patch": [16, 16], "scale": 1.0}
    task = build_task(tiny_values(folders, values=values, loss="torch.nn:MSELoss"))
    for epoch in range(3):
        batch = task.batch(np.arange(12), epoch, torch.device("cpu"))
        assert batch.lit.flatten(1).any(1).all()
        bright = batch.shown[:, 0][batch.lit]
        assert bright.mean() > batch.shown[:, 0][~batch.lit].mean() + 1


def test_pixels_around_a_small_image_pull_at_nothing(folders):
    values = {"patch": [64, 64]}
    with pytest.warns(UserWarning, match=r"values.patch \[64, 64\] is larger than every"):
        task = build_task(tiny_values(folders, values=values, loss="ACBMSELoss"))
    batch = task.batch(np.arange(4), 0, torch.device("cpu"))
    output = torch.zeros_like(batch.target).requires_grad_()
    task.cost_of(output, batch).backward()
    assert output.grad is not None
    assert int(batch.mask.sum()) == 4 * 40 * 48
    assert not output.grad[:, 0][~batch.mask].any()
    assert output.grad[:, 0][batch.mask & batch.lit].all()


def test_the_scale_is_undone_and_bins_are_in_units_of_the_values(folders, tmp_path):
    loss = "BalancedRegressionLoss"
    task = build_task(tiny_values(folders, loss=loss))
    assert task.reading.scale == task.train.tally(show_progress=False).largest
    batch = task.batch(np.arange(8), 0, torch.device("cpu"))
    assert float(batch.target.max()) <= 1
    one = torch.ones(1, 1, 4, 4)
    network = torch.nn.Identity()
    assert float(task.reading.values(network, one).max()) == pytest.approx(task.reading.scale)
    bins = torch.nn.Module()
    bins.partition = ValueBins([10.0, 40.0])
    scale_bins(bins, 20.0)
    assert bins.partition.edges == (0.5, 2.0)


def test_a_reading_comes_back_from_its_text():
    reading = ValuesReading(2, (1.0,), (0.5,), (32, 48), 60.0, 0.1, (0.1, 2.0), (3.0, 4.0),
                            ("a", "b"), ("organ",), "bits")  # fmt: skip
    assert ValuesReading.from_text(reading.as_text()) == reading


def test_mixing_mixes_values_as_it_mixes_images(folders):
    from dense_imb.config import MixingConfig

    values = {"patch": [40, 48], "flips": False, "scale": 1.0}
    plain = build_task(tiny_values(folders, values=values, loss="torch.nn:MSELoss"))
    mixing = MixingConfig("mixup", alpha=1.0)
    task = build_task(tiny_values(folders, values=values, loss="torch.nn:MSELoss", mixing=mixing))
    samples = np.arange(6)
    one = plain.batch(samples, 0, torch.device("cpu"))
    mixed = task.batch(samples, 0, torch.device("cpu"))
    plan = task.mixer.plan(samples, 0, None)
    for name in ("shown", "target"):
        first, got = getattr(one, name), getattr(mixed, name)
        for k, (share, partner) in enumerate(zip(plan.share, plan.partner, strict=True)):
            wanted = share * first[k] + (1 - share) * first[int(partner)]
            torch.testing.assert_close(got[k], wanted.float(), rtol=1e-4, atol=1e-4)


def test_only_a_share_of_the_maps_is_used(folders):
    task = build_task(tiny_values(folders, labelled_share=0.5))
    assert (len(task.train), len(task.validation)) == (3, 2)


def test_images_of_the_test_share_are_seen_by_no_run(folders):
    config = tiny_values(folders, values={"test_share": 0.25})
    task = build_task(config)
    test = open_test_images(config.values)
    assert len(test) == 2
    assert not {*test.names} & {*task.train.names, *task.validation.names}


def test_validation_files_of_their_own(tmp_path, folders):
    images, targets = write_values(tmp_path / "other", 3, seed=5)
    values = {"validation": images, "validation_targets": targets}
    task = build_task(tiny_values(folders, values=values))
    assert (len(task.train), len(task.validation)) == (8, 3)
    with pytest.raises(ValueError, match="`validation_targets`, the folder of the targets of"):
        build_task(tiny_values(folders, values={"validation": images}))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "CrossEntropyLoss"}, "a loss of values, got CrossEntropyLoss, a loss of logits"),
        ({"loss": SPARSE}, "cells for a loss .*, got images without cells; add `values.cells="),
        ({"values": {"patches": 0}}, "Expected `patches`"),
        ({"values": {"foreground": 2.0}}, "`foreground` between 0 and 1"),
        ({"values": {"patch": [8]}}, "`patch` with a number for each of the 2 dimensions"),
        ({"values": {"targets": None}}, "the folder of the maps of values of"),
        ({"values": {"level": 1e6}}, "a value above the level 1e"),
        ({"values": {"scale": 0.0}}, "`scale` above 0, got 0.0"),
        ({"values": {"names": ["a", "b"]}}, "a name for each of the 1 channels"),
        ({"calibrate": True}, "`calibrate` fits probabilities, and values have none"),
        ({"feature_loss": "RangeLoss"}, "`feature_loss` compares features of classes"),
        ({"unlabelled": True}, "take no images without maps"),
    ],
    ids=str,
)
def test_bad_options_are_refused(folders, change, sentence):
    from dense_imb.config import UnlabelledConfig

    if change.get("unlabelled"):
        change = {"unlabelled": UnlabelledConfig(rest=True), "labelled_share": 0.5}
    with pytest.raises(ValueError, match=sentence):
        build_task(tiny_values(folders, **change))


@pytest.mark.parametrize(
    ("values", "loss", "sentence"),
    [
        (
            {"cell_names": ["spot", "upper", "lower"]},
            SPARSE,
            "a pixel of each of the 3 cells, got none with lower; drop them",
        ),
        ({"cell_names": ["spot"]}, SPARSE, "got bit 1 set in 9.. pixels; name 1 more"),
        ({}, "BalancedRegressionLoss('l1', 'labels')", "a partition of masks for bit fields"),
        (
            {},
            "BalancedRegressionLoss('l1', 'masks', n_classes=5)",
            "over the 2 cells of the images, got BalancedRegressionLoss over 5; write n_classes=2",
        ),
        (
            {},
            "BalancedRegressionLoss('l1', partition={'n_cells': 3, 'rest': 'cell'})",
            "over 3; write n_cells=2 in its Cover, which has a cell more for the rest anyway",
        ),
    ],
)
def test_cells_that_do_not_fit_are_refused(bits, values, loss, sentence):
    values = {"cells": "cells", "cell_kind": "bits", **values}
    with pytest.raises(ValueError, match=sentence):
        build_task(tiny_values(bits, values=values, loss=loss))


def test_mixing_images_with_a_loss_over_cells_is_refused(bits):
    from dense_imb.config import MixingConfig

    values = {"cells": "cells", "cell_kind": "bits"}
    config = tiny_values(bits, values=values, loss=SPARSE, mixing=MixingConfig("mixup"))
    with pytest.raises(ValueError, match="no mixing with a loss over cells"):
        build_task(config)


def test_pixels_in_no_cell_are_counted_for_a_loss_that_refuses_them(bits):
    from dense_imb.losses import BalancedRegressionLoss, Cover

    values = {"cells": "cells", "cell_kind": "bits"}
    config = tiny_values(bits, values=values)
    with pytest.raises(ValueError, match=r"pixel in a cell, got 5,\d\d\d of 11,520 in none; take"):
        Recipe.of(config, loss=BalancedRegressionLoss("l1", Cover(2, rest="refuse"))).build_task()
    Recipe.of(config, loss=BalancedRegressionLoss("l1", Cover(2, rest="cell"))).build_task()


@pytest.mark.parametrize(
    ("loss", "is_balanced"),
    [
        ("torch.nn:MSELoss", False),
        ("ACBMSELoss", True),
        ("BalancedMSELoss(noise_sigma=1.0)", True),
        ('BalancedRegressionLoss("l1", ValueBins([5.0]))', True),
    ],
)
def test_the_alarm_names_a_balanced_loss_only_where_there_is_none(folders, loss, is_balanced):
    cure = build_task(tiny_values(folders, loss=loss)).balance_cure
    assert ("balanced already" in cure) is is_balanced


def test_an_empty_bin_is_refused(folders):
    from dense_imb.losses import BalancedRegressionLoss

    loss = BalancedRegressionLoss("l1", ValueBins([1.0, 5.0, 40.0]))
    with pytest.raises(ValueError, match="each of the 4 bins of .*, got none from 1 to 5; move"):
        Recipe.of(tiny_values(folders), loss=loss).build_task()


def test_a_run_of_values_writes_no_masks(trained):
    with pytest.raises(ValueError, match="a run on images for segment, got .* maps of values; "):
        open_run(trained.folder).require("images", "segment")


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ('BalancedRegressionLoss("l1", "masks")', None),
        ('BalancedRegressionLoss("l1", "masks", balance={"weight": (1, 2)})', (1.0, 2.0)),
        ('BalancedRegressionLoss("l1", "masks", Balance(weight=(1, 2)))', (1.0, 2.0)),
    ],
)
def test_a_typed_loss_gets_the_number_of_cells_unless_it_has_one(text, weight):
    n_cells = 3 if weight is None else 7  # a wrong one, which its weights overrule
    loss = ParsedLoss(text).with_cells(n_cells).build()
    assert (loss.n_classes, loss.balance.weight) == (3 if weight is None else 2, weight)
