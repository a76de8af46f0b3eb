"""Two processes that sample by class and mix: as one, and resumed to the bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from dense_imb.cli import main
from dense_imb.runs import open_run
from tests.cli.test_train_command import ended, start, wait_for_step
from tests.runs.pictures import write_folders
from tests.runs.tiny import assert_same_runs

pytestmark = pytest.mark.slow


def typed(data: Path, folder: Path, *more: object) -> list[str]:
    loss = "CrossEntropyLoss(balance={'scope': 'global'})"
    return [
        "train", "images", "--out", str(folder),
        "--images.train", str(data / "images"), "--images.masks",
        str(data / "masks"), "--images.patch", "[32, 32]", "--model.options", "{widths: [4, 8]}",
        "--loss", loss, "--sampling.kind", "class", "--mixing.kind", "balanced-mixup",
        "--mixing.alpha", "0.5", "--steps", "30", "--batch_size", "4", "--validate_every", "10",
        "--save_every", "0", "--quiet", "--report", "false", "--resume", *map(str, more),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_folders(folder, n_classes=3)
    return folder


@pytest.fixture(scope="module")
def pair(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair") / "run"
    code, told = ended(start(typed(data, folder, "--devices", 2)))
    assert code == 0, told
    return folder


def test_two_processes_are_one(data, tmp_path, pair):
    assert main(typed(data, tmp_path / "one")) == 0
    one, two = open_run(tmp_path / "one"), open_run(pair)
    for name, value in one.weights("last").items():
        torch.testing.assert_close(two.weights("last")[name], value, rtol=1e-3, atol=1e-4)
    losses = [[row["loss"] for row in run.history] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_stopped_pair_is_resumed_to_the_bit(data, tmp_path, pair):
    folder = tmp_path / "run"
    process = start(typed(data, folder, "--devices", 2))
    wait_for_step(process, folder, 6)
    process.send_signal(signal.SIGTERM)
    code, told = ended(process)
    assert code == 75, told
    code, told = ended(start(typed(data, folder, "--devices", 2)))
    assert code == 0, told
    assert_same_runs(folder, pair)
