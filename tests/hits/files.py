"""Events and hits files to test with."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from dense_imb.hits import Events, Geometry, HitsWriter, Sensors

FRAME = Geometry(width=88, height=128, time_steps=1000, x_mm=0.4, t_ns=0.05)


def some_events(n_events: int, seed: int = 0, mean: float = 20.0) -> Events:
    """Events of every kind: many without hits, all columns that the format knows and further."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(mean, n_events) * (rng.random(n_events) > 0.2)
    n = int(count.sum())
    return Events(
        FRAME,
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        rng.integers(0, 88, n).astype(np.uint16),
        rng.integers(0, 128, n).astype(np.uint16),
        rng.integers(1, 1001, n).astype(np.uint16),
        rng.integers(0, 3, n).astype(np.uint8),
        hit={
            "score": rng.random(n).astype(np.float32),
            "keep": rng.random(n) > 0.5,
            "momentum": rng.normal(size=(n, 3)),
        },
        event={
            "run": np.arange(n_events) + 100 * seed,
            "is_calibration": rng.random(n_events) > 0.5,
        },
    )


def some_sensors(n_sensors: int = 40, n_axes: int = 3, *, with_direction: bool = True) -> Sensors:
    """A table of sensors at random positions within 100 m."""
    rng = np.random.default_rng(7)
    position = rng.uniform(-50, 50, (n_sensors, n_axes))
    return Sensors(position, rng.normal(size=position.shape) if with_direction else None)


def some_sensor_events(n_events: int, seed: int = 0, sensors: Sensors | None = None) -> Events:
    """Events of a table of sensors: some without hits, with further columns."""
    sensors = some_sensors() if sensors is None else sensors
    rng = np.random.default_rng(seed)
    count = rng.poisson(30.0, n_events) * (rng.random(n_events) > 0.2)
    n = int(count.sum())
    return Events(
        sensors,
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        t=rng.uniform(-100, 3000, n).astype(np.float32),
        label=rng.integers(0, 3, n).astype(np.uint8),
        hit={"charge": rng.random(n).astype(np.float32), "x": rng.random(n)},
        event={"run": np.arange(n_events) + 100 * seed},
        sensor=rng.integers(0, len(sensors), n).astype(np.uint32),
    )


def km3net_events(first: int, last: int) -> Events:
    """Events of the neutrino telescope; the test is skipped where the data are missing."""
    folder = os.environ.get("DENSE_IMB_DATA")
    path = Path(folder or "") / "km3net_muons" / "events.h5"
    if folder is None or not path.exists():
        pytest.skip("needs DENSE_IMB_DATA with km3net_muons")
    with h5py.File(path) as file:
        offset = file["event/offset"][first : last + 1].astype(np.int64)
        hits = slice(int(offset[0]), int(offset[-1]))
        return Events(
            Sensors(file["sensor/position_m"][:], file["sensor/direction"][:]),
            offset - offset[0],
            t=file["hit/t_ns"][hits],
            label=file["hit/label"][hits],
            hit={"tot": file["hit/tot_ns"][hits].astype(np.float32)},
            sensor=file["hit/sensor"][hits].astype(np.uint32),
        )


def write(path: Path, events: Events, batch: int = 10_000, **options: object) -> Path:
    with HitsWriter(path, events.geometry, **options) as writer:  # type: ignore[arg-type]
        for start in range(0, len(events), batch):
            writer.append(events[start : start + batch])
    return path


def assert_same(got: Events, wanted: Events) -> None:
    assert got.geometry == wanted.geometry
    np.testing.assert_array_equal(got.offset, wanted.offset)
    for actual, expected in (
        (got.hit_columns(), wanted.hit_columns()),
        (dict(got.event), dict(wanted.event)),
    ):
        assert actual.keys() == expected.keys()
        for name, column in expected.items():
            assert actual[name].dtype == column.dtype, name
            np.testing.assert_array_equal(actual[name], column, err_msg=name)
