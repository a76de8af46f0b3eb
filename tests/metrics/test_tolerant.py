"""F1 with a tolerance against SciPy's distances and plain loops."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from dense_imb.metrics import ScoreHistogram, TolerantF1

from .processes import state
from .samples import generator


def images(shape, seed=0, share=0.1, dtype=torch.float32):
    rng = generator(seed)
    is_true = torch.rand(shape, generator=rng) < share
    score = (torch.randn(shape, generator=rng) + 2 * is_true).sigmoid()
    return score.to(dtype), is_true, torch.rand(shape, generator=rng) < 0.85


def plain_counts(score, is_true, mask, threshold, tolerance):
    """right, predicted, actual, true: every pixel against every other of its image."""
    counts = np.zeros(4, int)
    for image, truth, valid in zip(score.double(), is_true, mask, strict=True):
        places = list(product(*map(range, image.shape)))
        predicted = [p for p in places if valid[p] and image[p] >= threshold]
        true = [p for p in places if valid[p] and truth[p]]
        counts += (
            sum(any(math.dist(p, q) <= tolerance for q in true) for p in predicted),
            len(predicted),
            sum(any(math.dist(p, q) <= tolerance for p in predicted) for q in true),
            len(true),
        )
    return counts


@pytest.mark.parametrize("shape", [(3, 9, 8), (2, 5, 4, 6), (2, 30)])
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2.0, 3.2])
def test_every_threshold_is_the_plain_loops(shape, tolerance):
    score, is_true, mask = images(shape)
    scores = TolerantF1(tolerance)
    scores.update(score[:1], is_true[:1], mask=mask[:1])
    scores.update(score[1:], is_true[1:], mask=mask[1:])
    curve = scores.curve()
    for i in (0, 480, 500, 530, 570, 1000):
        threshold = float(curve.threshold[i])
        right, predicted, actual, true = plain_counts(score, is_true, mask, threshold, tolerance)
        assert float(curve.recall[i]) == actual / true
        precision = right / predicted if predicted else math.nan
        assert float(curve.precision[i]) == pytest.approx(precision, nan_ok=True, abs=0)
        expected = 2 * right * actual / (right * true + actual * predicted) if right else 0.0
        assert float(curve.f1[i]) == pytest.approx(expected)
        assert scores.at(threshold).recall == actual / true


@pytest.mark.parametrize("shape", [(4, 40, 56), (2, 12, 14, 16)])
def test_best_is_scipys_distances_threshold_by_threshold(shape):
    ndimage = pytest.importorskip("scipy.ndimage")
    score, is_true, _ = images(shape, share=0.03, dtype=torch.float64)
    scores = TolerantF1(2, n_bins=101)
    scores.update(score, is_true)

    def point(threshold, images):
        right = predicted = actual = 0
        for i in images:
            is_lit, truth = score[i].numpy() >= threshold, is_true[i].numpy()
            # of an image without any such pixel it measures to some corner
            near_truth = ndimage.distance_transform_edt(~truth) <= 2
            near_lit = (ndimage.distance_transform_edt(~is_lit) <= 2) & is_lit.any()
            right += (is_lit & near_truth).sum()
            predicted += is_lit.sum()
            actual += (truth & near_lit).sum()
        n_true = int(is_true[images].sum())
        precision = right / predicted if predicted else math.nan
        recall = actual / n_true
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        return f1, threshold, precision, recall

    thresholds = scores.curve().threshold.tolist()
    everything = list(range(shape[0]))
    f1, threshold, precision, recall = max(point(t, everything) for t in thresholds)
    assert scores.best() == (threshold, precision, recall, pytest.approx(f1))
    per_image = [max(point(t, [i])[0] for t in thresholds) for i in everything]
    assert scores.f1_per_image() == pytest.approx(np.mean(per_image))
    assert scores.f1_per_image() > f1
    named = scores.scores()
    assert (named["f1"], named["threshold"]) == (scores.best().f1, threshold)


def test_without_tolerance_it_is_the_plain_f1():
    score, is_true, mask = images((3, 30, 20))
    scores, plain = TolerantF1(0), ScoreHistogram()
    scores.update(score, is_true, mask=mask)
    plain.update(score[mask], is_true[mask])
    best = scores.best()
    f1, threshold = plain.best_f1()
    assert (best.f1, best.threshold) == (pytest.approx(f1), threshold)
    point = plain.at(threshold)
    assert (best.precision, best.recall) == (point.purity, point.retention)


def test_logits_and_probabilities_agree():
    score, is_true, _ = images((2, 30, 20), dtype=torch.float64)
    of_probability, of_logit = TolerantF1(), TolerantF1(scale="logit")
    of_probability.update(score, is_true)
    of_logit.update(score.logit(), is_true)
    assert of_logit.best().f1 == of_probability.best().f1
    threshold = torch.tensor(of_logit.best().threshold, dtype=torch.float64)
    assert float(threshold.sigmoid()) == pytest.approx(of_probability.best().threshold)


def test_nothing_reaches_over_an_edge_into_the_next_row_or_image():
    score = torch.zeros(2, 3, 4)
    is_true = torch.zeros(2, 3, 4, dtype=torch.bool)
    is_true[0, 1, 3] = is_true[0, 2, 2] = True
    score[0, 2, 0] = score[1, 0, 3] = 0.9  # next in memory to (1, 3); the next image's corner
    scores = TolerantF1(1)
    scores.update(score, is_true)
    actual = scores.at(0.5)
    assert (actual.precision, actual.recall, actual.f1) == (0.0, 0.0, 0.0)


def test_masked_pixels_are_near_to_nothing():
    is_true = torch.tensor([[[1, 0, 0, 0, 1]]]).bool()
    score = torch.tensor([[[0.1, 0.9, 0.1, 0.9, 0.1]]])
    mask = torch.tensor([[[1, 0, 1, 1, 0]]]).bool()
    scores = TolerantF1(1)
    scores.update(score, is_true, mask=mask)
    actual = scores.at(0.5)  # the first true pixel lost its neighbour, the right pixel its truth
    assert (actual.precision, actual.recall) == (0.0, 0.0)
    assert scores.at(0.0).recall == 1.0


def test_a_reach_beyond_the_image_takes_all_of_it():
    is_true = torch.zeros(1, 4, 4, dtype=torch.bool)
    is_true[0, 0, 0] = True
    scores = TolerantF1(10)
    scores.update(torch.full((1, 4, 4), 0.7), is_true)
    assert scores.best()[1:] == (1.0, 1.0, 1.0)


def test_images_without_truth_count_for_the_precision_only():
    scores = TolerantF1()
    score, is_true = torch.full((1, 4, 4), 0.7), torch.zeros(1, 4, 4, dtype=torch.bool)
    scores.update(score, is_true)
    assert all(math.isnan(value) for value in scores.scores().values())
    assert math.isnan(scores.at(0.5).f1)
    assert scores.at(0.5).precision == 0.0
    is_true[0, 0, 0] = True
    scores.update(score, is_true)
    assert scores.best().recall == 1.0
    assert scores.best().precision == 6 / 32  # of the disc's quarter in the corner
    assert scores.f1_per_image() == pytest.approx(2 * 6 / 16 / (6 / 16 + 1))


@pytest.mark.parametrize(
    ("score", "is_true", "mask", "problem", "sentence"),
    [
        ([[0.1, math.nan]], [[True, False]], None, ValueError, "without NaN"),
        ([[0.1, 1.1]], [[True, False]], None, ValueError, 'got 1.1; .* scale="logit"'),
        ([[0.1, 0.2]], [[1, 0]], None, TypeError, "to be bool, got torch.int64; pass label > 0"),
        ([[0.1, 0.2]], [[True]], None, ValueError, "`is_true` in the shape of `score`"),
        ([[0.1, 0.2]], [[True, False]], [[True]], ValueError, "`mask` in the shape of `score`"),
        ([0.1, 0.2], [True, False], None, ValueError, r"\(B, \*spatial\), got \(2,\)"),
    ],
)
def test_bad_images_are_refused_and_not_counted(score, is_true, mask, problem, sentence):
    scores = TolerantF1()
    mask = None if mask is None else torch.tensor(mask)
    with pytest.raises(problem, match=sentence):
        scores.update(torch.tensor(score), torch.tensor(is_true), mask=mask)
    assert state(scores).sum() == 0


def test_bad_settings_are_refused():
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="Expected `tolerance`"):
            TolerantF1(tolerance)
    with pytest.raises(ValueError, match="Did you mean 'logit'"):
        TolerantF1(scale="logits")
    with pytest.raises(ValueError, match="Expected `other` with"):
        TolerantF1(2).merge(TolerantF1(3))
    with pytest.raises(ValueError, match="got nan"):
        TolerantF1().at(math.nan)


def test_equal_f1_takes_the_highest_threshold():
    scores = TolerantF1(scale="logit")
    scores.update(torch.tensor([[-5.0, -5.0, -5.0, 5.01]]), torch.tensor([[0, 0, 0, 1]]).bool())
    assert scores.best() == (pytest.approx(5.01, abs=0.0401), 1.0, 1.0, 1.0)
