"""Checkpoints: whole or not at all, and what is damaged is known as such."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dense_imb.engine import CheckpointError, CheckpointWarning, load_checkpoint, save_checkpoint
from dense_imb.engine.checkpoint import digest_of, newest_checkpoint, prune_checkpoints
from tests.runs.tiny import Line, assert_same_content, loop_of

STATE = {"a": torch.arange(5.0), "nested": {"text": "x", "numbers": [1, 2.5, None, True]}}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def forget_digest(path: Path) -> None:
    digest_of(path).unlink()


def damage_digest(path: Path) -> None:
    digest_of(path).write_text("0" * 64)


def with_digest(path: Path) -> None:
    digest_of(path).write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def foreign(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)
    with_digest(path)


def no_container(path: Path) -> None:
    torch.save(torch.zeros(2), path)
    with_digest(path)


def text(path: Path) -> None:
    path.write_text("not a checkpoint")
    with_digest(path)


def newer(path: Path) -> None:
    torch.save({"format": "dense-imb-checkpoint", "version": 99}, path)
    with_digest(path)


def bomb(path: Path) -> None:
    torch.save({"format": "dense-imb-checkpoint", "x": Bomb(path.parent / "executed")}, path)
    with_digest(path)


def plain_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent / "executed")))
    with_digest(path)


DAMAGES = [
    truncate, empty, flip, forget_digest, damage_digest, foreign, no_container, text, newer, bomb,
    plain_bomb,
]  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "step-1.pt"
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path)
    assert_same_content({name: loaded[name] for name in STATE}, STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1.pt", "step-1.pt.sha256"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_error_of_one_sentence_and_runs_nothing(tmp_path, damage):
    path = tmp_path / "step-1.pt"
    save_checkpoint(path, STATE)
    damage(path)
    with pytest.raises(CheckpointError, match="^Expected ") as problem:
        load_checkpoint(path)
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "executed").exists()


def test_any_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "step-1.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"got no step-1\.pt"):
        load_checkpoint(tmp_path / "step-1.pt")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_and_the_run_ends_the_same(tmp_path, damage):
    whole = loop_of(Line(), tmp_path / "whole")
    whole.run()
    folder = tmp_path / "damaged"
    loop_of(Line(), folder).run()
    damage(folder / "step-00000012.pt")
    again = loop_of(Line(), folder)
    with pytest.warns(CheckpointWarning, match=r"checkpoint skipped: .*step-00000012"):
        again.run(resume=True)
    assert_same_content(again.snapshot(), whole.snapshot())
    load_checkpoint(folder / "step-00000012.pt")


def test_all_damaged_is_an_error(tmp_path):
    loop_of(Line(), tmp_path).run()
    for path in tmp_path.glob("step-*.pt"):
        flip(path)
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(CheckpointError, match=r"Expected one whole checkpoint in .*, got none"),
    ):
        loop_of(Line(), tmp_path).run(resume=True)


def test_two_are_kept_of_each_kind(tmp_path):
    for step in range(5):
        for kind in ("step", "best"):
            save_checkpoint(tmp_path / f"{kind}-{step:08d}.pt", STATE)
            prune_checkpoints(tmp_path)
    names = {path.name for path in tmp_path.glob("*.pt")}
    assert names == {f"{kind}-{step:08d}.pt" for kind in ("step", "best") for step in (3, 4)}
    assert len(list(tmp_path.iterdir())) == 8


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None


def full_disk(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Let writes to files whose name holds `suffix` meet a full disk half way."""

    def fail(self: Path, content, *args, **options):
        if suffix in self.name:
            with self.open("wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real[type(content)](self, content, *args, **options)

    real = {bytes: Path.write_bytes, str: Path.write_text}
    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(Path, "write_text", fail)


@pytest.mark.parametrize("suffix", [".pt.", ".sha256."])
@pytest.mark.parametrize("step", [1, 2])
def test_a_full_disk_leaves_the_old_one_whole_and_nothing_else(tmp_path, monkeypatch, suffix, step):
    save_checkpoint(tmp_path / "step-1.pt", STATE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # "step-1.pt.12.partial" and "step-1.pt.sha256.12.partial" are the partial files
    suffix = "pt.sha256." if suffix == ".sha256." else f"step-{step}.pt."
    full_disk(monkeypatch, suffix)
    with pytest.raises(OSError, match="No space left") as problem:
        save_checkpoint(tmp_path / f"step-{step}.pt", {"a": torch.zeros(9)})
    assert str(tmp_path / f"step-{step}.pt") in str(problem.value.filename)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    load_checkpoint(tmp_path / "step-1.pt")


def test_a_disk_full_at_the_last_moment_leaves_no_digest_behind(tmp_path, monkeypatch):
    calls = []

    def fsync(number: int) -> None:
        calls.append(number)
        if len(calls) == 2:  # the digest is written, the checkpoint still has its other name
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "step-1.pt", STATE)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from dense_imb.engine.checkpoint import save_checkpoint

def dying(real):
    def call(*args, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return call

os.fsync, Path.replace = dying(os.fsync), dying(Path.replace)
Path.write_bytes, Path.write_text = dying(Path.write_bytes), dying(Path.write_text)
for die_at in range(1, 7):
    folder = Path(sys.argv[1], str(die_at))
    folder.mkdir()
    left = 0
    save_checkpoint(folder / "step-1.pt", {"a": torch.zeros(100)})
    if (child := os.fork()) == 0:
        left = die_at
        save_checkpoint(folder / "step-2.pt", {"a": torch.ones(100)})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_kill_at_any_point_of_a_save_leaves_a_whole_one(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["-9"] * 6
    for folder in tmp_path.iterdir():
        kept = newest_checkpoint(folder)
        assert kept is not None
        assert kept["a"].sum() == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 4}, "batch_size: 5 there, 4 here"),
        ({"steps": 20}, "steps: 12 there, 20 here"),
        ({"schedule": "cosine"}, "schedule: one-cycle there, cosine here"),
        ({"seed": 7}, "seed: 0 there, 7 here"),
    ],
)
def test_another_setup_is_refused_with_both_values(tmp_path, change, told):
    loop_of(Line(), tmp_path).run()
    with pytest.raises(CheckpointError, match=told):
        loop_of(Line(), tmp_path, **change).run(resume=True)


def test_other_data_or_another_task_is_refused(tmp_path):
    class Other(Line):
        def describe(self):
            return {"task": "curve"}

    loop_of(Line(), tmp_path).run()
    with pytest.raises(CheckpointError, match="samples: 24 there, 25 here"):
        loop_of(Line(25), tmp_path).run(resume=True)
    with pytest.raises(CheckpointError, match="task: line there, curve here"):
        loop_of(Other(), tmp_path).run(resume=True)
