"""inspect_hits on tables of sensors: numbers, text and figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.hits import Events, Sensors
from dense_imb.inspection import inspect_hits, text_of
from dense_imb.inspection import sensors as counting
from dense_imb.inspection.figure import draw
from tests.hits.files import some_events, some_sensor_events, some_sensors, write


def look(path, **options):
    found = inspect_hits(path, show_progress=False, **options)
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "nan" not in text_of(found).lower()
    return found


def test_counts_are_those_of_the_hits(tmp_path):
    events = some_sensor_events(80)
    numbers = look(write(tmp_path / "a.h5", events)).numbers
    sensors = events.geometry
    assert numbers["sensors"]["number"] == 40
    np.testing.assert_allclose(
        numbers["sensors"]["extent_m"],
        np.stack([sensors.position.min(0), sensors.position.max(0)], 1),
    )
    assert (numbers["unseen"], numbers["features"]) == ("charge, x", "charge x")
    assert numbers["columns"] == ["/event/run", "/hit/charge", "/hit/x"]
    classes = numbers["partitions"]["hits"]["classes"]
    assert [*classes] == ["noise", "signal 1", "signal 2"]
    place = events.event_index()
    for k, one in enumerate(classes.values()):
        assert one["pixels"] == (events.label == k).sum()
        assert one["images"] == len(np.unique(place[events.label == k]))
    n_hits = np.diff(events.offset)
    assert numbers["per_event"]["hits"]["median"] == np.quantile(n_hits, 0.5, method="inverted_cdf")
    assert numbers["per_event"]["signal"]["max"] == max(
        np.bincount(place, weights=events.label > 0)
    )
    assert numbers["empty_events"] == (n_hits == 0).sum()
    time = numbers["time"]
    assert time["mean"] == pytest.approx(events.t.astype(np.float64).mean())
    assert time["median"] == np.quantile(events.t, 0.5, method="inverted_cdf")
    assert (time["min"], time["max"]) == (events.t.min(), events.t.max())
    wanted, _ = np.histogram(events.t[events.label > 0], time["bin_edges"])
    assert time["histogram"]["signal"] == wanted.tolist()
    by_sensor = np.bincount(events.sensor, minlength=40)
    first = numbers["map"]["hottest"][0]
    assert first["hits_per_event"] == pytest.approx(by_sensor.max() / 80)
    assert by_sensor[first["sensor"]] == by_sensor.max()
    lit = len(np.unique(place[events.sensor == first["sensor"]]))
    assert first["share_of_events"] == pytest.approx(lit / 80)
    assert numbers["map"]["silent_sensors"] == (by_sensor == 0).sum()


def test_the_counts_do_not_depend_on_batches(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", some_sensor_events(60))
    whole = look(path).numbers
    monkeypatch.setattr("dense_imb.inspection.hits._HITS_AT_ONCE", 100)
    assert look(path).numbers == whole


def test_many_times_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_MOST_TIMES", 200)
    events = some_sensor_events(60)
    time = look(write(tmp_path / "a.h5", events)).numbers["time"]
    assert 100 < time["hits"] <= 250
    assert time["median"] == pytest.approx(np.median(events.t), abs=400)


def test_a_hot_sensor_is_named(tmp_path):
    n = 100
    sensor = np.tile(np.arange(20), (n, 1))
    sensor = np.where(np.random.default_rng(0).random((n, 20)) < 0.1, sensor, 7)
    events = Events(
        some_sensors(20),
        np.arange(n + 1) * 20,
        t=np.zeros(20 * n, np.float32),
        label=(np.arange(20 * n) % 2).astype(np.uint8),
        sensor=sensor.reshape(-1).astype(np.uint32),
    )
    found = look(write(tmp_path / "a.h5", events))
    assert found.numbers["map"]["hot_sensors"] == 1
    assert any("sensor 7" in line for line in found.numbers["warnings"])


def test_text_tells_the_table_and_the_features(tmp_path):
    path = write(tmp_path / "a.h5", some_sensor_events(40))
    text = text_of(look(path))
    assert "40 sensors in 3-D, with directions; x -" in text
    assert "not see by itself: charge, x; --hits.features direction charge x lets it" in text
    assert f"dense-imb train hits --hits.train {path}" in text
    assert "Time (ns)" in text
    assert "hits  in " in text
    assert "pixels" not in text
    grid = text_of(look(write(tmp_path / "grid.h5", some_events(20))))
    assert "--hits.features momentum lets it" in grid


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("case", ["plain", "no labels", "no hits", "nothing", "one sensor"])
def test_every_kind_of_file_has_text_and_figure(tmp_path, case, n_axes):
    sensors = Sensors(np.zeros((1, n_axes))) if case == "one sensor" else some_sensors(9, n_axes)
    events = some_sensor_events(20, sensors=sensors)
    if case == "no labels":
        columns = {"t": events.t, "sensor": events.sensor}
        events = Events(sensors, events.offset, **columns)
    elif case in ("no hits", "nothing"):
        empty = np.zeros(0, np.float32)
        offset = np.zeros(4 if case == "no hits" else 1, np.int64)
        events = Events(sensors, offset, t=empty, sensor=empty.astype(np.uint32),
                        label=empty.astype(np.uint8))  # fmt: skip
    found = look(write(tmp_path / "a.h5", events))
    figure = Figure(figsize=(16, 8.5), layout="constrained")
    draw(found, figure)
    axes = {one.get_title(loc="left"): one for one in figure.axes}
    assert "Hits by place, x-y" in axes
    assert ("Hits by place, x-z" in axes) == (n_axes == 3)
    if case == "plain":
        shown = axes["Hits by place, x-y"].collections[0].get_array()
        assert shown.sum() == pytest.approx(events.n_hits / 20)
        assert axes["Hits by place, x-y"].get_xlabel() == "x (m)"
        assert axes["Time spectrum"].get_xlabel().startswith("time (ns)")


def test_the_command_takes_tables_of_sensors(tmp_path, capsys):
    path = write(tmp_path / "a.h5", some_sensor_events(20))
    assert main(["inspect", str(path), "--out", str(tmp_path / "look"), "--quiet"]) == 0
    assert "40 sensors in 3-D" in capsys.readouterr().out
    assert (tmp_path / "look" / "inspect.png").read_bytes().startswith(b"\x89PNG")
