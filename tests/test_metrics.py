"""Scores against scikit-learn and plain loops; merged, saved, over processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dense_imb.metrics
from dense_imb.metrics import (
    HitScores,
    ImageQuality,
    ObjectScores,
    OperatingPoint,
    ScoreHistogram,
    SegmentationScores,
)

from .metrics_processes import POINT, empty_scores, state, update

SCALES = ("probability", "logit")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(n_signal=400, n_noise=2500, scale="probability", seed=0, dtype=torch.float32):
    rng = generator(seed)
    logit = torch.cat([
        torch.randn(n_signal, generator=rng) * 3 + 2, torch.randn(n_noise, generator=rng) * 3 - 2,
    ])  # fmt: skip
    order = torch.randperm(len(logit), generator=rng)
    is_signal = (torch.arange(len(logit)) < n_signal)[order]
    score = logit if scale == "logit" else logit.sigmoid()
    return score[order].to(dtype), is_signal


def filled(score, is_signal, n_bins=1000, scale="probability"):
    histogram = ScoreHistogram(n_bins, scale=scale)
    for part, truth in zip(score.split(177), is_signal.split(177), strict=True):
        histogram.update(part, truth)
    return histogram


def exact_threshold(score, is_signal, retention):
    """Plain loop: the highest score such that enough signal scores at least as much."""
    signal = sorted(score[is_signal].tolist(), reverse=True)
    for n_kept, threshold in enumerate(signal, 1):
        if n_kept / len(signal) >= retention:
            return threshold
    raise AssertionError


def rejected(score, is_signal, threshold):
    return float((score[~is_signal].double() < threshold).double().mean())


def counts(histogram):
    return histogram._counts.double()


# --- histogram


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bins", [1000, 31])
def test_ranking_is_scikit_learns_within_a_bin(scale, n_bins):
    metrics = pytest.importorskip("sklearn.metrics")
    score, is_signal = sample(scale=scale)
    histogram = filled(score, is_signal, n_bins, scale)
    noise, signal = counts(histogram)
    half_ties = float((noise * signal).sum() / noise.sum() / signal.sum() / 2)
    exact = metrics.roc_auc_score(is_signal, score)
    assert abs(histogram.auc() - exact) <= half_ties + 1e-12
    assert half_ties < (0.002 if n_bins == 1000 else 0.05)
    exact = metrics.average_precision_score(is_signal, score)
    assert histogram.average_precision() == pytest.approx(exact, abs=3e-3 if n_bins > 99 else 0.05)

    # of scores that are tied as in the bins nothing at all is lost
    tied = torch.bucketize(score.double(), histogram._edges, right=True)
    assert histogram.auc() == pytest.approx(metrics.roc_auc_score(is_signal, tied), abs=1e-12)
    exact = metrics.average_precision_score(is_signal, tied)
    assert histogram.average_precision() == pytest.approx(exact, abs=1e-12)
    false_positive, true_positive, _ = metrics.roc_curve(is_signal, tied, drop_intermediate=False)
    curve = histogram.curve()
    found = torch.stack([1 - curve.removal, curve.retention], 1).unique(dim=0).numpy()
    expected = np.unique(np.stack([false_positive, true_positive], 1), axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("retention", [0.5, 0.9, 0.95, 0.97, 0.99, 1.0])
def test_operating_point_is_exact_on_raw_scores(scale, dtype, retention):
    score, is_signal = sample(scale=scale, dtype=dtype)
    histogram = filled(score, is_signal, scale=scale)
    point = histogram.operating_point(retention)
    kept = point.keep(score)
    assert kept.shape == score.shape
    n_kept, n_kept_signal = int(kept.sum()), int((kept & is_signal).sum())
    assert point.retention == n_kept_signal / 400 >= retention
    assert (
        point.removal == int((~kept & ~is_signal).sum()) / 2500 == histogram.removal_at(retention)
    )
    assert point.purity == n_kept_signal / n_kept
    assert (point.n_signal, point.n_noise) == (400, 2500)
    # never more than the exact rule, and less by no more than the noise in its bin
    exact = exact_threshold(score.double(), is_signal, retention)
    assert point.threshold <= exact
    bin_of_exact = int(torch.bucketize(exact, histogram._edges, right=True))
    gap = rejected(score, is_signal, exact) - point.removal
    assert 0 <= gap <= float(counts(histogram)[0, bin_of_exact]) / 2500
    # the next edge would keep too little
    higher = histogram._thresholds[histogram._thresholds > point.threshold][0]
    assert float((score[is_signal].double() >= higher).double().mean()) < retention


@pytest.mark.parametrize("retention", [0.9, 0.95, 0.97, 0.99])
def test_removal_of_well_separated_scores_is_the_plain_loops(retention):
    """One score a bin: no ties, so nothing is coarse."""
    edges = ScoreHistogram()._edges
    score = edges[100:900] + 1e-12
    is_signal = torch.rand(800, generator=generator(1)) < torch.linspace(0, 1, 800)
    threshold = exact_threshold(score, is_signal, retention)
    histogram = filled(score, is_signal)
    assert histogram.removal_at(retention) == pytest.approx(
        rejected(score, is_signal, threshold), abs=1e-15
    )


def test_wanted_retention_is_met_exactly():
    score = torch.linspace(0.01, 0.99, 100)
    histogram = filled(score, torch.ones(100, dtype=torch.bool))
    for percent in range(1, 101):
        assert histogram.operating_point(percent / 100).retention == percent / 100


def test_ties_are_kept_together():
    score = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.8])
    is_signal = torch.tensor([True, True, False, False, True])
    histogram = filled(score, is_signal)
    assert histogram.operating_point(0.3).retention == 1 / 3
    point = histogram.operating_point(0.34)  # one of the two tied signals would do
    assert (point.retention, point.removal, point.purity) == (1.0, 0.0, 3 / 5)


@pytest.mark.parametrize("scale", SCALES)
def test_a_score_on_the_threshold_is_kept(scale):
    edges = ScoreHistogram(scale=scale)._edges
    histogram = filled(edges, torch.ones(999, dtype=torch.bool), scale=scale)
    for i in (0, 499, 998):
        point = histogram.at(float(edges[i]))
        assert int(point.keep(edges).sum()) == round(point.retention * 999) == 999 - i


def test_all_scores_equal():
    histogram = filled(torch.full((10,), 0.5), torch.arange(10) < 3)
    assert histogram.auc() == 0.5
    assert histogram.average_precision() == 0.3
    assert histogram.removal_at(0.97) == 0.0


def test_what_was_never_seen_is_nan():
    score = torch.tensor([0.2, 0.7])
    nothing, noise, signal = (ScoreHistogram() for _ in range(3))
    nothing.update(score[:0], torch.zeros(0, dtype=torch.bool))
    noise.update(score, torch.zeros(2, dtype=torch.bool))
    signal.update(score, torch.ones(2, dtype=torch.bool))
    for histogram in (nothing, noise):
        assert math.isnan(histogram.average_precision())
        assert math.isnan(histogram.removal_at(0.97))
        assert bool(histogram.curve().retention.isnan().all())
        with pytest.raises(ValueError, match="Expected signal to choose a threshold from"):
            histogram.operating_point()
    assert all(math.isnan(histogram.auc()) for histogram in (nothing, noise, signal))
    point = signal.operating_point(1.0)
    assert (point.retention, point.purity) == (1.0, 1.0)
    assert math.isnan(point.removal)
    assert noise.at(0.5).removal == 0.5
    assert math.isnan(noise.at(0.5).retention)
    assert math.isnan(signal.at(math.inf).purity)


def test_at_rounds_down_to_an_edge():
    score, is_signal = sample(scale="logit")
    histogram = filled(score, is_signal, scale="logit")
    assert histogram.at(0.0).threshold == 0.0
    point = histogram.at(1.234)
    assert 1.234 - 0.0401 < point.threshold <= 1.234
    assert point.retention == int((score[is_signal] >= point.threshold).sum()) / 400
    assert histogram.at(-math.inf).retention == 1.0
    assert histogram.at(-999.0).threshold == -math.inf
    assert filled(*sample()).at(0.5).threshold == 0.5
    assert filled(*sample()).at(-1.0).threshold == 0.0


def test_ends_of_the_scale_are_counted():
    histogram = ScoreHistogram()
    histogram.update(torch.tensor([0.0, 1e-30, 1.0]), torch.tensor([False, False, True]))
    assert (histogram.auc(), histogram.removal_at(1.0)) == (1.0, 1.0)
    histogram = ScoreHistogram(scale="logit")
    histogram.update(torch.tensor([-torch.inf, -1e4, 1e4, torch.inf]), torch.arange(4) > 1)
    assert (histogram.auc(), histogram.removal_at(1.0)) == (1.0, 1.0)


def test_curve_is_the_points_one_by_one():
    histogram = filled(*sample(), 50)
    curve = histogram.curve()
    assert len(curve.threshold) == 51
    for threshold, *expected in zip(*(values.tolist() for values in curve), strict=True):
        point = histogram.at(threshold)
        found = [point.threshold, point.retention, point.removal, point.purity]
        assert found == pytest.approx([threshold, *expected], nan_ok=True, abs=1e-15)
    assert bool((curve.threshold.diff() > 0).all())


@pytest.mark.parametrize(
    ("score", "is_signal", "problem", "sentence"),
    [
        ([0.1, math.nan], [True, False], ValueError, "without NaN"),
        ([0.1, 1.1], [True, False], ValueError, 'between 0 and 1, got 1.1; .* scale="logit"'),
        ([-0.1, 1.0], [True, False], ValueError, "got -0.1"),
        ([0.1, 0.2], [True], ValueError, "in the shape of `score`"),
        ([0.1, 0.2], [1, 0], TypeError, "to be bool, got torch.int64; pass label > 0"),
        ([1, 0], [True, False], TypeError, "to be floating point"),
    ],
)
def test_bad_scores_are_refused_and_not_counted(score, is_signal, problem, sentence):
    histogram = ScoreHistogram()
    with pytest.raises(problem, match=sentence):
        histogram.update(torch.tensor(score), torch.tensor(is_signal))
    assert histogram.n_signal + histogram.n_noise == 0


def test_bad_questions_are_refused():
    histogram = filled(*sample())
    for retention in (0.0, 1.01, math.nan):
        with pytest.raises(ValueError, match="Expected `retention` above 0 and up to 1"):
            histogram.operating_point(retention)
    with pytest.raises(ValueError, match="Expected `n_bins`"):
        ScoreHistogram(2)
    with pytest.raises(ValueError, match="Did you mean 'logit'"):
        ScoreHistogram(scale="logits")
    with pytest.raises(ValueError, match="got nan"):
        histogram.at(math.nan)
    with pytest.raises(ValueError, match="Expected `other` with"):
        histogram.merge(ScoreHistogram(scale="logit"))
    with pytest.raises(TypeError, match="to be ScoreHistogram, got ObjectScores"):
        histogram.merge(ObjectScores())


# --- operating point


@pytest.mark.parametrize("threshold", [0.25, -math.inf, math.inf])
def test_operating_point_comes_back(tmp_path, threshold):
    path = tmp_path / "point.json"
    point = OperatingPoint(threshold, "logit", 0.97, math.nan, 1 / 3, n_signal=10, n_noise=0)
    point.save(path)
    found = OperatingPoint.load(path)
    assert repr(found) == repr(point)
    assert list(tmp_path.iterdir()) == [path]

    def refuse(name):
        raise AssertionError(f"{name} is not strict JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    score = torch.tensor([-5.0, 0.25, 5.0])
    assert torch.equal(found.keep(score), score >= threshold)


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


# --- every score: parts, files, processes


def test_every_public_score_is_here():
    streaming = {type(score).__name__ for score in empty_scores()}
    assert streaming | {"Curve", "OperatingPoint"} == set(dense_imb.metrics.__all__)


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
    worker = Path(__file__).parent / "metrics_processes.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*command, str(worker)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "5 scores agree in 2 processes" in finished.stdout


def test_one_process_needs_no_group():
    histogram = filled(*sample())
    assert histogram.reduce_over_processes().n_signal == 400


# --- hits


def hits(n_events=60, seed=0):
    """Events with and without signal, noise and hits at all; a fifth of the hits occluded."""
    rng = generator(seed)
    size = torch.randint(0, 40, (n_events,), generator=rng)
    event = torch.arange(n_events).repeat_interleave(size)
    n = len(event)
    is_signal = (torch.rand(n, generator=rng) < 0.3) & (event % 4 != 0)
    true_time = torch.randint(1, 1000, (n,), generator=rng).float()
    is_exact = torch.rand(n, generator=rng) < 0.6
    time = torch.where(is_exact, true_time, true_time + torch.randn(n, generator=rng) * 5)
    return {
        "score": (torch.randn(n, generator=rng) + 2 * is_signal).sigmoid(),
        "label": is_signal * torch.randint(1, 4, (n,), generator=rng),
        "event": event,
        "time": time,
        "true_time": true_time,
        "is_visible": torch.rand(n, generator=rng) < 0.8,
    }


def plain_hit_scores(hits, n_events, threshold):
    """Everything once more, one hit after the other."""
    rows = [
        dict(zip(hits, values, strict=True))
        for values in zip(*(tensor.tolist() for tensor in hits.values()), strict=True)
    ]
    for row in rows:
        row["kept"] = row["score"] >= threshold
        row["signal"] = row["label"] > 0
    visible = [row for row in rows if row["is_visible"]]
    signal = [row for row in visible if row["signal"]]
    noise = [row for row in visible if not row["signal"]]
    kept_signal = [row for row in signal if row["kept"]]
    kept_noise = [row for row in noise if row["kept"]]
    all_signal = [row for row in rows if row["signal"]]
    recovered = [row for row in kept_signal if row["time"] == row["true_time"]]
    residual = [row["time"] - row["true_time"] for row in kept_signal]
    per_event = {"retention": [], "removal": []}
    noise_only = []
    for e in range(n_events):
        own = [row for row in signal if row["event"] == e]
        if own:
            per_event["retention"].append(sum(row["kept"] for row in own) / len(own))
        other = [row for row in noise if row["event"] == e]
        if other:
            per_event["removal"].append(sum(not row["kept"] for row in other) / len(other))
        if other and not any(row["event"] == e for row in all_signal):
            noise_only.append(sum(row["kept"] for row in other))
    retention = len(kept_signal) / len(signal)
    occluded = 1 - len(signal) / len(all_signal)
    return per_event, {
        "n_events": n_events,
        "n_signal": len(signal),
        "n_noise": len(noise),
        "retention": retention,
        "removal": 1 - len(kept_noise) / len(noise),
        "purity": len(kept_signal) / (len(kept_signal) + len(kept_noise)),
        "false_alarm_hits_per_event": sum(noise_only) / len(noise_only),
        "false_alarm_event_share": sum(n > 0 for n in noise_only) / len(noise_only),
        "occluded_share": occluded,
        "time_recovery": len(recovered) / len(all_signal),
        "time_recovery_ceiling": len(kept_signal) / len(all_signal),
        "time_residual_mean": sum(residual) / len(residual),
        "time_residual_mean_absolute": sum(map(abs, residual)) / len(residual),
        "time_residual_rms": math.sqrt(sum(r * r for r in residual) / len(residual)),
    }


def test_hit_scores_are_the_plain_loops():
    events = hits()
    per_event, expected = plain_hit_scores(events, 62, POINT.threshold)
    scores = HitScores(POINT)
    # in two calls, of whole events; the last two are empty
    early = events["event"] < 31
    scores.update(**{name: tensor[early] for name, tensor in events.items()}, n_events=31)
    late = {name: tensor[~early] for name, tensor in events.items()}
    late["event"] = late["event"] - 31
    order = torch.randperm(len(late["event"]), generator=generator(5))  # in any order
    scores.update(**{name: tensor[order] for name, tensor in late.items()}, n_events=31)
    found = scores.scores()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["time_recovery"] < found["time_recovery_ceiling"] < found["retention"]
    for name, values in per_event.items():
        for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0):
            exact = np.quantile(values, q, method="inverted_cdf")
            assert scores.event_quantile(name, q) == pytest.approx(exact, abs=5e-4)
    assert found["event_retention_q05"] == scores.event_quantile("retention", 0.05)
    assert found["removal_at_97"] == scores.histogram.removal_at(0.97)
    assert found["auc"] == scores.histogram.auc()
    assert scores.histogram.n_signal == expected["n_signal"]


def test_masking_reaches_its_ceiling_exactly():
    events = hits()
    scores = HitScores(POINT)
    scores.update(**{**events, "time": events["true_time"]})
    found = scores.scores()
    assert found["time_recovery"] == pytest.approx(found["time_recovery_ceiling"], abs=1e-15)
    assert 0 < found["occluded_share"] < 1
    assert found["time_residual_rms"] == 0.0


def test_without_flags_every_hit_is_visible():
    events = hits()
    scores = HitScores(POINT)
    scores.update(events["score"], events["label"], events["event"])
    found = scores.scores()
    assert found["occluded_share"] == 0.0
    assert found["time_recovery_ceiling"] == found["retention"]
    assert math.isnan(found["time_recovery"])
    assert math.isnan(found["time_residual_rms"])
    assert math.isnan(found["ghost_rate"])
    assert math.isnan(HitScores(POINT).event_quantile("retention", 0.5))


def test_an_event_whose_signal_is_all_hidden_is_not_noise_only():
    scores = HitScores(POINT)
    scores.update(
        torch.tensor([0.9, 0.9, 0.9, 0.1, 0.9]),
        torch.tensor([1, 0, 0, 0, 0]),
        torch.tensor([0, 0, 1, 2, 4]),  # the fourth event is empty, and no event of noise either
        n_events=6,
        is_visible=torch.tensor([False, True, True, True, False]),
    )
    found = scores.scores()
    assert found["n_events"] == 6
    assert (found["false_alarm_hits_per_event"], found["false_alarm_event_share"]) == (0.5, 0.5)
    assert math.isnan(found["retention"])
    assert found["occluded_share"] == 1.0


def test_ghosts_are_lit_pixels_without_a_hit():
    scores = HitScores(POINT)
    is_lit = torch.tensor([[[1, 1, 0, 1]], [[0, 1, 0, 1]]]).bool()
    is_hit = torch.tensor([[[1, 0, 1, 0]], [[0, 0, 0, 1]]]).bool()
    scores.update_output(is_lit, is_hit)
    found = scores.scores()
    assert (found["ghost_rate"], found["ghosts_per_frame"]) == (3 / 5, 3 / 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"event": [0, -1]}, "`event` between 0 and 1, got -1"),
        ({"event": [0, -1], "n_events": None}, "`event` at least 0, got -1"),
        ({"n_events": 1}, "`event` between 0 and 0, got 1"),
        ({"label": [1, -1]}, "`label` of at least 0, got -1"),
        ({"score": [0.5, math.nan]}, "without NaN"),
        ({"time": None}, "`time` and `true_time` together"),
        ({"true_time": [math.nan, 1.0]}, "`time` and `true_time` of kept signal without NaN"),
        ({"is_visible": [True]}, "`is_visible` in the shape of `score`"),
    ],
)
def test_bad_hits_are_refused_and_not_counted(change, sentence):
    arguments = {
        "score": [0.9, 0.8], "label": [1, 0], "event": [0, 1], "n_events": 2,
        "time": [1.0, math.nan], "true_time": [1.0, 2.0], "is_visible": [True, True],
    }  # fmt: skip

    def tensors(values):
        return {k: torch.tensor(v) if isinstance(v, list) else v for k, v in values.items()}

    HitScores(POINT).update(**tensors(arguments))  # a NaN time of noise is no one's
    scores = HitScores(POINT)
    with pytest.raises(ValueError, match=sentence):
        scores.update(**tensors({**arguments, **change}))
    assert state(scores).sum() == 0


# --- images


@pytest.mark.parametrize("n_channels", [1, 3])
def test_segmentation_is_scikit_learns(n_channels):
    metrics = pytest.importorskip("sklearn.metrics")
    n_classes = max(n_channels, 2)
    rng = generator(2)
    logits = torch.randn(4, n_channels, 9, 8, generator=rng) * 2
    target = torch.randint(0, n_classes, (4, 9, 8), generator=rng)
    target[0, 0] = 255
    mask = torch.rand(4, 9, 8, generator=rng) < 0.9
    scores = SegmentationScores(n_classes, ignore_index=255)
    scores.update(logits[:1], target[:1], mask=mask[:1])
    scores.update(logits[1:], target[1:].unsqueeze(1), mask=mask[1:])  # MONAI's shape
    valid = mask & (target != 255)
    truth = target[valid].numpy()
    both = torch.cat([torch.zeros_like(logits), logits], 1) if n_channels == 1 else logits
    probability = both.double().softmax(1).movedim(1, -1)[valid]
    called = probability.argmax(-1).numpy()
    labels = list(range(n_classes))
    expected = metrics.confusion_matrix(truth, called, labels=labels)
    np.testing.assert_array_equal(scores.confusion.numpy(), expected)
    assert scores.iou() == pytest.approx(metrics.jaccard_score(truth, called, average=None))
    assert scores.dice() == pytest.approx(metrics.f1_score(truth, called, average=None))
    for k, found in enumerate(scores.average_precision()):
        exact = metrics.average_precision_score(truth == k, probability[:, k])
        assert found == pytest.approx(exact, abs=0.02)
        tied = torch.bucketize(probability[:, k].logit(), scores.histograms[k]._edges, right=True)
        exact = metrics.average_precision_score(truth == k, tied)
        assert found == pytest.approx(exact, abs=1e-12)
    named = scores.scores()
    assert named["mean_iou"] == pytest.approx(np.mean(scores.iou()))
    assert named["ap_1"] == scores.average_precision()[1]


def test_a_class_never_seen_has_no_score():
    scores = SegmentationScores(3)
    scores.update(torch.tensor([[[2.0, 0.0], [0.0, 2.0], [-9.0, -9.0]]]), torch.tensor([[0, 1]]))
    assert scores.iou()[:2] == (1.0, 1.0)
    assert math.isnan(scores.iou()[2])
    assert math.isnan(scores.average_precision()[2])
    assert scores.scores()["mean_dice"] == 1.0
    assert math.isnan(SegmentationScores().scores()["mean_iou"])
    before = state(scores)
    for broken in ([math.nan] * 3, [0.0, math.inf, math.inf], [1.0, math.nan, 1.0]):
        with pytest.raises(ValueError, match="`logits` without NaN"):
            scores.update(torch.tensor(broken).reshape(1, 3, 1), torch.tensor([[0]]))
    scores.update(torch.tensor([-math.inf, 3.0, math.inf]).reshape(1, 3, 1), torch.tensor([[2]]))
    assert state(scores).sum() == before.sum() + 4  # one pixel, and one score of each class
    assert scores.average_precision()[2] == 1.0
    with pytest.raises(ValueError, match="of 3 classes, got 2"):
        scores.update(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))
    assert int(scores.confusion.sum()) == 3


def test_every_form_of_the_target_counts_alike():
    rng = generator(8)
    logits = torch.randn(2, 3, 5, 4, generator=rng)
    target = torch.randint(0, 3, (2, 5, 4), generator=rng)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    forms = [target, target.unsqueeze(1).float(), target.to(torch.uint8), one_hot, one_hot.float()]
    binary = [target > 1, (target > 1).float().unsqueeze(1), (target > 1).long()]
    for scores_in, targets in ((logits, forms), (logits[:, :1], binary)):
        expected = SegmentationScores(max(scores_in.shape[1], 2))
        expected.update(scores_in, targets[0])
        for form in targets[1:]:
            found = SegmentationScores(expected.n_classes)
            found.update(scores_in, form)
            assert torch.equal(state(found), state(expected))
    with pytest.raises(ValueError, match="SegmentationScores has no formula for soft targets"):
        SegmentationScores().update(logits[:, :1], target[:, None] / 4)


@pytest.mark.parametrize("as_on_an_accelerator", [False, True])
@pytest.mark.parametrize(("n_channels", "illegal"), [(3, 255), (3, -1), (3, 0.5), (1, 2), (1, 1.5)])
def test_illegal_labels_are_refused_on_every_device(
    monkeypatch, as_on_an_accelerator, n_channels, illegal
):
    if as_on_an_accelerator:
        monkeypatch.setattr("dense_imb.losses._target.values_are_readable", lambda value: False)
    target = torch.tensor([[0, 1, illegal]])
    scores = SegmentationScores(max(n_channels, 2))
    with pytest.raises(ValueError, match="Expected `target`"):
        scores.update(torch.zeros(1, n_channels, 3), target)
    assert state(scores).sum() == 0


def plain_components(image):
    """Flood fill of one 2-D image, corners included: a list of sets of pixels."""
    left = {(int(y), int(x)) for y, x in image.nonzero()}
    found = []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            component |= near
            front += near
        found.append(component)
    return found


@pytest.mark.parametrize("min_cover", [0.0, 0.5])
def test_objects_are_the_plain_loops(min_cover):
    pytest.importorskip("scipy.ndimage")
    rng = generator(4)
    true = torch.rand(5, 14, 11, generator=rng) < 0.25
    predicted = (true & (torch.rand(5, 14, 11, generator=rng) < 0.4)) | (
        torch.rand(5, 14, 11, generator=rng) < 0.05
    )
    mask = torch.rand(5, 14, 11, generator=rng) < 0.9
    scores = ObjectScores(min_cover=min_cover)
    scores.update(predicted[:2], true[:2], mask=mask[:2])
    scores.update(predicted[2:], true[2:], mask=mask[2:])
    n_true = n_detected = n_predicted = n_false = 0
    for image, truth in zip(predicted & mask, true & mask, strict=True):
        lit = {(int(y), int(x)) for y, x in image.nonzero()}
        wanted = {(int(y), int(x)) for y, x in truth.nonzero()}
        for component in plain_components(truth):
            n_true += 1
            n_detected += (
                bool(component & lit) and len(component & lit) / len(component) >= min_cover
            )
        for component in plain_components(image):
            n_predicted += 1
            n_false += not component & wanted
    assert 0 < n_detected < n_true
    assert n_false > 0
    assert scores.scores() == {
        "n_objects": n_true,
        "detection": n_detected / n_true,
        "false_alarm_share": n_false / n_predicted,
        "false_alarms_per_million_pixels": pytest.approx(1e6 * n_false / int(mask.sum())),
    }


def test_objects_touch_in_corners_but_not_across_images():
    pytest.importorskip("scipy.ndimage")
    true = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 1]]]).bool()
    scores = ObjectScores()
    scores.update(torch.zeros_like(true), true)
    found = scores.scores()
    assert (found["n_objects"], found["detection"]) == (2, 0.0)
    assert found["false_alarms_per_million_pixels"] == 0.0
    assert math.isnan(found["false_alarm_share"])
    scores = ObjectScores()
    scores.update(true.unsqueeze(2), true.unsqueeze(2))  # in three dimensions too
    assert scores.scores()["detection"] == 1.0


def test_objects_say_that_scipy_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        ObjectScores().update(torch.zeros(1, 2).bool(), torch.zeros(1, 2).bool())


def plain_ssim(p, t, data_range):
    """One window after the other, with NumPy's weighted moments."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(line, line) / line.sum() ** 2
    c_1, c_2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for y in range(p.shape[0] - 10):
        for x in range(p.shape[1] - 10):
            a, b = p[y : y + 11, x : x + 11], t[y : y + 11, x : x + 11]
            m_a, m_b = (weight * a).sum(), (weight * b).sum()
            s_a, s_b = (weight * (a - m_a) ** 2).sum(), (weight * (b - m_b) ** 2).sum()
            s_ab = (weight * (a - m_a) * (b - m_b)).sum()
            top = (2 * m_a * m_b + c_1) * (2 * s_ab + c_2)
            values.append(top / ((m_a**2 + m_b**2 + c_1) * (s_a + s_b + c_2)))
    return np.mean(values)


def test_image_quality_is_the_plain_loops():
    rng = generator(6)
    prediction, target, measured = torch.rand(3, 5, 1, 13, 15, generator=rng) * 2
    quality = ImageQuality(data_range=2.0)
    quality.update(prediction[:1], target[:1], measured[:1])
    quality.update(prediction[1:], target[1:], measured[1:])
    rows = quality.rows()
    assert list(rows) == ["prediction", "blank", "input"]
    images = {"prediction": prediction, "blank": torch.zeros_like(target), "input": measured}
    for row, image in images.items():
        p, t = image.double().numpy(), target.double().numpy()
        expected = np.mean([plain_ssim(p[i, 0], t[i, 0], 2.0) for i in range(5)])
        assert rows[row]["ssim"] == pytest.approx(expected, abs=1e-9)
        assert rows[row]["psnr"] == pytest.approx(10 * np.log10(4 / np.mean((p - t) ** 2)))


def test_a_perfect_image_and_bad_ones():
    image = torch.rand(2, 2, 11, 12, 13, generator=generator(7))
    quality = ImageQuality()
    quality.update(image, image, image)
    found = quality.rows()["prediction"]
    assert found["psnr"] == math.inf
    assert found["ssim"] == pytest.approx(1.0)
    assert math.isnan(ImageQuality().rows()["blank"]["psnr"])
    with pytest.raises(ValueError, match="without NaN"):
        quality.update(image * math.nan, image, image)
    with pytest.raises(ValueError, match="at least 11 pixels a side"):
        quality.update(image[..., :10], image[..., :10], image[..., :10])
    with pytest.raises(ValueError, match="`data_range` above 0"):
        ImageQuality(data_range=0.0)
    assert quality.rows()["prediction"]["psnr"] == math.inf
