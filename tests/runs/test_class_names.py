"""Names of classes go from the data into the run, and from there to all that tells of it."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.engine.checkpoint import load_checkpoint, save_checkpoint
from dense_imb.runs import open_run, train
from dense_imb.tasks.images.task import ImagesReading
from tests.runs.pictures import lines, tiny_images

pytestmark = [
    pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning"),
    pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.FewPixelsWarning"),
]
NAMES = ("empty", "arc", "$ring", "_line")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "named.h5"
    with h5py.File(path, "w") as file:
        file["image"], file["mask"] = lines(6, (24, 24), 4)
        file.attrs["classes"] = np.bytes_(json.dumps(NAMES))
    return path


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    config = tiny_images((str(data), None), images={"patch": [16, 16]}, steps=2)
    return train(config, tmp_path_factory.mktemp("runs") / "named", is_quiet=True)


def test_a_run_knows_its_classes_by_name(trained):
    assert trained.trained(device="cpu").reading.names == NAMES


def test_evaluate_and_segment_say_the_names(trained, data, tmp_path, capsys):
    out = tmp_path / "table"
    assert main(["evaluate", str(trained.folder), str(data), "--out", str(out)]) == 0
    assert "_line" in capsys.readouterr().out
    rows = json.loads((out / "evaluation.json").read_text())["rows"][:4]
    assert [row["class"] for row in rows] == ["mean", "1", "2", "3"]
    assert [row["class_name"] for row in rows] == ["mean", *NAMES[1:]]
    masks = tmp_path / "masks"
    assert main(["segment", str(trained.folder), str(data), str(masks)]) == 0
    assert json.loads((masks / "segmented.json").read_text())["classes"] == [*NAMES]


def test_the_report_says_the_names(trained):
    assert main(["report", str(trained.folder)]) == 0
    page = (trained.folder / "report.html").read_text()
    assert "$ring: " in page
    assert "class 2" not in page
    assert json.loads((trained.folder / "report.json").read_text())["class_names"] == [*NAMES]


def test_the_model_card_says_the_names(trained, tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX is an extra")
    assert main(["export", str(trained.folder), str(tmp_path / "named.onnx")]) == 0
    card = (tmp_path / "named.onnx.md").read_text()
    assert "| 3 | _line | 3 |" in card
    facts = json.loads((tmp_path / "named.onnx.json").read_text())
    assert [one["name"] for one in facts["outputs"][0]["classes"].values()] == [*NAMES]


def test_runs_that_are_older_than_names_open_and_go_on(trained, data, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "old")
    for path in folder.rglob("*.pt"):
        content = load_checkpoint(path)
        del content["setup"]["class names"]
        save_checkpoint(path, content)
    assert open_run(folder).trained(device="cpu").reading.names is None
    train(trained.config, folder, resume=True, is_quiet=True)


def test_a_reading_without_names_is_stored_as_before():
    reading = ImagesReading(2, (1.0,), (0.5,), (8, 8))
    assert "names" not in json.loads(reading.as_text())
    named = ImagesReading(2, (1.0,), (0.5,), (8, 8), names=("a", "b"))
    assert ImagesReading.from_text(named.as_text()) == named


def test_names_of_another_number_of_classes_are_refused(data, tmp_path, capsys):
    typed = ["--images.train", str(data), "--images.n_classes", "4", "--images.names", '["a", "b"]']
    assert main(["train", "images", "--out", str(tmp_path / "run"), *typed]) == 2
    assert "a name for each of 4 classes" in capsys.readouterr().err
