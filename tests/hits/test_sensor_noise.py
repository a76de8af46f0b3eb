"""Degradation of events of a table of sensors: noise at rates, measured noise, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dense_imb.hits import (
    Blob,
    Degradation,
    Events,
    HotPixels,
    MeasuredNoise,
    SensorNoise,
    Uniform,
    degrade,
    simulate,
)
from tests.hits.files import km3net_events, some_sensor_events, some_sensors

SENSORS = some_sensors()
MIXED = some_sensor_events(200)
CLEAN = MIXED.select(MIXED.label > 0)
NOISE = MIXED.select(MIXED.label == 0)


def noise_of(events: Events) -> Events:
    return events.select(events.label == 0)


def spans(events: Events) -> np.ndarray:
    """Time from the first to the last hit of each event."""
    return np.array([np.ptp(event.t) if event.n_hits else 0 for event in events])


def test_uniform_noise_is_uniform_over_sensors_and_the_time_of_the_event():
    noise = noise_of(degrade(CLEAN, Degradation(noise=400), seed=1))
    assert noise.n_hits == 400 * len(CLEAN)
    share = np.bincount(noise.sensor, minlength=40) / noise.n_hits
    np.testing.assert_allclose(share, 1 / 40, rtol=0.1)
    for event, clean in zip(noise, CLEAN, strict=True):
        if clean.n_hits:
            assert clean.t.min() <= event.t.min() <= event.t.max() <= clean.t.max()
            middle = (clean.t.min() + clean.t.max()) / 2
            assert event.t.mean() == pytest.approx(middle, abs=float(np.ptp(clean.t)) / 8 + 1e-3)


def test_sensors_are_drawn_in_proportion_to_their_rates():
    rates = np.arange(40.0)
    profile = SensorNoise(rates, duration=20_000)
    noise = noise_of(degrade(CLEAN, Degradation(noise=400, profiles=(profile,)), seed=1))
    share = np.bincount(noise.sensor, minlength=40) / noise.n_hits
    np.testing.assert_allclose(share, rates / rates.sum(), atol=3e-3)
    assert share[0] == 0
    # noise surrounds the hits, at different places of its time
    place = []
    for event, clean in zip(noise, CLEAN, strict=True):
        assert np.ptp(event.t) <= 20_000
        if clean.n_hits > 1:
            assert event.t.min() < clean.t.min() + 500
            assert event.t.max() > clean.t.max() - 500
            place.append((clean.t.min() - event.t.min()) / 20_000)
    assert np.std(place) > 0.2


def test_a_duration_shorter_than_the_event_stays_inside():
    profile = SensorNoise(duration=50.0)
    noise = noise_of(degrade(CLEAN, Degradation(noise=50, profiles=(profile,)), seed=1))
    for event, clean in zip(noise, CLEAN, strict=True):
        assert np.ptp(event.t) <= 50
        if clean.n_hits and np.ptp(clean.t) > 50:
            assert clean.t.min() - 1e-3 <= event.t.min() <= event.t.max() <= clean.t.max() + 1e-3


def test_rates_are_measured_and_give_the_number_of_hits():
    profile = SensorNoise(np.arange(1.0, 41), duration=1000.0)
    assert profile.mean_hits(SENSORS) == pytest.approx(820 * 1e-3)
    noisy = degrade(CLEAN, Degradation(noise=500, profiles=(profile,)), seed=1)
    measured = SensorNoise.measured(noisy, duration=1000.0)
    assert measured.mean_hits(SENSORS) == pytest.approx(500)
    np.testing.assert_allclose(
        measured.rate_khz / measured.rate_khz.sum(), profile.rate_khz / 820, atol=2e-3
    )
    assert SensorNoise.measured(NOISE).duration == pytest.approx(spans(NOISE).mean())
    assert SensorNoise.measured(noisy) == SensorNoise.measured(noisy.torch())
    assert SensorNoise.measured(noisy) != measured


def test_noise_of_a_telescope_keeps_its_rate():
    events = km3net_events(300, 303)
    profile = SensorNoise.measured(events)
    n_noise = (events.label == 0).sum() / 3
    assert profile.mean_hits(events.geometry) == pytest.approx(n_noise)
    assert 3 < profile.rate_khz.mean() < 8  # potassium-40 and dark counts, in kHz
    clean = events.select(events.label > 0)
    noisy = degrade(clean, Degradation(noise=4000, profiles=(profile,)), seed=1)
    assert noisy.n_hits == clean.n_hits + 12_000
    assert (spans(noisy) > 0.9 * spans(events)).all()


def test_measured_noise_covers_its_events_and_brings_its_columns():
    source = replace(NOISE, hit={**NOISE.hit, "charge": np.arange(NOISE.n_hits) + 0.5})
    few = Degradation(noise=3, profiles=(MeasuredNoise(source),))
    noise = noise_of(degrade(CLEAN, few, seed=1))
    for name in ("sensor", "t"):
        taken = source.hit_columns()[name][(noise.hit["charge"] - 0.5).astype(int)]
        np.testing.assert_array_equal(noise.hit_columns()[name], taken)
    event = source.event_index()[(noise.hit["charge"] - 0.5).astype(int)]
    at_most_three = np.diff(source.offset)[event.reshape(-1, 3)[:, 0]] >= 3
    assert (event.reshape(-1, 3).std(1) == 0)[at_most_three].all()  # of one measured event
    assert len(np.unique(event)) > 50
    number = (noise.hit["charge"] - 0.5).reshape(-1, 3)[at_most_three]
    reach = np.ptp(number, 1) / np.diff(source.offset)[event.reshape(-1, 3)[at_most_three, 0]]
    assert reach.mean() > 0.5  # not three in a row: thinned evenly


@pytest.mark.parametrize("n", [1, 100, NOISE.n_hits - 1, NOISE.n_hits, 2 * NOISE.n_hits + 5])
def test_measured_hits_are_used_once_before_any_is_used_twice(n):
    degradation = Degradation(noise=n, profiles=(MeasuredNoise(NOISE),))
    for event in noise_of(degrade(CLEAN[:4], degradation, seed=1)):
        key = np.stack([event.t, event.hit["x"]])
        assert np.unique(key, axis=1, return_counts=True)[1].max() == -(-n // NOISE.n_hits)


def test_measured_noise_of_another_table_is_refused():
    other = replace(NOISE, geometry=some_sensors(with_direction=False))
    degradation = Degradation(noise=3, profiles=(MeasuredNoise(other),))
    with pytest.raises(ValueError, match="geometry of the events, a table with directions, got"):
        degrade(CLEAN, degradation, seed=1)


def test_profiles_mix_and_further_columns_are_empty():
    profiles = (MeasuredNoise(NOISE, weight=1), SensorNoise(weight=3))
    noise = noise_of(degrade(CLEAN, Degradation(noise=100, profiles=profiles), seed=1))
    assert np.isnan(noise.hit["charge"]).mean() == pytest.approx(0.75, abs=0.02)


def test_signal_is_thinned_and_smeared_in_time():
    plain = degrade(CLEAN, Degradation(signal=7), seed=1)
    assert np.array_equal(np.diff(plain.offset), np.minimum(np.diff(CLEAN.offset), 7))
    assert not plain.hit["is_occluded"].any()
    for edge in ("lose", "clamp"):
        for unit in ("pixel", "physical"):
            how = Degradation(signal=7, smear_t=20.0, edge=edge, unit=unit)
            smeared = degrade(CLEAN, how, seed=1)
            assert np.array_equal(smeared.sensor, plain.sensor)
            assert np.std(smeared.t - plain.t) == pytest.approx(20, rel=0.1)


def test_batches_change_nothing():
    how = Degradation(
        signal=(3, 9), noise=(10, 50), smear_t=3.0, profiles=(SensorNoise(2.0, 900), Uniform())
    )
    whole = degrade(CLEAN, how, seed=3, epoch=2)
    parts = [degrade(CLEAN[k], how, seed=3, epoch=2, event_index=[k]) for k in range(len(CLEAN))]
    for name, column in whole.hit_columns().items():
        joined = np.concatenate([part.hit_columns()[name] for part in parts])
        np.testing.assert_array_equal(column, joined, err_msg=name)
    torch_events = degrade(CLEAN.torch(), how, seed=3, epoch=2)
    np.testing.assert_array_equal(torch_events.numpy().t, whole.t)


def test_empty_events_are_legal():
    empty = CLEAN.select(np.zeros(CLEAN.n_hits, bool))
    noise = degrade(empty, Degradation(noise=5, profiles=(SensorNoise(1.0, 100.0),)), seed=1)
    assert noise.n_hits == 5 * len(empty)
    assert (np.abs(noise.t) <= 100).all()
    assert len(degrade(empty[:0], Degradation(noise=5), seed=1)) == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"smear_x": 1.0}, "`smear_x` needs a grid of pixels, and these hits are of 40 sensors"),
        ({"smear_y": 1.0}, "`smear_y` needs a grid"),
        ({"dead_rows": (3,)}, "`dead_rows` needs a grid"),
        ({"dead_columns": (3,)}, "`dead_columns` needs a grid"),
        ({"noise": 3, "profiles": (Uniform(), Blob())}, "got Blob, a profile of pixels"),
        ({"noise": 3, "profiles": (HotPixels(),)}, "got HotPixels, a profile of pixels"),
        (
            {"noise": 3, "profiles": (SensorNoise([1.0] * 39),)},
            "one rate for each of the 40 sensors, got 39",
        ),
    ],
)
def test_options_of_pixels_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        degrade(CLEAN, Degradation(**settings), seed=1)


def test_noise_without_sense_is_refused():
    for rates in (0.0, -1.0, np.nan, [0.0, 0.0], [1.0, -1.0], [[1.0]]):
        with pytest.raises(ValueError, match="`rate_khz` as a number above 0"):
            SensorNoise(rates)
    with pytest.raises(ValueError, match="`duration` above 0 ns"):
        SensorNoise(duration=0)
    with pytest.raises(ValueError, match="`duration` of the noise in ns, got none"):
        SensorNoise().mean_hits(SENSORS)
    with pytest.raises(ValueError, match="with noise hits over some time, got 0 noise hits"):
        SensorNoise.measured(CLEAN)
    arcs = simulate("arc", 2, seed=1)
    with pytest.raises(ValueError, match="MeasuredNoise takes noise of grids"):
        SensorNoise.measured(arcs)
    with pytest.raises(ValueError, match="a table of sensors for SensorNoise, got a grid of 88"):
        degrade(arcs, Degradation(noise=3, profiles=(SensorNoise(),)), seed=1)
    assert repr(SensorNoise(np.ones(70_000))).startswith("SensorNoise(70000 rates, ")
