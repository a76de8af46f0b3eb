"""Hits files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dense_imb.hits import Events, Geometry, HitsFile, HitsFileError, HitsWriter, verify
from tests.hits.files import FRAME, assert_same, some_events, write


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_what_goes_in_comes_out(tmp_path: Path, batch: int) -> None:
    events = some_events(60)
    with HitsFile(write(tmp_path / "a.h5", events, batch)) as hits:
        assert_same(hits[:], events)
        assert (len(hits), hits.n_hits) == (60, events.n_hits)


def test_the_layout_is_the_promised_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", some_events(5))
    with h5py.File(path) as file:
        assert {k: file.attrs[k] for k in ("format", "format_version", "width", "height")} == {
            "format": b"dense-imb-hits", "format_version": 1, "width": 88, "height": 128,
        }  # fmt: skip
        assert (file.attrs["time_steps"], file.attrs["x_mm"], file.attrs["t_ns"]) == (
            1000,
            0.4,
            0.05,
        )
        assert "y_mm" not in file.attrs
        assert file.attrs["creator"].startswith(b"dense_imb ")
        types = {name: file[name].dtype.str for name in ("event/offset", "hit/x", "hit/y", "hit/t")}
        assert types == {"event/offset": "<u8", "hit/x": "<u2", "hit/y": "<u2", "hit/t": "<u2"}
        assert file["hit/label"].dtype == np.uint8
        assert file["hit/score"].dtype == np.float32
        assert file["hit/keep"].dtype == bool
        assert file["hit/momentum"].shape[1:] == (3,)
        assert len(file["event/offset"]) == 6
        assert len(file["event/run"]) == 5


def test_chunks_do_not_enter_the_hash(tmp_path: Path) -> None:
    events = some_events(40)
    one = write(tmp_path / "a.h5", events, 3)
    two = write(tmp_path / "b.h5", events, 40)
    assert verify(one) == verify(two)
    with h5py.File(one) as old, h5py.File(tmp_path / "c.h5", "w") as new:
        new.attrs.update(old.attrs)
        for name in verify(one).keys() - {"/"}:
            rows = old[name][:]
            new.create_dataset(name, data=rows, compression="gzip", shuffle=True)
    assert verify(tmp_path / "c.h5") == verify(one)  # a repacked file is the same content
    with HitsFile(tmp_path / "c.h5", in_memory=False) as packed:
        assert_same(packed[:], events)


def test_tensors_and_wide_types_become_the_format(tmp_path: Path) -> None:
    events = some_events(10)
    wide = replace(events, label=None, hit={}, event={}).torch()
    assert wide.x.dtype == torch.int64
    with HitsFile(write(tmp_path / "a.h5", wide)) as hits:
        assert_same(hits[:], replace(events, label=None, hit={}, event={}))
    real = replace(events, t=events.t + 0.25 * (events.t < 1000))  # float64
    with HitsFile(write(tmp_path / "b.h5", real)) as hits:
        assert hits.columns["/hit/t"] == np.float32
        np.testing.assert_array_equal(hits[:].t, real.t)


def test_legal_files(tmp_path: Path) -> None:
    with HitsWriter(tmp_path / "none.h5", FRAME) as writer:
        pass
    assert writer.n_events == 0
    with HitsFile(tmp_path / "none.h5") as hits:
        assert (len(hits), hits.n_hits, len(hits[:]), list(hits)) == (0, 0, 0, [])
    none = np.zeros(0, np.uint16)
    empty = Events(FRAME, np.zeros(4, np.int64), none, none, none, np.zeros(0, np.uint8))
    for in_memory in (True, False):
        with HitsFile(write(tmp_path / f"empty{in_memory}.h5", empty), in_memory=in_memory) as hits:
            assert_same(hits[:], empty)
            assert [len(event) for event in hits] == [1, 1, 1]
    noise = replace(some_events(3), label=np.zeros_like(some_events(3).label))
    with HitsFile(write(tmp_path / "noise.h5", noise)) as hits:
        assert_same(hits[:], noise)
    for name in ("none.h5", "emptyTrue.h5", "noise.h5"):
        verify(tmp_path / name)


def test_the_largest_frame_fits(tmp_path: Path) -> None:
    frame = Geometry(width=65536, height=65536, time_steps=65536)
    ends = np.array([0, 65535])
    events = Events(frame, np.array([0, 2]), ends, ends, ends + 1)
    with HitsFile(write(tmp_path / "a.h5", events)) as hits:
        np.testing.assert_array_equal(hits[:].x, ends)
        np.testing.assert_array_equal(hits[:].t, ends + 1)


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", some_events(3))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"a\.h5.*overwrite"):
        HitsWriter(path, FRAME)
    assert path.read_bytes() == before
    with open(path, "rb") as reader:
        write(path, some_events(9), overwrite=True)
        assert reader.read() == before  # moved into place: who reads the old file goes on
    with HitsFile(path) as hits:
        assert len(hits) == 9
    with pytest.raises(IsADirectoryError, match="folder"):
        HitsWriter(tmp_path, FRAME, overwrite=True)


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(FileExistsError), HitsWriter(path, FRAME):
        path.write_text("of another process")
    assert path.read_text() == "of another process"
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    path = write(tmp_path / "a.h5", some_events(3))
    before = path.read_bytes()
    with (  # noqa: PT012
        pytest.raises(problem),
        HitsWriter(path, FRAME, overwrite=True) as writer,
    ):
        writer.append(some_events(30_000, mean=100.0))  # more than is kept back
        assert len(os.listdir(tmp_path)) == 2
        raise problem
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    real = write(tmp_path / "real.h5", some_events(3))
    link = tmp_path / "link.h5"
    link.symlink_to(real)
    write(link, some_events(4), overwrite=True)
    assert link.is_symlink()
    with HitsFile(real) as hits:
        assert len(hits) == 4


def test_a_refused_batch_is_not_written(tmp_path: Path) -> None:
    good = some_events(5)
    bad_x, bad_t = good.x.copy(), good.t.astype(np.float64)
    bad_x[-1], bad_t[0] = 88, np.nan
    half = good.t + 0.5 * (good.t < 1000)
    first = int(np.flatnonzero(np.diff(good.offset))[0])
    last = int(np.searchsorted(good.offset, good.n_hits)) - 1
    refused = [
        (replace(good, x=bad_x), f"/hit/x.* 0 to 87, got 88 in event {last} "),
        (replace(good, t=bad_t), f"/hit/t.* got nan in event {first} "),
        (replace(good, t=half), "/hit/t.* fit uint16"),
        (replace(good, offset=good.offset[::-1]), "/event/offset.* begin with 0"),
        (
            replace(good, offset=good.offset + 0 * good.offset[-1:] + [0, 0, 9**9, 0, 0, 0]),
            "decrease",
        ),
        (replace(good, geometry=Geometry(width=200)), "width 88"),
        (replace(good, label=None), "columns of the first batch"),
        (replace(good, label=good.label.astype(int) + 300), "/hit/label.* fit uint8"),
        (replace(good, hit={**good.hit, "keep": good.hit["score"]}), "/hit/keep.* fit bool"),
        (replace(good, hit={**good.hit, "momentum": good.hit["momentum"][:, :2]}), "shape"),
        (replace(good, event={**good.event, "run": np.full(5, 0.5)}), "/event/run.* fit int64"),
    ]
    with HitsWriter(tmp_path / "a.h5", FRAME) as writer:
        writer.append(good)
        for events, message in refused:
            with pytest.raises(ValueError, match=message):
                writer.append(events)
        writer.append(good)
    with HitsFile(tmp_path / "a.h5") as hits:
        assert_same(hits[:5], good)
        assert_same(hits[5:], good)


@pytest.mark.parametrize(
    ("hit", "event", "message"),
    [
        ({"a/b": 0}, {}, "slashes"),
        ({"..": 0, "": 0}, {}, "slashes"),
        ({}, {"offset": 0}, "offset"),
        ({"name": "track"}, {}, "bool, integer or floating"),
        ({"z": 1j}, {}, "bool, integer or floating"),
    ],
)
def test_columns_that_no_file_can_hold(
    tmp_path: Path, hit: dict[str, object], event: dict[str, object], message: str
) -> None:
    one = np.ones(1, int)
    events = Events(
        FRAME, np.array([0, 1]), one, one, one,
        hit={name: np.array([value]) for name, value in hit.items()},
        event={name: np.array([value]) for name, value in event.items()},
    )  # fmt: skip
    with HitsWriter(tmp_path / "a.h5", FRAME) as writer, pytest.raises(ValueError, match=message):
        writer.append(events)


def test_a_batch_may_be_reused_by_its_owner(tmp_path: Path) -> None:
    events = some_events(4)
    kept = replace(events, x=events.x.copy())
    with HitsWriter(tmp_path / "a.h5", FRAME) as writer:
        writer.append(events)
        events.x[:] = 0
    with HitsFile(tmp_path / "a.h5") as hits:
        assert_same(hits[:], kept)


def test_a_writer_serves_once(tmp_path: Path) -> None:
    writer = HitsWriter(tmp_path / "a.h5", FRAME)
    with pytest.raises(ValueError, match="inside `with"):
        writer.append(some_events(1))
    with writer:
        pass
    with pytest.raises(ValueError, match="fresh"), writer:
        pass


def test_a_failed_write_caught_by_the_caller_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "full")

    with (  # noqa: PT012
        pytest.raises(OSError, match="full"),
        HitsWriter(tmp_path / "a.h5", FRAME) as writer,
    ):
        monkeypatch.setattr(HitsWriter, "_reserve", full)
        with pytest.raises(OSError, match="full"):
            writer.append(some_events(3))
        monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Expected room for .* free some"):
        HitsWriter(tmp_path / "a.h5", FRAME, estimated_bytes=10**18)
    assert os.listdir(tmp_path) == []


def test_a_limit_of_the_system_for_files_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dense_imb.hits.writer._longest_file", lambda: 50_000)
    with pytest.raises(OSError, match=r"to a\.h5, got a limit of 0\.05 MB .* ulimit -f"):
        write(tmp_path / "a.h5", some_events(3))  # HDF5 would end the process later
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("n_events", [0, 3, 3000, 30_000])
def test_the_reserve_covers_the_file(
    tmp_path: Path, n_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = []
    monkeypatch.setattr("dense_imb.hits.writer._fallocate", lambda _, size: reserved.append(size))
    path = write(tmp_path / "a.h5", some_events(n_events), 500)
    assert path.stat().st_size <= reserved[-1]
    assert path.stat().st_size > 0.5 * reserved[-1] - 200_000  # and is no wild guess


FILL_THE_DISK = """
import sys
from dense_imb.hits import HitsWriter
import dense_imb.hits.writer as module
from tests.hits.files import FRAME, some_events
if sys.argv[2] == "without fallocate":
    def _fallocate(*_):
        raise OSError(95, "not supported")
    module._fallocate = _fallocate
events = some_events(2000)
try:
    with HitsWriter(sys.argv[1], FRAME, overwrite=True) as writer:
        for _ in range(1000):
            writer.append(events)
except OSError as problem:
    print(problem.errno, problem, writer.n_events)
    sys.exit(2)
"""


@pytest.mark.parametrize("how", ["with fallocate", "without fallocate"])
def test_a_full_disk_costs_nothing_but_the_new_file(tmp_path: Path, how: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here to make a small disk with")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    try:
        path = write(disk / "a.h5", some_events(3))
        before = path.read_bytes()
        root = str(Path(__file__).parents[2])
        ran = subprocess.run(  # in a process of its own: HDF5 may crash on a full disk
            [sys.executable, "-c", FILL_THE_DISK, str(path), how],
            capture_output=True, text=True, check=False, cwd=root,
            env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
        assert ran.returncode == 2, ran.stderr
        assert ran.stdout.startswith("28 ")
        assert "Expected room for" in ran.stdout
        assert int(ran.stdout.split()[-1]) > 2000  # it was in the middle
        assert os.listdir(disk) == ["a.h5"]
        assert path.read_bytes() == before
        verify(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_reserve_goes_back(tmp_path: Path) -> None:
    status = write(tmp_path / "a.h5", some_events(3)).stat()
    assert status.st_blocks * 512 < status.st_size + 65_536


def test_the_hash_is_as_documented(tmp_path: Path) -> None:
    from hashlib import blake2b

    events = some_events(5)
    path = write(tmp_path / "a.h5", events)
    text = b"/hit/momentum <f8 (3,)\n" + events.hit["momentum"].astype("<f8").tobytes()
    assert verify(path)["/hit/momentum"] == blake2b(text, digest_size=16).hexdigest()
    with h5py.File(path, "r+") as file:
        stored = json.loads(file.attrs["content_hash"])
        assert stored == verify(path)
        file.attrs["width"] = 89
    with pytest.raises(HitsFileError, match=r"another in `/`;"):
        verify(path)


def test_a_folder_that_is_closed_is_one_sentence(tmp_path, monkeypatch):
    def closed(*arguments, **options):
        raise PermissionError(errno.EACCES, "Unable to synchronously create file (unable to ..)")

    monkeypatch.setattr(h5py, "File", closed)
    with pytest.raises(PermissionError) as problem, HitsWriter(tmp_path / "a.h5", FRAME):
        pass
    assert problem.value.strerror == (
        f"Expected a folder to write a.h5 to, got {tmp_path}: Permission denied"
    )


def test_ctrl_c_while_a_file_is_opened_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), HitsWriter(tmp_path / "a.h5", FRAME):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_writer_prints_what_it_wrote(tmp_path: Path) -> None:
    with HitsWriter(tmp_path / "a.h5", FRAME) as writer:
        assert repr(writer) == "HitsWriter('a.h5', 0 events, 0 hits)"
