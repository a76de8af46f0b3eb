"""Tables with one hit a row: rows in any order, keys of run and event, merged events said."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dense_imb.data.events.convert import to_hits
from dense_imb.data.events.formats import csv_source, hdf5_hits_source, lists, rows, source
from dense_imb.data.events.formats.mapping import read_columns
from dense_imb.hits import HitsFile
from tests.data.events.other_formats import read

HEADER = "run,event,x,y,t,charge\n"
# two runs with the event numbers 0 and 1 each
ROWS = ["0,0,1,1,5,0.5", "0,0,2,1,6,1.5", "0,1,3,1,7,2.5", "1,0,4,1,8,3.5", "1,1,5,1,9,4.5"]
KEY = {"event": ["run", "event"]}


def csv(folder, lines=ROWS, header=HEADER):
    (folder / "a.csv").write_text(header + "\n".join(lines) + "\n")
    return folder / "a.csv"


def without_run(folder):
    return csv(folder, [row[2:] for row in ROWS], HEADER[4:])


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 0, 3, 2, 1], [3, 4, 0, 1, 2]])
def test_rows_in_any_order_become_the_same_events(tmp_path, monkeypatch, at_once, order):
    monkeypatch.setattr(lists, "BATCH_HITS", at_once)
    monkeypatch.setattr(source, "BATCH_HITS", at_once)
    events = read(csv_source(csv(tmp_path, [ROWS[k] for k in order]), KEY))
    assert events.offset.tolist() == [0, 2, 3, 4, 5]
    assert events.event["run"].tolist() == [0, 0, 1, 1]
    assert events.event["event_id"].tolist() == [0, 1, 0, 1]
    first = [1, 2] if order.index(0) < order.index(1) else [2, 1]  # stable
    assert events.x.tolist() == [*first, 3, 4, 5]
    assert events.hit["charge"].tolist() == [x - 0.5 for x in events.x.tolist()]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 0, 3, 2, 1]])
def test_merged_runs_are_counted_and_the_cure_named(tmp_path, order):
    one = csv_source(csv(tmp_path, [ROWS[k] for k in order]))
    events = read(one)
    assert events.event["event_id"].tolist() == [0, 1]
    assert events.x.tolist() == ([1, 2, 4, 3, 5] if order[0] == 0 else [1, 4, 2, 5, 3])
    (note,) = one.notes
    assert "`run` varies inside 2 of 2 events of" in note
    assert note.endswith("{columns=event=run,event} keeps them apart")
    apart = csv_source(csv(tmp_path), KEY)
    read(apart)
    assert apart.notes == []


def test_numbers_that_restart_without_a_run_are_noted_or_kept_apart(tmp_path):
    one = csv_source(without_run(tmp_path))
    assert len(read(one)) == 2
    (note,) = one.notes
    assert "`event` of" in note
    assert "restarts 1 times: 2 of 2 events were merged out of 4 blocks of rows; {by_b" in note
    apart = csv_source(without_run(tmp_path), by_block=True)
    events = read(apart)
    assert events.offset.tolist() == [0, 2, 3, 4, 5]
    assert events.event["event_id"].tolist() == [0, 1, 0, 1]
    assert apart.notes == []


def test_shuffled_rows_are_no_restart(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{k // 10},{k % 8},1,{k % 90 + 1}" for k in rng.permutation(500)]
    one = csv_source(csv(tmp_path, lines, "event,x,y,t\n"))
    events = read(one)
    assert np.diff(events.offset).tolist() == [10] * 50
    assert one.notes == []


def test_a_warning_in_python_a_note_where_asked_for(tmp_path):
    options = {"width": 8, "height": 8, "progress": False, "overwrite": True}
    with pytest.warns(UserWarning, match="`columns=event=run,event` keeps them apart."):
        to_hits(csv_source(csv(tmp_path)), tmp_path / "a.h5", **options)
    noted = []
    to_hits(csv_source(csv(tmp_path)), tmp_path / "a.h5", on_note=noted.append, **options)
    assert len(noted) == 1
    assert HitsFile(tmp_path / "a.h5").n_hits == 5


def test_rows_to_sort_need_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_free_memory", lambda: 100)
    with pytest.raises(ValueError, match=r"in the order of their events, or .* GB of memory"):
        read(csv_source(csv(tmp_path, ROWS[::-1]), KEY))
    read(csv_source(csv(tmp_path), KEY))


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (["x=padx,y=pady"], {"x": "padx", "y": "pady"}),
        (
            ["x=padx", "event=run,ev,t=a"],
            {"x": "padx", "event": ["run", "ev"], "t": "a"},
        ),
        (["event=run,", "x=a=b"], {"event": ["run"], "x": "a=b"}),
        ([], {}),
    ],
)
def test_names_of_columns_are_read(words, columns):
    assert read_columns(words) == columns


@pytest.mark.parametrize("words", [["x"], ["x="], ["=x"], ["x=a,b"], ["event,run"]])
def test_names_that_are_none_are_refused(words):
    with pytest.raises(ValueError, match="Expected `columns` like x=padx,y=pady or event=run"):
        read_columns(words)


def test_a_name_given_twice_is_refused():
    with pytest.raises(ValueError, match="`columns` names `x` twice"):
        read_columns(["x=a,x=b"])


def test_a_column_that_is_missing_comes_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="a column 'chrge' in .* Did you mean 'charge'?"):
        csv_source(csv(tmp_path), {"t": "chrge"})
    with pytest.raises(ValueError, match="a column 'rnu' in .*got only run, event"):
        csv_source(csv(tmp_path), {"event": ["rnu", "event"]})
    header = "event,padx,y_mm,toa\n"
    with pytest.raises(ValueError, match="with `columns=x=padx,y=y_mm,t=toa`"):
        csv_source(csv(tmp_path, ["0,1,1,5"], header))


def test_further_columns_by_name_and_columns_of_events(tmp_path):
    assert read(csv_source(csv(tmp_path), KEY, keep=[])).hit == {}
    renamed = read(csv_source(csv(tmp_path), {**KEY, "adc": "charge"}))
    assert [*renamed.hit] == ["adc"]
    assert read(csv_source(csv(tmp_path), KEY, keep=["charge"])).hit.keys() == {"charge"}
    lines = [f"{row},{20.5 + int(row[0])}" for row in ROWS]
    path = csv(tmp_path, lines, HEADER.replace("charge", "charge,temperature"))
    events = read(csv_source(path, KEY, ["temperature"]))
    assert events.event["temperature"].tolist() == [20.5, 20.5, 21.5, 21.5]


@pytest.mark.parametrize("kind", ["arrays", "compound"])
def test_hdf5_with_the_number_of_the_event_of_each_hit(tmp_path, kind):
    table = np.array([tuple(map(float, row.split(","))) for row in ROWS[::-1]],
                     [("run", "i4"), ("event", "i4"), ("x", "u2"), ("y", "u2"), ("t", "f4"),
                      ("charge", "f8")])  # fmt: skip
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "compound":
            file["hits"] = table
        else:
            for name in table.dtype.names:
                file[f"hits/{name}"] = table[name]
    one = hdf5_hits_source(tmp_path / "a.h5", {"event": ["hits/run", "hits/event"]})
    events = read(one)
    assert events.offset.tolist() == [0, 2, 3, 4, 5]
    assert events.x.tolist() == [2, 1, 3, 4, 5]
    assert events.event["run"].tolist() == [0, 0, 1, 1]
    assert events.hit["charge"].tolist() == [1.5, 0.5, 2.5, 3.5, 4.5]
    merged = hdf5_hits_source(tmp_path / "a.h5")
    assert len(read(merged)) == 2
    assert "{columns=event=run,event}" in merged.notes[0]
    assert len(read(hdf5_hits_source(tmp_path / "a.h5", KEY))) == 4
