"""The scripts at tiny sizes: what they write, print and refuse, and with which exit code."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.data.images.labelled import open_labelled
from dense_imb.hits import HitsFile, verify
from tests.data.events.other_formats import frames, labels_of
from tests.data_tools.scripts import FOLDER, load, run
from tests.hits.files import assert_same, some_events, write
from tests.runs.pictures import write_folders

SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def test_these_are_the_scripts():
    assert SCRIPTS == [
        "check", "convert", "dose", "instances", "key_points", "label", "make", "merge",
        "prepare_images", "repack", "split", "table",
    ]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_asks_the_question_and_shows_the_usage(script, capsys):
    assert run(script, "--help") == 0
    printed = capsys.readouterr().out
    assert "?" in printed
    assert f"{script}.py " in printed


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_run(script):
    assert doctest.testmod(load(script), extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_options_are_one_line_and_exit_2(script, tmp_path, capsys):
    for arguments in (
        ["--no-such-option", "x"],
        [],
        [tmp_path / "none.h5", tmp_path / "x.h5", "-z"],
    ):
        if script == "make" and not arguments:
            continue  # would be told the same as below
        assert run(script, *arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"{script}.py: error: ")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("convert", ["none.npy", "x.h5"]),
        ("convert", ["none.h5", "x.npy"]),
        ("dose", ["none.h5", "x.h5"]),
        ("key_points", ["none.csv", ".", "x.h5"]),
        ("split", ["none.h5"]),
        ("label", ["x.h5", "none.h5"]),
        ("merge", ["x.h5", "none.h5"]),
        ("repack", ["none.h5"]),
    ],
)
def test_a_missing_file_is_one_line(script, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(script, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"{script}.py: error: ")
    assert "none." in line
    assert list(tmp_path.iterdir()) == []


def test_it_runs_as_a_script_without_a_traceback(tmp_path):
    np.save(tmp_path / "a.npy", frames() * -1.0)
    ran = subprocess.run(
        [sys.executable, FOLDER / "convert.py", tmp_path / "a.npy", tmp_path / "a.h5"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )  # fmt: skip
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr.rstrip().endswith(".")
    assert "convert.py: error: Expected values of at least 0" in ran.stderr


def test_make_resumes_and_parts_share_no_event(tmp_path, capsys):
    arguments = [tmp_path, "--train", 6, "--validation", 3, "--test", 2, "--photons", 300,
                 "--signal", 10, "--noise", 20, "--seed", 5]  # fmt: skip
    assert run("make", *arguments) == 0
    capsys.readouterr()
    names = {f"{part}{suffix}.h5" for part in ("train", "validation", "test")
             for suffix in ("", "_noisy")}  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == names | {"recipe.json"}
    events = [HitsFile(tmp_path / f"{p}.h5")[:] for p in ("train", "validation", "test")]
    assert [len(part) for part in events] == [6, 3, 2]
    assert len({event.x.tobytes() for part in events for event in part}) == 11
    noisy = HitsFile(tmp_path / "test_noisy.h5")[:]
    assert np.diff(noisy.offset).tolist() == [30, 30]
    assert (noisy.label > 0).sum() == 20

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}
    lost = (tmp_path / "validation.h5").read_bytes()
    (tmp_path / "validation.h5").unlink()
    assert run("make", *arguments) == 0
    assert capsys.readouterr().out.count("there already") == 5
    assert (tmp_path / "validation.h5").read_bytes() == lost  # the very same events
    for path in before.keys() - {tmp_path / "validation.h5"}:
        assert path.stat().st_mtime_ns == before[path]

    assert run("make", *arguments[:-1], 6) == 2
    assert "seed = 5, got 6" in capsys.readouterr().err
    assert run("make", *arguments[:-1], 6, "--overwrite") == 0
    assert not np.array_equal(HitsFile(tmp_path / "test.h5")[:].x, events[2].x)


def test_several_kinds_become_images_with_masks(tmp_path, capsys):
    arguments = [tmp_path, "--train", 40, "--validation", 20, "--test", 0, "--photons", 100,
                 "--signal", 10, "--noise", 20, "--pattern", "arc", "ring", "line", "--frequency",
                 90, 10, 0, "--patterns-per-event", 1, 3]  # fmt: skip
    assert run("make", *arguments) == 0
    assert run("make", *arguments) == 0
    assert capsys.readouterr().out.count("there already") == 4
    assert run("make", *arguments[:-1], 2) == 2
    assert "patterns_per_event = [1, 3], got [1, 2]" in capsys.readouterr().err
    target, names = tmp_path / "frames.h5", ["--kinds", "arc", "ring", "line"]
    parts = [tmp_path / "train_noisy.h5", tmp_path / "validation_noisy.h5"]
    assert run("label", target, *parts, *names) == 0
    printed = capsys.readouterr().out
    assert f"{target}: 60 frames; " in printed
    with h5py.File(target) as file:
        count = np.bincount(file["mask"][:].ravel(), minlength=5)
        assert file["image"].shape == (60, 8, 128, 88)
    assert count[2] > count[3] > count[4] == 0
    for k, name in enumerate(["empty", "noise", "arc", "ring", "line"]):
        assert f"   {k}  {name:16} {count[k]:14,} pixels" in printed
    assert run("label", target, *parts, *names) == 2
    assert "--overwrite" in capsys.readouterr().err
    options = ["--time-bins", 10, "--noise-is-background", "--overwrite"]
    assert run("label", target, *parts, *names, *options) == 0
    with h5py.File(target) as file:
        assert file["image"].shape == (60, 1, 10, 128, 88)
        assert file["mask"][:].max() == 2


def test_a_recipe_from_before_there_were_frequencies_goes_on(tmp_path, capsys):
    arguments = [tmp_path, "--train", 2, "--validation", 1, "--test", 1, "--photons", 50]
    assert run("make", *arguments) == 0
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["patterns_per_event"] == 1
    del recipe["frequency"]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert run("make", *arguments) == 0
    assert capsys.readouterr().out.count("there already") == 3


def test_a_stopped_overwrite_leaves_no_file_of_the_old_settings(tmp_path, monkeypatch):
    arguments = [tmp_path, "--train", 2, "--validation", 1, "--test", 1, "--photons", 100]
    assert run("make", *arguments, "--seed", 1) == 0
    old = HitsFile(tmp_path / "test.h5")[:]
    from dense_imb.data.events import simulated

    monkeypatch.setattr(simulated, "simulate", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("make", *arguments, "--seed", 2, "--overwrite")
    monkeypatch.undo()
    assert run("make", *arguments, "--seed", 2) == 0
    assert not np.array_equal(HitsFile(tmp_path / "test.h5")[:].x, old.x)


def test_make_refuses_before_it_writes(tmp_path, capsys):
    for wrong in (
        ["--pattern", "crss"], ["--train", -1], ["--noise", -2], ["--width", 0],
        ["--frequency", 1, 2], ["--patterns-per-event", 2, 1], ["--patterns-per-event", 1, 2, 3],
    ):  # fmt: skip
        assert run("make", tmp_path / "new", *wrong) == 2
    assert not (tmp_path / "new").exists()
    assert "Did you mean 'cross'?" in capsys.readouterr().err


def test_convert_split_merge_check(tmp_path, capsys):
    time = frames(40)
    np.savez(tmp_path / "a.npz", frames=time, labels=labels_of(time))
    assert run("convert", tmp_path / "a.npz", tmp_path / "a.h5", "--labels", "labels") == 0
    assert f"{tmp_path / 'a.h5'}: 40 events" in capsys.readouterr().out
    assert run("split", tmp_path / "a.h5", "--shares", "one=3", "two=1", "--seed", 3) == 0
    assert len(HitsFile(tmp_path / "a_one.h5")) == 30
    merged = [tmp_path / "b.h5", tmp_path / "a_one.h5", tmp_path / "a_two.h5"]
    assert run("merge", *merged, "--source-column", "part") == 0
    assert HitsFile(tmp_path / "b.h5")[:].event["part"].tolist() == [0] * 30 + [1] * 10
    assert run("check", tmp_path) == 0
    assert capsys.readouterr().out.count("\nok ") == 4
    assert run("convert", tmp_path / "a.h5", tmp_path / "back.npy", "--labels",
               tmp_path / "labels.npy") == 0  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "back.npy"), time)
    assert np.array_equal(np.load(tmp_path / "labels.npy"), labels_of(time))
    assert run("convert", tmp_path / "a.h5", tmp_path / "back.npy") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_convert_takes_csv_timepix_and_flat_arrays(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("frame;col;row;toa;run\n0;1;2;0;8\n5;3;4;9;8\n")
    options = ["--columns", "event=frame", "x=col", "y=row", "t=toa", "--event-columns", "run"]
    size = ["--width", 5, "--height", 6]
    assert run("convert", tmp_path / "a.csv", tmp_path / "a.h5", *options, *size) == 2
    assert "--time-offset 1" in capsys.readouterr().err
    options += ["--time-offset", 1, *size]
    assert run("convert", tmp_path / "a.csv", tmp_path / "a.h5", *options) == 0
    events = HitsFile(tmp_path / "a.h5")[:]
    assert (events.t.tolist(), events.event["run"].tolist()) == ([1, 10], [8, 8])

    (tmp_path / "xyc").mkdir()
    (tmp_path / "xyc" / "data000.txt").write_text("159\t5\t68\n159\t6\t33\n")
    assert run("convert", tmp_path / "xyc", tmp_path / "b.h5", "--format", "timepix") == 0
    assert HitsFile(tmp_path / "b.h5").geometry.width == 256

    with h5py.File(tmp_path / "flat.h5", "w") as file:
        for name, values in (("c", [1, 2]), ("r", [3, 4]), ("t", [5, 6]), ("o", [0, 2])):
            file[f"p/{name}"] = values
    places = ["--x", "p/c", "--y", "p/r", "--t", "p/t"]
    assert run("convert", tmp_path / "flat.h5", tmp_path / "c.h5", *places, *size) == 2
    assert "without offset; name them with --columns offset=NAME." in capsys.readouterr().err
    places += ["--offset", "p/o"]
    assert run("convert", tmp_path / "flat.h5", tmp_path / "c.h5", *places, *size) == 0
    assert HitsFile(tmp_path / "c.h5")[:].y.tolist() == [3, 4]


def test_an_empty_list_and_flat_arrays_without_names_are_one_sentence(tmp_path, capsys):
    (tmp_path / "empty.csv").write_bytes(b"")
    size = ("--width", 88, "--height", 128)
    assert run("convert", tmp_path / "empty.csv", tmp_path / "a.h5", *size) == 2
    assert "Expected a header line" in capsys.readouterr().err
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["p/t"], file["p/o"] = [5, 6], [0, 2]
    assert run("convert", tmp_path / "flat.h5", tmp_path / "a.h5") == 2
    error = capsys.readouterr().err
    assert "got p/o, p/t, without x, y, offset; " in error
    assert "name them with --columns x=NAME,y=NAME,offset=NAME." in error


def test_labels_that_frames_lack_are_mentioned(tmp_path, capsys):
    path = write(tmp_path / "a.h5", some_events(3))
    assert run("convert", path, tmp_path / "a.npy") == 0
    assert "labels not written; --labels FILE writes them" in capsys.readouterr().err
    assert run("convert", path, tmp_path / "b.npy", "--labels", tmp_path / "l.npy") == 0
    assert run("convert", path, tmp_path / "b.npz") == 0  # holds them
    assert "labels not written" not in capsys.readouterr().err


def test_a_label_becomes_noise(tmp_path, capsys):
    rows = "".join(f"0,{k},0,1,{label}\n" for k, label in enumerate([1, 3, 2, 3]))
    (tmp_path / "a.csv").write_text("event,x,y,t,label\n" + rows)
    options = ["--width", 4, "--height", 1, "--noise-label", 3]
    assert run("convert", tmp_path / "a.csv", tmp_path / "a.h5", *options) == 0
    assert "label 3 became 0, noise" in capsys.readouterr().out
    assert HitsFile(tmp_path / "a.h5")[:].label.tolist() == [1, 0, 2, 0]


def test_a_file_without_events_and_a_column_that_is_missing(tmp_path, capsys):
    empty = write(tmp_path / "empty.h5", some_events(2)[:0])
    assert run("split", empty) == 2
    assert "Expected samples to divide among 3 parts, got none." in capsys.readouterr().err
    assert main(["simulate", str(tmp_path / "a.h5"), "--events", "4"]) == 0
    assert run("split", tmp_path / "a.h5", "--group", "run") == 2
    assert "got `run` and a file without any" in capsys.readouterr().err


def test_merging_two_frames_says_what_differs(tmp_path, capsys):
    for name, width in (("a", "20"), ("b", "30")):
        size = ("--events", "2", "--width", width, "--height", "20")
        assert main(["simulate", str(tmp_path / f"{name}.h5"), *size]) == 0
    assert run("merge", tmp_path / "m.h5", tmp_path / "a.h5", tmp_path / "b.h5") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "width 20, got width 30;" in error
    assert "Geometry(" not in error


def test_commands_name_options_and_no_arguments_of_the_library(tmp_path, capsys):
    path = write(tmp_path / "a.h5", some_events(2))
    assert run("convert", path, path) == 2
    assert run("convert", path, tmp_path / "a.npz") == 0
    assert run("convert", path, tmp_path / "a.npz") == 2
    error = capsys.readouterr().err
    assert "with --overwrite" in error
    assert "overwrite=True" not in error


def test_labels_without_a_hit_are_reported(tmp_path, capsys):
    time = frames()
    np.save(tmp_path / "a.npy", time)
    np.save(tmp_path / "labels.npy", np.ones_like(time))
    assert run("convert", tmp_path / "a.npy", tmp_path / "a.h5", "--labels",
               tmp_path / "labels.npy") == 0  # fmt: skip
    assert f"note: {(time == 0).sum()} labelled pixels have no hit" in capsys.readouterr().out


def test_check_finds_the_damaged_file_among_good_ones(tmp_path, capsys):
    for name in "ab":
        write(tmp_path / f"{name}.h5", some_events(30))
    flipped = bytearray((tmp_path / "a.h5").read_bytes())
    flipped[flipped.rindex(some_events(30).t[:8].tobytes())] ^= 1
    (tmp_path / "a.h5").write_bytes(flipped)
    (tmp_path / "c.h5").write_bytes(b"no HDF5")
    assert run("check", tmp_path, tmp_path / "none.h5") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["DAMAGED", "ok", "NO", "MISSING"]
    assert "`/hit/t`" in lines[0]
    whole = (tmp_path / "b.h5").read_bytes()
    (tmp_path / "d.h5").write_bytes(whole[: len(whole) // 2])
    assert run("check", tmp_path / "d.h5") == 1
    assert capsys.readouterr().out.startswith("DAMAGED")  # truncated, and so a file of ours
    assert run("check", tmp_path / "b.h5") == 0


def test_repack_tells_then_cures(tmp_path, capsys):
    time = frames(300)
    with h5py.File(tmp_path / "slow.h5", "w") as file:
        file.create_dataset("frames", data=time, chunks=(150, 5, 7), compression="gzip")
    assert run("repack", tmp_path / "slow.h5") == 1
    assert "SLOW" in capsys.readouterr().out
    assert run("repack", tmp_path / "slow.h5", tmp_path / "fast.h5") == 0
    assert run("repack", tmp_path / "fast.h5") == 0
    with h5py.File(tmp_path / "fast.h5") as file:
        assert np.array_equal(file["frames"][:], time)
    assert run("repack", tmp_path / "slow.h5", tmp_path / "hits.h5", "--hits") == 0
    assert HitsFile(tmp_path / "hits.h5").n_hits == (time > 0).sum()
    assert run("repack", tmp_path / "hits.h5", tmp_path / "small.h5", "--compression", 9) == 0
    assert_same(HitsFile(tmp_path / "small.h5")[:], HitsFile(tmp_path / "hits.h5")[:])
    verify(tmp_path / "small.h5")
    capsys.readouterr()
    assert run("repack", tmp_path / "hits.h5") == 2
    assert "which is a hits file" in capsys.readouterr().err


def test_instances_of_masks_are_stored(tmp_path, capsys):
    where = write_folders(tmp_path, values=(0, 255))
    words = ["instances", tmp_path / "maps", where[0], "--masks", where[1]]
    assert run(*words, "--labels", 0, 255) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'maps'}: 8 maps of nearest\n"
    data = open_labelled(*where, labels=[0, 255])
    nearest, stored = data.with_instances("nearest"), data.with_instances(tmp_path / "maps")
    assert all((nearest.instance(i) == stored.instance(i)).all() for i in range(8))
    assert run(*words, "--labels", 0, 255) == 2
    assert "overwrite it with --overwrite" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 2
    assert "with --labels 0 255" in capsys.readouterr().err
