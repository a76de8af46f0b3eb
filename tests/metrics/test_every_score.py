"""What all scores promise: merged, saved, over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dense_imb.metrics
from tests.limits import HANG_SECONDS

from .processes import empty_scores, state, update
from .samples import filled, sample


def test_every_public_score_is_here():
    streaming = {type(score).__name__ for score in empty_scores()}
    assert streaming | {
        "Curve",
        "OperatingPoint",
        "TolerantCurve",
        "TolerantPoint",
        "class_groups",
    } == set(dense_imb.metrics.__all__)


@pytest.mark.parametrize("i", range(len(empty_scores())))
def test_merged_parts_are_the_whole_and_survive_a_file(i, tmp_path):
    whole = update(empty_scores(), 0, 7)[i]
    assert state(whole).abs().sum() > 0
    parts = empty_scores()[i]
    for start, stop in ((3, 7), (0, 0), (0, 3)):
        assert parts.merge(update(empty_scores(), start, stop)[i]) is parts
    torch.testing.assert_close(state(parts), state(whole), rtol=1e-12, atol=1e-9)
    whole.save(tmp_path / "scores.json")
    found = type(whole).load(tmp_path / "scores.json")
    assert found._settings() == whole._settings()
    assert torch.equal(state(found), state(whole))
    stored = json.loads((tmp_path / "scores.json").read_text())
    stored["counts"][0] = stored["counts"][0][:1]  # would broadcast
    (tmp_path / "scores.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="got something else"):
        type(whole).load(tmp_path / "scores.json")


@pytest.mark.slow
def test_two_processes_are_one():
    """Shards of 5 and 2, 0 and 7, 7 and 0 events."""
    worker = Path(__file__).parent / "processes.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*command, str(worker)],
        capture_output=True, text=True, timeout=HANG_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "7 scores agree in 2 processes" in finished.stdout


def test_one_process_needs_no_group():
    histogram = filled(*sample())
    assert histogram.reduce_over_processes().n_signal == 400
