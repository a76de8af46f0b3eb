"""Recall of objects at a number of false objects, against plain loops and at its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics.objects import KeptFractions, ObjectCurve, _lower_edge

ndimage = pytest.importorskip("scipy.ndimage")


def slow(score, truth, threshold, min_purity):
    """Found true objects and false predicted objects of one image, object by object."""
    structure = np.ones((3,) * truth.ndim)
    true, n_true = ndimage.label(truth, structure)
    called, n_called = ndimage.label(score >= threshold, structure)
    found, n_false = set(), 0
    for k in range(1, n_called + 1):
        inside = called == k
        n_right = (truth & inside).sum()
        if n_right == 0 or n_right < min_purity * inside.sum():
            n_false += 1
        else:
            found |= set(true[inside].tolist()) - {0}
    return len(found), n_false, n_true


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
@pytest.mark.parametrize("min_purity", [0.0, 0.1, 0.5])
def test_it_counts_as_plain_loops_do(shape, min_purity):
    rng = np.random.default_rng(3)
    score = rng.normal(0, 1, (4, *shape)).round(1)
    truth = (score + rng.normal(0, 1, score.shape)) > 1.5
    curve = ObjectCurve([1.0, -0.5, 2.0, 0.0, 9.0], min_purity=min_purity)
    curve.update(torch.from_numpy(score), torch.from_numpy(truth))
    assert curve.thresholds == (-0.5, 0.0, 1.0, 2.0, 9.0)
    for point in curve.points():
        found, false, true = np.sum(
            [slow(s, t, point.threshold, min_purity) for s, t in zip(score, truth, strict=True)], 0
        )
        assert point.recall == pytest.approx(found / true)
        assert point.false_objects == false / 4


def test_calling_every_pixel_true_finds_nothing():
    truth = torch.zeros(2, 20, 20, dtype=torch.bool)
    truth[:, 3, 4:9] = True
    curve = ObjectCurve([0.0])
    curve.update(torch.ones(2, 20, 20), truth)
    assert curve.at(0.0)[1:] == (0.0, 1.0)


def test_the_threshold_keeps_to_the_number_from_there_on():
    score = torch.full((1, 1, 12), -9.0)
    score[0, 0, [0, 4, 8]] = torch.tensor([3.0, 2.0, 1.0])
    truth = score == 3
    curve = ObjectCurve([0.5, 1.5, 2.5, -10.0])  # at -10 all is one object again
    curve.update(score, truth)
    assert [point.false_objects for point in curve.points()] == [1.0, 2.0, 1.0, 0.0]
    assert curve.threshold_at(0) == 2.5
    assert curve.threshold_at(1) == 1.5
    assert curve.threshold_at(2) == -10.0
    curve.update(-score, truth)
    assert curve.threshold_at(0) == math.inf
    assert curve.at(math.inf)[1:] == (0.0, 0.0)


def test_pixels_that_are_left_out_are_no_object():
    score, truth = torch.ones(1, 1, 5), torch.tensor([[[True, False, False, False, True]]])
    mask = torch.tensor([[[True, True, False, False, False]]])
    curve = ObjectCurve([0.0])
    curve.update(score, truth, mask=mask)
    assert curve.n_objects == 1
    assert curve.at(0.0)[1:] == (1.0, 0.0)


def test_parts_add_up(tmp_path):
    rng = np.random.default_rng(0)
    score = torch.from_numpy(rng.normal(0, 1, (6, 8, 8)))
    truth = score + torch.from_numpy(rng.normal(0, 1, (6, 8, 8))) > 1.5
    whole, first, second = (ObjectCurve([0.0, 1.0]) for _ in range(3))
    whole.update(score, truth)
    first.update(score[:2], truth[:2])
    second.update(score[2:], truth[2:])
    first.merge(second).save(tmp_path / "curve.json")
    assert ObjectCurve.load(tmp_path / "curve.json").points() == whole.points()


def test_without_objects_there_is_no_recall():
    curve = ObjectCurve([0.0])
    curve.update(torch.ones(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert math.isnan(curve.at(0.0).recall)
    assert curve.at(0.0).false_objects == 1


@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.0), (3.0, -50.0), (1e3, 1e4), (1e-4, 0.0)])
def test_thresholds_keep_the_fractions_of_the_pixels(scale, shift):
    score = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * scale + shift
    fractions = KeptFractions()
    fractions.update(score[:70_000])
    fractions.update(score[70_000:], mask=torch.ones(130_000, dtype=torch.bool))
    thresholds = fractions.thresholds()
    assert len(thresholds) == 32
    assert sorted(thresholds) == list(thresholds)
    kept = [float((score >= one).float().mean()) for one in thresholds]
    wanted = np.geomspace(0.5, 1e-6, 32)
    assert all(a <= b + 1e-9 for a, b in zip(kept, wanted, strict=True))
    assert kept[0] > 0.3
    assert kept[12] > 0.3 * wanted[12]


def test_a_threshold_keeps_the_very_scores_that_it_counted():
    score = torch.tensor([-8.1, -1.0, -0.0, 0.0, 1.0, 31.9])
    fractions = KeptFractions()
    fractions.update(score)
    for place in fractions._counts.nonzero()[:, 0].tolist():
        n = int(fractions._counts[place:].sum())
        assert int((score >= _lower_edge(place)).sum()) in (n, n + (n == 3))  # -0.0 >= 0.0
    assert fractions.thresholds(2, lowest=1.0, highest=0.1)[1] == 32.0


def test_bad_thresholds_are_refused():
    with pytest.raises(ValueError, match="Expected `thresholds` of numbers, got"):
        ObjectCurve([])
