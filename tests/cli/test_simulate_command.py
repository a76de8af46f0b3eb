"""dense-imb simulate: a hits file of simulated events, the same whatever it is made beside."""

from __future__ import annotations

import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.hits import Geometry, HitsFile, verify


def run(*arguments: object) -> int:
    return main(["simulate", *map(str, arguments)])


def test_writes_the_events_asked_for(tmp_path, capsys):
    path = tmp_path / "tof.h5"
    assert run(path, "--events", 300, "--pattern", "arc", "--signal", 30, "--noise", 200) == 0
    printed = capsys.readouterr()
    assert f"{path}: 300 events, 69000 hits" in printed.out
    assert "simulate" in printed.err  # the progress bar
    verify(path)
    events = HitsFile(path)[:]
    assert len(events) == 300
    count = np.add.reduceat(events.label > 0, events.offset[:-1])
    assert (count == 30).all()
    assert (np.diff(events.offset) == 230).all()


def test_the_seed_decides(tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / f"{name}.h5"
        assert run(path, "--events", 5, "--seed", seed, "--pattern", "ring", "cross") == 0
        files.append(HitsFile(path)[:])
    assert np.array_equal(files[0].x, files[1].x)
    assert not np.array_equal(files[0].x[:100], files[2].x[:100])
    assert set(np.unique(files[0].label)) <= {1, 2}


def test_patterns_are_clean_and_filled_by_default(tmp_path):
    path = tmp_path / "clean.h5"
    run(path, "--events", 3, "--width", 40, "--height", 30, "--time-steps", 500, "--photons", 700)
    events = HitsFile(path)[:]
    assert events.geometry == Geometry(width=40, height=30, time_steps=500)
    assert (events.label == 1).all()
    assert 3 * 100 < events.n_hits <= 3 * 700


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--events", "-1"], "Expected `events` to be a number of at least 0, got -1"),
        (["--pattern", "crss"], "Did you mean 'cross'?"),
        (["--width", "0"], "Expected `width` to be a whole number from 1 to 65536, got 0"),
        (["--noise", "-2"], "Expected `noise` to be a whole number of hits"),
        (["--photons", "0"], "Expected `n_photons` to be a number of at least 1"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, arguments, sentence):
    assert run(tmp_path / "x.h5", *arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert sentence in error[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept(tmp_path, capsys):
    path = tmp_path / "x.h5"
    assert run(path, "--events", 2) == 0
    before = path.read_bytes()
    assert run(path, "--events", 3) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run(path, "--events", 3, "--overwrite") == 0
    assert len(HitsFile(path)) == 3
    assert run(tmp_path / "missing" / "x.h5", "--events", 1) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_events_with_fewer_hits_than_asked_for_are_counted(tmp_path, capsys):
    assert run(tmp_path / "a.h5", "--events", 4, "--photons", 200, "--signal", 5000) == 0
    events = HitsFile(tmp_path / "a.h5")[:]
    least = np.diff(events.offset).min()
    said = capsys.readouterr().err
    assert (
        f"4 of 4 events have fewer than the 5,000 signal hits asked for, the least {least}" in said
    )
    assert run(tmp_path / "b.h5", "--events", 4, "--photons", 200, "--signal", 5) == 0
    assert "note" not in capsys.readouterr().err


def test_an_option_cut_short_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "a.h5", "--event", 4)
    assert "got --event. Did you mean --events?" in capsys.readouterr().err.replace(" 4.", ".")
    assert not (tmp_path / "a.h5").exists()
