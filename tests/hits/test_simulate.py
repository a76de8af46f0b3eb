"""Simulated patterns: each formula, the reference task, and the same event in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.hits import PATTERNS, Geometry, concatenate, rasterise, simulate

FRAME = Geometry()


def shape_of(name: str, n: int = 20, n_photons: int = 400, geometry: Geometry = FRAME):
    """The numbers that a formula is given, and what it makes of them."""
    rng = np.random.default_rng(7)
    pattern, photon = rng.random((8, n, 1)), rng.random((4, n, n_photons))
    return pattern, photon, PATTERNS[name](pattern, photon, geometry)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([*PATTERNS, ("arc", "ring", "torch")]),
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(0, 12),
)
def test_an_event_is_the_same_in_every_batch(pattern, first, n_events, cut):
    def some(start: int, n: int):
        return simulate(pattern, n, 5, first_event=start, patterns_per_event=(1, 3), n_photons=50)

    cut = min(cut, n_events)
    parts = concatenate([some(first, cut), some(first + cut, n_events - cut)])
    together = some(first, n_events)
    for name, column in together.hit_columns().items():
        np.testing.assert_array_equal(parts.hit_columns()[name], column)
        assert parts.hit_columns()[name].dtype == column.dtype
    np.testing.assert_array_equal(parts.offset, together.offset)


def test_another_seed_is_another_event():
    ours, other = (simulate("ring", 1, seed, n_photons=50) for seed in (5, 6))
    assert set(ours.t.tolist()) != set(other.t.tolist())


def test_arc_by_hand():
    # the middle of each range: x0 = 44, y0 = 35, a = 14, b = 42.5, t0 = 300
    pattern, photon = np.full((8, 1, 1), 0.5), np.zeros((4, 1, 3))
    photon[0, 0] = (0.5, 1.0, 0.0)  # u = 0, 1, -1
    x, y, t = PATTERNS["arc"](pattern, photon, FRAME)
    assert x.tolist() == [[44, 86, 2]]
    np.testing.assert_allclose(y, [[35] + 2 * [35 + 42.5 * (10**0.5 - 1)]])
    np.testing.assert_allclose(t, [[300] + 2 * [300 + 500 * (3.25**0.5 - 1)]])
    twice = PATTERNS["arc"](pattern, photon, Geometry(176, 256, 3000))
    np.testing.assert_allclose(twice, np.array([2, 2, 3])[:, None, None] * [x, y, t])


def test_arc_is_the_reference_task():
    """Against the definition in FACTS.md, written out for one photon after the other's event."""
    n, events = 1500, simulate("arc", 1500, seed=2)
    rng = np.random.default_rng(1)
    size, moments = [], []
    for _ in range(n):
        x0, y0, a = rng.uniform(25, 63), rng.uniform(15, 55), rng.uniform(8, 20)
        b, t0 = rng.uniform(25, 60), rng.uniform(100, 500)
        u = rng.uniform(-1, 1, 1500)
        x = x0 + 42 * u
        y = y0 + b * (np.sqrt(1 + ((x - x0) / a) ** 2) - 1)
        t = t0 + 500 * (np.sqrt(1 + 2.25 * u**2) - 1) + rng.normal(0, 8, 1500)
        x, y = x + rng.normal(0, 0.5, 1500), y + rng.normal(0, 0.5, 1500)
        place = np.rint([x, y, t])
        upper = np.array([[87], [127], [1000]])
        inside = ((place >= [[0], [0], [1]]) & (place <= upper)).all(0)
        size.append(inside.sum())
        place = place[:, inside]
        moments.append([*place.mean(1), *place.std(1), np.corrcoef(place)[1, 2]])
    ours = []
    for event in events:
        place = np.array([event.x, event.y, event.t], float)
        ours.append([*place.mean(1), *place.std(1), np.corrcoef(place)[1, 2]])
    pairs = [
        (np.diff(events.offset), size),
        *zip(np.transpose(ours), np.transpose(moments), strict=True),
    ]
    for mine, theirs in pairs:
        error = np.sqrt((np.var(mine) + np.var(theirs)) / n)
        assert abs(np.mean(mine) - np.mean(theirs)) < 4 * error
        assert np.std(mine) == pytest.approx(np.std(theirs), rel=0.12)


def test_cross_has_two_arms_at_a_right_angle():
    pattern, photon, (x, y, _) = shape_of("cross")
    centre = np.array([(0.25 + 0.5 * p) * s for p, s in zip(pattern, (88, 128), strict=False)])
    x, y = x - centre[0], y - centre[1]
    angle, is_second = np.pi * pattern[4], photon[1] >= 0.5
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    np.testing.assert_allclose(np.where(is_second, along, across), 0, atol=1e-9)
    length = np.hypot(x, y).max(1) / 88
    assert (length > 0.14).all()
    assert (length < 0.45).all()
    assert 0.4 < is_second.mean() < 0.6
    # no photon of a line leaves its arm
    pattern, _, (x, y, _) = shape_of("line")
    slope = np.tan(np.pi * pattern[4])
    np.testing.assert_allclose(
        y - (0.25 + 0.5 * pattern[1]) * 128, slope * (x - (0.25 + 0.5 * pattern[0]) * 88), atol=1e-9
    )


def test_v_is_reflected_by_the_side_walls():
    pattern, photon, (x, y, _) = shape_of("v", 200)
    assert x.min() >= 0
    assert x.max() <= 87
    straight = (0.1 + 0.8 * pattern[0] + (0.3 + 0.9 * pattern[2]) * (2 * photon[0] - 1)) * 88
    inside = (straight >= 0) & (straight <= 87)
    assert 0.5 < inside.mean() < 0.95
    np.testing.assert_allclose(x[inside], straight[inside])
    left, right = (straight < 0) & (straight > -87), (straight > 87) & (straight < 174)
    np.testing.assert_allclose(x[left], -straight[left])
    np.testing.assert_allclose(x[right], 174 - straight[right])
    tip = y.min(1, keepdims=True)
    assert (y - tip >= 0).all()


def test_parabola_ring_and_hemisphere_are_what_their_names_say():
    _, _, (x, y, t) = shape_of("parabola")
    for row in range(3):
        for curve in (y[row], t[row]):
            fit = np.polyfit(x[row], curve, 2)
            np.testing.assert_allclose(np.polyval(fit, x[row]), curve, atol=1e-6)
            assert fit[0] > 0
    for name in ("ring", "hemisphere"):
        pattern, _, (x, y, t) = shape_of(name)
        x0, y0, t0 = ((0.25 + 0.5 * p) * s for p, s in zip(pattern, (88, 128, 1000), strict=False))
        radius = (0.1 + 0.25 * pattern[3]) * 88
        distance = np.hypot(x - x0, y - y0) / radius
        if name == "ring":
            np.testing.assert_allclose(distance, 1)
            assert (np.ptp(t, axis=1) <= 400).all()
        else:
            depth = (0.1 + 0.2 * pattern[4]) * 1000
            np.testing.assert_allclose(distance**2 + (1 - (t - t0) / depth) ** 2, 1)
            # evenly over the disc: a quarter of the photons inside half the radius
            assert (distance < 0.5).mean() == pytest.approx(0.25, abs=0.02)


def test_torch_light_takes_the_time_of_its_path():
    pattern, photon, (x, y, t) = shape_of("torch")
    assert x.min() >= 0
    assert x.max() <= 87
    is_late = photon[2] < 0.4
    t = t - 100 * pattern[2]
    height = (0.3 + 0.6 * pattern[1]) * 2500
    # straight up at n = 1.46 it takes (2500 - height) / sin(theta), at c / 1.5, in 60 / 1000 ns
    fastest = (2500 - height) / np.sin(np.arccos(1 / 1.46)) * 1.5 / 299.8 / 60 * 1000
    assert (t[~is_late] / np.broadcast_to(fastest, t.shape)[~is_late]).min() == pytest.approx(
        1, abs=0.02
    )
    # the lower edge adds twice the height above it
    ratio = np.broadcast_to((2500 + height) / (2500 - height), t.shape)
    share = t / fastest
    for row in range(len(t)):
        late = is_late[row]
        assert share[row][late].min() == pytest.approx(ratio[row, 0], rel=0.05)
    # steeper light arrives earlier, and the colours widen what would be one line of (y, t)
    for row in range(len(t)):
        early = ~is_late[row]
        order = np.corrcoef(y[row][early], 1 / t[row][early])[0, 1]
        assert 0.9 < order < 0.9999
    pattern[:], photon[1] = 0.5, 0.0
    _, y, t = PATTERNS["torch"](pattern[:, :1], photon[:, :1], FRAME)
    red = PATTERNS["torch"](pattern[:, :1], photon[:, :1] + np.eye(4)[1][:, None, None], FRAME)
    assert (red[1] > y).all()
    width = red[2] / t - 1
    assert 0.0 < width.min() < width.max() < 0.05


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_fill_frames_of_any_size(pattern):
    for geometry in (FRAME, Geometry(64, 32, 100), Geometry(200, 300, 65536), Geometry(8, 8, 10)):
        events = simulate(pattern, 20, 4, geometry, n_photons=500)
        assert events.n_hits / 20 > 200
        assert events.x.max() < geometry.width
        assert events.y.max() < geometry.height
        assert events.t.min() >= 1
        assert events.t.max() <= geometry.time_steps
        assert (events.label == 1).all()
        assert rasterise(events).frame.shape == (20, 1, geometry.height, geometry.width)


@pytest.mark.parametrize("pattern", ["arc", "cross", "line", "v", "parabola", "ring"])
def test_time_is_smooth_along_a_pattern(pattern):
    rng = np.random.default_rng(3)
    along = np.zeros((4, 1, 4001))
    along[0, 0] = np.linspace(1e-6, 1 - 1e-6, 4001)
    for _ in range(10):
        x, y, t = PATTERNS[pattern](rng.random((8, 1, 1)), along, FRAME)
        steps = np.abs(np.diff([np.broadcast_to(c, (1, 4001))[0] for c in (x, y, t)]))
        assert steps[:2].max() < 0.2
        assert steps[2].max() < 0.7


def test_blur_is_normal_and_knows_nothing_of_the_place():
    still = simulate("ring", 60, 1, n_photons=500, blur_xy=0, blur_t=0)
    moved = simulate("ring", 60, 1, n_photons=500, blur_xy=2.0, blur_t=20.0)
    whole = [i for i in range(60) if still[i].n_hits == moved[i].n_hits == 500]
    assert len(whole) > 20
    still, moved = still.take(whole), moved.take(whole)
    before, after = (np.array([e.x, e.y, e.t], float) for e in (still, moved))
    move = after - before
    # two roundings add a sixth to the variance
    np.testing.assert_allclose(move.var(1), [4 + 1 / 6, 4 + 1 / 6, 400], rtol=0.05)
    np.testing.assert_allclose(move.mean(1) / [2, 2, 20], 0, atol=0.03)
    table = np.corrcoef([*move, *before])[:3]
    assert np.abs(table - np.eye(3, 6)).max() < 0.04


def test_places_are_rounded_to_the_nearest():
    """Steps half as wide: of rounded numbers the mean stays, cut off ones gain half a step."""
    fine = Geometry(176, 256, 2000)
    ours, finer = (
        simulate("ring", 60, 1, g, n_photons=500, blur_xy=0, blur_t=0) for g in (FRAME, fine)
    )
    whole = [i for i in range(60) if ours[i].n_hits == finer[i].n_hits == 500]
    assert len(whole) > 20
    ours, finer = ours.take(whole), finer.take(whole)
    for name in "xyt":
        twice = 2 * getattr(ours, name).astype(float)
        assert (getattr(finer, name) - twice).mean() == pytest.approx(0, abs=0.05)


def test_several_patterns_and_kinds():
    events = simulate(["ring", "line"], 400, 5, patterns_per_event=(1, 3), n_photons=40)
    kinds = [set(event.label.tolist()) for event in events]
    assert {1} in kinds
    assert {2} in kinds
    assert {1, 2} in kinds
    # mean 2 patterns of 40 photons, less those outside
    assert events.n_hits / 400 == pytest.approx(78, abs=5)
    assert (events.label == 1).mean() == pytest.approx(0.5, abs=0.06)
    assert len(simulate("arc", 0, 1)) == 0


def test_patterns_are_drawn_as_often_as_said():
    names, frequency = ["ring", "hemisphere", "v", "line"], np.array([60, 0, 30, 10])
    events = simulate(names, 4000, 5, frequency=frequency, n_photons=20, blur_xy=0)
    first = np.array([event.label[0] for event in events if event.n_hits])
    share = np.bincount(first, minlength=5)[1:] / len(first)
    np.testing.assert_allclose(share, frequency / 100, atol=4 * np.sqrt(0.25 / 4000))
    assert share[1] == 0
    # alike is what one gets without
    alike = simulate(names, 50, 5, frequency=[0.5] * 4, n_photons=20)
    np.testing.assert_array_equal(alike.t, simulate(names, 50, 5, n_photons=20).t)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pattern": ["arc", "v"], "frequency": [1]}, "each of arc, v, .* got \\[1\\]"),
        ({"pattern": ["arc", "v"], "frequency": [2, -1]}, "`frequency`"),
        ({"pattern": ["arc", "v"], "frequency": [0, 0]}, "`frequency`"),
        ({"pattern": ["arc", "v"], "frequency": [1, float("nan")]}, "`frequency`"),
        ({"pattern": "arcs"}, "Did you mean 'arc'"),
        ({"pattern": []}, "at least one `pattern`"),
        ({"patterns_per_event": 0}, "`patterns_per_event`"),
        ({"patterns_per_event": (3, 2)}, "`patterns_per_event`"),
        ({"n_events": -1}, "`n_events`"),
        ({"n_photons": 0}, "`n_photons`"),
        ({"blur_t": -1.0}, "`blur_t`"),
        ({"seed": -3}, "`seed`"),
        ({"first_event": -3}, "`event`"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        simulate(**({"pattern": "arc", "n_events": 1, "seed": 1} | arguments))
