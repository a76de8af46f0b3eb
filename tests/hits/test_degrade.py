"""Degradation of hits: the same for whoever asks, and distributed as its settings say."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.hits import (
    Blob,
    Burst,
    Degradation,
    Events,
    Geometry,
    HotLines,
    HotPixels,
    MeasuredNoise,
    Uniform,
    concatenate,
    degrade,
    rasterise,
    simulate,
)
from tests.limits import HANG_SECONDS

N = 40
CLEAN = simulate("arc", N, seed=3, n_photons=300)
NOISE_ONLY = simulate(["ring", "line"], 4, seed=9, n_photons=25)
EVERYTHING = Degradation(
    signal=(5, 40),
    smear_x=0.7,
    smear_y=1.5,
    smear_t=4.0,
    noise=(0, 120),
    profiles=(
        Uniform(3.0),
        Blob(1.0, width=3.0),
        Burst(),
        HotPixels(),
        HotLines(rows=(7,), columns=(2, 60)),
        MeasuredNoise(NOISE_ONLY),
    ),
    dead_rows=(30,),
    dead_columns=(40, 41),
)


def columns_of(events: Events) -> list[np.ndarray]:
    return [np.asarray(c) for c in (events.offset, *events.hit_columns().values())]


def assert_same(ours: Events, theirs: Events) -> None:
    assert ours.hit_columns().keys() == theirs.hit_columns().keys()
    for a, b in zip(columns_of(ours), columns_of(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@settings(max_examples=30, deadline=None)
@given(
    st.permutations(range(N)),
    st.lists(st.integers(0, N), max_size=5),
    st.sampled_from([EVERYTHING, replace(EVERYTHING, choose_from="hits", edge="clamp")]),
)
def test_order_and_batches_change_nothing(order, cuts, degradation):
    index = np.arange(N) + 1000
    together = degrade(CLEAN, degradation, seed=4, epoch=2, event_index=index)
    bounds = [0, *sorted(cuts), N]
    parts = []
    for start, stop in pairwise(bounds):
        some = order[start:stop]
        batch = CLEAN.take(some)
        parts.append(degrade(batch, degradation, seed=4, epoch=2, event_index=index[some]))
    assert_same(concatenate(parts), together.take(order))


def test_processes_change_nothing():
    work = partial(degrade, degradation=EVERYTHING, seed=4)
    jobs = [(CLEAN[i : i + 10], np.arange(i, i + 10)) for i in range(0, N, 10)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        waiting = [pool.apply_async(work, (e,), {"event_index": i}) for e, i in reversed(jobs)]
        parts = [result.get(HANG_SECONDS) for result in reversed(waiting)]
    assert_same(concatenate(parts), work(CLEAN))


def test_seed_epoch_and_event_change_everything():
    base = degrade(CLEAN, EVERYTHING, seed=4)
    for other in (
        degrade(CLEAN, EVERYTHING, seed=5),
        degrade(CLEAN, EVERYTHING, seed=4, epoch=1),
        degrade(CLEAN, EVERYTHING, seed=4, event_index=np.arange(N) + 1),
    ):
        assert other.n_hits != base.n_hits or (other.x != base.x).mean() > 0.5


def test_float_times_and_torch_batches():
    floating = replace(CLEAN, t=CLEAN.t.astype(np.float32))
    noisy = degrade(floating, EVERYTHING, seed=4)
    assert noisy.t.dtype == np.float32
    assert 1 <= noisy.t.min() < noisy.t.max() <= 1000
    for is_kind in (noisy.label > 0, noisy.label == 0):
        # a whole number would give noise or signal away, but measured noise is what it is
        assert (noisy.t[is_kind] % 1 != 0).mean() > 0.8
    as_torch = degrade(CLEAN.torch(), EVERYTHING, seed=4)
    assert as_torch.is_torch
    noisy = degrade(CLEAN, EVERYTHING, seed=4)
    for name, column in noisy.hit_columns().items():
        np.testing.assert_array_equal(as_torch.hit_columns()[name].numpy(), column)


def test_signal_is_some_of_the_lit_pixels_with_their_times():
    noisy = degrade(CLEAN, Degradation(signal=30, noise=200), seed=1)
    assert np.diff(noisy.offset).tolist() == [230] * N
    frame = rasterise(CLEAN).frame[:, 0].numpy()
    for i, event in enumerate(noisy):
        is_signal = event.label > 0
        x, y, t = (c[is_signal] for c in (event.x, event.y, event.t))
        assert len(set(zip(x.tolist(), y.tolist(), strict=True))) == 30
        np.testing.assert_array_equal(frame[i, y, x], t)
    assert noisy.label.dtype == np.uint8


def test_pixels_are_chosen_evenly_and_hits_by_their_number():
    # a pixel with 9 hits and one with 1: of the pixels, each is chosen half of the time
    n = 4000
    one = Events(
        Geometry(2, 1, 9),
        np.array([0, 10]),
        np.repeat([0, 1], [9, 1]),
        np.zeros(10, int),
        np.arange(10) % 9 + 1,
    )
    events = concatenate([one] * n)
    for choose_from, share in (("pixels", 0.5), ("hits", 0.1)):
        kept = degrade(events, Degradation(signal=1, choose_from=choose_from), seed=1)
        assert kept.n_hits == n
        assert kept.x.mean() == pytest.approx(share, abs=0.03)


def test_numbers_cover_their_range_evenly():
    events = CLEAN.take([0] * 3000)
    noisy = degrade(events, Degradation(signal=(3, 5), noise=(10, 13)), seed=1)
    index = noisy.event_index()
    for is_kind, low, n_values in ((noisy.label > 0, 3, 3), (noisy.label == 0, 10, 4)):
        count = np.bincount(np.bincount(index[is_kind]) - low, minlength=n_values)
        assert len(count) == n_values
        np.testing.assert_allclose(count, 3000 / n_values, rtol=0.15)


def test_draws_for_two_ends_know_nothing_of_each_other():
    n = 3000
    wide = simulate("line", 1, seed=1, n_photons=200)
    wide = replace(wide.select(np.arange(wide.n_hits) < 100), label=None)
    events = concatenate([replace(wide, t=np.arange(1, 101))] * n)
    counted = degrade(
        events, Degradation(signal=(1, 100), noise=(1, 100), choose_from="hits"), seed=1
    )
    index = counted.event_index()
    counts = [np.bincount(index[is_kind]) for is_kind in (counted.label > 0, counted.label == 0)]
    one = degrade(events, Degradation(signal=1, noise=1, choose_from="hits"), seed=1)
    signal, noise = (one.select(is_kind) for is_kind in (one.label > 0, one.label == 0))
    # which hit was kept, against where the noise fell and how many there were; error 0.018
    table = np.corrcoef([*counts, signal.t, noise.x, noise.y, noise.t])
    assert np.abs(table - np.eye(6)).max() < 0.08


def test_uniform_noise_is_uniform():
    events = simulate("line", 500, seed=1, n_photons=1)
    noisy = degrade(events, Degradation(signal=0, noise=400), seed=1)
    for column, low, size in ((noisy.x, 0, 88), (noisy.y, 0, 128), (noisy.t, 1, 1000)):
        count = np.bincount(column.astype(int) - low, minlength=size)
        assert len(count) == size
        expected = 200_000 / size
        chi_square = ((count - expected) ** 2 / expected).sum()
        # of `size - 1` degrees of freedom: mean size - 1, standard deviation sqrt(2 size)
        assert abs(chi_square - (size - 1)) < 4 * np.sqrt(2 * size)
    assert abs(np.corrcoef([noisy.x, noisy.y, noisy.t]) - np.eye(3)).max() < 0.01


def line_of(n_hits: int, x: int, y: int, t: int, geometry: Geometry) -> Events:
    full = [np.full(n_hits, value) for value in (x, y, t)]
    return Events(geometry, np.array([0, n_hits]), *full)


def test_smearing_in_pixels_and_in_millimetres():
    geometry = Geometry(x_mm=0.5, y_mm=2.0, t_ns=0.25)
    events = line_of(20_000, 44, 64, 500, geometry)
    pixels = degrade(events, Degradation(smear_x=3, smear_y=5, smear_t=20), seed=1)
    physical = Degradation(smear_x=1.5, smear_y=10, smear_t=5, unit="physical")
    assert_same(degrade(events, physical, seed=1), pixels)
    for column, middle, width in ((pixels.x, 44, 3), (pixels.y, 64, 5), (pixels.t, 500, 20)):
        assert column.mean() == pytest.approx(middle, abs=0.05 * width)
        # rounding adds a twelfth to the variance
        assert column.var() == pytest.approx(width**2 + 1 / 12, rel=0.04)
    with pytest.raises(ValueError, match="`x_mm`"):
        degrade(CLEAN, physical, seed=1)


@pytest.mark.parametrize("edge", ["lose", "clamp"])
def test_what_leaves_the_frame_is_lost_or_clamped(edge):
    events = line_of(10_000, 0, 127, 1, Geometry())
    out = degrade(events, Degradation(smear_x=2, smear_y=2, smear_t=9, edge=edge), seed=1)
    if edge == "clamp":
        assert out.n_hits == 10_000
        assert (out.x == 0).mean() == pytest.approx(0.6, abs=0.02)
    else:
        assert out.n_hits == pytest.approx(0.6 * 0.6 * 0.522 * 10_000, rel=0.05)
    assert out.x.max() <= 10
    assert out.y.min() >= 117
    assert out.t.min() == 1


def noise_of(profile, n_events: int = 30, noise: int = 300) -> Events:
    clean = simulate("line", n_events, seed=1, n_photons=1)
    return degrade(clean, Degradation(signal=0, noise=noise, profiles=(profile,)), seed=2)


def test_blob_and_burst():
    fixed = noise_of(Blob(width=4, centre=(44, 60)))
    assert fixed.x.mean() == pytest.approx(44, abs=0.2)
    assert fixed.y.std() == pytest.approx(4, rel=0.05)
    assert fixed.t.std() == pytest.approx(1000 / np.sqrt(12), rel=0.03)
    cut = noise_of(Blob(width=4, centre=(0, 0)))
    assert np.diff(cut.offset).tolist() == [300] * 30  # cut off, never lost
    # the normal distribution from -1/8 to 1/8, of what lies above -1/8
    assert (cut.x == 0).mean() == pytest.approx(0.0995 / 0.5497, abs=0.015)
    burst = noise_of(Burst(width=3, centre=500))
    assert burst.t.mean() == pytest.approx(500, abs=0.2)
    assert burst.t.std() == pytest.approx(3, rel=0.05)
    for drawn, axis, size in ((noise_of(Blob(width=2)), "x", 88), (noise_of(Burst()), "t", 1000)):
        centres = [np.median(getattr(event, axis)) for event in drawn]
        assert np.std(centres) == pytest.approx(size / np.sqrt(12), rel=0.35)


def test_hot_pixels_and_lines():
    drawn = noise_of(HotPixels(pixels=3))
    pixels = drawn.x.astype(int) + 88 * drawn.y.astype(int)
    assert len(set(pixels.tolist())) == 3  # the same in all events
    given = noise_of(HotPixels(pixels=((3, 100), (80, 5))))
    assert set(zip(given.x.tolist(), given.y.tolist(), strict=True)) == {(3, 100), (80, 5)}
    assert (given.x == 3).mean() == pytest.approx(0.5, abs=0.03)
    lines = noise_of(HotLines(rows=(7, 90), columns=(5,)))
    assert ((lines.x == 5) | (lines.y == 7) | (lines.y == 90)).all()
    for is_line in (lines.x == 5, lines.y == 7, lines.y == 90):
        assert is_line.mean() == pytest.approx(1 / 3, abs=0.03)
    assert lines.x[lines.y == 7].mean() == pytest.approx(43.5, abs=2)
    assert lines.y[lines.x == 5].max() >= 126


def test_measured_noise_is_consecutive_and_brings_its_columns():
    source = Events(
        Geometry(),
        np.array([0, 50, 120]),
        np.arange(120) % 88,
        np.arange(120) % 128,
        np.arange(120) + 1,
        hit={"charge": np.arange(120) + 0.5},
    )
    clean = simulate("line", 50, seed=1, n_photons=4)
    clean = clean.with_hits(clean.offset, {**clean.hit_columns(), "charge": np.ones(clean.n_hits)})
    degradation = Degradation(noise=100, profiles=(MeasuredNoise(source), Uniform()))
    noisy = degrade(clean, degradation, seed=1)
    is_signal = noisy.label > 0
    assert (noisy.hit["charge"][is_signal] == 1).all()
    is_measured = ~is_signal & ~np.isnan(noisy.hit["charge"])
    assert is_measured.sum() == pytest.approx(2500, rel=0.1)
    np.testing.assert_array_equal(noisy.hit["charge"][is_measured], noisy.t[is_measured] - 0.5)
    first = set()
    for event in noisy.select(is_measured):
        first.add(int(event.t[0]))
        assert (np.diff(event.t.astype(int)) % 120 == 1).all()
    assert len(first) > 20
    with pytest.raises(ValueError, match="geometry"):
        degrade(replace(clean, geometry=Geometry(100)), degradation, seed=1)


def test_profiles_mix_by_weight():
    clean = simulate("line", 100, seed=1, n_photons=1)
    hot = tuple(HotPixels(weight, ((i, 0),)) for i, weight in enumerate((1, 0, 3)))
    noisy = degrade(clean, Degradation(signal=0, noise=200, profiles=hot), seed=1)
    share = np.bincount(noisy.x) / noisy.n_hits
    np.testing.assert_allclose(share, [0.25, 0, 0.75], atol=0.02)


def test_dead_lines_lose_all_their_hits():
    dead = Degradation(noise=300, dead_rows=(3, 4), dead_columns=(50,))
    alive = degrade(CLEAN, replace(dead, dead_rows=(), dead_columns=()), seed=1)
    noisy = degrade(CLEAN, dead, seed=1)
    expected = alive.select(~(np.isin(alive.y, (3, 4)) | (alive.x == 50)))
    for name in ("x", "y", "t", "label"):
        np.testing.assert_array_equal(noisy.hit_columns()[name], expected.hit_columns()[name])


def test_truth_of_every_hit():
    noisy = degrade(CLEAN, Degradation(choose_from="hits", noise=500), seed=1)
    hidden = noisy.hit["is_occluded"]
    assert hidden.sum() == rasterise(noisy).n_occluded.sum()
    for event in noisy[:4]:
        for k in range(event.n_hits):
            together = (event.x == event.x[k]) & (event.y == event.y[k])
            later = event.t > event.t[k]
            later |= (event.t == event.t[k]) & (np.arange(event.n_hits) < k)
            assert event.hit["is_occluded"][k] == (together & later).any()
    # signal first, unaltered, then noise
    for event, clean in zip(noisy, CLEAN, strict=True):
        assert (np.diff(event.label.astype(int)) <= 0).all()
        np.testing.assert_array_equal(event.t[: clean.n_hits], clean.t)


def test_known_noise_and_unknown_labels():
    labels = np.arange(CLEAN.n_hits) % 3
    mixed = degrade(
        replace(CLEAN, label=labels), Degradation(signal=4, smear_t=50, smear_x=9), seed=1
    )
    np.testing.assert_array_equal(mixed.t[mixed.label == 0], CLEAN.t[labels == 0])
    is_signal = mixed.label > 0
    assert np.bincount(mixed.event_index()[is_signal]).max() <= 4
    unknown = degrade(replace(CLEAN, label=None), Degradation(noise=3), seed=1)
    assert unknown.label.sum() == CLEAN.n_hits


def test_empty_events_and_batches_are_legal():
    empty = CLEAN.select(np.zeros(CLEAN.n_hits, bool))
    assert degrade(empty, EVERYTHING, seed=1).label.sum() == 0
    assert degrade(empty, Degradation(signal=30, noise=5), seed=1).n_hits == 5 * N
    assert degrade(CLEAN, Degradation(signal=0), seed=1).n_hits == 0
    assert len(degrade(CLEAN[:0], EVERYTHING, seed=1)) == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"signal": -1}, "`signal` to be a whole number of hits"),
        ({"noise": (5, 2)}, "`noise` to be a whole number of hits"),
        ({"noise": 2.5}, "`noise`"),
        ({"smear_x": -1.0}, "`smear_x`"),
        ({"smear_t": float("nan")}, "`smear_t`"),
        ({"edge": "wrap"}, "`edge`"),
        ({"unit": "metre"}, "`unit`"),
        ({"choose_from": "pixel"}, "Did you mean 'pixels'"),
        ({"profiles": ()}, "`profiles`"),
        ({"profiles": (Uniform(-1.0),)}, "`weight`"),
    ],
)
def test_settings_without_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Degradation(**settings)


def test_profiles_without_sense_are_refused():
    for make, sentence in (
        (lambda: Blob(width=0), "`width`"),
        (lambda: Burst(width=float("inf")), "`width`"),
        (lambda: HotPixels(pixels=0), "`pixels`"),
        (lambda: HotLines(), "`rows`"),
        (lambda: MeasuredNoise(CLEAN[:0]), "`events`"),
        (lambda: degrade(CLEAN, EVERYTHING, seed=1, event_index=[1]), "`event_index`"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
