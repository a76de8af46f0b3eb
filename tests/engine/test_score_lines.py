"""The table of scores while a network is trained: in a terminal, and in a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dense_imb.engine import Interrupted, ProgressBar, ScoreLines, score_lines
from tests.engine.test_loop import Signal
from tests.runs.tiny import Line, loop_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Scored(Line):
    """Accuracies of 0.5, 0.75, 0.25 and again 0.25."""

    def validate(self, network, device, process, n_processes):
        self.n = getattr(self, "n", 0) + 1
        return {"accuracy": [0.5, 0.75, 0.25][min(self.n, 3) - 1], "mae": 1234.56}


def run(monkeypatch, to: io.StringIO, folder: Path, *callbacks, resume: bool = False) -> str:
    monkeypatch.setattr("sys.stderr", to)
    loop_of(Scored(), folder, callbacks=callbacks, validate_every=4).run(resume=resume)
    return to.getvalue()


def test_a_log_has_a_plain_line_for_each_validation(tmp_path, monkeypatch):
    text = run(monkeypatch, io.StringIO(), tmp_path, ScoreLines(["mae", "dice"], name="stage 1"))
    assert "\r" not in text
    first, header, *rows = text.splitlines()
    assert first == "stage 1: 12 steps"
    assert header.split() == ["step", "loss", "accuracy", "MAE", "left"]
    assert [row.split()[0] for row in rows] == ["4", "8", "12"]
    assert [" * " in row for row in rows] == [True, True, False]
    assert rows[1].split()[2:5] == ["0.7500", "1235", "*"]
    assert len({row.index(".") for row in rows}) == 1, "columns are aligned"


def test_a_log_says_a_minute_long_that_the_training_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(score_lines, "_EVERY", 0.0)
    lines = run(monkeypatch, io.StringIO(), tmp_path, ScoreLines()).splitlines()
    assert any(line.startswith("step 3 of 12, loss ") and "left" in line for line in lines)


def test_rows_stand_above_the_bar_of_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(score_lines, "_EVERY", 0.0)
    text = run(monkeypatch, Terminal(), tmp_path, ProgressBar(), ScoreLines())
    rows = [line for line in text.replace("\r", "\n").splitlines() if " 0.7500 *" in line]
    assert len(rows) == 1
    assert "12/12" in text.replace("\r", "\n").strip().splitlines()[-1]
    assert "step 3 of 12" not in text


def test_a_resumed_run_shows_what_it_had(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(monkeypatch, io.StringIO(), tmp_path, ScoreLines(), Signal(6))
    lines = run(monkeypatch, io.StringIO(), tmp_path, ScoreLines(), resume=True).splitlines()
    assert lines[0] == "train: step 6 of 12"
    assert [line.split()[0] for line in lines[2:]] == ["4", "8", "12"]
    assert run(monkeypatch, io.StringIO(), tmp_path, ScoreLines(), resume=True) == ""


def test_a_quiet_run_prints_no_line(tmp_path, monkeypatch):
    assert run(monkeypatch, io.StringIO(), tmp_path, ScoreLines(is_quiet=True)) == ""


def test_bars_are_drawn_in_terminals_and_notebooks(monkeypatch):
    notebook = type("tqdm_notebook", (), {"__module__": "tqdm.notebook"})
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not score_lines.has_bars()
    monkeypatch.setattr(score_lines, "tqdm", type("tqdm", (notebook,), {}))
    assert score_lines.has_bars()
    monkeypatch.undo()
    monkeypatch.setattr("sys.stderr", Terminal())
    assert score_lines.has_bars()
