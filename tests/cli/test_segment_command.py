"""dense-imb segment: masks as the run was trained with, whole, resumable, refused in words."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.cli import main
from dense_imb.data.images.unlabelled import open_unlabelled
from dense_imb.metrics import ScoreHistogram
from dense_imb.runs import open_run, train
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.segment import as_probability, segment_images
from tests.runs.pictures import tiny_images, write_folders

segment_module = importlib.import_module("dense_imb.tasks.images.segment")
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n=4, values=(0, 255))


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    config = tiny_images(folders, images={"labels": [0, 255]}, loss="CrossEntropyLoss(balance={})")
    return train(config, tmp_path_factory.mktemp("runs") / "lines", is_quiet=True)


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def mask_of(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_masks_hold_the_values_of_the_training(trained, folders, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(trained.folder, folders[0], out, "--probability") == 0
    assert "4 images segmented at a probability of" in capsys.readouterr().out
    names = [path.name for path in Path(folders[0]).iterdir()]
    assert {path.name for path in out.iterdir()} == {
        "segmented.json", *names, *(f"{Path(name).stem}_probability.npy" for name in names)
    }  # fmt: skip
    cut = chosen_thresholds(trained.scores())[1]
    for name in names:
        image = np.array(Image.open(Path(folders[0]) / name))[None]
        logits = trained.trained(device="cpu").logits(image)[0, 0]
        mask = mask_of(out / name)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, 255 * (logits.numpy() >= cut))
        probability = np.load(out / f"{Path(name).stem}_probability.npy")
        assert probability.dtype == np.float32
        np.testing.assert_allclose(probability, logits.sigmoid().numpy(), rtol=1e-6)


def test_the_threshold_auto_comes_with_its_promise(trained, folders, tmp_path, capsys):
    assert run(trained.folder, folders[0], tmp_path / "out", "--threshold", "auto") == 0
    line = capsys.readouterr().out.splitlines()[0]
    histogram = ScoreHistogram(scale="logit")
    source = open_unlabelled(folders[0], n_channels=1, spatial_dims=2)
    network = trained.trained(device="cpu")
    for i in range(len(source)):
        logits = network.logits(source.image(i))
        histogram.update(logits, torch.zeros_like(logits, dtype=torch.bool))
    f1, cut = histogram.expected_best_f1()
    validation = as_probability(chosen_thresholds(trained.scores())[1])
    assert line.endswith(
        f"at a probability of {as_probability(cut):.3g}, which promises F1 {f1:.3f} (the "
        f"validation images chose {validation:.3g})"
    )
    assert run(trained.folder, folders[0], tmp_path / "out2") == 0
    assert "promises" not in capsys.readouterr().out


def test_a_higher_threshold_calls_fewer(trained, folders, tmp_path):
    for threshold in (0.01, 0.99):
        assert run(trained.folder, folders[0], tmp_path / str(threshold), "--threshold",
                   threshold) == 0  # fmt: skip
    low, high = (mask_of(tmp_path / name / "000.png") > 0 for name in ("0.01", "0.99"))
    assert not (high & ~low).any()
    assert low.sum() > high.sum()


def test_finished_files_are_passed_over(trained, folders, tmp_path, capsys):
    out = tmp_path / "out"
    segment_images(trained, folders[0], out, show_progress=False)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "002.png").unlink()
    again = segment_images(trained, folders[0], out, show_progress=False)
    assert (again.n_done, again.n_there) == (1, 3)
    assert (out / "001.png").stat().st_mtime_ns == times["001.png"]
    # made in another way: kept, unless told
    assert run(trained.folder, folders[0], out, "--threshold", 0.9) == 2
    assert "threshold_logit differs" in capsys.readouterr().err.splitlines()[-1]
    assert (out / "001.png").stat().st_mtime_ns == times["001.png"]
    assert run(trained.folder, folders[0], out, "--threshold", 0.9, "--overwrite") == 0
    assert (out / "001.png").stat().st_mtime_ns != times["001.png"]
    assert not list(out.glob("*.partial"))


def test_foreign_files_are_kept(trained, folders, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "001.png").write_bytes(b"mine")
    for more in ((), ("--overwrite",)):
        assert run(trained.folder, folders[0], tmp_path / "out", *more) == 2
        sentence = capsys.readouterr().err.splitlines()[-1]
        assert "without a record of ours" in sentence
        assert sentence.endswith("choose another folder, or remove it yourself.")
        assert (tmp_path / "out" / "001.png").read_bytes() == b"mine"
    assert run(trained.folder, Path(folders[0]) / "002.png", tmp_path / "out") == 0
    assert (
        run(trained.folder, folders[0], tmp_path / "out", "--overwrite") == 2
    )  # 001 is no mask of ours
    assert "001.png, got one without a record" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out" / "001.png").read_bytes() == b"mine"
    masks = {path: path.read_bytes() for path in Path(folders[1]).iterdir()}
    assert run(trained.folder, folders[0], folders[1], "--overwrite") == 2
    assert masks == {path: path.read_bytes() for path in Path(folders[1]).iterdir()}
    capsys.readouterr()
    assert run(trained.folder, folders[0], folders[0], "--overwrite") == 2
    assert "another folder for masks" in capsys.readouterr().err.splitlines()[-1]


def test_one_image_and_hdf5_give_the_same(trained, folders, tmp_path):
    images = sorted(Path(folders[0]).iterdir())
    segment_images(trained, images[2], tmp_path / "one", show_progress=False)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["image"] = np.stack([np.array(Image.open(path)) for path in images])
    segment_images(trained, tmp_path / "all.h5", tmp_path / "all", show_progress=False)
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"002.png", "segmented.json"}
    assert len([*(tmp_path / "all").glob("*.png")]) == 4
    np.testing.assert_array_equal(
        mask_of(tmp_path / "one" / "002.png"), mask_of(tmp_path / "all" / "000002.png")
    )


def test_images_of_another_kind_are_named(trained, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "colour.png")
    assert run(trained.folder, tmp_path, tmp_path / "out") == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "colour.png with 1 channel in 2-D" in sentence
    assert "(20, 20, 3)" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "missing", "out"], "Expected images in missing, which does not exist"),
        (["RUN", "IMAGES", "out", "--threshold", "1.5"], "--threshold between 0 and 1"),
        ([".", "IMAGES", "out"], "Expected the folder of a run"),
        (["RUN", ".", "out"], "Expected images"),
    ],
)
def test_bad_input_is_one_sentence(
    trained, folders, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": trained.folder, "IMAGES": folders[0]}
    assert run(*(known.get(word, word) for word in arguments)) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.FewPixelsWarning")
def test_volumes_of_several_classes_take_the_likeliest(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    folders = write_folders(tmp_path, n=3, size=(8, 12, 10), n_classes=3)
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    config = tiny_images(folders, images={"patch": [8, 8, 8]}, model=model, steps=2)
    trained = train(config, tmp_path / "run", is_quiet=True)
    image = np.load(Path(folders[0]) / "000.npy")
    affine = np.array([[-2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 0.5, 7], [0, 0, 0, 1.0]])
    (tmp_path / "nifti").mkdir()
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "nifti" / "a.nii.gz")
    for name in ("nifti", "images"):
        out = segment_images(trained, tmp_path / name, tmp_path / f"{name}_out", probability=True,
                             show_progress=False)  # fmt: skip
        assert out.threshold is None
    probability = np.load(tmp_path / "images_out" / "000_probability.npy")
    assert probability.shape == (3, 8, 12, 10)
    mask = np.load(tmp_path / "images_out" / "000.npy")
    np.testing.assert_array_equal(mask, probability.argmax(0))
    placed = nibabel.load(tmp_path / "nifti_out" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(placed.dataobj), mask)
    np.testing.assert_array_equal(placed.affine, affine)
    with pytest.raises(ValueError, match="two classes for `threshold=0.5`, got 3"):
        segment_images(trained, tmp_path / "images", tmp_path / "x", threshold=0.5)


def test_channels_are_found_where_they_are(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((2, 3, 5, 3), np.uint8)
        file["image"].attrs["channel_axis"] = 1
    assert open_unlabelled(tmp_path / "a.h5", n_channels=3, spatial_dims=2).image(0).shape == (
        3, 5, 3,
    )  # fmt: skip
    for name, shape in (("last", (4, 5, 3)), ("first", (3, 4, 5))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape))
        data = open_unlabelled(tmp_path / f"{name}.npy", n_channels=3, spatial_dims=2)
        assert data.image(0).shape == (3, 4, 5)
    np.save(tmp_path / "nan.npy", np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match=r"nan\.npy to hold finite numbers"):
        open_unlabelled(tmp_path / "nan.npy", n_channels=1, spatial_dims=2).image(0)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "last.png")
    with pytest.raises(ValueError, match=r"one image of each name.*last"):
        open_unlabelled(tmp_path, n_channels=1, spatial_dims=2)


def test_the_record_says_how_the_masks_were_made(trained, folders, tmp_path):
    segment_images(trained, folders[0], tmp_path / "out", threshold=0.5, show_progress=False)
    record = json.loads((tmp_path / "out" / "segmented.json").read_text())
    assert (record["threshold_logit"], record["values"]) == (0.0, [0, 255])
    moved = open_run(trained.folder.rename(trained.folder.with_name("moved")))
    again = segment_images(moved, folders[0], tmp_path / "out", threshold=0.5, show_progress=False)
    moved.folder.rename(trained.folder)
    assert again.n_done == 0


def test_masks_of_images_that_changed_are_not_taken_for_finished(
    trained, folders, tmp_path, capsys
):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(folders[0], images)
    assert run(trained.folder, images, out) == 0
    record = json.loads((out / "segmented.json").read_text())
    assert record["images"].keys() == {path.stem for path in images.iterdir()}
    assert (record["run"], len(record["weights"])) == (str(trained.folder), 32)
    before = (out / "001.png").read_bytes()
    Image.fromarray(255 - mask_of(images / "001.png")).save(images / "001.png")
    assert run(trained.folder, images, out) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "of these images, got those of others (001 changed since); choose" in sentence
    assert (out / "001.png").read_bytes() == before
    assert run(trained.folder, images, out, "--overwrite") == 0
    shutil.copy(images / "000.png", images / "new.png")  # more images go on
    assert run(trained.folder, images, out) == 0
    assert "1 images segmented" in capsys.readouterr().out
    (out / "segmented.json").write_text(json.dumps({**record, "images": None}))  # an older record
    assert run(trained.folder, images, out) == 2
    assert "(images differs)" in capsys.readouterr().err.splitlines()[-1]


def test_masks_of_an_earlier_call_stay_ours(trained, folders, tmp_path):
    images, out = Path(folders[0]), tmp_path / "out"
    assert run(trained.folder, images, out) == 0
    one = images / "001.png"
    assert run(trained.folder, one, out, "--threshold", 0.9, "--overwrite") == 0
    record = json.loads((out / "segmented.json").read_text())
    assert [*record["images"]] == ["001"]
    assert record["earlier"] == ["000", "002", "003"]
    assert run(trained.folder, images, out, "--overwrite") == 0
    record = json.loads((out / "segmented.json").read_text())
    assert sorted(record["images"]) == ["000", "001", "002", "003"]
    assert record["earlier"] == []
    (out / "segmented.json").write_text('{"images": {}, "earlier": [[1], "000"]}')  # of others
    assert run(trained.folder, images, out, "--overwrite") == 2


def test_two_calls_do_not_mix_their_masks(trained, folders, tmp_path, monkeypatch):
    out, write = tmp_path / "out", segment_module.save_picture

    def meanwhile(*given):
        monkeypatch.setattr(segment_module, "save_picture", write)
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="no other process works in, got .* other masks"):
                segment_images(
                    trained, folders[0], out, threshold=0.9, overwrite=overwrite,
                    show_progress=False,
                )  # fmt: skip
        same = segment_images(trained, folders[0], out, process=1, n_processes=2)
        assert same.n_done == 2
        write(*given)

    monkeypatch.setattr(segment_module, "save_picture", meanwhile)
    segment_images(trained, folders[0], out, show_progress=False)
    assert len(list(out.glob("*.png"))) == 4


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_image_is_never_replaced_by_its_mask(trained, folders, tmp_path, capsys, link):
    link(Path(folders[0]) / "001.png", tmp_path / "001.png")
    before = (tmp_path / "001.png").read_bytes()
    assert run(trained.folder, folders[0], tmp_path, "--overwrite") == 2
    assert "an output apart from the inputs" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "001.png").read_bytes() == before
    os.symlink(folders[0], tmp_path / "again")
    assert run(trained.folder, folders[0], tmp_path / "again", "--overwrite") == 2
    assert "another folder for masks" in capsys.readouterr().err.splitlines()[-1]
