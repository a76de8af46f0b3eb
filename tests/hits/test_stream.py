"""A stream of events is masked in order, and no event waits longer than asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.hits import Events, Geometry, HitDensity, mask_events, mask_stream
from tests.hits.files import assert_same
from tests.hits.test_masking import POINT, Stub, bare
from tests.limits import HANG_SECONDS


@pytest.mark.parametrize("max_events", [1, 4, 100])
@pytest.mark.parametrize("only_kept", [False, True])
def test_each_item_comes_out_as_if_alone(max_events, only_kept):
    events = [bare(1, 3), bare(3, 1), bare(1, 2)[:0], bare(1, 2), bare(9, 5)]
    events += [replace(bare(2), hit={}), bare(1, 7).torch(), *bare(10)]
    got = [*mask_stream(Stub(), POINT, iter(events), max_events=max_events, only_kept=only_kept)]
    assert len(got) == len(events)
    for masked, one in zip(got, events, strict=True):
        wanted = mask_events(one, Stub().score(one.torch()), POINT, only_kept=only_kept)
        assert masked.is_torch == one.is_torch
        assert_same(masked.numpy(), wanted.numpy())


def test_items_that_come_together_are_scored_together():
    stub = Stub()
    list(mask_stream(stub, 0.5, bare(64), max_events=16, max_seconds=HANG_SECONDS))
    assert stub.calls == 4


def test_an_event_does_not_wait_for_others_that_do_not_come():
    came_out = threading.Event()

    def slow() -> Iterator[Events]:
        yield bare(1)
        assert came_out.wait(HANG_SECONDS), "the first event waits for the second"
        yield bare(1)

    stream = mask_stream(Stub(), 0.5, slow(), max_events=8, max_seconds=0.01)
    next(stream)
    came_out.set()
    assert len([*stream]) == 1


def test_a_problem_of_the_stream_comes_after_the_events_before_it():
    def broken() -> Iterator[Events]:
        yield bare(1)
        yield bare(1)
        raise ConnectionError("cable")

    for max_events in (1, 8):
        got: list[Events] = []
        with pytest.raises(ConnectionError, match="cable"):
            got.extend(mask_stream(Stub(), 0.5, broken(), max_events=max_events))
        assert len(got) == 2


def test_a_stream_that_is_left_ends_its_thread():
    before = threading.active_count()
    stream = mask_stream(Stub(), 0.5, (bare(1) for _ in range(10**9)), max_events=4)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    for thread in threading.enumerate():
        if thread.daemon and thread.name.endswith("(_read)"):
            thread.join(HANG_SECONDS)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"max_events": 0}, "`max_events`"), ({"max_seconds": -1}, "`max_seconds`")],
)
def test_bad_options_are_refused_at_once(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        mask_stream(Stub(), 0.5, [bare(1)], **options)


def test_torch_has_its_threads_again_after_each_event():
    before, inside = torch.get_num_threads(), []

    class Watching(Stub):
        def score(self, events: Events) -> torch.Tensor:
            inside.append(torch.get_num_threads())
            return super().score(events)

    torch.set_num_threads(2)
    try:
        for threads in (1, 2, None):
            for _ in mask_stream(Watching(), 0.5, bare(2), threads=threads):
                assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert inside == [1, 1, 2, 2, 2, 2]


def test_events_of_another_frame_are_refused():
    with pytest.raises(ValueError, match="44 x 64 pixels and 1000 time steps, as stub"):
        next(mask_stream(Stub(geometry=Geometry(44, 64, 1000)), 0.5, bare(2)))
    assert np.array_equal(
        next(mask_stream(HitDensity(), 0.5, bare(2))).hit["score"],
        HitDensity().score(bare(2)[0].torch()).numpy(),
    )
    assert isinstance(next(mask_stream(Stub(), 0.5, [bare(2).torch()])).hit["keep"], torch.Tensor)


@pytest.mark.parametrize("max_events", [1, 4])
@pytest.mark.parametrize(
    ("events", "told"),
    [
        ("f.h5", r"got the path 'f.h5'; open the file, open_hits\('f.h5'\)"),
        (Path("f.h5"), "got the path 'f.h5'"),
        (3, "a stream of Events, got int"),
        ([bare(2), "event"], "got str in it"),
    ],
)
def test_what_is_no_stream_of_events_is_refused(events, told, max_events):
    with pytest.raises(TypeError, match=told):
        list(mask_stream(Stub(), 0.5, events, max_events=max_events))
