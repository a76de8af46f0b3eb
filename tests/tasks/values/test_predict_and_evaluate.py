"""Maps of values are written for any image, and measured beside baselines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.cli import main
from dense_imb.data.images.folders import read_image
from dense_imb.data.values.pairs import open_values
from dense_imb.runs import predict, train
from tests.data.images.labelled_files import save
from tests.data.values.value_files import save_npy, spots, write_hdf5
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


def predicted(run, image):
    return run.trained(device="cpu").predict(image).numpy()


@pytest.mark.parametrize(("suffix", "written"), [("png", "tif"), ("tif", "tif"), ("npy", "npy")])
def test_a_map_has_the_form_of_its_image(trained, tmp_path, suffix, written, capsys):
    images, _ = spots(2, (40, 48), seed=3)
    for k, image in enumerate(images):
        save(tmp_path / "images" / f"{k}.{suffix}", image)
    out = tmp_path / "out"
    assert main(["predict", str(trained.folder), str(tmp_path / "images"), str(out)]) == 0
    assert "2 maps of values predicted" in capsys.readouterr().out
    got = read_image(out / f"1.{written}")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, predicted(trained, images[1][None])[0])


def test_one_hdf5_file_holds_all_maps(trained, tmp_path):
    images, _ = spots(3, (40, 48), seed=3)
    path = write_hdf5(tmp_path / "a.h5", image=images)
    done = predict(trained, path, tmp_path / "out.h5", device="cpu", show_progress=False)
    assert (done.n_done, done.n_there) == (3, 0)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["values"].shape == (3, 1, 40, 48)
        np.testing.assert_array_equal(file["values"][2], predicted(trained, images[2][None]))
    with pytest.raises(FileExistsError, match="no file at"):
        predict(trained, path, tmp_path / "out.h5", show_progress=False)
    predict(trained, path, tmp_path / "out.h5", overwrite=True, show_progress=False)
    for content in (Path(path).read_bytes(), b"no HDF5", b""):
        (tmp_path / "mine.h5").write_bytes(content)
        with pytest.raises(ValueError, match=r"no file or one of predictions at .*mine.h5, got"):
            predict(trained, path, tmp_path / "mine.h5", overwrite=True, show_progress=False)
        assert (tmp_path / "mine.h5").read_bytes() == content
    folder = tmp_path / "mixed"
    save_npy(folder, [images[0], images[1][:20]])
    with pytest.raises(ValueError, match="images of one size for an HDF5 file"):
        predict(trained, folder, tmp_path / "two.h5", show_progress=False)
    assert not (tmp_path / "two.h5").exists()


def test_nifti_volumes_of_two_channels_keep_their_place(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    images, targets = spots(4, (16, 20, 12))
    both = np.stack([targets, 2 * targets], 1)
    folders = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", both)
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    config = tiny_values(folders, values={"patch": [8, 8, 8]}, model=model, steps=4)
    run = train(config, tmp_path / "run", is_quiet=True)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(images[0], affine), tmp_path / "scans" / "a.nii.gz")
    predict(run, tmp_path / "scans", tmp_path / "out", show_progress=False)
    got = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert got.shape == (16, 20, 12, 2)
    np.testing.assert_array_equal(got.affine, affine)
    np.testing.assert_allclose(
        np.moveaxis(got.get_fdata(), -1, 0), predicted(run, images[0][None]), rtol=1e-6
    )


def test_images_of_other_dimensions_and_channels_are_refused(trained, tmp_path):
    def refuses(run, where, sentence):
        out = tmp_path / "out"
        with pytest.raises(ValueError, match=sentence):
            predict(run, where, out, show_progress=False)
        assert not out.exists()

    volumes, targets = spots(5, (8, 8, 8))
    data = write_hdf5(tmp_path / "a.h5", image=volumes, target=targets)
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    config = tiny_values(data, values={"patch": [8, 8, 8]}, model=model, steps=1)
    run = train(config, tmp_path / "run", is_quiet=True)
    for suffix in ("png", "tif"):
        save(tmp_path / suffix / f"0.{suffix}", volumes[0][0])
        refuses(run, tmp_path / suffix, "a flat image; volumes are TIFF")
    flat = write_hdf5(tmp_path / "flat.h5", image=volumes)
    with h5py.File(flat, "a") as file:
        file["image"].attrs["channel_axis"] = 1
    refuses(run, flat, r"with 1 channel in 3-D, as the network was trained on, got an array")
    refuses(trained, data, r"with 1 channel in 2-D, as the network was trained on, got an array")
    save(tmp_path / "rgb" / "0.png", np.zeros((8, 8, 3), np.uint8))
    refuses(trained, tmp_path / "rgb", r"with 1 channel in 2-D, .* got an array \(8, 8, 3\)")


def test_a_stopped_call_continues_and_other_maps_are_kept(trained, folders, tmp_path):
    out = tmp_path / "out"
    predict(trained, folders[0], out, show_progress=False)
    (out / "003.npy").unlink()
    before = (out / "001.npy").stat().st_mtime_ns
    done = predict(trained, folders[0], out, show_progress=False)
    assert (done.n_done, done.n_there) == (1, 7)
    assert (out / "001.npy").stat().st_mtime_ns == before
    record = json.loads((out / "predicted.json").read_text())
    (out / "predicted.json").write_text(json.dumps({**record, "weights": "others"}))
    with pytest.raises(FileExistsError, match="made in this way, got others .weights differs"):
        predict(trained, folders[0], out, show_progress=False)
    assert predict(trained, folders[0], out, overwrite=True, show_progress=False).n_done == 8
    with pytest.raises(ValueError, match="another folder for maps of values than that of the"):
        predict(trained, folders[0], folders[0], show_progress=False)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((40, 48, 3), "with 1 channel in 2-D"), ((4, 40, 48), "with 1 channel in 2-D")],
)
def test_other_images_are_refused(trained, tmp_path, shape, sentence, capsys):
    folder = save_npy(tmp_path / "images", np.zeros((1, *shape), np.uint8))
    assert main(["predict", str(trained.folder), folder, str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err


def test_evaluate_prints_errors_beside_baselines(trained, folders, tmp_path, capsys):
    out = tmp_path / "table"
    words = ["evaluate", str(trained.folder), folders[0], "--targets", folders[1]]
    assert main([*words, "--out", str(out), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "balanced MAE" in printed
    assert "8 images; balanced MAE is the mean over pixels below and above" in printed
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    overall = {row["scorer"]: row for row in rows if row["kind"] == "all"}
    assert {"blank", "mean of training", "input", "spots"} <= overall.keys()
    data = open_values(*folders)
    targets = np.stack([data.target(i) for i in range(8)]).astype(np.float64)
    assert overall["blank"]["mae"] == pytest.approx(np.abs(targets).mean())
    assert overall["blank"]["skill"] == 0
    shown = np.stack([data.image(i) for i in range(8)])
    assert overall["input"]["mae"] == pytest.approx(np.abs(shown - targets).mean())
    own = np.stack([predicted(trained, data.image(i)) for i in range(8)])
    assert overall["spots"]["mae"] == pytest.approx(np.abs(own - targets).mean())
    assert overall["spots as trained"]["skill"] > 0.5


def test_cells_of_a_file_have_rows(bits, tmp_path, capsys):
    values = {"cells": "cells", "cell_kind": "bits", "test_share": 0.25}
    loss = "BalancedRegressionLoss('l1', 'masks')"
    run = train(tiny_values(bits, values=values, loss=loss), tmp_path / "run", is_quiet=True)
    for words in ([bits], []):
        assert main(["evaluate", str(run.folder), *words, "--format", "json", "--quiet"]) == 0
        table = json.loads(capsys.readouterr().out)
        cells = {r["part"] for r in table["rows"] if r["kind"] == "cell"}
        assert cells == {"spot", "upper"}
        assert table["images"] == (8 if words else 2)
    assert main(["evaluate", str(run.folder), bits, "--quiet"]) == 0
    assert "mean over cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUN ... alone if all hold out the same images (values.test_share)"),
        (["IMAGES"], "the folder of the maps of values of"),
        (["IMAGES", "--targets", "T", "--masks", "m"], "--masks is an option for runs on images"),
        (["IMAGES", "--targets", "T", "--noise", "5"], "--noise is an option for runs on hits"),
        (["IMAGES", "--targets", "T", "--cells", "c"], "which was trained without"),
    ],
)
def test_bad_words_of_evaluate_are_one_sentence(trained, folders, words, sentence, capsys):
    places = {"IMAGES": folders[0], "T": folders[1]}
    typed = [places.get(word, word) for word in words]
    assert main(["evaluate", str(trained.folder), *typed]) == 2
    assert sentence in capsys.readouterr().err


def test_runs_of_other_kinds_take_no_targets(tmp_path, capsys):
    assert main(["evaluate", "a.h5", "--targets", "t"]) == 2
    assert "--targets is an option for runs on values, but these are on hits" in (
        capsys.readouterr().err
    )


def test_train_from_the_command_line(folders, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["train", "values", "--out", out, "--values.train", folders[0], "--values.targets"]
    words += [folders[1], "--values.patch", "32", "32", "--steps", "4", "--batch_size", "4"]
    words += ["--model.options", '{"widths": [4, 8]}', "--quiet", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "power=0.5)), as `dense-imb inspect` recommends for maps in which" in printed
    assert "mean absolute error" in printed
    assert f"next: dense-imb predict {out} IMAGES OUT" in printed
    assert (Path(out) / "best.safetensors").exists()


def test_a_jpeg_is_predicted_as_tiff(trained, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(spots(1, (40, 48))[0][0]).save(tmp_path / "images" / "a.jpg")
    predict(trained, tmp_path / "images", tmp_path / "out", show_progress=False)
    assert (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize("name", ["target", "dose"])
def test_the_next_command_names_no_targets_of_a_file_that_holds_them(
    trained, folders, tmp_path, capsys, name
):
    images, targets = spots(2, (40, 48), seed=3)
    path = write_hdf5(tmp_path / "a.h5", image=images, **{name: targets})
    run = trained
    if name == "dose":
        config = tiny_values(path, values={"targets": "dose", "validation_share": 0.5}, steps=2)
        run = train(config, tmp_path / "run", is_quiet=True)
    assert main(["predict", str(run.folder), path, str(tmp_path / "out.h5"), "--quiet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: dense-imb evaluate {run.folder} {path}"
    assert main([*last.split()[2:], "--quiet"]) == 0
    assert "2 images" in capsys.readouterr().out


def test_the_next_command_needs_true_maps(trained, folders, tmp_path, capsys):
    path = write_hdf5(tmp_path / "a.h5", image=spots(1, (40, 48))[0])
    words = ["predict", str(trained.folder)]
    assert main([*words, folders[0], str(tmp_path / "out"), "--quiet"]) == 0
    wanted = f"next: dense-imb evaluate {trained.folder} {folders[0]} --targets TARGETS"
    assert capsys.readouterr().out.splitlines()[-1] == wanted
    assert main([*words, path, str(tmp_path / "out.h5"), "--quiet"]) == 0
    assert "next:" not in capsys.readouterr().out


def test_maps_are_of_their_images_and_replace_none(trained, tmp_path):
    images, _ = spots(3, (40, 48), seed=3)
    folder, out = save_npy(tmp_path / "images", images), tmp_path / "out"
    predict(trained, folder, out, device="cpu", show_progress=False)
    np.save(next(iter(sorted(Path(folder).iterdir()))), images[2])
    with pytest.raises(FileExistsError, match="of these images, got those of others"):
        predict(trained, folder, out, device="cpu", show_progress=False)
    path = write_hdf5(tmp_path / "a.h5", image=images)
    before = Path(path).read_bytes()
    os.link(path, tmp_path / "b.h5")
    with pytest.raises(ValueError, match="an output apart from the inputs"):
        predict(trained, path, tmp_path / "b.h5", overwrite=True, show_progress=False)
    assert Path(path).read_bytes() == before
    predict(trained, path, tmp_path / "c.h5", device="cpu", show_progress=False)
    with h5py.File(tmp_path / "c.h5") as file:
        made_by = json.loads(file.attrs["made_by"])
    assert made_by["run"] == str(trained.folder)
    assert len(made_by["weights"]) == len(made_by["images"][0]) == 32
