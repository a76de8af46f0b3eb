"""Exported networks of values answer as `predict` does, with the read-out inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.data.values.pairs import open_values
from dense_imb.export import export_run
from dense_imb.runs import train
from tests.data.values.value_files import save_npy, spots, write_values
from tests.tasks.values.tiny_values import tiny_values

pytest.importorskip("onnxruntime", reason="ONNX is an extra: pip install 'dense-imb[export]'")
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_values(tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    config = tiny_values(folders, steps=40, loss="ACBMSELoss")
    return train(config, tmp_path_factory.mktemp("runs") / "spots", is_quiet=True)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_file_answers_as_predict_does_for_any_size(run, folders, tmp_path, suffix, capsys):
    path = tmp_path / f"model.{suffix}"
    assert main(["export", str(run.folder), str(path)]) == 0
    printed = capsys.readouterr()
    assert "mean absolute error" in printed.out
    assert "export: trace the network for inputs of any size ..." in printed.err
    image = open_values(*folders).image(0)
    wanted = run.trained(device="cpu").predict(image).numpy()
    given = image[None].astype(np.float32)
    if suffix == "onnx":
        import onnxruntime

        got = onnxruntime.InferenceSession(str(path)).run(None, {"image": given})[0]
    else:
        got = torch.export.load(path).module()(torch.from_numpy(given)).detach().numpy()
    scale = run.trained(device="cpu").reading.scale
    np.testing.assert_allclose(got[0], wanted, atol=2e-3 * scale)
    card = (tmp_path / f"model.{suffix}.md").read_text()
    assert "## Read-out" in card
    assert "knots; lit / target" in card
    assert (
        "Measured on the validation images of the run, with the read-out, as in the file." in card
    )
    assert f"| rmse | {run.scores().scores()['rmse']:.4g} |" in card


def test_channels_are_named_and_a_run_without_read_out_says_so(tmp_path):
    images, targets = spots(6, (40, 48))
    both = np.stack([targets, 3 * targets], 1)
    folders = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", both)
    values = {"names": ["low", "high"], "read_out": False}
    run = train(tiny_values(folders, values=values), tmp_path / "run", is_quiet=True)
    exported = export_run(run, tmp_path / "model.pt2")
    card = exported.card.read_text()
    assert "Channels of the values: low, high." in card
    assert "None: the values are as trained." in card
    assert exported.facts["outputs"][0]["shape"][1] == 2
