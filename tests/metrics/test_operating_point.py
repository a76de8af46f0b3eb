"""A stored threshold: back from its file, and whole or not at all."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch

from dense_imb.base.refusals import Refused
from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram

from .processes import POINT, state
from .samples import generator


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


def test_equal_points_are_equal_after_a_file(tmp_path):
    for more in ({}, {"fakes": 0.25, "n_noise_only": 4}):
        point = OperatingPoint(0.5, "logit", 0.97, 0.5, 0.5, n_signal=10, n_noise=1, **more)
        point.save(tmp_path / "point.json")
        assert OperatingPoint.load(tmp_path / "point.json") == point
    assert "4 noise-only events; " in repr(point)
    assert "fakes 0.25" in repr(point)
    stored = point.as_json()
    old = {name: stored[name] for name in stored if name not in ("fakes", "n_noise_only")}
    assert OperatingPoint.from_json(old).n_noise_only == 0


def test_points_of_unknown_fakes_are_equal():
    """Python 3.13 compares the fields of a dataclass one by one, and NaN is not NaN."""
    numbers = (0.5, "logit", 0.97, 0.5, 0.5)
    one, other = (
        OperatingPoint(*numbers, n_signal=10, n_noise=1, fakes=float("nan")) for _ in range(2)
    )
    assert one == other
    assert {one, other} == {one}
    assert one != OperatingPoint(*numbers, n_signal=10, n_noise=2)
    assert one != numbers


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


def events(n_events=40, seed=0):
    """Scores of events, of which every third holds noise only and every seventh nothing."""
    rng = generator(seed)
    size = torch.randint(1, 30, (n_events,), generator=rng) * (torch.arange(n_events) % 7 > 0)
    event = torch.arange(n_events).repeat_interleave(size)
    is_signal = (torch.rand(len(event), generator=rng) < 0.3) & (event % 3 > 0)
    score = (torch.randn(len(event), generator=rng) + 2 * is_signal).sigmoid()
    return score, is_signal, event


def plain_point(score, is_signal, event, threshold):
    """Retention, purity and fakes of one threshold, in loops."""
    kept = [s >= threshold for s in score.tolist()]
    truth, number = is_signal.tolist(), event.tolist()
    noise_only = set(number) - {e for e, t in zip(number, truth, strict=True) if t}
    n_kept_signal = sum(k and t for k, t in zip(kept, truth, strict=True))
    fakes = sum(k and e in noise_only for k, e in zip(kept, number, strict=True))
    purity = n_kept_signal / sum(kept) if sum(kept) else 0.0
    return n_kept_signal / sum(truth), purity, fakes / len(noise_only)


@pytest.mark.parametrize("fakes", [0.0, 0.3, 1.0, 5.0, 1000.0])
def test_fakes_are_counted_on_noise_only_events(fakes):
    score, is_signal, event = events()
    histogram = ScoreHistogram()
    for part in (event < 20, event >= 20):  # in two calls
        histogram.update(score[part], is_signal[part], event=event[part])
    point = histogram.operating_point(fakes=fakes)
    retention, purity, counted = plain_point(score, is_signal, event, point.threshold)
    assert (point.retention, point.fakes) == (retention, counted)
    assert point.purity == pytest.approx(purity)
    assert point.fakes <= fakes
    lower = histogram._thresholds[histogram._thresholds < point.threshold]
    if len(lower):  # one bin lower would keep too many
        assert plain_point(score, is_signal, event, float(lower[-1]))[2] > fakes
    every, signal = set(event.tolist()), set(event[is_signal].tolist())
    assert point.n_noise_only == histogram.n_noise_only == len(every - signal) >= 12


@pytest.mark.parametrize("purity", [0.2, 0.5, 0.7, 0.9])
def test_a_purity_is_reached_with_the_most_signal(purity):
    score, is_signal, event = events()
    histogram = ScoreHistogram()
    histogram.update(score, is_signal)
    point = histogram.operating_point(purity=purity)
    every = [plain_point(score, is_signal, event, t) for t in histogram._thresholds.tolist()]
    assert point.retention == max(kept for kept, pure, _ in every if pure >= purity)
    assert point.purity >= purity
    assert math.isnan(point.fakes)  # no event was named


def test_a_purity_out_of_reach_names_the_best_one():
    histogram = ScoreHistogram()
    score = torch.tensor([0.9, 0.9, 0.9, 0.1])
    histogram.update(score, torch.tensor([True, True, False, False]))
    with pytest.raises(Refused) as problem:
        histogram.operating_point(purity=0.9)
    assert str(problem.value) == (
        "Expected a threshold with `purity=0.9`, got a purity of at most 0.6667 at any threshold; "
        "choose `purity=0.666` or less."
    )
    assert histogram.operating_point(purity=0.666).retention == 1.0  # the cure is right


def test_fakes_need_events_of_noise_only():
    score, is_signal, event = events()
    histogram = ScoreHistogram()
    histogram.update(score, is_signal)
    with pytest.raises(Refused, match="Expected noise-only events for `fakes`, got none; add"):
        histogram.operating_point(fakes=1)
    with pytest.raises(ValueError, match="`event` in the shape of `is_signal`"):
        histogram.update(score, is_signal, event=event[:1])
    with pytest.raises(ValueError, match="`event` of at least 0, got -8"):
        histogram.update(score, is_signal, event=event - 9)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"retention": 0.9, "fakes": 1}, "Expected one of `retention`, `fakes` and `purity`, got"),
        ({"fakes": -1}, "Expected `fakes` of at least 0, got -1"),
        ({"fakes": math.inf}, "Expected `fakes` of at least 0, got inf"),
        ({"purity": 0}, "Expected `purity` above 0 and up to 1, got 0"),
        ({"purity": math.nan}, "Expected `purity` above 0 and up to 1, got nan"),
    ],
)
def test_bad_aims_are_refused(wanted, sentence):
    with pytest.raises(Refused, match=sentence):
        ScoreHistogram().operating_point(**wanted)


def test_a_stored_histogram_without_fakes_still_loads(tmp_path):
    score, is_signal, event = events()
    histogram = ScoreHistogram()
    histogram.update(score, is_signal, event=event)
    path = tmp_path / "scores.json"
    histogram.save(path)
    assert torch.equal(state(ScoreHistogram.load(path)), state(histogram))
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "counts": stored["counts"][:1]}))
    old = ScoreHistogram.load(path)
    assert old.operating_point(0.9).threshold == histogram.operating_point(0.9).threshold
    assert old.n_noise_only == 0
    path.write_text(json.dumps({**stored, "counts": stored["counts"][:2]}))
    with pytest.raises(ValueError, match="got something else"):
        ScoreHistogram.load(path)


def test_a_threshold_that_few_scores_decide_is_noted():
    def few(retention, n_signal, threshold=0.5):
        return OperatingPoint(threshold, "probability", retention, 0.9, 0.5, n_signal, 500).few()

    assert "of which 3 signal scores lie below it" in few(0.97, 100)
    assert "of which 1 signal score lies below it" in few(0.99, 100)
    assert "of which 2 signal scores lie above it" in few(0.02, 100)
    assert few(0.97, 400) is None
    assert few(0.999, 2000) is None
    assert few(math.nan, 0) is None
    assert few(0.0, 10, threshold=math.inf) is None
