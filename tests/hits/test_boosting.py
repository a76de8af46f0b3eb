"""Gradient boosting on neighbour counts: its counts against a loop, and what a scorer promises."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dense_imb.hits import (
    Degradation,
    Events,
    Geometry,
    HitDensity,
    NeighbourBoosting,
    degrade,
    evaluate,
    pairs,
    score_events,
    simulate,
)
from dense_imb.hits.boosting import count_neighbours, default_windows
from tests.hits.files import km3net_events, some_events, some_sensor_events, some_sensors

RADII, TIMES = [10.0, 31.5, 90.0], [30.0, 200.0]


def by_loop(events: Events) -> torch.Tensor:
    """The counts of every hit, from all pairs of an event."""
    counts = []
    for event in events:
        position, t = event.position().astype(float), event.t.astype(float)
        distance = np.sqrt(((position[:, None] - position) ** 2).sum(-1))
        late = np.abs(t[:, None] - t)
        windows = [((distance <= r) & (late <= s)).sum(1) - 1 for r in RADII for s in TIMES]
        counts.append(np.stack(windows, 1).reshape(-1, len(windows)))
    return torch.from_numpy(np.concatenate(counts))


@pytest.mark.parametrize("n_axes", [2, 3])
def test_counts_of_sensors_equal_a_loop(n_axes):
    events = some_sensor_events(9, sensors=some_sensors(n_axes=n_axes))
    expected = by_loop(events)
    assert expected.max() > 3
    assert count_neighbours(events, RADII, TIMES).equal(expected)


@pytest.mark.parametrize("pairs_at_once", [3, 1 << 16])
def test_counts_of_a_grid_equal_a_loop(monkeypatch, pairs_at_once):
    monkeypatch.setattr(pairs, "_PAIRS", pairs_at_once)
    events = some_events(9, mean=40.0)
    assert count_neighbours(events, RADII, TIMES).equal(by_loop(events))


def test_hits_on_the_edge_of_a_window_count():
    x, y, t = np.array([[0, 3], [0, 4], [1, 8]])
    pair = Events(Geometry(), np.array([0, 2]), x, y, t)
    assert count_neighbours(pair, [4.9, 5.0], [6.0, 7.0]).tolist() == [[0, 0, 0, 1]] * 2


@pytest.mark.parametrize("wrong", [[], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
def test_windows_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="`radii` above 0 in increasing order"):
        count_neighbours(some_events(2), wrong, TIMES)
    with pytest.raises(ValueError, match="`times` above 0 in increasing order"):
        count_neighbours(some_events(2), RADII, wrong)


def test_default_windows_follow_the_geometry():
    radii, times = default_windows(Geometry())
    assert (len(radii), len(times)) == (5, 4)
    wide = default_windows(Geometry(176, 256, 500))
    assert wide == ([2 * r for r in radii], [0.5 * t for t in times])
    sensors = some_sensors()
    assert default_windows(sensors)[0][1] == 1.5 * sensors.spacing


@pytest.fixture(scope="module")
def arcs() -> Events:
    return degrade(simulate("arc", 60, seed=1), Degradation(30, noise=100), seed=1)


@pytest.fixture(scope="module")
def boosting(arcs: Events) -> NeighbourBoosting:
    pytest.importorskip("sklearn", reason="NeighbourBoosting needs scikit-learn")
    return NeighbourBoosting(n_trees=50).fit(arcs[:40])


def test_it_beats_the_density_and_is_a_scorer(arcs, boosting):
    table = evaluate([boosting, HitDensity()], None, arcs[40:])
    assert table["gradient boosting"]["removal"] > table["hit density"]["removal"]


def test_scores_depend_on_the_event_alone(arcs, boosting):
    score = score_events(boosting, arcs[40:])
    assert score.equal(torch.cat([score_events(boosting, arcs[k]) for k in range(40, 60)]))
    order = np.random.default_rng(0).permutation(arcs[40].n_hits)
    columns = {name: column[order] for name, column in arcs[40].hit_columns().items()}
    mixed = arcs[40].with_hits(arcs[40].offset, columns)
    assert boosting.score(mixed).equal(boosting.score(arcs[40])[order])
    assert boosting.score(arcs[:0]).shape == (0,)
    assert pickle.loads(pickle.dumps(boosting)).score(arcs[:3]).equal(boosting.score(arcs[:3]))


def test_another_geometry_is_refused(boosting):
    with pytest.raises(ValueError, match="as gradient boosting was trained on"):
        score_events(boosting, some_sensor_events(2))


def test_further_columns_are_features(boosting):
    events = some_sensor_events(20)
    events = replace(events, label=(events.hit["charge"] > 0.5).astype(np.uint8))
    blind, seeing = (
        NeighbourBoosting(n_trees=20, columns=columns).fit(events) for columns in ((), ["charge"])
    )
    is_signal = torch.from_numpy(events.label > 0)
    assert ((seeing.score(events) > 0.5) == is_signal).float().mean() > 0.99
    assert ((blind.score(events) > 0.5) == is_signal).float().mean() < 0.95
    with pytest.raises(ValueError, match="column `charge`, got .*"):
        seeing.score(replace(events, hit={}))
    with pytest.raises(ValueError, match=r"Did you mean 'charge'\?"):
        NeighbourBoosting(columns=["charg"]).fit(events)


def test_events_that_teach_nothing_are_refused():
    events = some_events(5)
    for label, message in (
        (None, "with labels to fit, got none"),
        (np.zeros_like(events.label), "signal and noise hits, got noise only"),
        (np.ones_like(events.label), "signal and noise hits, got signal only"),
    ):
        with pytest.raises(ValueError, match=message):
            NeighbourBoosting().fit(replace(events, label=label))
    with pytest.raises(ValueError, match="got a fresh one; call `fit`"):
        NeighbourBoosting().score(events)


def test_without_scikit_learn_the_cure_is_named(monkeypatch, arcs):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        NeighbourBoosting().fit(arcs)


def test_muons_of_a_telescope_stand_out_from_its_noise():
    pytest.importorskip("sklearn", reason="NeighbourBoosting needs scikit-learn")
    events = km3net_events(300, 316)
    fitted = NeighbourBoosting(n_trees=60, learning_rate=0.1).fit(events[:12])
    score, is_signal = fitted.score(events[12:]), torch.from_numpy(events[12:].label > 0)
    kept = score[is_signal].quantile(0.03)
    assert (score[~is_signal] < kept).float().mean() > 0.95
