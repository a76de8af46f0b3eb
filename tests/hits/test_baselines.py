"""Classical baselines: each against its formula in plain loops, and what all of them promise."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch

from dense_imb.hits import (
    Degradation,
    Events,
    Geometry,
    Sensors,
    concatenate,
    degrade,
    make_baseline,
    pairs,
    simulate,
)
from dense_imb.hits import baselines as module
from dense_imb.hits.baselines import (
    BASELINES,
    BlurredHits,
    DBSCANScorer,
    HitDensity,
    MedianFilter,
)
from dense_imb.metrics import ScoreHistogram
from tests.hits.files import km3net_events, some_sensor_events, some_sensors

EVERY = pytest.mark.parametrize("name", BASELINES)
SPATIAL = pytest.mark.parametrize("name", [n for n in BASELINES if n not in ("identity", "blank")])


def crowded(n_events: int, n_hits: int, seed: int) -> Events:
    """Small frames where hits share pixels and times, with some events empty."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(12, 9, 40)
    count = rng.integers(0, n_hits + 1, n_events) * (rng.random(n_events) < 0.8)
    total = int(count.sum())
    return Events(
        geometry,
        np.concatenate([[0], np.cumsum(count)]),
        rng.integers(0, 12, total),
        rng.integers(0, 9, total),
        rng.integers(1, 41, total).astype(np.uint16),
        rng.integers(0, 2, total),
    )


def scorer(name):
    if name == "DBSCAN":
        pytest.importorskip("sklearn", reason="DBSCANScorer needs scikit-learn")
    return BASELINES[name]()


def hits_of(event):
    return [(int(x), int(y), float(t)) for x, y, t in zip(event.x, event.y, event.t, strict=True)]


def by_loops(events, score_of):
    """`score_of(hits, i)` of every hit of every event."""
    actual = []
    for event in events:
        hits = hits_of(event)
        actual += [score_of(hits, i) for i in range(len(hits))]
    return torch.tensor(actual)


def test_blurred_hits_equal_a_loop_over_pairs():
    events, sigma = crowded(9, 12, seed=1), 1.3

    def score_of(hits, i):
        n = 0.0
        for j, (x, y, _) in enumerate(hits):
            dx, dy = x - hits[i][0], y - hits[i][1]
            if j != i and max(abs(dx), abs(dy)) <= 4 * sigma + 1:
                n += math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        return n / (1 + n)

    expected = by_loops(events, score_of)
    torch.testing.assert_close(BlurredHits(sigma).score(events), expected, atol=2e-4, rtol=0)


def test_hit_density_equals_a_loop_over_pairs():
    events, radius_xy, radius_t = crowded(9, 12, seed=2), 3.5, 9.0

    def score_of(hits, i):
        n = 0.0
        for j, (x, y, t) in enumerate(hits):
            square = ((x - hits[i][0]) ** 2 + (y - hits[i][1]) ** 2) / radius_xy**2
            square += (t - hits[i][2]) ** 2 / radius_t**2
            if j != i and square < 1:
                n += 1 - square
        return n / (1 + n)

    expected = by_loops(events, score_of)
    assert expected.max() > 0.5
    assert (expected == 0).any()
    actual = HitDensity(radius_xy, radius_t).score(events)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_axes", [2, 3])
def test_hit_density_of_sensors_equals_a_loop_over_pairs(n_axes):
    events = some_sensor_events(9, sensors=some_sensors(n_axes=n_axes))
    events.t[:] *= 0.1
    expected = []
    for event in events:
        position, t = event.position().astype(float) / 30.0, event.t.astype(float) / 90.0
        square = ((position[:, None] - position) ** 2).sum(-1) + (t[:, None] - t) ** 2
        n = np.clip(1 - square, 0, None).sum(1) - 1
        expected.append(torch.from_numpy(n / (1 + n)).float())
    actual = HitDensity(30.0, 90.0).score(events)
    assert (actual == 0).any()
    torch.testing.assert_close(actual, torch.cat(expected), atol=1e-6, rtol=0)


def test_dbscan_of_sensors_follows_a_string_of_hits():
    pytest.importorskip("sklearn", reason="DBSCANScorer needs scikit-learn")
    z = np.arange(12.0)
    sensors = Sensors(np.stack([0 * z, 0 * z, 10 * z], 1))
    far = np.where(z < 9, 30 * z, 9000 * z)  # the first nine hits follow light, roughly
    events = Events(
        sensors, np.array([0, 12, 24]), t=np.tile(far, 2), sensor=np.tile(z, 2).astype(int)
    )
    score = DBSCANScorer(15.0, 50.0, min_samples=2).score(events)
    assert torch.allclose(score, torch.tensor(([0.9] * 9 + [0.0] * 3) * 2))


@pytest.mark.parametrize("make", [BlurredHits, MedianFilter])
def test_rules_of_frames_refuse_sensors(make):
    with pytest.raises(ValueError, match="hits on a grid of pixels for a frame, got hits of 40"):
        make().score(some_sensor_events(2))


def test_muons_of_a_telescope_stand_out_from_its_noise():
    pytest.importorskip("sklearn", reason="DBSCANScorer needs scikit-learn")
    events = km3net_events(350, 354)
    is_signal = torch.from_numpy(events.label > 0)
    for name, least in (("hit density", 0.95), ("DBSCAN", 0.93)):
        score = make_baseline(name, events.geometry).score(events)
        kept = score[is_signal].quantile(0.04)
        assert (score[~is_signal] < kept).float().mean() > least


@pytest.mark.parametrize("pairs_at_once", [1, 7, 50])
def test_hit_density_is_the_same_in_parts(monkeypatch, pairs_at_once):
    events, density = crowded(9, 12, seed=3), HitDensity(5.0, 15.0)
    whole = density.score(events)
    monkeypatch.setattr(pairs, "_PAIRS", pairs_at_once)
    assert density.score(events).equal(whole)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_median_filter_equals_a_loop_over_its_window(size):
    events, half = crowded(9, 25, seed=4), size // 2

    def score_of(hits, i):
        lit, (x0, y0, _) = {(x, y) for x, y, _ in hits}, hits[i]
        window = [
            (x, y) in lit
            for x in range(x0 - half, x0 + half + 1)
            for y in range(y0 - half, y0 + half + 1)
        ]
        return sum(window) / size**2

    actual = MedianFilter(size).score(events)
    torch.testing.assert_close(actual, by_loops(events, score_of), atol=1e-7, rtol=0)


def test_above_one_half_the_median_filter_is_the_median():
    events = crowded(40, 60, seed=5)
    is_kept = []
    for event in events:
        mask = np.zeros((9 + 2, 12 + 2))
        mask[event.y + 1, event.x + 1] = 1
        is_kept += [np.median(mask[y : y + 3, x : x + 3]) == 1 for x, y, _ in hits_of(event)]
    assert 0 < sum(is_kept) < len(is_kept)
    assert (MedianFilter(3).score(events) >= 0.5).tolist() == is_kept


def test_dbscan_equals_growing_clusters_one_by_one():
    pytest.importorskip("sklearn", reason="DBSCANScorer needs scikit-learn")
    events, (radius_xy, radius_t, min_samples) = crowded(60, 30, seed=6), (2.3, 7.7, 3)
    expected = []
    for event in events:
        hits = hits_of(event)
        order = sorted(range(len(hits)), key=lambda i: hits[i])

        def near(i, hits=hits, order=order):
            return [
                j
                for j in order
                if ((hits[j][0] - hits[i][0]) ** 2 + (hits[j][1] - hits[i][1]) ** 2) / radius_xy**2
                + (hits[j][2] - hits[i][2]) ** 2 / radius_t**2
                <= 1
            ]

        cluster: dict[int, int] = {}
        for seed in order:
            if seed in cluster or len(near(seed)) < min_samples:
                continue
            cluster[seed], front = seed, [seed]
            while front:
                core = front.pop()
                for j in near(core) if len(near(core)) >= min_samples else []:
                    if j not in cluster:
                        cluster[j] = seed
                        front.append(j)
        size = [list(cluster.values()).count(cluster.get(i, -1)) for i in range(len(hits))]
        expected += [n / (1 + n) for n in size]
    actual = DBSCANScorer(radius_xy, radius_t, min_samples).score(events)
    assert len(set(expected)) > 4
    assert expected.count(0) > 0
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-7, rtol=0)


def test_a_hit_does_not_count_itself_but_its_twin():
    lone = Events(Geometry(), np.array([0, 1]), *np.array([[40], [40], [500]]))
    twins = Events(Geometry(), np.array([0, 2]), *np.array([[40, 40], [40, 40], [500, 500]]))
    for rule in (BlurredHits(), HitDensity()):
        assert rule.score(lone).tolist() == [0.0]
        assert rule.score(twins).tolist() == [0.5, 0.5]


@SPATIAL
def test_events_do_not_see_each_other(name):
    one = Events(Geometry(), np.array([0, 1]), *np.array([[40], [40], [500]]))
    alone = scorer(name).score(one)
    assert scorer(name).score(concatenate([one] * 9)).equal(alone.repeat(9))


def test_a_border_of_two_clusters_joins_the_same_one_in_any_order():
    pytest.importorskip("sklearn", reason="DBSCANScorer needs scikit-learn")
    x = np.array([0, 1, 2, 4, 6, 7, 8, 9])  # cores at 2, 6 and 7; 4 reaches both sides
    for order in (np.arange(8), np.arange(7, -1, -1)):
        events = Events(Geometry(12, 9, 40), np.array([0, 8]), x[order], 0 * x + 4, 0 * x + 5)
        score = DBSCANScorer(2.2, 7.0, 4).score(events)
        torch.testing.assert_close(score, torch.full((8,), 0.8))


@pytest.mark.parametrize(("rule", "step"), [(BlurredHits(), 2.0**-32), (HitDensity(), 2.0**-30)])
def test_sums_are_exact_so_no_order_can_change_them(monkeypatch, rule, step):
    monkeypatch.setattr(module, "_odds_to_score", lambda odds: odds)
    steps = rule.score(crowded(20, 30, seed=12)) / step
    assert steps.equal(steps.round())
    assert steps.max() > 1 / step


def test_density_looks_at_time_and_the_blur_does_not():
    events = Events(Geometry(), np.array([0, 2]), *np.array([[40, 41], [40, 40], [1, 1000]]))
    assert (BlurredHits().score(events) > 0.4).all()
    assert HitDensity().score(events).tolist() == [0.0, 0.0]


@EVERY
def test_scores_are_float32_between_0_and_1_and_hits_stay(name):
    events = crowded(20, 30, seed=7)
    before = [column.copy() for column in events.hit_columns().values()]
    score = scorer(name).score(events)
    assert score.shape == (events.n_hits,)
    assert score.dtype == torch.float32
    assert score.min() >= 0
    assert score.max() <= 1
    after = events.hit_columns().values()
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert scorer(name).name == name


@EVERY
def test_batches_cut_anywhere_score_the_same(name):
    events = degrade(simulate("arc", 70, seed=1), Degradation(signal=30, noise=50), seed=1)
    whole = scorer(name).score(events)
    for cuts in ([0, 1, 69, 70], [0, 33, 33, 70]):
        parts = [events[a:b] for a, b in itertools.pairwise(cuts)]
        assert torch.cat([scorer(name).score(part) for part in parts]).equal(whole)


@EVERY
def test_the_order_of_hits_does_not_matter(name):
    events = crowded(30, 30, seed=8)
    rng = np.random.default_rng(1)
    order = np.lexsort([rng.random(events.n_hits), events.event_index()])
    assert (order != np.arange(events.n_hits)).any()
    columns = {key: column[order] for key, column in events.hit_columns().items()}
    shuffled = scorer(name).score(events.with_hits(events.offset, columns))
    assert shuffled.equal(scorer(name).score(events)[order])


@EVERY
def test_arrays_and_tensors_score_the_same(name):
    events = crowded(10, 30, seed=9)
    assert scorer(name).score(events.torch()).equal(scorer(name).score(events))


@EVERY
def test_empty_events_and_empty_batches_are_legal(name):
    events = crowded(4, 30, seed=10)
    nothing = events.select(np.zeros(events.n_hits, bool))
    for empty in (nothing, nothing[:0]):
        score = scorer(name).score(empty)
        assert score.shape == (0,)
        assert score.dtype == torch.float32
    score = scorer(name).score(concatenate([nothing, events, nothing]))
    assert score.equal(scorer(name).score(events))


@SPATIAL
def test_signal_of_an_arc_scores_above_noise(name):
    events = degrade(simulate("arc", 50, seed=2), Degradation(signal=30, noise=200), seed=2)
    histogram = ScoreHistogram()
    histogram.update(scorer(name).score(events), torch.from_numpy(events.label > 0))
    assert histogram.auc() > 0.55


@pytest.mark.parametrize("name", ["hit density", "DBSCAN"])
def test_a_time_that_is_none_is_refused(name):
    events = Events(Geometry(), np.array([0, 1]), np.array([1]), np.array([1]), np.array([np.nan]))
    with pytest.raises(ValueError, match=r"Expected `t` with finite times, got NaN"):
        scorer(name).score(events)


@pytest.mark.parametrize("rule", [BlurredHits(), MedianFilter()])
def test_a_hit_outside_the_frame_is_refused(rule):
    events = Events(Geometry(), np.array([0, 1]), np.array([88]), np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match=r"Expected `x` from 0 to 87, got 88"):
        rule.score(events)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (BlurredHits, "sigma", 0.0),
        (HitDensity, "radius_xy", -1.0),
        (HitDensity, "radius_t", math.nan),
        (MedianFilter, "size", 4),
        (MedianFilter, "size", -3),
        (DBSCANScorer, "min_samples", 0),
        (DBSCANScorer, "radius_t", 0),
    ],
)
def test_parameters_without_meaning_are_refused(make, name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}`"):
        make(**{name: value})


def test_without_scikit_learn_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        DBSCANScorer().score(crowded(1, 5, seed=11))
