"""Hits files are read lazily, in any order, in any process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dense_imb.hits import (
    Events,
    Geometry,
    HitsFile,
    HitsFileError,
    HitsFiles,
    collate_events,
    concatenate,
    open_hits,
)
from dense_imb.hits.reader import _Hits
from tests.hits.files import assert_same, some_events, write

PARTS = [some_events(23, seed=1), some_events(1, seed=2), some_events(16, seed=3)]
ALL = concatenate(PARTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hits")
    write(folder / "all.h5", ALL)
    for k, part in enumerate(PARTS):
        write(folder / f"part{k}.h5", part)
    return folder


@pytest.fixture(scope="module", params=["in memory", "on disk", "three in memory", "three on disk"])
def hits(folder: Path, request: pytest.FixtureRequest) -> Iterator[_Hits]:
    in_memory = request.param.endswith("memory")
    if request.param.startswith("three"):
        with HitsFiles(folder / "part*.h5", in_memory=in_memory) as files:
            yield files
    else:
        with HitsFile(folder / "all.h5", in_memory=in_memory) as file:
            yield file


def test_its_size_and_columns(hits: _Hits) -> None:
    assert repr(hits).endswith(f", 40 events, {ALL.n_hits:,} hits, {ALL.geometry.size_text()})")
    assert (len(hits), hits.n_hits, hits.geometry) == (40, ALL.n_hits, ALL.geometry)
    assert hits.columns["/hit/momentum"] == np.float64
    assert hits.columns["/event/run"] == np.int64


@given(st.lists(st.integers(-40, 39), max_size=60))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
def test_any_order(hits: _Hits, order: list[int]) -> None:
    assert_same(hits[order], ALL.take([i % 40 for i in order]))


@pytest.mark.parametrize(
    "cut",
    [
        slice(None),
        slice(3, 30),
        slice(-5, None),
        slice(30, 3),
        slice(24, 25),
        slice(None, None, -3),
    ],
)
def test_slices(hits: _Hits, cut: slice) -> None:
    assert_same(hits[cut], ALL.take(range(40)[cut]))


def test_other_indices(hits: _Hits) -> None:
    for index in (7, np.int64(7), torch.tensor(7), [7], torch.tensor([7]), np.array([7], np.uint8)):
        assert_same(hits[index], ALL[7])
    assert_same(hits[[]], ALL[:0])
    for index in (40, -41, [0, 40]):
        with pytest.raises(IndexError, match="Expected an event from 0 to 39, got"):
            hits[index]
    for index in (0.5, "x", [0.5], np.zeros(40, bool), [[1]]):
        with pytest.raises(TypeError):
            hits[index]


def test_in_batches(hits: _Hits) -> None:
    batches = list(hits.batches(7))
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 7, 5]
    assert_same(concatenate(batches), ALL)
    for one, event in zip(hits, ALL, strict=True):
        assert_same(one, event)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        next(hits.batches(0))


def test_what_is_read_may_be_changed(hits: _Hits) -> None:
    batch = hits[:]
    for column in (batch.x, batch.hit["momentum"], batch.event["run"]):
        column[:] = 0
    assert_same(hits[:], ALL)
    hits[5:9].torch().x.add_(1)
    assert_same(hits[:], ALL)


def read_by_workers(hits: _Hits, method: str) -> Events:
    hits[0]  # the parent has the file open
    loader = DataLoader(
        hits, 8, sampler=[*range(39, -1, -1)], collate_fn=collate_events,
        num_workers=2, multiprocessing_context=method,
    )  # fmt: skip
    return concatenate(list(loader))


def test_workers_read_the_same(hits: _Hits) -> None:
    for _ in range(2):
        assert_same(read_by_workers(hits, "fork"), ALL.take(range(39, -1, -1)))
    assert_same(hits[:], ALL)


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_fresh_workers_read_the_same(folder: Path, method: str) -> None:
    with HitsFile(folder / "all.h5", in_memory=False) as hits:
        assert_same(read_by_workers(hits, method), ALL.take(range(39, -1, -1)))
        assert_same(hits[:], ALL)


def test_a_fork_opens_for_itself(folder: Path) -> None:
    with HitsFile(folder / "all.h5", in_memory=False) as hits:
        parent = hits._file
        child = os.fork()
        if child == 0:
            try:
                assert_same(hits[3:5], ALL[3:5])
                os._exit(0 if hits._file is not parent else 3)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_same(hits[:], ALL)


def test_a_pickle_is_small_and_reads_on(hits: _Hits) -> None:
    data = pickle.dumps(hits)
    assert len(data) < 5000
    assert_same(pickle.loads(data)[::-1], ALL.take(range(39, -1, -1)))


def test_a_pickle_of_another_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", some_events(5))
    data = pickle.dumps(HitsFile(path))
    write(path, some_events(6), overwrite=True)
    with pytest.raises(HitsFileError, match="as it was when first opened"):
        pickle.loads(data)[0]


def test_a_closed_file_opens_again(folder: Path) -> None:
    hits = HitsFile(folder / "all.h5", in_memory=False)
    hits.close()
    hits.close()
    assert_same(hits[:], ALL)
    hits.close()


def test_what_fits_is_held(folder: Path) -> None:
    n_bytes = HitsFile(folder / "all.h5").n_bytes
    for limit, held in ((n_bytes, True), (n_bytes - 1, False)):
        with HitsFile(folder / "all.h5", memory_limit=limit) as hits:
            assert hits.in_memory is held
            assert (hits._file is None) is held  # and keeps no handle then
    limit = sum(HitsFile(folder / f"part{k}.h5").n_bytes for k in (0, 1))  # for all together
    parts = HitsFiles(folder / "part*.h5", memory_limit=limit)
    assert [part.in_memory for part in parts.files] == [True, True, False]
    parts.close()
    with pytest.raises(ValueError, match="'auto', got 'yes'"):
        HitsFile(folder / "all.h5", in_memory="yes")  # type: ignore[arg-type]


def test_memory_stays_flat(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", replace(some_events(30_000, mean=100.0), hit={}))
    size = path.stat().st_size
    tracemalloc.start()
    with HitsFile(path, in_memory=False) as hits:
        for batch in hits.batches(64):
            assert len(batch)
        for start in range(0, 2000, 64):
            hits[np.arange(start, start + 64) * 14]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 16e6
    assert peak < 5e6


def test_many_files_are_not_all_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dense_imb.hits.reader._MAX_OPEN", 1)
    files = HitsFiles(folder / "part*.h5", in_memory=False)
    assert_same(files[::-1], ALL.take(range(39, -1, -1)))
    assert sum(file._file is not None for file in files.files) <= 1
    files.close()


def test_threads_share_more_files_than_may_be_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread closes a file behind its read, which another one may be reading."""
    monkeypatch.setattr("dense_imb.hits.reader._MAX_OPEN", 1)
    with HitsFiles(str(folder / "part*.h5"), in_memory=False) as hits:

        def read(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            for _ in range(25):
                order = rng.integers(0, len(hits), 12)
                assert_same(hits[order], ALL.take(order))
            return True

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(2) as threads:
                assert all(threads.map(read, range(2)))
        finally:
            sys.setswitchinterval(interval)


def test_a_fork_while_a_thread_reads_does_not_wait_for_it(folder: Path) -> None:
    file = HitsFile(folder / "all.h5", in_memory=False)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with file._alone():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = multiprocessing.get_context("fork").Process(target=file.__getitem__, args=(0,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside a thread, on purpose
        child.start()
    child.join(30)
    done.set()
    thread.join()
    assert child.exitcode == 0


def test_open_hits_takes_names_and_patterns(folder: Path, tmp_path: Path) -> None:
    assert isinstance(open_hits(str(folder / "all.h5")), HitsFile)
    assert isinstance(open_hits([folder / "a*.h5"]), HitsFile)
    turned = open_hits([folder / "part2.h5", folder / "part0.h5"])
    assert_same(turned[:], concatenate([PARTS[2], PARTS[0]]))
    assert len(open_hits(f"{folder}/part?.h5")) == 40
    odd = write(tmp_path / "run[1].h5", PARTS[0])
    assert_same(open_hits(odd)[:], PARTS[0])
    with pytest.raises(FileNotFoundError, match=r"match .*/x\*\.h5, got none"):
        open_hits(folder / "x*.h5")
    with pytest.raises(ValueError, match="at least one file"):
        open_hits([])


def test_files_that_do_not_belong_together(folder: Path, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.h5", replace(PARTS[0], label=None))
    with pytest.raises(ValueError, match=r"bare\.h5 with the columns of .*part0\.h5"):
        HitsFiles([folder / "part0.h5", bare])
    wide = write(tmp_path / "wide.h5", replace(PARTS[0], geometry=Geometry(width=200)))
    with pytest.raises(ValueError, match=r"wide\.h5 with the geometry of"):
        HitsFiles([folder / "part0.h5", wide])


def test_locking_is_passed_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = h5py.File

    def file(*arguments: object, **options: object) -> object:
        seen.append(options["locking"])
        return real(*arguments, **options)

    monkeypatch.setattr(h5py, "File", file)
    HitsFile(folder / "all.h5", locking=False)
    write(tmp_path / "a.h5", some_events(2), locking=False)
    assert seen == [False, False]


def test_a_locked_file_differs_from_a_damaged_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", some_events(2))
    import fcntl

    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HitsFileError, match="wait for its writer, or pass locking=False"):
            HitsFile(path)
        assert len(HitsFile(path, locking=False)) == 2


def test_types_of_a_batch_are_events(folder: Path) -> None:
    loader = DataLoader(HitsFile(folder / "all.h5"), 16, shuffle=True, collate_fn=collate_events)
    batches = list(loader)
    assert all(isinstance(batch, Events) for batch in batches)
    runs = np.sort(np.concatenate([batch.event["run"] for batch in batches]))
    np.testing.assert_array_equal(runs, np.sort(ALL.event["run"]))
