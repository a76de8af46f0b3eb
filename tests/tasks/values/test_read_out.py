"""The read-out of a run: fitted once on validation images, applied to what it predicts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.data.values.pairs import open_values
from dense_imb.engine import CheckpointError
from dense_imb.metrics.read_out import ReadOut
from dense_imb.runs import open_run, predict, train
from dense_imb.runs.read_out import READ_OUT, read_read_out
from dense_imb.runs.write import scored_weights
from dense_imb.tasks.values.scores import balanced_mae, larger_balanced_error
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


def test_a_finished_run_has_a_read_out_of_its_best_network(trained):
    record = read_read_out(trained.folder)
    assert record is not None
    assert record.step == trained.metrics["best"]["step"]
    assert not record.read_out.is_identity
    assert f"read-out of all channels: {len(record.read_out.maps[0].knots)}" in trained.summary()
    assert "fitted on 18 lit pixels only: use more validation images" in trained.summary()
    effect = record.read_out.effect[0]
    before = trained.metrics["best"]
    assert effect.rmse_before == pytest.approx(before["rmse"])
    assert trained.scores().scores()["rmse"] == pytest.approx(effect.rmse_after, rel=1e-4)
    assert effect.rmse_after < effect.rmse_before
    assert effect.overshoot[0] == pytest.approx(before["lit_ratio"])


def test_predictions_pass_through_it_unless_raw_is_asked_for(trained, folders, tmp_path, capsys):
    image = open_values(*folders).image(0)
    predictor = trained.trained(device="cpu")
    raw = predictor.predict(image, raw=True)
    read = predictor.predict(image)
    record = read_read_out(trained.folder)
    torch.testing.assert_close(read, record.read_out.apply(raw[None])[0])
    assert not torch.equal(read, raw)
    predict(trained, folders[0], tmp_path / "out", show_progress=False)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "000.npy"), read[0].numpy())
    with pytest.raises(FileExistsError, match="read_out differs"):
        predict(trained, folders[0], tmp_path / "out", raw=True, show_progress=False)
    words = ["predict", str(trained.folder), folders[0], str(tmp_path / "raw"), "--raw"]
    assert main([*words, "--quiet"]) == 0
    assert "8 maps of values predicted, as trained" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(tmp_path / "raw" / "000.npy"), raw[0].numpy())


def test_the_cost_in_balanced_error_is_said_with_the_cure(trained, folders, tmp_path, capsys):
    raw, read = trained.metrics["best"]["balanced_mae"], balanced_mae(trained.scores())
    assert read > raw  # the loss is balanced, and the network unsure
    line = f"the read-out makes the balanced error larger, {raw:.3g} -> {read:.3g} (validation"
    assert f"{line} images): --raw leaves it out" in trained.summary()
    words = [str(trained.folder), folders[0]]
    for more, is_said in ([], True), (["--raw"], False):
        out = str(tmp_path / f"out{is_said}")
        assert main(["predict", *words, out, *more, "--quiet"]) == 0
        assert (line in capsys.readouterr().out) is is_said
        assert main(["evaluate", *words, "--targets", folders[1], *more, "--quiet"]) == 0
        assert ("larger, " in capsys.readouterr().out) is is_said


def test_a_read_out_that_costs_nothing_is_not_mentioned():
    assert larger_balanced_error("here", 2.0, 1.0) == ""


def test_evaluate_shows_the_overshoot_before_and_after(trained, folders, capsys):
    words = ["evaluate", str(trained.folder), folders[0], "--targets", folders[1], "--quiet"]
    assert main([*words, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    overall = {row["scorer"]: row for row in rows if row["kind"] == "all"}
    after, before = overall["spots"], overall["spots as trained"]
    assert after["rmse"] < before["rmse"]
    assert abs(np.log(after["lit_ratio"])) < abs(np.log(before["lit_ratio"]))
    assert trained.scores().scores()["lit_ratio"] == pytest.approx(1, abs=0.2)
    assert main([*words, "--format", "json", "--raw"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    raw = {row["scorer"]: row for row in rows if row["kind"] == "all"}
    assert "spots as trained" not in raw
    assert raw["spots"] == {**before, "scorer": "spots"}


def test_a_run_without_read_out_predicts_as_trained(folders, tmp_path):
    run = train(tiny_values(folders, values={"read_out": False}), tmp_path / "run", is_quiet=True)
    assert not (run.folder / READ_OUT).exists()
    assert run.read_out is None
    assert run.trained(device="cpu").reading.read_out is None


def test_a_finished_run_that_is_resumed_keeps_its_read_out(folders, tmp_path):
    config = tiny_values(folders)
    run = train(config, tmp_path / "run", is_quiet=True)
    path = run.folder / READ_OUT / "read_out.json"
    before = path.stat().st_mtime_ns
    train(config, run.folder, is_quiet=True, resume=True)
    assert path.stat().st_mtime_ns == before
    path.unlink()  # stopped before it was written
    train(config, run.folder, is_quiet=True, resume=True)
    assert read_read_out(run.folder) == run.read_out


def test_another_file_in_its_place_is_refused(folders, tmp_path):
    run = train(tiny_values(folders), tmp_path / "run", is_quiet=True)
    (run.folder / READ_OUT / "read_out.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="Expected the read-out of a run in"):
        open_run(run.folder).trained(device="cpu")


def test_channels_have_maps_of_their_own(tmp_path):
    from tests.data.values.value_files import save_npy, spots

    images, targets = spots(6, (40, 48))
    both = np.stack([targets, 3 * targets], 1)
    folders = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", both)
    run = train(tiny_values(folders, steps=20), tmp_path / "run", is_quiet=True)
    assert run.read_out is not None
    assert isinstance(run.read_out.read_out, ReadOut)
    assert len(run.read_out.read_out.maps) == 2
    image = open_values(*folders).image(0)
    assert run.trained(device="cpu").predict(image).shape == (2, 40, 48)


def test_a_read_out_of_other_weights_is_refused(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    path = folder / READ_OUT / "read_out.json"
    weights = scored_weights(folder)
    assert weights is not None
    assert weights == scored_weights(folder / READ_OUT)
    path.write_text(path.read_text().replace(weights, "0" * 32))
    with pytest.raises(CheckpointError, match=r"got that of another; dense-imb train values --out"):
        open_run(folder).trained()
