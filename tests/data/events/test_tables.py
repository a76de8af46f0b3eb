"""Hits to CSV, ROOT, parquet and .npz, and back: every column, grids and sensors."""

from __future__ import annotations

import builtins
from dataclasses import replace

import numpy as np
import pytest

from dense_imb.data.events.convert import to_hits
from dense_imb.data.events.formats import csv_source, npz_hits_source, parquet_source, root_source
from dense_imb.data.events.sensors import read_sensors
from dense_imb.data.events.tables import sensors_path, to_table
from dense_imb.hits import Geometry, HitsFile, HitsWriter, Sensors, from_arrays, open_hits

KINDS = ("csv", "root", "npz", "parquet")
RNG = np.random.default_rng(5)
FRAME = Geometry(8, 10, 100, t_ns=0.5)
TABLE = Sensors(RNG.random((6, 3)), RNG.random((6, 3)))


def need(kind):
    if kind in ("root", "parquet"):
        pytest.importorskip("uproot" if kind == "root" else "pyarrow")
        pytest.importorskip("awkward")


def events_of(kind="grid", n_events=40, is_masked=True):
    counts = RNG.integers(1, 9, n_events)
    n = int(counts.sum())
    where = {"x": RNG.integers(0, 8, n), "y": RNG.integers(0, 10, n)}
    time = RNG.integers(1, 101, n) if kind == "grid" else RNG.random(n).astype(np.float32) * 400
    if kind != "grid":
        where = {"sensor": RNG.integers(0, 6, n), "x": RNG.random(n)}
    more = {"charge": RNG.random(n).astype(np.float32), "stamp": RNG.integers(2**60, 2**61, n)}
    if is_masked:
        more |= {"score": RNG.random(n).astype(np.float32), "keep": RNG.random(n) > 0.5}
    events = from_arrays(FRAME if kind == "grid" else TABLE, counts=counts, t=time, **where,
                         label=RNG.integers(0, 3, n), **more)  # fmt: skip
    event = {"run": np.arange(n_events) // 7, "weight": RNG.random(n_events)}
    return replace(events, event=event)


def write(folder, events):
    with HitsWriter(folder / "hits.h5", events.geometry, overwrite=True) as writer:
        for start in range(0, len(events), 9):
            writer.append(events[start : start + 9])
    return open_hits(folder / "hits.h5", in_memory=False)


def back(folder, path, hits):
    options = {"progress": False, "overwrite": True}
    geometry = hits.geometry
    if isinstance(geometry, Sensors):
        table = sensors_path(path)
        options["sensors"] = None if table is None else read_sensors(table, "m")
    else:
        options |= vars(geometry)
    if path.suffix == ".csv":
        with path.open() as file:
            header = file.readline().strip().split(",")
        names = [name for name in header if f"/event/{name}" in hits.columns]
        source = csv_source(path, event_columns=names)
    else:
        readers = {".root": root_source, ".npz": npz_hits_source, ".parquet": parquet_source}
        source = readers[path.suffix](path)
    to_hits(source, folder / "back.h5", **options)
    return HitsFile(folder / "back.h5")[:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", ["grid", "table"])
def test_there_and_back_every_column_is_the_same(tmp_path, kind, geometry):
    need(kind)
    events = events_of(geometry)
    hits = write(tmp_path, events)
    to_table(hits, tmp_path / f"a.{kind}", progress=False)
    again = back(tmp_path, tmp_path / f"a.{kind}", hits)
    assert again.geometry == events.geometry
    assert again.offset.tolist() == events.offset.tolist()
    assert again.hit_columns().keys() == events.hit_columns().keys()
    for name, column in events.hit_columns().items():
        back_column = again.hit_columns()[name].astype(column.dtype)  # text has no types
        assert np.array_equal(back_column, column), name
    assert {*again.event} - {"event_id"} == {*events.event}
    for name, column in events.event.items():
        assert np.array_equal(again.event[name], column), name


@pytest.mark.parametrize("number", [[3, 5, 9, 12], [5, 3, 3, 12]])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_events_come_back(tmp_path, kind, number):
    need(kind)
    events = events_of(n_events=4)
    events = replace(events, event={"event_id": np.array(number)})
    hits = write(tmp_path, events)
    to_table(hits, tmp_path / f"a.{kind}", progress=False)
    again = back(tmp_path, tmp_path / f"a.{kind}", hits)
    assert again.event["event_id"].tolist() == number
    assert again.offset.tolist() == events.offset.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_events_without_hits_are_kept_or_said_to_be_lost(tmp_path, kind):
    need(kind)
    events = events_of(n_events=4)
    is_kept = np.ones(events.n_hits, bool)
    is_kept[events.offset[1] : events.offset[2]] = False
    hits = write(tmp_path, events.select(is_kept))
    notes = to_table(hits, tmp_path / f"a.{kind}", progress=False)
    again = back(tmp_path, tmp_path / f"a.{kind}", hits)
    assert len(again) == (3 if kind == "csv" else 4)
    assert notes == ["1 events without hits are not in a.csv, which has one hit a row"] * (
        kind == "csv"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_events_is_a_table_without_rows(tmp_path, kind):
    need(kind)
    hits = write(tmp_path, events_of(n_events=2)[:0])
    to_table(hits, tmp_path / f"a.{kind}", progress=False)
    assert (tmp_path / f"a.{kind}").exists()


def test_columns_of_several_numbers_are_columns_of_one_each(tmp_path):
    events = replace(events_of(n_events=3), event={"vertex": RNG.random((3, 2))})
    to_table(write(tmp_path, events), tmp_path / "a.csv", progress=False)
    header = (tmp_path / "a.csv").read_text().partition("\n")[0]
    assert header.endswith(",vertex_0,vertex_1")


def test_nothing_is_replaced_unasked(tmp_path):
    hits = write(tmp_path, events_of("table"))
    to_table(hits, tmp_path / "a.csv", progress=False)
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(FileExistsError, match=r"/a\.csv, got one; .*overwrite it with `overwr"):
        to_table(hits, tmp_path / "a.csv", progress=False)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(FileExistsError, match=r"no file at .*a_sensors\.csv"):
        to_table(hits, tmp_path / "a.csv", progress=False)
    to_table(hits, tmp_path / "a.csv", overwrite=True, progress=False)
    assert (tmp_path / "a.csv").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a_sensors.csv", "hits.h5"]
    with pytest.raises(ValueError, match=r"end in \.csv, \.root, \.parquet, \.npz, got '\.txt'"):
        to_table(hits, tmp_path / "a.txt")


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    from dense_imb.data.events import tables

    hits = write(tmp_path, events_of())
    monkeypatch.setattr(tables, "_write_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_table(hits, tmp_path / "a.csv", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["hits.h5"]


@pytest.mark.parametrize("action", ["read", "write"])
def test_without_pyarrow_the_cure_is_named(tmp_path, monkeypatch, action):
    known = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return known(name, *rest)

    hits = write(tmp_path, events_of())
    monkeypatch.setattr(builtins, "__import__", without)
    jobs = {
        "read": lambda: parquet_source("a.parquet"),
        "write": lambda: to_table(hits, "a.parquet"),
    }
    with pytest.raises(ImportError, match=rf"to {action} parquet.*'dense-imb\[parquet\]'"):
        jobs[action]()
