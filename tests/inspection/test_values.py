"""inspect_values: shares, constant maps in each loss, and what to train with."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.inspection import inspect_values, save_figure, text_of
from dense_imb.losses import BalancedRegressionLoss, acb_mse_loss
from dense_imb.tasks.recipe import build_loss
from tests.data.values.value_files import save_npy, spots, write_hdf5, write_values


@pytest.fixture
def folders(tmp_path):
    return write_values(tmp_path, 6, (20, 24))


def look(*data, **options):
    inspection = inspect_values(*data, show_progress=False, **options)
    json.loads(inspection.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return inspection


def test_rare_values_are_counted(folders):
    numbers = look(*folders).numbers
    values = np.stack([np.load(f"{folders[1]}/{i:03d}.npy") for i in range(6)]).astype(float)
    assert numbers["nonzero_share"] == pytest.approx((values != 0).mean())
    assert numbers["values"]["max"] == values.max()
    assert numbers["values"]["mean"] == pytest.approx(values.mean())
    assert numbers["values"]["median"] == 0
    lit = values[values > 0]
    wide = (values.max() - 0) / 1000
    assert numbers["nonzero"]["median"] == pytest.approx(np.median(lit), abs=8 * wide)
    assert sum(numbers["histogram"]["counts"]) == len(lit)
    assert numbers["classes"]["lit"]["pixels"] == len(lit)
    assert numbers["classes"]["lit"]["mean"] == pytest.approx(lit.mean())
    typical = (lit**2).sum() / lit.sum()
    loss = build_loss(numbers["recommended_loss"]["loss"])
    assert loss.partition.edges == pytest.approx((0.2 * typical, typical), rel=0.005)
    assert loss.partition.power == 0.5


def test_losses_of_constant_maps_are_those_of_the_losses(folders):
    numbers = look(*folders).numbers
    values = np.stack([np.load(f"{folders[1]}/{i:03d}.npy") for i in range(6)])
    target = torch.from_numpy(values).double()
    rows = {row["loss"]: row for row in numbers["losses"]["constant"]}
    for name, loss in (
        ("torch.nn.MSELoss()", torch.nn.MSELoss()),
        ("torch.nn.L1Loss()", torch.nn.L1Loss()),
        ("ACBMSELoss()", acb_mse_loss),
    ):
        for column, value in (
            ("blank", 0.0),
            ("mean", numbers["values"]["mean"]),
            ("best", rows[name]["best_value"]),
        ):
            wanted = float(loss(torch.full_like(target, value), target))
            assert rows[name][column] == pytest.approx(wanted, rel=1e-4), (name, column)
    best = rows["ACBMSELoss()"]
    for step in (-0.1, 0.1):  # nothing near it is better
        near = torch.full_like(target, best["best_value"] * (1 + step))
        assert float(acb_mse_loss(near, target)) > best["best"]
    assert rows["torch.nn.MSELoss()"]["verdict"] == "blank looks good"
    assert rows["torch.nn.L1Loss()"]["verdict"] == "blank looks good"
    assert rows["ACBMSELoss()"]["verdict"] == "blank looks bad"


def test_dense_maps_get_a_plain_loss(folders, tmp_path):
    targets = [np.load(f"{folders[1]}/{i:03d}.npy") + 5 for i in range(6)]
    numbers = look(folders[0], save_npy(tmp_path / "dense", targets)).numbers
    assert numbers["recommended_loss"]["loss"] == "torch.nn:MSELoss"
    rows = {row["loss"]: row for row in numbers["losses"]["constant"]}
    assert rows["torch.nn.MSELoss()"]["verdict"] == "blank looks bad"


def test_cells_are_named_with_their_share(tmp_path, capsys):
    images, targets = spots(4, (20, 24))
    cells = (targets > 0).astype(np.uint8)
    cells[:, :10] |= 2
    path = write_hdf5(
        tmp_path / "a.h5", ["spot", "upper"], image=images, target=targets, cells=cells
    )
    assert main(["inspect", path, "--cells", "cells", "--cell-kind", "bits", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "spot             1.875 %" in printed
    assert "in no cell" in printed
    assert 'BalancedRegressionLoss("l1", "masks")' in printed
    assert f"dense-imb train values --out RUN --values.train {path} --values.cells" in printed
    assert '--values.cell_kind bits --loss \'BalancedRegressionLoss("l1", "masks")\'' in printed
    assert printed.count("begin with") == 1
    last = printed.splitlines()[-1].strip()
    assert last == f"dense-imb compare {path} --cells cells --cell_kind bits"


def test_blank_maps_are_measured_by_a_loss_over_cells(tmp_path):
    images, targets = spots(4, (20, 24))
    cells = (targets > 0).astype(np.uint8)
    cells[:, :10] |= 2
    path = write_hdf5(tmp_path / "a.h5", image=images, target=targets, cells=cells)
    rows = look(path, cells="cells", cell_kind="bits").numbers["losses"]["constant"]
    row = next(one for one in rows if one["loss"] == 'BalancedRegressionLoss("l1", "masks")')
    loss = BalancedRegressionLoss("l1", "masks", n_classes=2)
    target, label = torch.from_numpy(targets)[:, None].double(), torch.from_numpy(cells).long()
    for column, value in (("blank", 0.0), ("best", row["best_value"])):
        wanted = float(loss(torch.full_like(target, value), target, label=label))
        assert row[column] == pytest.approx(wanted, rel=1e-3), column
    assert row["best"] <= row["blank"]


def test_the_commands_for_volumes_name_a_network_in_3d(tmp_path, capsys):
    folders = write_values(tmp_path, 5, (8, 8, 8))
    assert main(["inspect", folders[0], "--targets", folders[1], "--quiet"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-1].endswith("--model monai:UNet")
    (command,) = [line for line in lines if line.startswith("dense-imb train values")]
    words = shlex.split(command.replace("RUN", str(tmp_path / "run")))[1:]
    words += ["--steps", "1", "--values.patch", "8", "8", "8", "--report", "false", "--quiet"]
    assert main(words) == 0


def test_a_2d_network_for_volumes_is_refused_with_one_that_fits(tmp_path, capsys):
    images, targets = write_values(tmp_path, 5, (8, 8, 8))
    words = ["train", "values", "--out", str(tmp_path / "run"), "--values.train", images]
    for name in ("fast_unet", "fast_unet2"):
        assert main([*words, "--values.targets", targets, "--model.name", name]) == 2
        assert "take --model.name monai:UNet." in capsys.readouterr().err


def test_a_figure_and_a_json_are_written(folders, tmp_path, capsys):
    out = tmp_path / "look"
    words = ["inspect", folders[0], "--targets", folders[1], "--out", str(out), "--quiet"]
    assert main([*words, "--events", "3"]) == 0
    assert "6 images, 3 of them inspected" in capsys.readouterr().out
    assert json.loads((out / "inspect.json").read_text())["kind"] == "values"
    assert (out / "inspect.png").stat().st_size > 10_000


def test_volumes_are_drawn_by_a_slice(tmp_path):
    inspection = look(*write_values(tmp_path, 3, (8, 12, 14)))
    save_figure(inspection, tmp_path / "a.png")
    assert "slice" in inspection.pictures["samples"][0]["name"]
    assert "8 x 12 x 14 (3)" in text_of(inspection)


def test_empty_maps_are_named(folders, tmp_path):
    targets = save_npy(tmp_path / "empty", np.zeros((6, 20, 24)))
    text = text_of(look(folders[0], targets))
    assert "every value is 0: nothing to learn" in text
    assert "Next:" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--masks", "m"], "--masks is an option for masks, got maps of values; drop it"),
        (["--verify"], "--verify is an option for hits files"),
        (["--events", "0"], "Expected `events`"),
    ],
)
def test_words_that_do_not_fit_are_refused(folders, words, sentence, capsys):
    assert main(["inspect", folders[0], "--targets", folders[1], *words]) == 2
    assert sentence in capsys.readouterr().err


def test_cells_without_targets_are_refused(folders, capsys):
    assert main(["inspect", folders[0], "--cells", "c"]) == 2
    assert "--cells is an option for maps of values; add --targets FOLDER" in (
        capsys.readouterr().err
    )
