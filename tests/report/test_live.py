"""The live page: it shows the training, costs little, and changes nothing that is learnt."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.config import TrainConfig
from dense_imb.engine import Callback, Interrupted
from dense_imb.engine.loop import Loop
from dense_imb.engine.pace import format_duration
from dense_imb.report import LivePage, LiveWarning
from dense_imb.report.hits.live import LiveExamples
from dense_imb.report.live import callback
from dense_imb.report.live.crops import part_around
from dense_imb.report.live.page import curves_of, score_rows
from dense_imb.runs import train
from tests.cli.test_train_command import arguments
from tests.data.values.value_files import write_values
from tests.report.reports import Page
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.staged import pictures, stop_at, two
from tests.runs.tiny import assert_same_runs, clean_events, tiny, write_events
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


def config_of(kind: str, folder: Path) -> TrainConfig:
    if kind in ("hits", "frames"):
        model = {"name": "hits:tiny", "options": {}} if kind == "hits" else {}
        return tiny(write_events(folder / "clean.h5", clean_events(24)), model=model)
    if kind == "labels":
        return of_table(write_tables(folder))
    if kind == "values":
        return tiny_values(write_values(folder))
    if kind == "volumes":
        network = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
        images = {"patch": [8, 8, 8], "validation_share": 0.4}
        return tiny_images(write_folders(folder, 5, (10, 16, 20), 3), images=images, model=network)
    return tiny_images(write_folders(folder, size=(80, 72)))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return config_of("hits", tmp_path_factory.mktemp("data"))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without content, which cost nothing."""
    monkeypatch.setattr(callback, "draw_png", lambda draw, size: b"")


class Reader(Callback):
    """Reads the page after each step."""

    def __init__(self, page: LivePage) -> None:
        self.page, self.texts = page, []

    def on_start(self, loop: Loop) -> None:
        self.texts.append(self.page.path.read_text())

    def on_step(self, loop: Loop) -> None:
        self.texts.append(self.page.path.read_text())


def page_of(folder: Path) -> str:
    text = (folder / "live.html").read_text()
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "default-src 'none'" in text
    assert "script" not in page.tags
    return text


@pytest.mark.parametrize("kind", ["hits", "frames", "images", "volumes", "labels", "values"])
def test_a_page_shows_each_kind_and_changes_no_weight(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "_REFRESH", 0)
    monkeypatch.setattr(callback, "_RARELY", 0)
    (tmp_path / "data").mkdir()
    config = config_of(kind, tmp_path / "data")
    train(config, tmp_path / "without", is_quiet=True)
    page = LivePage(tmp_path / "with")
    reader = Reader(page)
    train(config, tmp_path / "with", callbacks=[page, reader], is_quiet=True)
    assert_same_runs(tmp_path / "with", tmp_path / "without")
    first, *others = reader.texts
    assert "No validation yet; the first one comes after step" in first
    assert "step 0 of 10 (0 %)</p>" in first
    assert 'http-equiv="refresh"' in first
    assert "(10 %)" in others[0]
    text = page_of(tmp_path / "with")
    assert "step 10 of 10 (100 %), finished" in text
    assert 'http-equiv="refresh"' not in text
    assert text.count("data:image/png") == (1 if kind == "labels" else 2)
    assert "after step 10</h2>" in text
    assert text.count("<svg") >= 4
    assert f"best {page_monitor(kind)}, at step" in text


def page_monitor(kind: str) -> str:
    names = {"labels": "balanced accuracy", "values": "skill"}
    names |= {"hits": "removal at 97", "frames": "removal at 97"}
    return names.get(kind, "average precision")


@pytest.mark.usefixtures("blank_figures")
def test_figures_are_drawn_at_few_validations(config, tmp_path, monkeypatch):
    drawn = []
    drawings = LiveExamples.drawings
    monkeypatch.setattr(
        LiveExamples, "drawings", lambda *words: (drawn.append(1), drawings(*words))[1]
    )
    config = tiny(config.hits.train, model={"name": "hits:tiny", "options": {}}, validate_every=1)
    train(config, tmp_path / "run", callbacks=[LivePage(tmp_path / "run")], is_quiet=True)
    assert len(drawn) == 2, "the first and the last one, in a run of a second"
    assert page_of(tmp_path / "run").count("<tr") == 11


@pytest.mark.parametrize("broken", ["drawing", "writing"])
def test_a_failure_is_one_warning(config, tmp_path, monkeypatch, broken):
    def fail(*words: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "drawing":
        monkeypatch.setattr(LiveExamples, "drawings", fail)
    else:
        monkeypatch.setattr(callback, "write_whole", fail)
    with pytest.warns(LiveWarning, match="No space left on device.*training goes on") as caught:
        train(config, tmp_path / "run", callbacks=[LivePage(tmp_path / "run")], is_quiet=True)
    assert len([one for one in caught if one.category is LiveWarning]) == 1
    if broken == "drawing":
        assert "could not be drawn" in page_of(tmp_path / "run")


@pytest.mark.usefixtures("blank_figures")
def test_a_resumed_run_goes_on_with_its_page(config, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Interrupted):
            train(config, folder, callbacks=[LivePage(folder)], is_quiet=True)
    text = page_of(folder)
    assert "step 6 of 10 (60 %), stopped; --resume continues it" in text
    assert 'http-equiv="refresh"' not in text
    train(config, folder, callbacks=[LivePage(folder)], resume=True, is_quiet=True)
    text = page_of(folder)
    assert "finished" in text
    assert text.count("<tr") == 4, "validations before the stop are there"
    written = (folder / "live.html").stat().st_mtime_ns
    train(config, folder, callbacks=[LivePage(folder)], resume=True, is_quiet=True)
    assert (folder / "live.html").stat().st_mtime_ns == written, "a finished page stays"


@pytest.mark.usefixtures("blank_figures")
def test_a_second_stage_goes_on_with_the_curves_of_the_first(tmp_path):
    folder = tmp_path / "run"
    page = LivePage(folder)
    reader = Reader(page)
    train(two(pictures(tmp_path / "data")), folder, callbacks=[page, reader], is_quiet=True)
    assert "stage 1 of 2: step" in reader.texts[1]
    text = page_of(folder)
    assert "stage 2 of 2: step 4 of 4 (100 %), finished" in text
    assert ">10</text>" in text, "the axis of steps counts those of both stages"
    assert not (folder / "first" / "live.html").exists()


def test_a_run_that_is_refused_in_its_first_step_leaves_no_page(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_one_step", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path / "run", callbacks=[LivePage(tmp_path / "run")], is_quiet=True)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix == ".html"]


def test_other_processes_write_nothing(config, tmp_path):
    class Second(Callback):
        """A loop of another process, for its callbacks alone."""

        def __init__(self, page: LivePage) -> None:
            self.page = page

        def on_start(self, loop: Loop) -> None:
            other = type("Other", (), {"state": loop.state, "settings": loop.settings})()
            other.is_main = False
            self.page.on_start(other)
            self.page.on_step(other)
            self.page.on_end(other)
            self.page.on_close(other)
            assert not self.page.path.exists()

    page = LivePage(tmp_path / "run")
    train(config, tmp_path / "run", callbacks=[Second(page)], is_quiet=True)


def test_a_file_of_others_is_kept(tmp_path):
    (tmp_path / "live.html").write_text("my notes")
    with pytest.raises(ValueError, match="Expected no file at .*live.html.*; move it elsewhere"):
        LivePage(tmp_path)
    assert (tmp_path / "live.html").read_text() == "my notes"


@pytest.mark.usefixtures("blank_figures")
def test_a_typed_live_prints_the_path(config, tmp_path, capsys):
    path, folder = config.hits.train, tmp_path / "run"
    assert main(arguments(path, folder, "--live", "--report", "false", steps=4)) == 0
    assert f"live page: {folder / 'live.html'}" in capsys.readouterr().out.splitlines()
    assert "finished" in page_of(folder)


@pytest.mark.usefixtures("blank_figures")
def test_names_of_strangers_are_text(tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    config = config_of("labels", tmp_path)
    train(config, folder, callbacks=[LivePage(folder)], is_quiet=True)
    assert "&lt;script&gt;" in page_of(folder)


def test_curves_mark_the_end_of_a_first_stage():
    earlier = [{"step": 2.0, "loss": 4.0}, {"step": 4.0, "loss": 2.0}]
    history = [{"step": 3.0, "loss": 1.0, "auc": 0.5}]
    (curve,) = curves_of(earlier, history, ["loss", "auc", "dice"])
    assert curve.count("<polyline") == 2
    steep = [{"step": k, "loss": 10.0**-k} for k in (0, 1, 2)]
    assert "logarithm" in curves_of([], steep, ["loss"])[0]
    long = [{"step": float(k), "loss": 1.0 + k} for k in range(5000)]
    assert len(curves_of([], long, ["loss"])[0]) < 20_000


def test_the_newest_scores_come_first():
    history = [{"step": float(k), "loss": 1.0, "f1": k / 20} for k in range(1, 20)]
    header, rows = score_rows(history, ["step", "loss", "f1", "dice"], best_step=18)
    assert header == ["step", "loss", "F1"]
    assert len(rows) == 12
    assert rows[0].cells == ["19", "1", "0.95"]
    assert [row.is_best for row in rows[:3]] == [False, True, False]


def test_a_part_lies_in_its_image():
    for size, patch in (((50, 40), (8, 64)), ((9, 30, 7), (4, 8, 16))):
        for place in (0, -1):
            is_lit = np.zeros(size, bool)
            is_lit[(place,) * len(size)] = True
            part = part_around(is_lit, patch)
            assert is_lit[part].any()
            n = 2 if len(size) == 2 else 1
            wanted = tuple(min(s, n * p) for s, p in zip(size, patch, strict=True))
            assert is_lit[part].shape == wanted


@pytest.mark.usefixtures("blank_figures")
def test_the_page_needs_little_time(tmp_path):
    """Figures are bounded by the clock, and a page without new figures takes milliseconds."""
    config, folder = config_of("frames", tmp_path), tmp_path / "run"
    page = LivePage(folder)
    written: list[float] = []

    class Timed(Callback):
        def on_step(self, loop: Loop) -> None:
            started = time.perf_counter()
            page._write(loop)
            written.append(time.perf_counter() - started)

    train(config, folder, callbacks=[page, Timed()], is_quiet=True)
    assert np.median(written) < 0.5
    assert os.listdir(folder).count("live.html") == 1
    assert not list(folder.glob(".live*"))
    assert re.search(r"</html>\s*$", page_of(folder))


def test_durations_are_text():
    assert format_duration(0.4) == "0:00"
    assert format_duration(float("inf")) == "-"
