"""Key points and doses as images of values."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.data_tools.scripts import run

STRUCTURES = ["possible_dose_mask", "Cord", "PTV70"]


def key_point_folder(folder, n=5):
    folder.mkdir()
    lines = ["image,snout_x,snout_y"]
    for k in range(n):
        Image.new("L", (9, 7), k).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{k + 0.5},3")
    (folder / "points.csv").write_text("\n".join(lines))
    return folder / "points.csv", folder


def plan_file(path, field=None, n=2):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["structures"] = STRUCTURES
        for k in range(n):
            group = file.create_group(f"pt_{k}")
            group["ct"] = rng.integers(0, 512, (3, 4, 5), np.uint16)
            group["dose"] = (70 * rng.random((3, 4, 5))).astype(np.float16)
            bits = rng.integers(0, 8, (3, 4, 5), np.uint16)
            group["structures"] = bits if field is None else np.full((3, 4, 5), field, np.uint16)
            group.attrs["voxel_mm"] = np.array([4.0, 4.0, 2.5 + k])
    return path


def test_key_points_are_divided_in_their_order(tmp_path, capsys):
    table, images = key_point_folder(tmp_path / "images")
    words = [table, images, tmp_path / "m.h5", "--sigma", 1, "--reach", 3]
    assert run("key_points", *words, "--shares", "train=0.6", "validation=0.4") == 0
    assert "m_train.h5: 3 images with heat maps of snout" in capsys.readouterr().out
    with h5py.File(tmp_path / "m_validation.h5") as file:
        assert file["image"].shape == (2, 1, 7, 9)
        assert file["target"].shape == (2, 1, 7, 9)
        assert file["points"][:, 0, 0].tolist() == [3.5, 4.5]
    assert run("key_points", *words) == 0
    assert run("key_points", *words) == 2
    assert "overwrite it with --overwrite" in capsys.readouterr().err
    assert run("key_points", *words, "--shares", "train") == 2
    assert "--shares like train=0.8" in capsys.readouterr().err
    assert run("key_points", *words, "--overwrite", "--shares", "train=0.8") == 2
    assert "--shares that add up to 1, got train=0.8; the rest may be" in capsys.readouterr().err


def test_plans_become_images_targets_and_cells(tmp_path, capsys):
    source, target = plan_file(tmp_path / "plans.h5"), tmp_path / "dose.h5"
    assert run("dose", source, target, "--ct-scale", 256) == 0
    assert "2 patients with possible_dose_mask, Cord, PTV70" in capsys.readouterr().out
    with h5py.File(target) as file, h5py.File(source) as plans:
        assert json.loads(file["cells"].attrs["names"]) == STRUCTURES
        assert json.loads(file["image"].attrs["names"]) == ["ct", *STRUCTURES]
        for k, patient in enumerate(plans.values()):
            ct, dose, bits = (patient[key][...] for key in ("ct", "dose", "structures"))
            np.testing.assert_array_equal(file["image"][k, 0], ct / 256)
            for j in range(3):
                np.testing.assert_array_equal(file["image"][k, 1 + j], bits >> j & 1)
            np.testing.assert_array_equal(file["target"][k, 0], dose)
            np.testing.assert_array_equal(file["cells"][k], bits)
            assert file["voxel_mm"][k].tolist() == [4.0, 4.0, 2.5 + k]
    assert run("dose", source, target) == 2
    assert "overwrite it with --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.attrs.__delitem__("structures"), "names of 1 to 16 structures"),
        (lambda file: file["pt_1"].__delitem__("dose"), "of patient pt_1, got no dose"),
        (lambda file: file["pt_0"].attrs.__delitem__("voxel_mm"), "pt_0, got no voxel_mm"),
        (lambda file: file["pt_0/structures"].__setitem__((0, 0, 0), 8), "higher bits in 1 voxels"),
        (lambda file: file.__delitem__("pt_0"), None),
        (lambda file: [file.__delitem__(f"pt_{k}") for k in range(2)], "got none"),
    ],
)
def test_bad_plans_are_one_sentence(damage, sentence, tmp_path, capsys):
    source, target = plan_file(tmp_path / "plans.h5"), tmp_path / "dose.h5"
    with h5py.File(source, "a") as file:
        damage(file)
    assert run("dose", source, target) == (0 if sentence is None else 2)
    if sentence is not None:
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert sentence in line
        assert not target.exists()


def test_a_scale_of_zero_is_refused(tmp_path, capsys):
    source = plan_file(tmp_path / "plans.h5")
    assert run("dose", source, tmp_path / "x.h5", "--ct-scale", 0) == 2
    assert "--ct-scale above 0, got 0" in capsys.readouterr().err
