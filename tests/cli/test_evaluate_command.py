"""dense-imb evaluate: runs and baselines in one table."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.hits import (
    BASELINES,
    Events,
    Geometry,
    HitDensity,
    HitsFile,
    evaluate,
    open_hits,
)
from dense_imb.hits.table import _legend
from dense_imb.metrics.operating_point import Aim
from tests.cli.test_denoise_command import folder, trained  # noqa: F401
from tests.hits.files import some_sensor_events, write


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    path = tmp_path / "clean.h5"
    assert main(["simulate", str(path), "--events", "20", "--photons", "300"]) == 0
    return path


def rows_of(text: str) -> list[dict[str, object]]:
    return json.loads(text)["rows"]


def test_every_baseline_stands_in_the_table(folder, capsys):  # noqa: F811
    assert run(folder / "a.h5") == 0
    printed = capsys.readouterr()
    for name in BASELINES:
        assert f"\n{name} " in printed.out
    assert "every 5th event (4), scores on the 16 others" in printed.out
    assert "100%" in printed.err  # the progress bar, full


def test_runs_come_first_and_files_are_one_data_set(folder, trained, capsys):  # noqa: F811
    for files in ([folder / "*.h5"], [folder / "a.h5", folder / "b.h5", folder / "c.h5"]):
        assert run(trained, *files, "--no-baselines", "--format", "json") == 0
        (row,) = rows_of(capsys.readouterr().out)
        assert (row["scorer"], row["n_events"]) == ("net", 48)
    assert run(trained, folder / "a.h5", "--validation", folder / "b.h5", "--format", "json") == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row["scorer"] for row in rows][:2] == ["net", "identity"]
    assert rows[0]["n_events"] == 20
    assert run(trained, folder / "a.h5", "--events", 10, "--format", "json") == 0
    assert rows_of(capsys.readouterr().out)[0]["n_events"] == 8


def test_a_sweep_writes_its_table_and_a_figure(clean, tmp_path, capsys):
    out = tmp_path / "deep" / "table"
    arguments = (clean, "--noise", 50, 100, "--signal", 20, "--seed", 4, "--out", out)
    assert run(*arguments, "--retention", 0.9, "--format", "json") == 0
    printed = rows_of(capsys.readouterr().out)
    assert rows_of((out / "evaluation.json").read_text()) == printed
    with (out / "evaluation.csv").open() as file:
        assert [float(row["removal"]) for row in csv.DictReader(file)] == [
            row["removal"] for row in printed
        ]
    assert [row["noise"] for row in printed] == [50] * 6 + [100] * 6
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.csv",
        "evaluation.json",
        "removal.png",
    ]
    assert (out / "removal.png").read_bytes()[:4] == b"\x89PNG"
    made_by = json.loads((out / "evaluation.json").read_text())["made_by"]
    assert (made_by["runs"], made_by["options"]["noise"]) == ({}, [50, 100])
    assert len(made_by["data"][str(clean)]) == 32
    before = (out / "evaluation.csv").read_bytes()
    assert run(*arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "evaluation.csv").read_bytes() == before
    assert run(*arguments, "--overwrite") == 0
    assert "50 noise hits added to each event" in capsys.readouterr().out
    assert (out / "evaluation.csv").read_bytes() != before


def test_a_sweep_does_what_its_options_say(clean, capsys):
    found = {}
    common = (clean, "--noise", 50, "--format", "json")
    for option in ((), ("--signal", 20), ("--seed", 1), ("--validation", clean)):
        assert run(*common, *option) == 0
        row = rows_of(capsys.readouterr().out)[0]
        row.pop("events_per_second")
        found[option] = row
    assert found["--signal", 20]["n_signal"] <= 20 * 16
    row = found[()]  # nothing was taken away, from all but every fifth event
    events = [event for k, event in enumerate(open_hits(clean)[:]) if k % 5]
    assert row["occluded_share"] > 0.1  # hidden hits count, too
    assert row["n_signal"] == sum(event.n_hits for event in events)
    assert found["--validation", clean]["n_events"] == 20
    assert found["--seed", 1] != found[()]


def test_the_figure_shows_the_removal(clean, tmp_path, monkeypatch):
    from dense_imb.curves import figure

    drawn = []
    draw = figure.draw
    monkeypatch.setattr(
        figure, "draw", lambda table, axes: (drawn.append(table), draw(table, axes))
    )
    assert run(clean, "--noise", 50, 100, "--out", tmp_path) == 0
    (table,) = drawn
    rows = rows_of((tmp_path / "evaluation.json").read_text())
    wanted = tuple(100 * row["removal"] for row in rows if row["scorer"] == "hit density")
    assert table.axis.values == (50.0, 100.0)
    assert table["hit density"] == wanted
    assert {curve.name for curve in table.curves} == set(BASELINES)


def test_hits_of_sensors_have_the_rules_of_any_geometry(tmp_path, capsys):
    path = write(tmp_path / "sensors.h5", some_sensor_events(20))
    assert run(path) == 0
    printed = capsys.readouterr().out
    assert "\nhit density" in printed
    assert "\nDBSCAN" in printed
    assert "no row for median filter, which needs a grid of pixels." in printed
    clean = tmp_path / "clean.h5"
    typed = ["denoise", "hit-density", str(path), str(clean), "--threshold", "0.5", "--quiet"]
    assert main(typed) == 0
    assert clean.exists()


def test_the_next_command_measures_on_the_same_files(folder, trained, capsys):  # noqa: F811
    assert run(trained, folder / "a.h5", "--no-baselines", "--device", "cpu") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: dense-imb report run --test {folder / 'a.h5'}"


def test_a_single_level_needs_no_figure(clean, tmp_path):
    assert run(clean, "--noise", 0, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_without_scikit_learn_a_line_says_so(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert run(folder / "a.h5") == 0
    assert "DBSCAN, which needs scikit-learn" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["."], 'got the folder ., which is no run; name its hits files: "./*.h5"'),
        (["a.h5", "--no-baselines"], "Expected a RUN beside --no-baselines"),
        (["a.h5", "--signal", "20"], "Expected --noise beside --signal, got none; --noise 200"),
        (["a.h5", "--noise", "20"], "Expected clean events"),
        (["a.h5", "--retention", "0"], "above 0 and up to 1, got 0.0"),
        (["a.h5", "--events", "0"], "`n_events` to be a number of at least 1"),
        (["missing.h5"], "missing.h5, got none."),
    ],
)
def test_bad_input_is_one_sentence(folder, capsys, monkeypatch, arguments, sentence):  # noqa: F811
    monkeypatch.chdir(folder)
    n_files = len(open_hits("*.h5"))
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert len(open_hits("*.h5")) == n_files


@pytest.mark.parametrize("place", ["test", "validation"])
def test_hits_without_labels_are_one_sentence_at_once(folder, tmp_path, capsys, place):  # noqa: F811
    bare = replace(HitsFile(folder / "a.h5")[:], label=None)
    path = write(tmp_path / "bare.h5", bare)
    files = [path] if place == "test" else [folder / "a.h5", "--validation", path]
    assert run(*files) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"got {path} without labels; convert them with their labels, dense-imb" in error
    assert error.endswith("or, if all of them are signal, add noise: --noise 200.")
    assert run(path, "--noise", 20, "--events", 5) == 0


def test_baselines_follow_the_frame_and_the_options(tmp_path, capsys):
    path = tmp_path / "small.h5"
    size = ("--width", "45", "--height", "40", "--time-steps", "100")
    hits = ("--signal", "20", "--noise", "40", "--events", "10")
    assert main(["simulate", str(path), *size, *hits]) == 0
    ours = "hit-density(radius_xy=5, radius_t=10)"
    assert run(path, "--baseline", ours, "--baseline", "hit-density") == 0
    printed = capsys.readouterr().out
    assert "\nhit density (radius_xy=5, radius_t=10) " in printed
    assert "hit density radius_xy=8, radius_t=12" in printed.splitlines()[-1]
    assert run(path, "--no-baselines", "--baseline", ours, "--format", "json") == 0
    (row,) = rows_of(capsys.readouterr().out)
    (same,) = evaluate([HitDensity(5, 10)], None, open_hits(path)).rows
    for name in ("threshold", "removal", "auc"):
        assert row[name] == same[name]
    assert run(path, "--baseline", "hit-density(radius=5)") == 2
    assert "Did you mean 'radius_t'?" in capsys.readouterr().err
    for wrong in ("hit-density(5)", "hit-density(radius_t=x)", "hit-density(radius_t=1"):
        assert run(path, "--baseline", wrong) == 2
        assert "Expected options by name" in capsys.readouterr().err


def test_what_would_mislead_is_said(tmp_path, capsys):
    """Piled-up signal, labels without noise, and thresholds on a tie."""
    frame, rng = Geometry(10, 10, 50), np.random.default_rng(0)
    n, label = 2000, np.repeat([1, 2], 1000)
    x, y = rng.integers(0, 2, (2, n))
    events = Events(frame, np.arange(0, n + 1, 100), x, y, rng.integers(1, 51, n), label)
    write(tmp_path / "a.h5", events)
    assert run(tmp_path / "a.h5", "--no-baselines", "--baseline", "blank") == 0
    printed = capsys.readouterr().out
    assert "96 % of the signal is hidden behind other hits" in printed
    assert "--noise-label K" in printed
    assert "tie" not in printed
    # 90 % of the signal in clusters, 10 % as far from all else as the noise is
    row = {"scorer": "a", "retention": 1.0, "auc": 0.92, "threshold_tie": 0.1, "n_events": 1.0}
    row |= {"n_signal": 10.0, "n_noise": 5.0, "occluded_share": 0.0}
    (line,) = _legend([row], Aim("retention", 0.97), False)[1:]
    assert "threshold of a sits on a tie of 10 % of the signal" in line


def test_a_level_is_a_whole_number(capsys):
    with pytest.raises(SystemExit, match="2"):
        run("a.h5", "--noise", "x")
    assert "Expected a whole number in --noise, got 'x'." in capsys.readouterr().err
