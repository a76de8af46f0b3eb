"""Networks that tell classes of hits apart: `denoise` writes the class, `evaluate` counts it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.hits import Evaluation, HitsFile, mask_stream
from dense_imb.hits.classes import HitClasses
from dense_imb.runs import denoise, open_run, train
from tests.runs.tiny import write_events
from tests.tasks.hits.test_networks_of_hits import config, telescope_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes, and one of two."""
    folder = tmp_path_factory.mktemp("classes")
    path = write_events(folder / "telescope.h5", telescope_events(24))
    for name, n_classes in (("three", 3), ("two", 2)):
        train(config(path, {"n_classes": n_classes}), folder / name, is_quiet=True)
    return folder


def test_denoise_writes_the_most_probable_class(folder, tmp_path):
    main(["denoise", str(folder / "three"), str(folder / "telescope.h5"),
          str(tmp_path / "clean.h5"), "--quiet"])  # fmt: skip
    clean, raw = HitsFile(tmp_path / "clean.h5")[:], HitsFile(folder / "telescope.h5")[:]
    network = open_run(folder / "three").trained(device="cpu")
    assert clean.hit["class"].dtype == np.uint8
    probability = network.probability(raw).numpy()
    np.testing.assert_array_equal(clean.hit["class"], probability.argmax(1))
    assert {*np.unique(clean.hit["class"]).tolist()} <= {0, 1, 2}
    np.testing.assert_array_equal(clean.hit["score"], network.score(raw))
    # denoised again, the columns are replaced; the file is known as finished
    again = tmp_path / "again"
    for _ in range(2):
        main(["denoise", str(folder / "three"), str(tmp_path / "clean.h5"), "--out", str(again),
              "--quiet"])  # fmt: skip
    assert (
        HitsFile(again / "clean.h5").columns.keys()
        == HitsFile(tmp_path / "clean.h5").columns.keys()
    )


def test_events_and_streams_have_the_class_too(folder):
    raw = HitsFile(folder / "telescope.h5")[:6]
    masked = denoise(folder / "three", raw)
    network = open_run(folder / "three").trained(device="cpu")
    for max_events in (1, 3):  # one by one, and several together
        stream = mask_stream(network, 0.5, raw, max_events=max_events, max_seconds=5)
        found = np.concatenate([one.hit["class"] for one in stream])
        np.testing.assert_array_equal(found, masked.hit["class"])
    assert "class" not in denoise(folder / "two", raw).hit
    kept = denoise(folder / "three", raw, only_kept=True)
    assert len(kept.hit["class"]) == kept.n_hits < raw.n_hits


def test_evaluate_prints_recall_and_precision_of_each_class(folder, tmp_path, capsys):
    paths = [str(folder / "three"), str(folder / "two"), str(folder / "telescope.h5")]
    main(["evaluate", *paths, "--quiet", "--out", str(tmp_path / "table"), "--batch-size", "5"])
    printed = capsys.readouterr().out
    lines = printed[printed.index("classes of hits") :].splitlines()[:4]
    assert lines[1].startswith("three: 0, noise")
    assert "720" in lines[1]
    assert lines[3].startswith("three: 2")
    assert "two: 0" not in printed
    stored = json.loads((tmp_path / "table" / "evaluation.json").read_text())
    rows = Evaluation.from_json(stored).classes["three"]
    raw = HitsFile(folder / "telescope.h5")[:]
    called = open_run(folder / "three").trained(device="cpu").columns(raw)["class"].numpy()
    for row in rows:
        is_own = raw.label == row["class"]
        assert row["n_hits"] == is_own.sum()
        assert row["recall"] == pytest.approx((called[is_own] == row["class"]).mean())
    main(["evaluate", *paths[1:], "--quiet"])
    assert "classes of hits" not in capsys.readouterr().out


def test_a_class_that_the_network_does_not_know_has_no_recall():
    classes = HitClasses()
    classes.update(torch.tensor([0, 3, 3]), torch.tensor([0, 0, 1]))
    rows = classes.rows()
    assert [row["n_hits"] for row in rows] == [1, 0, 0, 2]
    assert rows[3]["recall"] == 0
    assert np.isnan([rows[1]["recall"], rows[3]["precision"]]).all()
    assert rows[1]["precision"] == 0
