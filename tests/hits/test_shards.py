"""Masking in shards: equal to one process byte for byte, and continued after any interruption."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dense_imb.hits import (
    Events,
    HitDensity,
    HitsFileError,
    mask_file,
    mask_in_shards,
    open_hits,
    read_masking,
    verify,
)
from tests.hits.files import assert_same, some_events, some_sensor_events, write
from tests.hits.shard_processes import BATCH, network
from tests.hits.shard_processes import FRAME as SMALL
from tests.hits.test_masking import POINT, Stub, bare
from tests.leftovers import leave_behind
from tests.limits import HANG_SECONDS


class OfTimes:
    """Scores that depend on the time alone, for any geometry."""

    name = "times"

    def score(self, events: Events) -> torch.Tensor:
        return (events.t.double() % 1).abs().float()


def in_shards(source: Path, target: Path, scorer=None, point=POINT, **options):
    options = {"batch_size": 4, "shard_events": 8, **options}
    (done,) = mask_in_shards({target: source}, scorer or HitDensity(), point, **options)
    return done


@pytest.mark.parametrize("only_kept", [False, True])
@pytest.mark.parametrize("n_events", [0, 3, 8, 61])
def test_the_joined_file_is_that_of_one_process(tmp_path, only_kept, n_events):
    source = write(tmp_path / "raw.h5", bare(n_events))
    seen: list[int] = []
    done = in_shards(source, tmp_path / "a.h5", only_kept=only_kept, progress=seen.append)
    whole = mask_file(
        source, tmp_path / "b.h5", HitDensity(), POINT, only_kept=only_kept, batch_size=4
    )
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert done.summary().partition(":")[2] == whole.summary().partition(":")[2]
    assert (done.n_events, done.n_hits, done.n_kept) == (n_events, whole.n_hits, whole.n_kept)
    assert sum(seen) == n_events
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "raw.h5"]


def test_files_that_fill_many_buffers_are_equal_too(tmp_path):
    events = replace(some_events(9000, mean=120.0), hit={})
    source = write(tmp_path / "raw.h5", events)
    options = {"batch_size": 64, "shard_events": 64 * 20}
    in_shards(source, tmp_path / "a.h5", Stub(), **options)
    mask_file(source, tmp_path / "b.h5", Stub(), POINT, batch_size=64)
    assert (tmp_path / "b.h5").stat().st_size > 10e6
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("only_kept", [False, True])
def test_hits_of_sensors_are_joined_too(tmp_path, only_kept):
    source = write(tmp_path / "raw.h5", some_sensor_events(50))
    in_shards(source, tmp_path / "a.h5", OfTimes(), only_kept=only_kept)
    mask_file(source, tmp_path / "b.h5", OfTimes(), POINT, only_kept=only_kept, batch_size=4)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_process_with_other_weights_is_refused(tmp_path, monkeypatch):
    source = write(tmp_path / "raw.h5", bare(9))
    digests = iter(["of process 0", "of this one"])
    for module in ("masked", "shards"):
        name = f"dense_imb.hits.{module}.digest_of_scorer"
        monkeypatch.setattr(name, lambda scorer: next(digests))
    with pytest.raises(ValueError, match="with the same weights in every process"):
        in_shards(source, tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["frames", "hits"])
def test_scores_of_a_network_do_not_depend_on_the_shards(tmp_path, kind):
    source = write(tmp_path / "raw.h5", small_events(50))
    mask_file(source, tmp_path / "whole.h5", network(kind), 0.5, batch_size=4)
    for size in (1, 5, 12, 1000):
        target = tmp_path / f"{size}.h5"
        in_shards(source, target, network(kind), 0.5, shard_events=size)
        assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_an_interrupted_call_is_finished_by_the_next(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(60)), tmp_path / "clean.h5"
    with pytest.raises(RuntimeError, match="out of memory"):
        in_shards(source, target, Stub(fails_at=9))
    folder = tmp_path / "clean.h5.shards"
    finished = sorted(folder.glob("*.h5"))
    assert [path.name for path in finished] == [
        "events-000000000000-000000000008.h5",
        "events-000000000008-000000000016.h5",
    ]
    assert not target.exists()
    times = [path.stat().st_mtime_ns for path in finished]
    leave_behind(folder / "events-000000000016-000000000024.h5")
    with pytest.raises(FileExistsError, match="got 2 of 8, of an earlier call; finish it with"):
        in_shards(source, target, Stub())
    stub = Stub(fails_at=4)
    with pytest.raises(RuntimeError, match="out of memory"):
        in_shards(source, target, stub, resume=True)
    assert [path.stat().st_mtime_ns for path in finished] == times
    assert not list(folder.glob(".*.partial"))
    seen: list[int] = []
    done = in_shards(source, target, Stub(), resume=True, progress=seen.append)
    whole = mask_file(source, tmp_path / "whole.h5", Stub(), POINT, batch_size=4)
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert done.scores.scores() == pytest.approx(whole.scores.scores(), rel=0, nan_ok=True)
    assert sum(seen) == 60
    assert not folder.exists()
    assert in_shards(source, target, Stub(fails_at=1), resume=True).is_skipped


@pytest.mark.parametrize("n_removed", [0, 5, 16, 17])
def test_shards_that_a_killed_call_left_beside_its_file_are_removed(
    tmp_path, monkeypatch, n_removed
):
    source, target = write(tmp_path / "raw.h5", bare(15)), tmp_path / "clean.h5"
    folder, left = tmp_path / "clean.h5.shards", [n_removed]

    def until_killed(change):
        def killed(path: Path, **options: bool) -> None:
            if (path == folder or path.parent == folder) and path.name[0] != ".":
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
            change(path, **options)

        return killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", until_killed(Path.unlink))
        patch.setattr(Path, "rmdir", until_killed(Path.rmdir))
        with pytest.raises(KeyboardInterrupt):
            in_shards(source, target, shard_events=4)
    assert target.exists()
    assert folder.exists()
    leave_behind(target)
    assert in_shards(source, target, resume=True).is_skipped
    assert sorted(tmp_path.iterdir()) == [target, source]


def test_a_call_that_was_killed_while_it_wrote_its_plan_can_be_repeated(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(9)), tmp_path / "clean.h5"
    (tmp_path / "clean.h5.shards").mkdir()
    leave_behind(tmp_path / "clean.h5.shards" / "plan.json")
    in_shards(source, target, resume=True)
    assert sorted(tmp_path.iterdir()) == [target, source]


def test_shards_of_another_call_are_refused_and_replaced_on_demand(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(60)), tmp_path / "clean.h5"
    folder = tmp_path / "clean.h5.shards"
    in_shards(source, target, HitDensity(5.0), keep_shards=True)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for scorer, options, named in (
        (HitDensity(6.0), {}, "masking"),
        (Stub(), {}, "scorer and masking"),
        (HitDensity(5.0), {"point": 0.5}, "masking"),
        (HitDensity(5.0), {"batch_size": 2}, "batch_size"),
        (HitDensity(5.0), {"only_kept": True}, "masking"),
    ):
        for resume in (False, True):
            with pytest.raises(FileExistsError, match=f"of another one \\(other {named}\\)"):
                in_shards(source, target, scorer, resume=resume, **options)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    in_shards(source, target, HitDensity(6.0), overwrite=True)
    mask_file(source, tmp_path / "whole.h5", HitDensity(6.0), POINT, batch_size=4)
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(9)), tmp_path / "clean.h5"
    (tmp_path / "clean.h5.shards").mkdir()
    (tmp_path / "clean.h5.shards" / "notes.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other files in it"):
            in_shards(source, target, overwrite=overwrite, resume=True)
    assert (tmp_path / "clean.h5.shards" / "notes.txt").read_text() == "precious"


def test_shards_can_stay_with_an_index(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(60)), tmp_path / "clean.h5"
    done = in_shards(source, target, keep_shards=True)
    mask_file(source, tmp_path / "whole.h5", HitDensity(), POINT)
    assert not target.exists()
    with open_hits(done.path) as hits, open_hits(tmp_path / "whole.h5") as whole:
        assert_same(hits[:], whole[:])
        assert read_masking(hits.files[3]).as_text() == read_masking(whole).as_text()
    index = json.loads((tmp_path / "clean.h5.shards" / "index.json").read_text())
    assert [one["events"] for one in index["shards"]] == [8] * 7 + [4]
    assert (index["n_events"], index["n_hits"]) == (60, bare(60).n_hits)
    again = in_shards(source, target, keep_shards=True)
    assert again.is_skipped
    assert (again.n_events, again.n_hits, again.n_kept) == (60, done.n_hits, done.n_kept)
    # they can be joined later, and stay
    in_shards(source, target, resume=True)
    assert verify(target) == verify(tmp_path / "whole.h5")
    assert (tmp_path / "clean.h5.shards" / "index.json").exists()


def test_a_damaged_shard_is_refused(tmp_path):
    source, target = write(tmp_path / "raw.h5", bare(60)), tmp_path / "clean.h5"
    with pytest.raises(RuntimeError, match="out of memory"):
        in_shards(source, target, Stub(fails_at=9))
    path = next((tmp_path / "clean.h5.shards").glob("*8.h5"))
    content = bytearray(path.read_bytes())
    column = open_hits(path)[:].hit_columns()["momentum"].tobytes()[:64]
    content[content.index(column)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a damaged one; remove it and continue"):
        in_shards(source, target, Stub(), resume=True)
    path.unlink()
    in_shards(source, target, Stub(), resume=True)
    mask_file(source, tmp_path / "whole.h5", Stub(), POINT, batch_size=4)
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_nothing_is_written_if_one_target_is_refused(tmp_path):
    first, second = (write(tmp_path / f"{k}.h5", bare(9, k)) for k in (1, 2))
    old = write(tmp_path / "old.h5", bare(2))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="no file at"):
        mask_in_shards({tmp_path / "new.h5": first, old: second}, HitDensity(), POINT)
    with pytest.raises(ValueError, match="an output apart from the inputs"):
        mask_in_shards({tmp_path / "new.h5": first, second: second}, HitDensity(), POINT)
    (tmp_path / "bad.h5").write_bytes(b"bad")
    with pytest.raises(HitsFileError):
        mask_in_shards({tmp_path / "new.h5": tmp_path / "bad.h5"}, HitDensity(), POINT)
    (tmp_path / "bad.h5").unlink()
    assert sorted(tmp_path.iterdir()) == before


# several processes


def small_events(n_events: int) -> Events:
    events = bare(n_events)
    return replace(
        events,
        geometry=SMALL,
        x=events.x % SMALL.width,
        y=events.y % SMALL.height,
        t=events.t % SMALL.time_steps + 1,
    )


def processes(n: int, *words: object) -> list[subprocess.Popen[str]]:
    """Start processes as a cluster does: none of them ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(n)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = str(Path(__file__).parent / "shard_processes.py")
    return [
        subprocess.Popen(
            [sys.executable, script, *map(str, words)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def ended(started: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    texts = [process.communicate(timeout=HANG_SECONDS) for process in started]
    return [(p.returncode, *text) for p, text in zip(started, texts, strict=True)]


@pytest.mark.slow
def test_a_killed_process_of_three_costs_its_shards_only(tmp_path):
    events = small_events(60)
    source, target = write(tmp_path / "raw.h5", events), tmp_path / "clean.h5"
    whole = mask_file(source, tmp_path / "whole.h5", network(), 0.5, batch_size=BATCH)
    first, killed, third = ended(processes(3, source, target, 1))
    assert killed[0] == -9
    assert third[0] == 0, third[2]
    assert first[0] == 75, first[2]
    # 10 shards of 2 batches: the killed one had finished 2 of its 3
    assert "Expected 10 shards in" in first[2]
    assert "got 9: no other process finished one for" in first[2]
    assert not target.exists()
    alone = ended(processes(1, source, target, -1, "--resume"))
    assert alone[0][0] == 0, alone[0][2]
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert alone[0][1].partition(":")[2] == whole.summary().partition(":")[2] + "\n"


@pytest.mark.slow
def test_three_processes_are_one(tmp_path):
    source, target = write(tmp_path / "raw.h5", small_events(60)), tmp_path / "clean.h5"
    mask_file(source, tmp_path / "whole.h5", network(), 0.5, batch_size=BATCH)
    for code, _, told in ended(processes(3, source, target, -1)):
        assert code == 0, told
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    # a refusal reaches every process
    for code, _, told in ended(processes(3, source, target, -1)):
        assert code == 1
        assert "Expected no file at" in told.splitlines()[-1]
