"""Frames of hits: which hit shows, the gapped scale, channels, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.hits import (
    Events,
    Geometry,
    encode,
    frames_to_events,
    gap,
    paint,
    points,
    rasterise,
    ungap,
)
from dense_imb.hits.frames import visible

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference" / "seed_values.json").read_text()
)["gapped"]  # fmt: skip


def crowded(n_events: int, n_hits: int, seed: int, whole: bool = True) -> Events:
    """Small frames with few times, so that hits meet and tie."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(4, 3, 5)
    count = rng.integers(0, 2 * n_hits + 1, n_events)
    total = int(count.sum())
    t = rng.integers(1, 6, total).astype(np.uint16 if whole else np.float32)
    return Events(
        geometry,
        np.concatenate([[0], np.cumsum(count)]),
        rng.integers(0, 4, total).astype(np.uint16),
        rng.integers(0, 3, total).astype(np.uint16),
        t if whole else t - np.float32(0.25) * (t > 1),
        rng.integers(0, 2, total).astype(np.uint8),
    )


def slow_raster(events: Events, rule: str):
    geometry = events.geometry
    frame = np.zeros((len(events), 1, geometry.height, geometry.width))
    is_visible = np.zeros(events.n_hits, bool)
    n_occluded = []
    for i in range(len(events)):
        shown: dict[tuple[int, int], int] = {}
        start, stop = int(events.offset[i]), int(events.offset[i + 1])
        for k in range(start, stop):
            place = (int(events.y[k]), int(events.x[k]))
            old = shown.get(place)
            wins = old is None or (
                events.t[k] < events.t[old] if rule == "smallest" else events.t[k] > events.t[old]
            )
            if wins:
                shown[place] = k
            frame[i, 0][place] = (
                frame[i, 0][place] + 1 if rule == "count" else events.t[shown[place]]
            )
        is_visible[list(shown.values())] = True
        n_occluded.append(stop - start - len(shown))
    return frame, is_visible, n_occluded


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 70),
    st.integers(0, 12),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["largest", "smallest", "count"]),
    st.booleans(),
)
def test_frames_equal_plain_loops(n_events, n_hits, seed, rule, whole):
    events = crowded(n_events, n_hits, seed, whole)
    frame, is_visible, n_occluded = slow_raster(events, rule)
    for batch in (events, events.torch()):
        raster = rasterise(batch, rule)
        np.testing.assert_array_equal(raster.frame.numpy(), frame)
        np.testing.assert_array_equal(raster.is_visible.numpy(), is_visible)
        assert raster.n_occluded.tolist() == n_occluded
        np.testing.assert_array_equal(visible(batch, rule).numpy(), is_visible)


def test_the_order_of_the_hits_changes_no_frame():
    events = crowded(1, 30, 3)
    order = np.random.default_rng(0).permutation(events.n_hits)
    other = events.with_hits(events.offset, {n: c[order] for n, c in events.hit_columns().items()})
    for rule in ("largest", "smallest", "count"):
        assert torch.equal(rasterise(events, rule).frame, rasterise(other, rule).frame)


def test_of_equal_times_the_first_hit_shows():
    zeros = np.zeros(3, np.int64)
    events = Events(Geometry(1, 1, 9), np.array([0, 3]), zeros, zeros, np.array([4, 6, 6]))
    assert rasterise(events).is_visible.tolist() == [False, True, False]


@pytest.mark.parametrize(("x", "y", "name"), [(4, 0, "x"), (0, 3, "y"), (-1, 0, "x")])
def test_a_hit_outside_the_frame_is_refused(x, y, name):
    events = Events(Geometry(4, 3, 5), np.array([0, 1]), *map(np.array, ([x], [y], [1])))
    with pytest.raises(ValueError, match=f"Expected `{name}` from 0"):
        rasterise(events)
    with pytest.raises(ValueError, match="Expected `rule`"):
        rasterise(events, "last")


def test_gapped_values_of_the_reference():
    time = torch.tensor(REFERENCE["values"], dtype=torch.float64)
    encoded = gap(time, REFERENCE["time_steps"], REFERENCE["threshold"])
    expected = torch.tensor(REFERENCE["encoded"], dtype=torch.float64)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("time_steps", [1, 7, 1000, 65536])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.75])
def test_the_gapped_scale_has_an_exact_inverse(time_steps, threshold):
    time = torch.arange(time_steps + 1, dtype=torch.float32)
    value = gap(time, time_steps, threshold)
    assert value[0] == 0
    assert (value[1:] > threshold).all()
    assert value.max() <= 1
    back = ungap(value, time_steps, threshold)
    assert torch.equal(back.round(), time)
    double = ungap(gap(time.double(), time_steps, threshold), time_steps, threshold)
    torch.testing.assert_close(double, time.double(), rtol=1e-9, atol=1e-9)


def test_what_is_at_most_the_threshold_is_no_hit():
    value = torch.tensor([-3.0, 0.0, 0.2, 0.5, 0.5001, 2.0])
    assert (ungap(value, 1000) > 0).tolist() == [False] * 4 + [True] * 2
    with pytest.raises(ValueError, match="Expected `threshold`"):
        gap(value, 1000, 1.0)
    nan = torch.tensor([float("nan")])
    assert gap(nan, 1000).isnan().all()
    assert ungap(nan, 1000).isnan().all()


@pytest.mark.parametrize("rule", ["largest", "smallest"])
def test_channels(rule):
    events = crowded(5, 9, 2)
    frame = rasterise(events, rule).frame
    angle = 2 * np.pi * frame / 5
    is_hit = frame > 0
    waves = [is_hit * wave(k * angle) for k in (1, 2, 4) for wave in (torch.sin, torch.cos)]
    expected = torch.cat([gap(frame, 5, 0.25), is_hit.float(), *waves], 1)
    encoded = encode(events, rule=rule, threshold=0.25)
    assert encoded.shape == (5, 8, 3, 4)
    torch.testing.assert_close(encoded, expected, rtol=1e-5, atol=1e-6)
    swapped = encode(events, ("hit", "gapped"), rule=rule, threshold=0.25)
    assert torch.equal(swapped, encoded[:, [1, 0]])
    for channels, sentence in ((("time",), "Expected `channels`"), ((), "at least one")):
        with pytest.raises(ValueError, match=sentence):
            encode(events, channels)


def test_visible_hits_paint_their_labels():
    events = crowded(5, 9, 2)
    raster = rasterise(events)
    values = torch.as_tensor(np.stack([events.t, events.label + 1], 1).astype(np.float32))
    painted = paint(events, values, raster.is_visible)
    assert torch.equal(painted[:, :1], raster.frame)
    expected = np.zeros((5, 3, 4))
    for k in raster.is_visible.nonzero()[:, 0].tolist():
        expected[events.event_index()[k], events.y[k], events.x[k]] = events.label[k] + 1
    np.testing.assert_array_equal(painted[:, 1].numpy(), expected)


def test_a_frame_gives_its_visible_hits_back():
    events = crowded(6, 8, 4).torch()
    raster = rasterise(events)
    label = torch.zeros_like(raster.frame, dtype=torch.int64)
    back = frames_to_events(raster.frame, events.geometry, label)
    assert torch.equal(rasterise(back).frame, raster.frame)
    seen = events.select(raster.is_visible)
    assert torch.equal(back.offset, seen.offset)
    assert back.label is not None
    assert len(back.label) == back.n_hits
    for ours, theirs in zip(back, seen, strict=True):
        rows = [sorted(points(e).tolist()) for e in (ours, theirs)]
        assert rows[0] == rows[1]
    with pytest.raises(ValueError, match="Expected `frame` in the shape"):
        frames_to_events(raster.frame[:, 0], events.geometry)
    with pytest.raises(ValueError, match="finite"):
        frames_to_events(raster.frame / 0, events.geometry)


def test_points_in_pixels_and_in_millimetres():
    sized = Geometry(4, 3, 5, x_mm=0.5, y_mm=2.0, t_ns=0.25)
    events = Events(sized, np.array([0, 1]), *map(np.array, ([3], [2], [4])))
    assert points(events).tolist() == [[3, 2, 4]]
    for batch in (events, events.torch()):
        assert points(batch, "physical").tolist() == [[1.5, 4.0, 1.0]]
    unknown = Events(Geometry(4, 3, 5), events.offset, events.x, events.y, events.t)
    with pytest.raises(ValueError, match="`x_mm`"):
        points(unknown, "physical")


def test_a_raster_prints_its_size():
    x, y, t = np.array([[0, 0, 2], [0, 0, 0], [4, 7, 5]])
    raster = rasterise(Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t))
    assert repr(raster) == "Raster(1 x 1 x 1 x 3, 2 of 3 hits visible)"
