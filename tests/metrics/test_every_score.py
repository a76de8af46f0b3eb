"""Promises of every score: merged, saved, summed over processes, class numbers refused."""

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
        "ReadOut",
        "StreamingCounts",
        "TolerantCurve",
        "TolerantPoint",
        "best_f1_threshold",
        "class_groups",
        "dose_score",
        "dose_volume",
        "dose_volume_curve",
        "dvh_score",
        "fit_probability",
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
    actual = type(whole).load(tmp_path / "scores.json")
    assert actual._settings() == whole._settings()
    assert torch.equal(state(actual), state(whole))
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
    assert "11 scores agree in 2 processes" in finished.stdout


def test_one_process_needs_no_group():
    histogram = filled(*sample())
    assert histogram.reduce_over_processes().n_signal == 400


def bad_updates():
    """Each call passes class numbers, or swaps the two arguments of `update`."""
    histogram, hits, segmentation, _, _, tolerant, classes, *_ = empty_scores()
    label, score = torch.tensor([[1, 0, 2]]), torch.tensor([[0.5, 0.1, 0.2]])
    event = torch.zeros(3, dtype=torch.int64)
    first, swap = "before argmax", "swap the two"
    yield lambda: histogram.update(label, label > 0), "score", first
    yield lambda: histogram.update(label > 0, score), "score", f"before `is_signal`, {swap}"
    yield lambda: hits.update(label[0], label[0], event), "score", first
    yield lambda: hits.update(label[0], score[0], event), "score", f"before `label`, {swap}"
    yield lambda: hits.operating_point.keep(label), "score", first
    yield lambda: segmentation.update(label, label), "logits", first
    yield lambda: segmentation.update(label, score[None]), "logits", f"before `target`, {swap}"
    yield lambda: tolerant.update(label > 0, label > 0), "score", first
    yield lambda: tolerant.update(label > 0, score), "score", f"before `is_true`, {swap}"
    yield lambda: classes.update(label[0], label[0]), "logits", first
    yield lambda: classes.update(label[0], score), "logits", f"before `label`, {swap}"


@pytest.mark.parametrize("bad", list(bad_updates()))
def test_class_numbers_are_refused_as_scores(bad):
    call, name, cure = bad
    with pytest.raises(TypeError, match=f"`{name}` to be floating point, got class num.*{cure}"):
        call()
