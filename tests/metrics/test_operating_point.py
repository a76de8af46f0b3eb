"""A stored threshold: back from its file, and whole or not at all."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch

from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram

from .processes import POINT


@pytest.mark.parametrize("threshold", [0.25, -math.inf, math.inf])
def test_operating_point_comes_back(tmp_path, threshold):
    path = tmp_path / "point.json"
    point = OperatingPoint(threshold, "logit", 0.97, math.nan, 1 / 3, n_signal=10, n_noise=0)
    point.save(path)
    actual = OperatingPoint.load(path)
    assert repr(actual) == repr(point)
    assert list(tmp_path.iterdir()) == [path]

    def refuse(name):
        raise AssertionError(f"{name} is not strict JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    score = torch.tensor([-5.0, 0.25, 5.0])
    assert torch.equal(actual.keep(score), score >= threshold)


def test_operating_point_refuses():
    with pytest.raises(ValueError, match="`threshold`"):
        OperatingPoint(math.nan, "logit", 1.0, 1.0, 1.0, n_signal=1, n_noise=1)
    with pytest.raises(ValueError, match="without NaN"):
        POINT.keep(torch.tensor([0.5, math.nan]))
    with pytest.raises(ValueError, match="between 0 and 1"):  # logits against a probability
        POINT.keep(torch.tensor([0.5, 3.0]))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other", "version": 1}', "\xff"])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content.encode("latin-1"))
    for kind in (OperatingPoint, ScoreHistogram, HitScores):
        with pytest.raises(ValueError, match=rf"of {kind.__name__} in .*file.json"):
            kind.load(path)
    for name, other in (("format", "dense-imb-other"), ("version", 2)):
        POINT.save(path)
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: other}))
        with pytest.raises(ValueError, match="of OperatingPoint in"):
            OperatingPoint.load(path)
    with pytest.raises(FileNotFoundError):
        OperatingPoint.load(tmp_path / "none.json")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "point.json"
    POINT.save(path)

    def full(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        OperatingPoint(0.1, "logit", 1.0, 1.0, 1.0, n_signal=1, n_noise=1).save(path)
    assert OperatingPoint.load(path) == POINT
    assert list(tmp_path.iterdir()) == [path]
