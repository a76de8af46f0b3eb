"""A run folder from a stranger: what its config names is neither built nor imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import dense_imb
from dense_imb.cli import main
from dense_imb.config import KINDS
from dense_imb.runs import open_run, train
from tests.data.values.value_files import write_values
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events
from tests.tasks.values.tiny_values import tiny_values

LOSSES = {
    "missing": "torch.nn:NoSuchLoss",
    "monai": "monai.losses:DiceCELoss(sigmoid=True)",
    "own module": "stranger:Loss()",
}
SIZE = (32, 32)  # as large as a crop: no sliding windows, which are MONAI's


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, list[str]]:
    """What the runs train on, and what `evaluate` is given behind the run."""
    folder = tmp_path_factory.mktemp("data")
    hits = write_events(folder / "clean.h5", clean_events(24))
    images, masks = write_folders(folder / "cracks", 6, SIZE)
    table = write_tables(folder / "table")
    shown, values = write_values(folder / "values", 6, SIZE)
    return {
        "hits": [hits, "--noise", "20", "--no-baselines"],
        "images": [images, "--masks", masks],
        "labels": [f"{table}/train.csv", "--images", f"{table}/images"],
        "values": [shown, "--targets", values],
    }


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> dict[str, Path]:
    """A run of each kind."""
    table = str(Path(data["labels"][0]).parent)
    configs = {
        "hits": tiny(data["hits"][0]),
        "images": tiny_images((data["images"][0], data["images"][2])),
        "labels": of_table(table),
        "values": tiny_values((data["values"][0], data["values"][2])),
    }
    folders = {}
    for kind, config in configs.items():
        folders[kind] = tmp_path_factory.mktemp("runs") / kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten steps collapse, and say so
            train(config, folders[kind], device="cpu", is_quiet=True)
    return folders


def make_strange(folder: Path, copy: Path, loss: str) -> Path:
    """Copy a run and name another loss in its config, with a module of that name beside it."""
    shutil.copytree(folder, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["loss"] = loss
    (copy / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (copy / "stranger.py").write_text(
        "from pathlib import Path\n"
        "Path(__file__).with_name('was_imported').touch()\n"
        "class Loss:\n    pass\n"
    )
    return copy


@pytest.fixture(params=LOSSES)
def loss(request) -> str:
    return LOSSES[request.param]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return str(request.param)


def answer(run: Any, kind: str) -> torch.Tensor:
    """The output of the trained network for fixed samples."""
    network = run.trained(device="cpu")
    rng = np.random.default_rng(0)
    if kind == "hits":
        return network.score(clean_events(4, seed=5))
    if kind == "images":
        return network.logits(rng.integers(0, 255, (1, *SIZE), np.uint8))
    if kind == "values":
        return network.predict(rng.integers(0, 255, (1, *SIZE), np.uint8))
    return network.logits(rng.integers(0, 255, (2, 3, *network.reading.size), np.uint8))


def evaluation(folder: Path, data: list[str], capsys) -> Any:
    """The printed table, without times."""
    assert main(["evaluate", str(folder), *data, "--format", "json", "--quiet"]) == 0
    table = json.loads(capsys.readouterr().out)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in table.pop("rows")]
    return {**table, "rows": rows}


def test_the_run_reads_as_before(trained, kind, loss, tmp_path, monkeypatch):
    folder = make_strange(trained[kind], tmp_path / kind, loss)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before, run = open_run(trained[kind]), open_run(folder)
    assert run.config.loss == loss
    assert repr(run.history) == repr(before.history)  # with NaN
    assert run.summary().splitlines()[1:] == before.summary().splitlines()[1:]
    torch.testing.assert_close(answer(run, kind), answer(before, kind), rtol=0, atol=0)
    assert not (folder / "was_imported").exists()


def test_evaluate_measures_as_before(trained, kind, loss, data, tmp_path, capsys):
    folder = make_strange(trained[kind], tmp_path / kind, loss)
    assert evaluation(folder, data[kind], capsys) == evaluation(trained[kind], data[kind], capsys)


def test_denoise_and_segment_write_as_before(trained, loss, data, tmp_path):
    folder = make_strange(trained["hits"], tmp_path / "hits", loss)
    for run, out in ((folder, "a.h5"), (trained["hits"], "b.h5")):
        assert main(["denoise", str(run), data["hits"][0], str(tmp_path / out)]) == 0
    first, second = (dense_imb.hits.open_hits(tmp_path / out)[:] for out in ("a.h5", "b.h5"))
    np.testing.assert_array_equal(first.hit["score"], second.hit["score"])
    folder = make_strange(trained["images"], tmp_path / "images", loss)
    for run, out in ((folder, "a"), (trained["images"], "b")):
        assert main(["segment", str(run), data["images"][0], str(tmp_path / out)]) == 0
    for path in (tmp_path / "a").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("kind", ["hits", "images"])
def test_report_and_export_build_no_loss(trained, kind, tmp_path):
    folder = make_strange(trained[kind], tmp_path / kind, LOSSES["own module"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten steps train a poor network
        assert main(["report", str(folder), "--quiet"]) == 0
        assert main(["export", str(folder), str(tmp_path / "model.pt2"), "--quiet"]) == 0
    assert not (folder / "was_imported").exists()


def test_neither_monai_nor_a_module_of_the_folder_is_imported(trained, kind, tmp_path):
    folders = [make_strange(trained[kind], tmp_path / str(n), text)
               for n, text in enumerate(LOSSES.values())]  # fmt: skip
    code = (
        "import sys\n"
        "from dense_imb.runs import open_run\n"
        "for folder in sys.argv[1:]:\n"
        "    run = open_run(folder)\n"
        "    run.summary(), run.history, run.scores(), run.trained(device='cpu')\n"
        "print([name for name in ('monai', 'stranger') if name in sys.modules])\n"
    )
    home = Path(dense_imb.__file__).parents[1]
    printed = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        capture_output=True,
        text=True,
        cwd=folders[-1],  # where Python looks for modules first
        env={**os.environ, "PYTHONPATH": str(home)},
        check=True,
    )
    assert printed.stdout.strip() == "[]"
