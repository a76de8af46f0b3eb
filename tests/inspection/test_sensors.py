"""Inspection of hits of a table of sensors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.hits import Events, Sensors
from dense_imb.inspection import inspect_hits, save_figure, text_of
from dense_imb.inspection.figure import draw
from tests.hits.files import write
from tests.tasks.hits.test_networks_of_hits import table, telescope_events


def look(path):
    found = inspect_hits(path, show_progress=False)
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "nan" not in text_of(found).lower()
    return found


def test_counts_are_those_of_the_hits(tmp_path):
    events = telescope_events(12)
    numbers = look(write(tmp_path / "a.h5", events)).numbers
    classes = numbers["partitions"]["hits"]["classes"]
    assert [one["pixels"] for one in classes.values()] == [360, 72, 36]
    assert list(classes) == ["noise", "signal 1", "signal 2"]
    assert numbers["per_event"]["hits"]["mean"] == 39
    sensors = [len(np.unique(event.sensor)) for event in events]
    assert numbers["per_event"]["sensors_hit"]["mean"] == pytest.approx(np.mean(sensors))
    assert numbers["per_event"]["repeated"]["mean"] == pytest.approx(39 - np.mean(sensors))
    duration = [round(float(np.ptp(event.t))) for event in events]
    assert numbers["duration"]["mean"] == pytest.approx(np.mean(duration))
    rate = 1e6 * 360 / (40 * sum(duration))
    assert numbers["sensors"]["noise_rate_khz"] == pytest.approx(rate)
    histogram = numbers["time"]["histogram"]
    assert sum(histogram["hits"]) == sum(histogram["noise"]) + sum(histogram["signal"])
    assert sum(histogram["hits"]) >= 0.99 * events.n_hits
    assert numbers["accuracy"]["blank"] == pytest.approx(360 / 468)


def test_the_text_names_sensors_features_and_the_next_command(tmp_path):
    path = write(tmp_path / "a.h5", telescope_events(12))
    text = text_of(look(path))
    assert "40 sensors in 3-D (x " in text
    assert "times in ns" in text
    assert "which added noise lacks: --hits.features charge\n" in text
    assert text.splitlines()[-1] == f"  dense-imb compare {path} --features charge direction"
    assert "pixel" not in text
    bare = replace(telescope_events(12), hit={})
    text = text_of(look(write(tmp_path / "b.h5", bare)))
    assert "--hits.features" not in text
    assert text.splitlines()[-1] == f"  dense-imb compare {tmp_path / 'b.h5'}"


def test_a_hot_sensor_is_named(tmp_path):
    events = telescope_events(200)
    sensor = events.sensor.copy()
    sensor[::39] = 7
    sensor[1::39] = sensor[2::39] = sensor[3::39] = sensor[4::39] = 7
    numbers = look(write(tmp_path / "a.h5", replace(events, sensor=sensor))).numbers
    assert numbers["sensors"]["hottest"][0]["sensor"] == 7
    assert "1 hot sensors, the hottest number 7" in numbers["warnings"][0]


@pytest.mark.parametrize("kind", ["labels", "no labels", "no events", "empty events", "plane"])
def test_every_kind_of_file_has_text_and_figure(tmp_path, kind):
    events = telescope_events(6, table(2) if kind == "plane" else None)
    if kind == "no labels":
        events = replace(events, label=None)
    if kind == "no events":
        events = events[:0]
    if kind == "empty events":
        events = events.select(np.zeros(events.n_hits, bool))
    found = look(write(tmp_path / "a.h5", events))
    save_figure(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_axes_show_the_counts(tmp_path):
    place = np.repeat([[0.0, 0, 0], [50, 0, 0], [0, 50, 9]], [2, 1, 1], axis=0)
    sensor = np.array([0, 1, 2, 2])
    events = Events(Sensors(place), np.array([0, 4]), t=np.arange(4.0), sensor=sensor,
                    label=np.array([0, 1, 0, 0], np.uint8))  # fmt: skip
    figure = Figure(figsize=(16, 8), layout="constrained")
    draw(look(write(tmp_path / "a.h5", events)), figure)
    axes = {one.get_title(loc="left"): one for one in figure.axes}
    (drawn,) = axes["Hits of all events"].collections
    assert sorted(drawn.get_array().tolist()) == [0, 2, 2]  # two sensors at one place
    sample = axes["Sample event 1: 4 hits"]
    points = [c.get_offsets().tolist() for c in sample.collections]
    assert points == [[[0, 0], [2, 0], [3, 0]], [[1, 0]]]
    assert sample.get_xlabel() == "time (ns)"
