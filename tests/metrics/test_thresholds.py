"""Best F1, recall at a precision and calibration against scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import ScoreHistogram, SegmentationScores

from .samples import SCALES, filled, generator, sample


def probabilities(score, scale):
    return score.double().sigmoid() if scale == "logit" else score.double()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bins", [1000, 31])
def test_best_f1_is_scikit_learns(scale, n_bins):
    metrics = pytest.importorskip("sklearn.metrics")
    score, is_signal = sample(scale=scale)
    histogram = filled(score, is_signal, n_bins, scale)
    tied = torch.bucketize(score.double(), histogram._edges, right=True)
    precision, recall, _ = metrics.precision_recall_curve(is_signal, tied)
    f1, threshold = histogram.best_f1()
    assert f1 == pytest.approx((2 * precision * recall / (precision + recall)).max(), abs=1e-12)
    assert f1 == pytest.approx(metrics.f1_score(is_signal, score.double() >= threshold), abs=1e-12)
    point = histogram.at(threshold)
    assert point.threshold == threshold
    assert f1 == pytest.approx(
        2 * point.purity * point.retention / (point.purity + point.retention)
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("wanted", [0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_recall_at_precision_is_scikit_learns(scale, wanted):
    metrics = pytest.importorskip("sklearn.metrics")
    score, is_signal = sample(scale=scale)
    histogram = filled(score, is_signal, 200, scale)
    tied = torch.bucketize(score.double(), histogram._edges, right=True)
    precision, recall, _ = metrics.precision_recall_curve(is_signal, tied)
    actual = histogram.recall_at_precision(wanted)
    assert actual == pytest.approx(recall[precision >= wanted].max(), abs=1e-12)
    precision, recall, _ = metrics.precision_recall_curve(is_signal, score)
    assert actual <= recall[precision >= wanted].max()


def test_precision_that_falls_and_rises_again_counts_at_its_lowest_threshold():
    score = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    histogram = filled(score, torch.tensor([False, True, True, True, False, False]))
    assert histogram.recall_at_precision(0.75) == 1.0
    assert histogram.recall_at_precision(0.6) == 1.0
    assert histogram.recall_at_precision(0.76) == 0.0


def test_equal_f1_takes_the_highest_threshold():
    histogram = ScoreHistogram(scale="logit")
    histogram.update(torch.tensor([-5.0, 5.01]), torch.tensor([False, True]))
    assert histogram.best_f1() == (1.0, pytest.approx(5.01, abs=0.0401))


def plain_calibration_error(probability, is_signal, n_bins):
    """Guo et al. 2017, one score after the other."""
    bins = [[] for _ in range(n_bins)]
    for p, truth in zip(probability, is_signal, strict=True):
        bins[min(int(p * n_bins), n_bins - 1)].append((p, truth))
    error = 0.0
    for members in filter(None, bins):
        confidence = sum(p for p, _ in members) / len(members)
        accuracy = sum(truth for _, truth in members) / len(members)
        error += len(members) / len(probability) * abs(confidence - accuracy)
    return error


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_wide", [1, 15, 30])
def test_calibration_error_is_the_plain_loops(scale, n_wide):
    score, is_signal = sample(scale=scale, dtype=torch.float64)
    actual = filled(score, is_signal, scale=scale).calibration_error(n_wide)
    probability = probabilities(score, scale)
    exact = plain_calibration_error(probability.tolist(), is_signal.tolist(), n_wide)
    assert exact > 0.05
    assert actual == pytest.approx(exact, abs=0.01)  # 0.005, and scores across a moved edge
    # with the middles of the bins for scores nothing is lost
    edges = ScoreHistogram(scale=scale)._edges
    ends = np.concatenate([[0], probabilities(edges, scale), [1]])
    middle = (ends[1:] + ends[:-1])[torch.bucketize(score, edges, right=True)] / 2
    exact = plain_calibration_error(middle.tolist(), is_signal.tolist(), n_wide)
    assert actual == pytest.approx(exact, abs=1e-12)


def test_calibration_error_is_scikit_learns_curve():
    calibration = pytest.importorskip("sklearn.calibration")
    score, is_signal = sample(dtype=torch.float64)
    share, mean = calibration.calibration_curve(is_signal, score, n_bins=10)
    count = np.histogram(score, np.linspace(0, 1, 11))[0]
    exact = (abs(share - mean) * count[count > 0]).sum() / len(score)
    assert filled(score, is_signal).calibration_error(10) == pytest.approx(exact, abs=0.01)


def test_calibrated_scores_have_no_error_and_a_shift_of_the_logit_has():
    rng = generator(3)
    logit = torch.randn(200_000, generator=rng) * 3 - 2
    is_signal = torch.rand(200_000, generator=rng) < logit.sigmoid()
    assert filled(logit, is_signal, scale="logit").calibration_error() < 0.005
    assert filled(logit.sigmoid(), is_signal).calibration_error() < 0.005
    assert filled(logit + 2, is_signal, scale="logit").calibration_error() > 0.1


def test_the_ends_of_the_scale_are_sure():
    histogram = ScoreHistogram()
    histogram.update(torch.tensor([0.0, 1.0]), torch.tensor([True, False]))
    assert histogram.calibration_error() == pytest.approx(1.0, abs=1e-8)
    histogram = ScoreHistogram(scale="logit")
    histogram.update(torch.tensor([-torch.inf, torch.inf]), torch.tensor([False, True]))
    assert histogram.calibration_error() == pytest.approx(0.0, abs=1e-8)


def test_without_data_there_is_no_best():
    score = torch.tensor([0.2, 0.7])
    nothing, noise, signal = (ScoreHistogram() for _ in range(3))
    noise.update(score, torch.zeros(2, dtype=torch.bool))
    signal.update(score, torch.ones(2, dtype=torch.bool))
    for histogram in (nothing, noise):
        assert all(map(math.isnan, histogram.best_f1()))
        assert math.isnan(histogram.recall_at_precision(0.5))
    assert signal.best_f1() == (1.0, pytest.approx(0.2, abs=0.01))
    assert signal.recall_at_precision(1.0) == 1.0
    assert math.isnan(nothing.calibration_error())
    assert noise.calibration_error() == pytest.approx(0.45, abs=0.005)


def test_bad_questions_are_refused():
    histogram = filled(*sample())
    for precision in (0.0, 1.01, math.nan):
        with pytest.raises(ValueError, match="Expected `precision` above 0 and up to 1"):
            histogram.recall_at_precision(precision)
    with pytest.raises(ValueError, match="Expected `n_bins`"):
        histogram.calibration_error(0)


def segmented(n_channels=3):
    rng = generator(2)
    logits = torch.randn(4, n_channels, 9, 8, generator=rng) * 2
    target = torch.randint(0, max(n_channels, 2), (4, 9, 8), generator=rng)
    scores = SegmentationScores(max(n_channels, 2))
    scores.update(logits, target)
    both = torch.cat([torch.zeros_like(logits), logits], 1) if n_channels == 1 else logits
    return scores, both.double().softmax(1).movedim(1, -1).reshape(-1, both.shape[1]), target


@pytest.mark.parametrize("n_channels", [1, 3])
def test_each_class_against_the_rest(n_channels):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, probability, target = segmented(n_channels)
    truth, called = target.flatten(), probability.argmax(-1)
    precision, recall, _, _ = metrics.precision_recall_fscore_support(truth, called)
    assert scores.precision() == pytest.approx(precision)
    assert scores.recall() == pytest.approx(recall)
    named = scores.scores()
    for k in range(probability.shape[1]):
        own = probability[:, k]
        f1, threshold = scores.best_f1()[k]
        at_threshold = own.logit() >= threshold
        assert f1 == pytest.approx(metrics.f1_score(truth == k, at_threshold)) == named[
            f"best_f1_{k}"
        ]  # fmt: skip
        exact = plain_calibration_error(own.tolist(), (truth == k).tolist(), 15)
        assert scores.calibration_error()[k] == pytest.approx(exact, abs=0.01)
        assert scores.recall_at_precision(0.5)[k] == scores.histograms[k].recall_at_precision(0.5)
    assert named["foreground_recall"] == pytest.approx(recall[1:].mean())
    assert named["mean_precision"] == pytest.approx(precision.mean())
    assert named["foreground_ece"] == pytest.approx(np.mean(scores.calibration_error()[1:]))


def test_means_over_the_foreground_leave_out_what_was_never_seen():
    scores = SegmentationScores(4)
    logits = torch.full((1, 4, 4), -9.0)
    logits[0, [0, 1, 0, 2], [0, 1, 2, 3]] = 0.0  # called
    scores.update(logits, torch.tensor([[0, 1, 1, 2]]))
    named = scores.scores()
    assert scores.iou()[:3] == (0.5, 0.5, 1.0)
    assert named["foreground_iou"] == 0.75
    assert named["foreground_recall"] == 0.75
    assert named["mean_iou"] == pytest.approx(2 / 3)
    assert math.isnan(named["precision_3"])
    only_background = SegmentationScores(2)
    only_background.update(torch.full((1, 1, 3), -9.0), torch.zeros(1, 3, dtype=torch.int64))
    assert math.isnan(only_background.scores()["foreground_iou"])
