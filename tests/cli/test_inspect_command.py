"""dense-imb inspect: what it prints and writes, and one sentence on bad input."""

from __future__ import annotations

import errno
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.cli import main
from tests.data.images.labelled_files import hdf5, random_pairs
from tests.hits.files import some_events, write


def run(*arguments: object) -> int:
    return main(["inspect", *map(str, arguments)])


@pytest.fixture
def hits_file(tmp_path):
    return write(tmp_path / "a.h5", some_events(50))


def test_prints_text_and_writes_json_and_figure(tmp_path, hits_file, capsys):
    assert run(hits_file, "--out", tmp_path / "look", "--verify") == 0
    printed = capsys.readouterr()
    assert "50 events" in printed.out
    assert "content hash: OK" in printed.out
    assert "CrossEntropyLoss(class_weight=(" in printed.out
    assert "inspect: " in printed.err  # the progress bar
    written = sorted(path.name for path in (tmp_path / "look").iterdir())
    assert written == ["inspect.json", "inspect.png"]
    assert json.loads((tmp_path / "look" / "inspect.json").read_text())["events"] == 50


def test_json_on_stdout_is_json_only(hits_file, capsys):
    assert run(hits_file, "--format", "json", "--events", 10) == 0
    numbers = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert numbers["inspected_events"] == 10


def test_existing_results_are_kept(tmp_path, hits_file, capsys):
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "inspect.png").write_text("mine")
    assert run(hits_file, "--out", tmp_path / "look") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "look").iterdir()] == ["mine"]
    assert run(hits_file, "--out", tmp_path / "look", "--overwrite") == 0
    assert (tmp_path / "look" / "inspect.png").read_bytes().startswith(b"\x89PNG")


def test_verify_names_the_data_set_with_a_flipped_bit(hits_file, capsys):
    with h5py.File(hits_file, "r+") as file:
        x = file["/hit/x"][:]
        x[7] ^= 1
        file["/hit/x"][:] = x
    assert run(hits_file) == 0  # it is a legal place
    assert run(hits_file, "--verify") == 2
    assert "`/hit/x`" in capsys.readouterr().err.splitlines()[-1]


def test_dense_frames_are_told_how_to_become_hits(tmp_path, capsys):
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        file.create_dataset("data/frames", data=np.zeros((5, 8, 9)), chunks=(5, 4, 3))
    assert run(tmp_path / "dense.h5") == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "dense frames, `data/frames` of shape (5, 8, 9) in chunks of (5, 4, 3)" in error[0]
    assert "`dense-imb convert` makes a hits file of it" in error[0]
    assert "data_tools/repack.py" in error[0]


def test_folders_of_images(tmp_path, capsys):
    for name, value in (("images", 90), ("masks", 255)):
        (tmp_path / name).mkdir()
        pixels = np.zeros((8, 9), np.uint8)
        pixels[2, 3] = value
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    assert run(tmp_path / "images", "--masks", tmp_path / "masks", "--out", tmp_path / "o") == 0
    printed = capsys.readouterr().out
    assert "accuracy 98.61 %" in printed
    assert "71 : 1" in printed
    assert (tmp_path / "o" / "inspect.png").exists()


def test_a_file_of_images_is_told_from_hits_by_its_content(tmp_path, capsys):
    images, masks = random_pairs(shape=(5, 9, 7), n_classes=2)
    path = hdf5(tmp_path / "a.h5", images, masks * 100)
    options = ["--labels", "0", "100", "--ignore-index", "7", "--events", "2"]
    assert run(path, *options, "--out", tmp_path / "o") == 0
    printed = capsys.readouterr().out
    assert "4 images, 2 of them inspected" in printed
    assert "sizes: 5 x 9 x 7 (2)" in printed
    assert "masks of 0 and 100, in this order classes 0 to 1" in printed
    assert (tmp_path / "o" / "inspect.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{0}"], "add --masks FOLDER"),
        (["{0}/none.h5"], "Expected a hits file at"),
        (["{0}/*.none"], "Expected files that match"),
        (["{0}/a.h5", "--events", "0"], "`events` to be a number of at least 1, got 0"),
        (
            ["{0}/a.h5", "--ignore-index", "3"],
            "--ignore-index is an option for images with --masks",
        ),
        (["{0}", "--masks", "{0}", "--verify"], "--verify is an option for hits files"),
        (["{0}", "{0}", "--masks", "{0}"], "one folder of images, got 2"),
        (["{0}", "--masks", "{0}"], "Expected images"),
        (["{0}/a.txt"], "HDF5 can't open"),
        (["{0}/a.h5", "--labels", "0", "1"], "--labels is an option for images with --masks"),
        (["{0}/b.h5", "{0}/a.h5"], "one file of images, got 2"),
        (["{0}/b.h5", "--verify"], "--verify is an option for hits files"),
        (["{0}/b.h5", "--labels", "0", "2"], "b.h5 to hold the values 0 and 2 of `labels`, got 0"),
        (["{0}/b.h5", "--labels", "0"], "each of at least two classes, got [0]"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, hits_file, capsys, arguments, sentence):
    (tmp_path / "a.txt").write_text("x")
    hdf5(tmp_path / "b.h5", *random_pairs(n_classes=2))
    assert run(*(argument.format(tmp_path) for argument in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err.splitlines()[-1]


def test_flat_arrays_are_told_how_to_become_hits(tmp_path, capsys):
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["photon/t"], file["event/offset"] = [5, 6], [0, 2]
    assert run(tmp_path / "flat.h5") == 2
    error = capsys.readouterr().err
    assert "other data sets, `event/offset`, `photon/t`; `dense-imb convert` makes" in error


def test_folders_that_are_files_or_closed_are_one_sentence(
    tmp_path, hits_file, monkeypatch, capsys
):
    assert run(hits_file, "--out", hits_file) == 2
    assert f"Expected a folder at {hits_file}, got a file." in capsys.readouterr().err

    def closed(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.write_text", closed)
    assert run(hits_file, "--out", tmp_path / "closed") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"error: Permission denied: {tmp_path / 'closed' / 'inspect.json'}.")


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, hits_file, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("dense_imb.inspection.inspect_hits", lambda *a, **k: pytest.fail("worked"))
    assert run(hits_file, "--out", tmp_path / "closed") == 2
    assert "closed, which is read-only." in capsys.readouterr().err
