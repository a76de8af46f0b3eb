"""Virtual data: degraded anew each epoch, and the same in every run."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.hits import Blob, Degradation, HitsFile, MeasuredNoise, degrade, open_hits
from tests.hits.files import assert_same
from tests.runs.tiny import clean_events, write_events

DEGRADATION = Degradation(signal=(2, 6), noise=(5, 20), smear_x=0.5, profiles=[Blob(width=3.0)])


@pytest.fixture
def source(tmp_path) -> HitsFile:
    return HitsFile(write_events(tmp_path / "clean.h5", clean_events(20)))


def test_it_is_what_degrade_makes_of_each_event_by_its_number(source):
    virtual = VirtualEvents(source, DEGRADATION, seed=3, first=4, count=10)
    numbers = np.array([7, 0, 2])
    wanted = degrade(source[numbers + 4], DEGRADATION, seed=3, epoch=5, event_index=numbers + 4)
    assert_same(virtual.degraded(numbers, 5), wanted)
    assert_same(virtual.degraded(numbers, 5, virtual.clean(numbers)), wanted)


def test_an_event_is_the_same_in_any_batch(source):
    virtual = VirtualEvents(source, DEGRADATION, seed=3)
    whole = virtual.degraded(np.arange(20), 1)
    order = np.random.default_rng(0).permutation(20)
    for part in np.array_split(order, 3):
        assert_same(virtual.degraded(part, 1), whole.take(part))


def test_numbers_beyond_the_set_are_the_same_events_with_other_noise(source):
    virtual = VirtualEvents(source, DEGRADATION, seed=3, first=4, count=10)
    assert_same(virtual.clean(np.array([13, 20])), virtual.clean(np.array([3, 0])))
    later = virtual.degraded(np.array([13]), 0)
    wanted = degrade(source[np.array([7])], DEGRADATION, seed=3, epoch=0, event_index=[7 + 20])
    assert_same(later, wanted)
    assert later.n_hits != virtual.degraded(np.array([3]), 0).n_hits


def test_the_classes_of_events_are_the_labels_of_their_clean_signal(tmp_path):
    clean = clean_events(6)
    label = np.repeat([1, 1, 3, 1, 0, 3], 8).astype(np.uint8)
    path = write_events(tmp_path / "kinds.h5", dataclasses.replace(clean, label=label))
    content = VirtualEvents(open_hits(path), DEGRADATION, 0, first=1).class_content()
    assert content.tolist() == [[8, 0], [0, 8], [8, 0], [0, 0], [0, 8]]


def test_epochs_and_seeds_differ(source):
    numbers = np.arange(5)
    kinds = [
        VirtualEvents(source, DEGRADATION, seed=seed).degraded(numbers, epoch)
        for seed in (0, 1)
        for epoch in (0, 1, VALIDATION_EPOCH)
    ]
    assert len({events.x.tobytes() + events.t.tobytes() for events in kinds}) == len(kinds)


def test_the_same_after_a_pickle(source):
    virtual = VirtualEvents(source, DEGRADATION, seed=3)
    again = pickle.loads(pickle.dumps(virtual))
    assert_same(again.degraded(np.arange(9), 2), virtual.degraded(np.arange(9), 2))


@pytest.mark.parametrize(
    ("first", "count", "length"), [(0, None, 20), (5, None, 15), (15, 10, 5), (0, 7, 7)]
)
def test_its_length(source, first, count, length):
    assert len(VirtualEvents(source, None, 0, first, count)) == length


def test_without_degradation_events_are_as_they_are(source):
    assert_same(VirtualEvents(source, None, 0, 2).degraded(np.arange(3), 9), source[2:5])


@pytest.mark.parametrize(
    ("degradation", "kinds"),
    [
        (None, (True, False)),
        (Degradation(noise=3), (True, True)),
        (Degradation(noise=(0, 3)), (True, True)),
        (Degradation(noise=(0, 0)), (True, False)),
        (Degradation(signal=0, noise=3), (False, True)),
        (Degradation(smear_x=1.0), (True, False)),
    ],
)
def test_which_kinds_of_hits_there_will_be(source, degradation, kinds):
    assert VirtualEvents(source, degradation, 0).kinds() == kinds


def test_hits_without_labels_are_signal_where_noise_is_added(tmp_path):
    events = clean_events(4)
    bare = events.with_hits(events.offset, {"x": events.x, "y": events.y, "t": events.t})
    source = HitsFile(write_events(tmp_path / "bare.h5", bare))
    assert VirtualEvents(source, None, 0).kinds() == (False, False)
    assert VirtualEvents(source, Degradation(noise=2), 0).kinds() == (True, True)


def test_its_fingerprint_is_of_the_hits(tmp_path, source):
    same = HitsFile(write_events(tmp_path / "same.h5", clean_events(20)))
    other = HitsFile(write_events(tmp_path / "other.h5", clean_events(20, seed=1)))
    mine, theirs, others = (VirtualEvents(s, None, 0).fingerprint() for s in (source, same, other))
    assert mine == theirs != others
    both = open_hits([str(tmp_path / "same.h5"), str(tmp_path / "other.h5")])
    assert VirtualEvents(both, None, 0).fingerprint().startswith("40 events from 0 of 320 hits")


def test_measured_noise_is_told_by_its_hits(source):
    def told(seed: int) -> str:
        measured = MeasuredNoise(clean_events(300, seed), weight=0.5)
        return VirtualEvents(source, Degradation(noise=2, profiles=[measured]), 0).describe()

    assert told(0) == told(0) != told(1)
    assert len(told(0)) < 400
