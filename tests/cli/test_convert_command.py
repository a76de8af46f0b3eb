"""dense-imb convert: data of others in, tables and frames out, one sentence where it fails."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.hits import HitsFile, Sensors, verify
from tests.data.events.other_formats import frames, labels_of
from tests.hits.files import assert_same, some_events, write

SIZE = ("--width", 8, "--height", 8)


def run(*arguments: object) -> int:
    try:
        return main(["convert", *map(str, arguments)])
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.fixture
def rows(tmp_path):
    lines = [f"{run},{event},{run + event},{event},{5 + event},0.5,{event % 2}"
             for run in (0, 1) for event in (0, 1, 2)]  # fmt: skip
    text = "run,event,padx,pady,time,charge,truth\n" + "\n".join(lines) + "\n"
    (tmp_path / "a.csv").write_text(text)
    return tmp_path / "a.csv"


COLUMNS = ("--columns", "x=padx,y=pady,t=time")


def test_the_cure_of_each_sentence_works(rows, tmp_path, capsys):
    out = tmp_path / "a.h5"
    assert run(rows, out, *SIZE) == 2
    error = capsys.readouterr().err
    assert "got run, event, padx, pady, time, charge, truth, without x, y, t" in error
    cure = re.search(r"(--columns \S+)\.", error)[1].split()
    assert cure == ["--columns", f"{COLUMNS[1]},label=truth"]
    assert run(rows, out, *SIZE, *cure) == 0
    with HitsFile(out) as hits:
        assert "/hit/label" in hits.columns
    assert run(rows, out, *SIZE, *COLUMNS, "--overwrite") == 0
    printed = capsys.readouterr()
    assert "warning: `run` varies inside 3 of 3 events" in printed.err
    assert "no labels: enough to denoise, not to train; --columns label=truth reads them" in (
        printed.out
    )
    cure = re.search(r"--columns (\S+) keeps them apart", printed.err)[1]
    assert cure == "event=run,event"
    words = ("--columns", f"x=padx,y=pady,t=time,{cure},label=truth", "--overwrite")
    assert run(rows, out, *SIZE, *words) == 0
    printed = capsys.readouterr()
    assert "warning" not in printed.err
    assert f"{out}: 6 events, 6 hits, 8 x 8 x 7\n" in printed.out
    assert "  further columns of hits: charge\n  further columns of events: event_id, run\n" in (
        printed.out
    )
    assert printed.out.endswith(f"next: dense-imb inspect {out}\n")
    verify(out)
    assert HitsFile(out)[:].label.tolist() == [0, 1, 0, 0, 1, 0]


def test_coordinates_in_mm_are_binned_or_sensors(rows, tmp_path, capsys):
    out = tmp_path / "a.h5"
    text = rows.read_text().replace("0,0,0,", "0,0,0.75,")
    rows.write_text(text)
    common = (*COLUMNS, "event=run,event,label=truth")
    assert run(rows, out, *SIZE, *common) == 2
    error = capsys.readouterr().err
    assert "whole numbers in `x`" in error
    assert "--bin x=WIDTH, or keep positions as a table of sensors with --sensors x,y,z" in error
    assert run(rows, out, *common, "--bin", "x=0.5", "y=1", "t=0.5") == 0
    printed = capsys.readouterr().out
    words = re.search(r"the same bins for other files: (--bin .*)", printed)[1].split()
    assert "  x: 6 bins of 0.5 mm from 0.5 to 3.5 mm\n" in printed
    assert HitsFile(out).geometry.x_mm == 0.5
    assert run(rows, tmp_path / "b.h5", *common, *words) == 0
    assert_same(HitsFile(tmp_path / "b.h5")[:], HitsFile(out)[:])
    assert run(rows, out, *common, "--overwrite", "--sensors", "x,y") == 2
    assert "unit of the positions --sensors, got none; add --unit mm, cm or m" in (
        capsys.readouterr().err
    )
    assert run(rows, out, *common, "--overwrite", "--sensors", "x,y", "--unit", "m") == 0
    assert "6 hits, 6 sensors in 2-D\n" in capsys.readouterr().out
    assert isinstance(HitsFile(out).geometry, Sensors)


def test_a_table_of_sensors_in_a_file(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("event,sensor,t\n0,1,0.5\n0,0,0.25\n")
    out = tmp_path / "a.h5"
    assert run(tmp_path / "a.csv", out) == 2
    assert "add --sensor-table FILE" in capsys.readouterr().err
    (tmp_path / "table.csv").write_text("x,y,z\n0,0,1\n0,0,2\n")
    words = ("--sensor-table", tmp_path / "table.csv", "--unit", "m")
    assert run(tmp_path / "a.csv", out, *words) == 0
    assert HitsFile(out)[:].position().tolist() == [[0, 0, 2], [0, 0, 1]]
    capsys.readouterr()
    assert run(out, tmp_path / "frames.npy") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "which have no frame, got frames.npy; write .csv, .root, .parquet or .npz." in error


@pytest.mark.parametrize("kind", ["csv", "npz", "root"])
@pytest.mark.parametrize("geometry", ["grid", "table"])
def test_the_way_back_that_is_printed_leads_back(tmp_path, monkeypatch, capsys, kind, geometry):
    if kind == "root":
        pytest.importorskip("uproot")
    monkeypatch.chdir(tmp_path)
    if geometry == "grid":
        write(tmp_path / "raw.h5", some_events(5))
    else:
        (tmp_path / "a.csv").write_text("event,sensor,t,tot\n0,1,0.5,3\n1,0,0.25,4\n")
        (tmp_path / "table.csv").write_text("x,y,z\n0,0,1\n0,0,2\n")
        assert run("a.csv", "raw.h5", "--sensor-table", "table.csv", "--unit", "m") == 0
    flat = ["--flat"] if kind == "npz" else []
    assert run("raw.h5", f"out.{kind}", *flat) == 0
    words = shlex.split(
        re.search(r"the way back: dense-imb convert (.*)", capsys.readouterr().out)[1]
    )
    assert words[1] == "out.h5"
    assert run(*words) == 0
    back, raw = HitsFile("out.h5")[:], HitsFile("raw.h5")[:]
    assert back.geometry == raw.geometry
    columns = raw.hit_columns()
    momentum = columns.pop("momentum", None)
    if momentum is not None:
        assert np.array_equal(momentum[:, 1], (
            back.hit["momentum"][:, 1] if kind == "npz" else back.hit["momentum_1"]
        ))  # fmt: skip
    for name, column in columns.items():
        assert np.array_equal(back.hit_columns()[name].astype(column.dtype), column)
    assert run("raw.h5", f"out.{kind}", *flat) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("--keep",), ("--keep", "score"), ("--columns", "t=toa"), ("--bin", "t=2"), ("--t-ns", "2")],
)
def test_options_of_other_formats_are_refused_with_a_hits_file(tmp_path, capsys, words):
    write(tmp_path / "a.h5", some_events(20))
    assert run(tmp_path / "a.h5", tmp_path / "a.csv", *words) == 2
    error = capsys.readouterr().err
    assert f"error: {words[0]} is for other formats that become a hits file;" in error
    assert not (tmp_path / "a.csv").exists()
    assert run(tmp_path / "a.h5", tmp_path / "a.csv", "--quiet") == 0


def test_frames_as_ever(tmp_path, capsys):
    time = frames()
    np.savez(tmp_path / "a.npz", frames=time, labels=labels_of(time))
    assert run(tmp_path / "a.npz", tmp_path / "a.h5", "--labels", "labels") == 0
    assert run(tmp_path / "a.h5", tmp_path / "b.npz") == 0
    with np.load(tmp_path / "b.npz") as archive:
        assert np.array_equal(archive["frames"], time)
    words = ("--columns", "x=frames")
    assert run(tmp_path / "a.npz", tmp_path / "c.h5", "--key", "frames", *words) == 2
    assert "--columns and --sensors are for lists of hits, got frames in" in capsys.readouterr().err
    assert run(tmp_path / "a.h5", tmp_path / "b.csv", "--labels", "x.npy") == 2
    assert "--labels is for frames" in capsys.readouterr().err


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_the_source_is_never_overwritten(rows, tmp_path, capsys, link):
    before = rows.read_bytes()
    out = rows
    if link is not None:
        out = tmp_path / "b.h5"
        link(rows, out)
    words = (*COLUMNS, "event=run,event")
    assert run(rows, out, *SIZE, *words, "--overwrite") == 2
    assert "Expected an output apart from the inputs" in capsys.readouterr().err
    assert rows.read_bytes() == before
    table = tmp_path / "t.csv"
    table.write_text("x,y,z\n0,0,1\n")
    words = ("--sensor-table", table, "--unit", "m", "--overwrite")
    assert run(rows, table, *words) == 2
    assert table.read_text() == "x,y,z\n0,0,1\n"
    path = write(tmp_path / "raw.h5", some_events(2))
    before = path.read_bytes()
    assert run(path, tmp_path / "f.npy", "--labels", path, "--overwrite") == 2
    assert path.read_bytes() == before


def test_several_inputs_stay_apart(rows, tmp_path, capsys):
    words = (*COLUMNS, "event=run,event,label=truth")
    assert run(rows, rows, tmp_path / "a.h5", *SIZE, *words, "--source-column", "part") == 0
    events = HitsFile(tmp_path / "a.h5")[:]
    assert events.event["part"].tolist() == [0] * 6 + [1] * 6
    assert run(tmp_path / "a.h5", rows, tmp_path / "b.h5", *SIZE, *words) == 2
    assert "inputs of one kind, got the hits file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.csv", "a.h5"], "Expected a file or folder at none.csv, got none."),
        (["b.csv", "a.h5"], "Expected a file or folder at b.csv, got none. Did you mean 'a.csv'?"),
        (["a.csv", "a.txt"], "Expected the name of a hits file, .h5, got a.txt."),
        (["a.xyz", "a.h5"], "Expected a folder or one of .npy, .npz"),
        (["a.csv", "a.h5", "--columns", "x"], "Expected --columns like x=padx,y=pady"),
        (["a.csv", "a.h5", "--bin", "x"], "Expected --bin like x=1.5 or t=0.5:0:500"),
        (["a.csv", "a.h5", "--sensors", "x", "--unit", "m"], "write --sensors x,y,z"),
        (
            ["a.csv", "a.h5", "--sensors", "x,y", "--sensor-table", "a.csv", "--unit", "m"],
            "choose one",
        ),
        (["a.csv"], "Expected dense-imb convert IN OUT, got fewer words"),
        (["a.csv", "a.h5", "--colums", "x=a"], "Did you mean --columns?"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    rows, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert sentence in error[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_telescopes_come_in_with_one_command_each(tmp_path, capsys):
    root = os.environ.get("DENSE_IMB_DATA", "")
    telescope, camera = (
        f"{root}/{name}/events.h5" for name in ("km3net_muons", "fact_photon_stream")
    )
    if not (os.path.exists(telescope) and os.path.exists(camera)):
        pytest.skip("DENSE_IMB_DATA does not name a folder with the real data")
    out = tmp_path / "a.h5"
    assert run(telescope, out, "--columns", "t=hit/t_ns", "--quiet") == 0
    assert "500 events, 2228941 hits, 64170 sensors in 3-D" in capsys.readouterr().out
    hits = HitsFile(out, in_memory=False)
    with h5py.File(telescope) as file:
        assert np.array_equal(hits.geometry.position, file["sensor/position_m"][:])
        assert np.array_equal(hits.geometry.direction, file["sensor/direction"][:])
        first = int(file["event/offset"][3])
        assert np.array_equal(hits[:3].sensor, file["hit/sensor"][:first])
    assert hits.columns.keys() >= {"/hit/label", "/hit/muon", "/hit/tot_ns", "/hit/triggered"}
    words = ("--columns", "x=photon/col,y=photon/row", "--time-offset", 1, "--t-ns", 0.5)
    assert run(camera, out, *words, "--width", 45, "--height", 40, "--overwrite", "--quiet") == 0
    assert "161 events, 694605 hits, 45 x 40 x 100" in capsys.readouterr().out


def test_the_guide_to_own_data_is_true(tmp_path, monkeypatch, capsys):
    pytest.importorskip("awkward", reason="awkward is not installed")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            assert run(*shlex.split(line)[2:]) == 0
    first = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].strip()
    assert run(*shlex.split(first.replace("event=run,event,", ""))[2:], "--overwrite") == 0
    printed = capsys.readouterr()
    shown = re.findall(r"\n```\n(.*?)\n```\n", re.sub(r"```\w+\n.*?```", "", text, flags=re.DOTALL),
                       re.DOTALL)  # fmt: skip
    assert len(shown) == 7
    for block in shown:
        assert block in printed.out or block in printed.err or block.startswith("dense-imb ")


def test_a_binned_column_is_kept_as_it_was(tmp_path, capsys):
    """The formula of the help leads from a time step to the times in it."""
    time = np.array([0.25, 3.125, 9.5, 784.05])
    lines = [f"0,1,2,{value},{k % 2}" for k, value in enumerate(time)]
    (tmp_path / "a.csv").write_text("\n".join(["evt,col,row,toa_ns,is_signal", *lines]) + "\n")
    out = tmp_path / "a.h5"
    words = ("--columns", "event=evt,x=col,y=row,t=toa_ns", "--bin", "t=0.5", "--keep", "toa_ns")
    assert run(tmp_path / "a.csv", out, *SIZE, *words) == 0
    low = float(re.search(r"t=0.5:([-.0-9]+):", capsys.readouterr().out)[1])
    with HitsFile(out) as hits:
        events = hits[:]
    assert np.array_equal(events.hit["toa_ns"], time)
    assert np.abs(low + (events.t - 0.5) * 0.5 - time).max() <= 0.25
    assert "is_signal" not in events.hit


def test_the_columns_of_a_time_of_flight_detector_are_guessed(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("evt,col,row,toa_ns,is_signal\n0,1,2,3.5,1\n")
    assert run(tmp_path / "a.csv", tmp_path / "a.h5", *SIZE) == 2
    error = capsys.readouterr().err
    assert "--columns x=col,y=row,t=toa_ns,event=evt,label=is_signal" in error


def test_a_column_of_our_name_is_kept_under_another(rows, tmp_path):
    out = tmp_path / "a.h5"
    words = ("--columns", "x=padx,y=pady", "--keep", "t")
    rows.write_text(rows.read_text().replace("time", "t"))
    assert run(rows, out, *SIZE, *words, "--time-scale", "2", "--time-steps", "20") == 0
    with HitsFile(out) as hits:
        events = hits[:]
    assert np.array_equal(events.t, 2 * events.hit["t_"])
