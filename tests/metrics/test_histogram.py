"""Every threshold's scores against scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import ObjectScores, ScoreHistogram

from .samples import SCALES, counts, exact_threshold, filled, generator, rejected, sample


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
    actual = torch.stack([1 - curve.removal, curve.retention], 1).unique(dim=0).numpy()
    expected = np.unique(np.stack([false_positive, true_positive], 1), axis=0)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


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


def test_without_data_scores_are_nan():
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
        actual = [point.threshold, point.retention, point.removal, point.purity]
        assert actual == pytest.approx([threshold, *expected], nan_ok=True, abs=1e-15)
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
