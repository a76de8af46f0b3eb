"""Events from arrays and awkward arrays: checked once, with the cure that is right."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from dense_imb.hits import Events, Geometry, Sensors, from_arrays, from_awkward, to_awkward

FRAME = Geometry(8, 10, 100)
X, Y, T = [1, 2, 3, 4], [5, 6, 7, 8], [10, 20, 30, 40]
TABLE = Sensors(np.arange(15.0).reshape(5, 3))


def made(geometry=FRAME, **changes):
    columns = {"counts": [1, 3], "x": X, "y": Y, "t": T} | changes
    return from_arrays(geometry, **{n: c for n, c in columns.items() if c is not None})


def test_offsets_counts_and_numbers_of_events_mean_the_same():
    for start in ({"counts": [1, 3]}, {"offset": [0, 1, 4]}, {"event_id": [7, 9, 9, 9]}):
        events = made(**{"counts": None, **start}, label=[0, 1, 2, 0], charge=[0.5, 1, 2, 3])
        assert events.offset.tolist() == [0, 1, 4]
        assert events.label.tolist() == [0, 1, 2, 0]
        assert events.hit["charge"].tolist() == [0.5, 1, 2, 3]
    assert events.event["event_id"].tolist() == [7, 9]


def test_hits_without_order_are_sorted_stably():
    events = made(counts=None, event_id=[9, 7, 9, 7], charge=[1, 2, 3, 4], run=[5, 6])
    assert events.event["event_id"].tolist() == [7, 9]
    assert events.event["run"].tolist() == [5, 6]
    assert events.x.tolist() == [2, 4, 1, 3]
    assert events.hit["charge"].tolist() == [2, 4, 1, 3]


def test_a_key_of_run_and_event_keeps_runs_apart():
    events = made(counts=None, event_id=[[1, 0], [0, 0], [1, 0], [0, 1]])
    assert events.event["event_id"].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert events.x.tolist() == [2, 4, 1, 3]


def test_tensors_stay_tensors_and_the_classmethod_is_the_function():
    events = Events.from_arrays(FRAME, counts=[1, 3], x=X, y=Y, t=torch.tensor(T))
    assert events.is_torch
    assert events.x.tolist() == X
    assert not made().is_torch


def test_columns_of_another_geometry_are_further_columns():
    assert made(sensor=[9, 9, 9, 9]).hit["sensor"].tolist() == [9] * 4
    events = made(TABLE, x=[0.5, 1, 2, 3], y=None, sensor=[0, 4, 4, 1])
    assert events.hit["x"].tolist() == [0.5, 1, 2, 3]
    assert events.x is None


def test_no_hits_and_no_events_are_events():
    assert len(from_arrays(FRAME, counts=[], x=[], y=[], t=[])) == 0
    assert from_arrays(FRAME, offset=[0, 0, 0], x=[], y=[], t=[]).offset.tolist() == [0, 0, 0]
    assert len(from_arrays(FRAME, event_id=[], x=[], y=[], t=[])) == 0


def test_sensors_take_any_finite_time():
    events = made(TABLE, x=None, y=None, sensor=[0, 4, 4, 1], t=[-5.5, 0, 1e6, 3])
    assert events.sensor.tolist() == [0, 4, 4, 1]
    assert events.t.tolist() == [-5.5, 0, 1e6, 3]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"counts": None}, "Expected one of `event_id`, `offset` and `counts`, got none"),
        ({"offset": [0, 4]}, "got `offset` and `counts`"),
        (
            {"counts": [0, 1, 4]},
            "add up to the number of hits, 4, got 5; they are offsets: p",
        ),
        ({"counts": [1, 2]}, "got 3; count the hits"),
        ({"counts": None, "offset": [1, 3]}, "0 to the number of hits, 4, .*: pass `counts=`"),
        ({"counts": None, "offset": [0, 1]}, "end of the last event is missing, append 4"),
        ({"counts": None, "offset": [1, 4]}, "put 0 in front"),
        ({"counts": None, "offset": [0, 3, 1, 4]}, "got 3 then 1; .*`event_id=`"),
        ({"counts": None, "offset": [0, 1.5, 4]}, "whole numbers in `offset`, got 1.5"),
        ({"counts": None, "event_id": [1, 3]}, "for each of the 4 hits, got .*are `counts`"),
        ({"x": None}, "Expected `x`, `y`, `t` for hits of 8 x 10 x 100, got no `x`"),
        ({"x": [1, 2, 3]}, "`x` with one entry for each of the 4 hits, got 3"),
        ({"x": [0.5, 1, 2, 3]}, "whole numbers in `x`, got 0.5 at 0. Coordinates in mm need pix"),
        ({"x": [1, 2, 3, 8]}, "`x` from 0 to 7, got 8; they count from 1: subtract 1"),
        ({"x": [0, 2, 3, 9], "y": [0, 1, 2, 3]}, "`x` from 0 to 7, got 9; .*swapped"),
        ({"x": [0, 2, 3, 90]}, "`x` from 0 to 7, got 90; declare `width=91` or more"),
        ({"y": [-2, 2, 3, 4]}, "`y` from 0 to 9, got -2; add 2"),
        ({"t": [500.0, 700, 800, 900]}, "got times from 500 to 900; if they are in ns, divide"),
        ({"t": [0.1, 0.2, 0.3, 0.4]}, "from 0.1 to 0.4; fractions are no steps"),
        ({"t": [0, 20, 30, 40]}, "0 means no hit, steps count from 1: add 1"),
        ({"t": [-20, 20, 30, 40]}, "shift them, for example `t \\+ 21`"),
        ({"t": [1, 20, 30, 101]}, "declare `time_steps=101` or more"),
        ({"t": [1, np.nan, 30, 40]}, "finite numbers in `t`, got nan for hit 1"),
        ({"label": [0, 1, 2, -1]}, "`label` from 0, noise, to 255, got -1"),
        ({"charge": [1, 2, 3]}, "`charge` with one row for each of the 4 hits or 2 events, got 3"),
        ({"t": ["a", "b", "c", "d"]}, "Expected numbers in `t`"),
    ],
)
def test_one_sentence_and_its_cure(changes, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        made(**changes)


def test_the_length_of_a_step_is_named_where_it_is_known():
    with pytest.raises(ValueError, match="divide them by `t_ns`, 0.5"):
        made(Geometry(8, 10, 100, t_ns=0.5), t=[500, 600, 700, 800])


@pytest.mark.parametrize(
    ("sensor", "sentence"),
    [
        ([0, 1, 2, 9], "`sensor` from 0 to 4, the rows of the table, got 9; look each number up"),
        ([1, 1, 2, 5], "got 5; they count from 1: subtract 1"),
        ([-1, 1, 2, 4], "got -1"),
    ],
)
def test_sensors_outside_the_table_are_refused(sensor, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(TABLE, x=None, y=None, sensor=sensor)


def test_awkward_there_and_back():
    pytest.importorskip("awkward", reason="awkward is not installed")
    events = made(label=[0, 1, 2, 0], charge=[0.5, 1, 2, 3], run=[8, 9])
    array = to_awkward(events)
    assert array.x.tolist() == [[1], [2, 3, 4]]
    assert array.run.tolist() == [8, 9]
    back = Events.from_awkward(array, FRAME)
    for name, column in events.hit_columns().items():
        assert np.array_equal(back.hit_columns()[name], column)
    assert back.event["run"].tolist() == [8, 9]
    sensors = made(TABLE, x=None, y=None, sensor=[0, 4, 4, 1])
    assert from_awkward(to_awkward(sensors), TABLE).sensor.tolist() == [0, 4, 4, 1]


def test_fields_of_records_and_other_names():
    awkward = pytest.importorskip("awkward", reason="awkward is not installed")
    array = awkward.Array([
        {"pad": [{"x": 1, "y": 2}], "time": [5.5], "run": 1, "mc": [1, 2, 3]},
        {"pad": [], "time": [], "run": 1, "mc": []},
    ])  # fmt: skip
    names = {"t": "time", "x": "pad.x"}
    with pytest.raises(ValueError, match="as many entries in `mc` as in `time`"):
        from_awkward(array, FRAME, names)
    events = from_awkward(array[["pad", "time", "run"]], FRAME, names)
    assert (events.x.tolist(), events.y.tolist(), events.t.tolist()) == ([1], [2], [5.5])
    assert len(events) == 2
    with pytest.raises(ValueError, match="a field 'tim' for `t`, got only .* Did you mean 'time'?"):
        from_awkward(array, FRAME, {"t": "tim"})
    with pytest.raises(ValueError, match="Expected a field `t`, got only "):
        from_awkward(array, FRAME)


def test_without_awkward_the_cure_is_named(monkeypatch):
    known = builtins.__import__

    def without(name, *rest):
        if name == "awkward":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install awkward"):
        to_awkward(made())
