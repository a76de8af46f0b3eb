"""Two processes that train in two stages: stopped in either stage, and resumed to the bit."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from dense_imb.runs import open_run
from tests.cli.test_train_command import arguments, ended, start, wait_for_step
from tests.runs.tiny import assert_same_runs, clean_events, write_events

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(27))


def typed(path: str, folder: Path) -> list[str]:
    return arguments(
        path, folder, "--save_every", 0, "--validate_every", 10, "--second.steps", 20,
        "--second.loss", "ACBMSELoss", "--second.sampling.kind", "instance", "--second.parts",
        "head", "--report", "false", "--devices", 2, "--resume", steps=20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, told = ended(start(typed(path, folder)))
    assert code == 0, told
    return folder


def test_a_pair_stopped_in_both_stages_ends_the_same(path, tmp_path, whole):
    folder = tmp_path / "run"
    for place, number in ((folder / "first", 1), (folder, 2)):
        process = start(typed(path, folder))
        wait_for_step(process, place, 5)
        process.send_signal(signal.SIGTERM)
        code, told = ended(process)
        assert code == 75, told
        assert len(re.findall(rf"after step \d+ of stage {number} of 2, saved", told)) == 1, told
    code, told = ended(start(typed(path, folder)))
    assert code == 0, told
    assert_same_runs(folder, whole)
    assert_same_runs(folder / "first", whole / "first")
    assert "first stage -> second stage" in open_run(folder).summary()
