"""One process of a pair raises, or is killed: the other ends within the stated time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dense_imb.engine.launch import SECONDS_TO_END
from dense_imb.runs import open_run
from tests.cli.test_train_command import ended, start
from tests.runs.pictures import write_folders

pytestmark = pytest.mark.slow

SOURCE = """
import os, signal, time
from pathlib import Path
from dense_imb.losses import CrossEntropyLoss

class Failing(CrossEntropyLoss):
    n_calls = 0

    def forward(self, logits, target, **options):
        Failing.n_calls += 1
        rank = os.environ["RANK"]
        if Failing.n_calls == 1:
            Path(f"process-{rank}").write_text(str(os.getpid()))
        if Failing.n_calls == 6 and rank == "1":
            Path("failed").write_text(str(time.time()))
            FAIL
        return super().forward(logits, target, **options)
"""
RAISES = 'raise ValueError("Expected finite images, got NaN in bad.png.")'
CHECKS = "super().forward(logits, target.long() + 7)"
DIES = "os.kill(os.getpid(), signal.SIGKILL)"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (RAISES, 2, "got ValueError: Expected finite images, got NaN in bad.png (after 5 steps)"),
        (CHECKS, 2, "Expected `target` between 0 and 1, got "),
        (DIES, 1, "process 1 was ended by SIGKILL; the others were stopped"),
    ],
    ids=["raises", "refused by the loss", "killed"],
)
def test_a_failing_process_ends_the_other(tmp_path, monkeypatch, failure, code, sentence):
    images, masks = write_folders(tmp_path / "pictures", 9)
    (tmp_path / "failing_losses.py").write_text(SOURCE.replace("FAIL", failure))
    monkeypatch.chdir(tmp_path)
    process = start([
        "train", "images", "--out", "run", "--images.train", images, "--images.masks", masks,
        "--images.patch", "32", "32", "--model.options", '{"widths": [4, 8]}', "--steps", "4000",
        "--batch_size", "4", "--save_every", "0", "--quiet", "--report", "false", "--devices", "2",
        "--loss", "failing_losses:Failing()", "--allow-import", "failing_losses",
    ])  # fmt: skip
    got, told = ended(process)
    seconds = time.time() - float((tmp_path / "failed").read_text())
    assert got == code, told
    assert told.count(sentence) == 1, told
    assert "Traceback" not in told, told
    assert seconds < SECONDS_TO_END, told  # the command ends after all of its processes
    for rank in (0, 1):
        assert not is_alive(int((tmp_path / f"process-{rank}").read_text()))
    # steps before the failure are saved
    assert sorted((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    assert open_run(tmp_path / "run").config.steps == 4000
