"""Events in memory: slices, columns, and both kinds of arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_imb.hits import Events, Geometry, concatenate


def some_events() -> Events:
    return Events(
        Geometry(),
        np.array([0, 2, 2, 5]),
        np.array([1, 2, 3, 4, 5], np.uint16),
        np.array([6, 7, 8, 9, 10], np.uint16),
        np.array([11.0, 12.0, 13.0, 14.0, 15.0], np.float32),
        np.array([0, 1, 0, 1, 1], np.uint8),
        {"charge": np.arange(5.0)},
        {"run": np.array([7, 8, 9])},
    )


def test_slices_keep_every_column():
    events = some_events()
    part = events[1:3]
    assert (len(part), part.n_hits) == (2, 3)
    assert part.offset.tolist() == [0, 0, 3]
    assert part.hit["charge"].tolist() == [2, 3, 4]
    assert part.event["run"].tolist() == [8, 9]
    assert events[-1].x.tolist() == [3, 4, 5]
    assert len(events[2:1]) == 0


def test_any_order_and_back_together():
    events = some_events()
    mixed = events.take([2, 0, 2])
    assert mixed.x.tolist() == [3, 4, 5, 1, 2, 3, 4, 5]
    assert mixed.event["run"].tolist() == [9, 7, 9]
    whole = concatenate(list(events))
    for name, column in events.hit_columns().items():
        assert np.array_equal(whole.hit_columns()[name], column)
    assert np.array_equal(whole.offset, events.offset)
    assert len(events.take([])) == 0


@pytest.mark.parametrize("change", [lambda e: e, lambda e: e.torch()], ids=["numpy", "torch"])
def test_any_order_is_that_of_the_events_one_by_one(change):
    events = change(some_events())
    order = [2, -3, 1, 2, -1]
    mixed, apart = events.take(order), concatenate([events[i] for i in order])
    assert mixed.is_torch == events.is_torch
    for ours, theirs in (
        (mixed.hit_columns(), apart.hit_columns()),
        (mixed.event, apart.event),
        ({"offset": mixed.offset}, {"offset": apart.offset}),
    ):
        assert ours.keys() == theirs.keys()
        for name, column in theirs.items():
            assert ours[name].dtype == column.dtype, name
            assert ours[name].tolist() == column.tolist(), name
    assert len(events.take([])) == len(events[:0].take([])) == 0
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"from 0 to 2, got {outside}"):
            events.take([0, outside])


@pytest.mark.parametrize("change", [lambda e: e, lambda e: e.torch()], ids=["numpy", "torch"])
def test_select_drops_hits_and_keeps_events(change):
    events = change(some_events())
    signal = events.select(events.label > 0)
    assert signal.offset.tolist() == [0, 1, 1, 3]
    assert signal.x.tolist() == [2, 4, 5]
    assert events.select(events.t == 13).offset.tolist() == [0, 0, 0, 1]  # an event's first hit
    assert events.event_index().tolist() == [0, 0, 2, 2, 2]


def test_torch_and_back():
    events = some_events()
    moved = events.torch()
    assert moved.x.dtype == torch.int64
    assert moved.numpy().x.tolist() == events.x.tolist()
    assert moved.numpy().event["run"].tolist() == [7, 8, 9]


def test_columns_of_any_stride_become_tensors():
    events = some_events()
    columns = {name: column[::-1] for name, column in events.hit_columns().items()}
    moved = events.with_hits(events.offset, columns).torch()
    assert moved.x.tolist() == [5, 4, 3, 2, 1]
    assert moved.t.tolist() == [15, 14, 13, 12, 11]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda e: e.with_hits(e.offset, {**e.hit_columns(), "t": e.t[:3]}), "`t` with one entry"),
        (lambda e: Geometry(width=0), "`width` to be a whole number from 1 to 65536, got 0"),
        (lambda e: e[::2], "a slice of step 1, got 2"),
        (lambda e: concatenate([]), "at least one batch of events, got none"),
        (lambda e: concatenate([e, e.select(e.label > 0)[:0].torch().numpy().with_hits(
            np.zeros(1, np.int64), {"x": e.x[:0], "y": e.y[:0], "t": e.t[:0]})]), "same columns"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(some_events())


def test_an_index_outside_is_an_index_error():
    with pytest.raises(IndexError, match="Expected an event from 0 to 2, got 3"):
        some_events()[3]


def test_its_representation_is_one_short_line():
    events = Events(Geometry(), np.array([0, 2, 3]), *np.ones((3, 3), int))
    assert repr(events) == repr(events.torch()) == "Events(2 events, 3 hits, 88 x 128 x 1000)"
