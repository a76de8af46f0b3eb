"""Files of sensor tables (format version 2): written, read, checked and refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dense_imb.data.events.combine import merge_hits, split_hits
from dense_imb.hits import (
    Events,
    Geometry,
    HitsFile,
    HitsFileError,
    HitsFiles,
    HitsWriter,
    Sensors,
    collate_events,
    concatenate,
    mask_file,
    mask_files,
    verify,
)
from tests.hits.files import assert_same, some_events, some_sensor_events, some_sensors, write

EVENTS = some_sensor_events(30)
LAST = int(np.searchsorted(EVENTS.offset, EVENTS.n_hits)) - 1  # the last event with hits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "sensors.h5", EVENTS, 7)


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("with_direction", [True, False])
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_goes_in_comes_out(
    tmp_path: Path, n_axes: int, with_direction: bool, in_memory: bool
) -> None:
    sensors = some_sensors(n_axes=n_axes, with_direction=with_direction)
    events = replace(EVENTS, geometry=sensors)
    with HitsFile(write(tmp_path / "a.h5", events, 7), in_memory=in_memory) as hits:
        assert_same(hits[:], events)
        assert_same(hits[[7, 3, 7]], events.take([7, 3, 7]))
        assert hits.geometry == sensors
        assert (hits.geometry.direction is None) == (not with_direction)
        assert hits.columns.keys() == {
            *("/event/offset", "/event/run", "/hit/charge", "/hit/x"),
            *("/hit/sensor", "/hit/t", "/hit/label"),
        }


def test_the_layout_is_the_promised_one(path: Path) -> None:
    with h5py.File(path) as file:
        assert {"format_version", "geometry"} < set(file.attrs)
        assert (file.attrs["format_version"], file.attrs["geometry"]) == (2, b"sensors")
        assert not {"width", "height", "time_steps"} & set(file.attrs)
        types = {name: file[name].dtype.str for name in ("hit/sensor", "hit/t", "sensor/position")}
        assert types == {"hit/sensor": "<u4", "hit/t": "<f4", "sensor/position": "<f4"}
        assert file["sensor/direction"].shape == (40, 3)
    assert {"/sensor/position", "/sensor/direction", "/hit/sensor"} < verify(path).keys()


def test_a_file_of_a_grid_stays_version_1(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", some_events(3))) as file:
        assert file.attrs["format_version"] == 1
        assert "geometry" not in file.attrs
        assert set(file) == {"event", "hit"}
        hashed = json.loads(file.attrs["content_hash"])
        assert not any(name.startswith("/sensor") for name in hashed)


def test_a_column_of_a_grid_may_be_named_sensor(tmp_path: Path) -> None:
    events = some_events(5)
    events = replace(events, hit={**events.hit, "sensor": events.x.astype(np.float64)})
    with HitsFile(write(tmp_path / "a.h5", events)) as hits:
        assert_same(hits[:], events)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("f4", "f4"), ("f8", "f8"), ("i8", "f8"), ("i4", "f8"), ("u2", "f4"), ("i2", "f4")],
)
def test_times_are_stored_without_loss(tmp_path: Path, given: str, stored: str) -> None:
    times = (EVENTS.t + 100).astype(given)
    times[0] += 0.1 if given == "f8" else 0
    with HitsFile(write(tmp_path / "a.h5", replace(EVENTS, t=times))) as hits:
        assert hits.columns["/hit/t"] == np.dtype(stored)
        np.testing.assert_array_equal(hits[:].t, times)


def test_a_file_without_events(tmp_path: Path) -> None:
    with HitsWriter(tmp_path / "none.h5", some_sensors()):
        pass
    with HitsFile(tmp_path / "none.h5") as hits:
        assert (len(hits), hits.n_hits, hits[:].n_hits) == (0, 0, 0)
        assert hits.geometry == some_sensors()
    verify(tmp_path / "none.h5")


def test_pickles_and_workers_keep_the_table(path: Path) -> None:
    for in_memory in (True, False):
        with HitsFile(path, in_memory=in_memory) as hits:
            assert_same(pickle.loads(pickle.dumps(hits))[:], EVENTS)
            loader = DataLoader(hits, batch_size=8, num_workers=2, collate_fn=collate_events)
            assert_same(concatenate([events.numpy() for events in loader]), EVENTS)


def test_several_files_hold_one_table(tmp_path: Path) -> None:
    parts = [some_sensor_events(9, seed=k) for k in range(3)]
    paths = [write(tmp_path / f"{k}.h5", part) for k, part in enumerate(parts)]
    with HitsFiles(paths) as hits:
        assert_same(hits[:], concatenate(parts))
        assert len({id(file.geometry) for file in hits.files}) == 1


def moved(sensors: Sensors) -> Sensors:
    position = sensors.position.copy()
    position[3, 0] = 5
    return Sensors(position, sensors.direction)


def turned(sensors: Sensors) -> Sensors:
    return Sensors(sensors.position, -sensors.direction)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (some_sensors(50), "a table of 40 sensors in 3-D, got a table of 50 sensors in 3-D"),
        (moved(some_sensors()), r"a table with \[.*\] m in row 3, got a table with \[5.0, .*row 3"),
        (
            turned(some_sensors()),
            r"a table with \[.*\] as direction in row 0, got a table with .* in row 0",
        ),
        (
            some_sensors(with_direction=False),
            "a table with directions, got a table without directions",
        ),
        (None, "a table of 40 sensors in 3-D, got a grid of 88 x 128 x 1000"),
    ],
)
def test_files_of_two_geometries(
    path: Path, tmp_path: Path, other: Sensors | None, message: str
) -> None:
    events = some_events(3) if other is None else some_sensor_events(3, sensors=other)
    second = write(tmp_path / "other.h5", events)
    wanted = rf"Expected {second} with the geometry of {path}, {message}; convert one of them"
    with pytest.raises(ValueError, match=wanted):
        HitsFiles([path, second])
    with (
        HitsWriter(tmp_path / "new.h5", some_sensors()) as writer,
        pytest.raises(ValueError, match=f"events of the geometry of .*{message}"),
    ):
        writer.append(events)


Fault = Callable[[h5py.File], None]


def value(name: str, number: float) -> Fault:
    return lambda file: file[name].__setitem__(-1, number)


def replaced(name: str, data: object) -> Fault:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = data

    return change


def without(*names: str) -> Fault:
    return lambda file: [file.__delitem__(name) for name in names] and None


def attribute(name: str, number: object) -> Fault:
    return lambda file: file.attrs.__setitem__(name, number)


def as_version_1(file: h5py.File) -> None:
    file.attrs.update({"format_version": 1, "width": 8, "height": 8, "time_steps": 8})
    del file["hit/x"]


FAULTS: dict[str, tuple[Fault, str]] = {
    "sensor outside": (
        value("hit/sensor", 40),
        f"`/hit/sensor` of F from 0 to 39, got 40 in event {LAST} .*; drop the hit or add its",
    ),
    "NaN": (value("hit/t", np.nan), f"`/hit/t` of F as finite numbers, got nan in event {LAST} "),
    "infinite": (value("hit/t", -np.inf), "`/hit/t` of F as finite numbers, got -inf in event"),
    "no position": (without("hit/sensor"), "`/hit/sensor` in F for the position of hits, got"),
    "no position on a grid": (as_version_1, "`/hit/x` in F .*; a file of sensors needs"),
    "no group": (without("sensor"), "group `/sensor` in F"),
    "no table": (without("sensor/position"), "`/sensor/position` in F, got only"),
    "newer": (attribute("format_version", 3), "`format_version` of F to be 1 or 2, got 3; a new"),
    "other": (attribute("geometry", np.bytes_("wires")), "`geometry` of F .*, got 'wires'; a new"),
    "NaN in the table": (
        value("sensor/position", np.nan),
        "`position` with finite numbers, got .* in row 39 of `/sensor` of F",
    ),
    "shape of the table": (
        replaced("sensor/position", np.zeros((40, 4), "f4")), "`position` in the shape .* of F"
    ),
    "two shapes": (
        replaced("sensor/direction", np.zeros((3, 3), "f4")), "`direction` in the shape .* of F"
    ),
    "type of the table": (
        replaced("sensor/position", np.zeros((40, 3))), "`/sensor/position` of F in rows of float32"
    ),
    "type of sensor": (
        replaced("hit/sensor", EVENTS.sensor.astype("i8")), "`/hit/sensor` of F .* uint32, got"
    ),
    "lengths": (
        lambda file: file["hit/t"].resize(EVENTS.n_hits - 1, axis=0), "`/hit/t` of F with one row"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_by_name(path: Path, name: str) -> None:
    change, message = FAULTS[name]
    with h5py.File(path, "r+") as file:
        change(file)
    for open_it in (HitsFile, HitsFiles):
        with pytest.raises(HitsFileError, match=message.replace(" F", f" {path}")) as caught:
            open_it(path)
        sentence = str(caught.value)
        assert sentence.startswith("Expected ")
        assert sentence.endswith(".")
        assert "\n" not in sentence


@pytest.mark.parametrize("name", ["position", "direction"])
def test_a_changed_table_is_noticed(path: Path, name: str) -> None:
    verify(path)
    with h5py.File(path, "r+") as file:
        file[f"sensor/{name}"][0, 0] = 1.5
    with pytest.raises(HitsFileError, match=f"another in `/sensor/{name}`;"):
        verify(path)


def test_a_refused_batch_is_not_written(tmp_path: Path) -> None:
    outside, late = EVENTS.sensor.copy(), EVENTS.t.copy()
    outside[-1], late[-1] = 40, np.nan
    with HitsWriter(tmp_path / "a.h5", EVENTS.geometry) as writer:
        with pytest.raises(HitsFileError, match="from 0 to 39, got 40"):
            writer.append(replace(EVENTS, sensor=outside))
        writer.append(EVENTS)
        with pytest.raises(HitsFileError, match="as finite numbers, got nan"):
            writer.append(replace(EVENTS, t=late))
        with pytest.raises(ValueError, match="columns of the first batch"):
            writer.append(replace(EVENTS, label=None))
        writer.append(EVENTS.torch())  # wide types become those of the format
    with HitsFile(tmp_path / "a.h5") as hits:
        assert_same(hits[:30], EVENTS)
        assert_same(hits[30:], EVENTS)


def test_split_and_merge_keep_the_table(path: Path, tmp_path: Path) -> None:
    parts = {tmp_path / "a.h5": 0.5, tmp_path / "b.h5": 0.5}
    with HitsFile(path) as hits:
        assert sum(split_hits(hits, parts, progress=False)) == 30
    merge_hits([*parts], tmp_path / "merged.h5", progress=False)
    with HitsFile(tmp_path / "merged.h5") as merged:
        order = np.argsort(merged[:].event["run"])
        assert_same(merged[order], EVENTS)
    verify(tmp_path / "merged.h5")
    grid = write(tmp_path / "grid.h5", some_events(3))
    with pytest.raises(ValueError, match="got a grid of 88 x 128 x 1000"):
        merge_hits([path, grid], tmp_path / "no.h5", progress=False)
    assert not (tmp_path / "no.h5").exists()


@dataclass
class Late:
    """Scores late hits higher."""

    name: str = "late"
    geometry: Geometry | Sensors | None = None

    def score(self, events: Events) -> torch.Tensor:
        return ((events.t + 100) / 3200).clamp(0, 1)


@pytest.mark.parametrize("only_kept", [False, True])
def test_masking_keeps_all_columns(path: Path, tmp_path: Path, only_kept: bool) -> None:
    masked = mask_file(path, tmp_path / "clean.h5", Late(), 0.5, only_kept=only_kept)
    assert masked.scores is not None
    with HitsFile(masked.path) as hits:
        events = hits[:]
    keep = (EVENTS.t + 100) / 3200 >= 0.5
    assert masked.n_kept == keep.sum() > 0
    if not only_kept:
        assert np.array_equal(events.hit.pop("keep"), keep)  # type: ignore[attr-defined]
        events.hit.pop("score")  # type: ignore[attr-defined]
        assert_same(events, EVENTS)
    else:
        assert_same(
            replace(events, hit={name: events.hit[name] for name in EVENTS.hit}),
            EVENTS.select(keep),
        )


@pytest.mark.parametrize("only_kept", [False, True])
def test_finished_files_are_skipped(path: Path, tmp_path: Path, only_kept: bool) -> None:
    for is_second in (False, True):
        (done,) = mask_files(path, tmp_path / "out", Late(), 0.5, only_kept=only_kept)
        assert done.is_skipped == is_second
    write(path, replace(EVENTS, geometry=moved(some_sensors())), overwrite=True)
    with pytest.raises(FileExistsError, match="to hold the hits of"):
        mask_files(path, tmp_path / "out", Late(), 0.5, only_kept=only_kept)


def test_scorers_of_another_geometry(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with pytest.raises(ValueError, match=r"88 x 128 pixels .* got 40 sensors in 3-D; train"):
        mask_file(path, out, Late(geometry=Geometry()), 0.5)
    with pytest.raises(ValueError, match=r"of 40 sensors in 2-D, as late .* got 40 sensors in 3-D"):
        mask_file(path, out, Late(geometry=some_sensors(n_axes=2)), 0.5)
    mask_file(path, out, Late(geometry=some_sensors(50)), 0.5)
