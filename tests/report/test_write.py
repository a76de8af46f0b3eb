"""The report says what was measured, and what is missing."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.hits import evaluate, make_baseline, open_hits
from dense_imb.runs import open_run
from tests.hits.files import write
from tests.report.conftest import clean_events
from tests.report.reports import FIGURES, Page, pngs, quiet, strict_json


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Drawing takes most of the time, and is another file's."""
    monkeypatch.setattr("dense_imb.report.write.draw_png", lambda draw, size: b"\x89PNG")


def test_the_table_is_that_of_evaluate(run_folder, files):
    report = quiet(run_folder, test=str(files / "noisy.h5"), n_events=30)
    numbers = strict_json(run_folder / "report.json")
    run = open_run(run_folder)
    from dense_imb.report.hits.measures import validation_events
    from dense_imb.tasks import build_task

    task = build_task(run.config)
    held_out = task.validation
    assert validation_events(run).first == held_out.first == 56
    validation = held_out.degraded(np.arange(len(held_out)), 2**31 - 1)
    rule = make_baseline("hit density", run.geometry())
    wanted = evaluate(
        [run.trained(), rule],
        validation,
        open_hits(files / "noisy.h5"),
        stored={"tiny": run.scores()},  # the threshold is that of `denoise`
        n_events=30,
    )
    for name in ("tiny", "hit density"):
        got = {k: v for k, v in report.evaluation[name].items() if k != "events_per_second"}
        row = {k: v for k, v in wanted[name].items() if k != "events_per_second"}
        assert got == pytest.approx(row, nan_ok=True)
        stored = next(r for r in numbers["evaluation"]["rows"] if r["scorer"] == name)
        assert stored["removal"] == got["removal"]
    assert numbers["evaluation"]["chosen_on"] == wanted.chosen_on
    assert not numbers["noise_added_to_test"]


def test_validation_scores_are_those_of_the_run(run_folder):
    """The events that choose and those that are measured are together the run's own."""
    report = quiet(run_folder)
    run = open_run(run_folder)
    rows = report.evaluation.rows
    best = run.metrics["best"]
    assert report.numbers["metrics"]["best"] == best
    assert f"{100 * best['removal_at_97']:.1f} % of the noise removed at 97 %" in report.headline
    assert "kept (every second validation event)" in report.headline
    # every second of 24, each with 8 signal and 30 noise hits, hidden ones included
    assert rows[0]["n_events"] == 12
    assert rows[0]["n_signal"] + rows[0]["n_noise"] == 12 * 38
    assert "every other validation event (12), scores on the 12" in report.evaluation.chosen_on
    assert "also served to choose" in (run_folder / "report.html").read_text()


def test_clean_test_events_are_degraded_as_the_runs_own(run_folder, files):
    report = quiet(run_folder, test=[str(files / "clean.h5")])
    row = report.evaluation["tiny"]
    assert (row["n_signal"], row["n_noise"]) == (40 * 8, 40 * 30)  # hidden hits count, too
    assert row["occluded_share"] > 0
    assert report.numbers["noise_added_to_test"]
    text = report.path.read_text()
    assert "degraded as the run&#39;s own" in text
    assert "--noise 30 --signal 8" in text


def test_test_events_get_other_noise_than_validation_events(files, run_folder):
    from dense_imb.report.hits.measures import TEST_EPOCH, VALIDATION_EPOCH, test_events

    events, adds_noise = test_events(open_run(run_folder), str(files / "clean.h5"), 5)
    assert adds_noise
    noises = [events.degraded(np.arange(5), epoch) for epoch in (TEST_EPOCH, VALIDATION_EPOCH)]
    x = [one.x[one.label == 0].tolist() for one in noises]
    assert x[0] != x[1]


def test_the_curve_agrees_with_the_table(run_folder, files):
    report = quiet(run_folder, test=str(files / "noisy.h5"))
    for row in report.evaluation.rows:
        curve = report.numbers["curves"][row["scorer"]]
        assert (curve["retention"][0], curve["retention"][-1]) == (0, 1)
        assert curve["retention"] == sorted(curve["retention"])
        assert curve["removal"] == sorted(curve["removal"], reverse=True)
        # another threshold may keep as much signal and less noise
        at = np.searchsorted(curve["retention"], row["retention"] - 1e-12)
        assert curve["removal"][at] >= row["removal"] - 1e-12
        after = np.searchsorted(curve["retention"], row["retention"] + 1e-12)
        if after < len(curve["removal"]):
            assert curve["removal"][after] <= row["removal"] + 1e-12
    kinds = report.numbers["score_histogram"]
    row = report.evaluation["tiny"]
    assert sum(kinds["signal"]) == row["n_signal"]
    assert sum(kinds["noise"]) == row["n_noise"]
    assert len(kinds["logit_edges"]) == len(kinds["signal"]) + 1


def test_samples_count_every_hit(run_folder, files):
    report = quiet(run_folder, test=str(files / "noisy.h5"))
    events = open_hits(files / "noisy.h5")
    for sample in report.numbers["samples"]:
        counts = {k: v for k, v in sample.items() if isinstance(v, int) and k != "event"}
        assert sum(counts.values()) == events[sample["event"]].n_hits
    typical, worst = (
        sample["signal lost"] + sample["noise kept"] for sample in report.numbers["samples"]
    )
    assert typical <= worst


def test_a_report_is_made_again_and_foreign_files_stay(run_folder, files, tmp_path):
    first = quiet(run_folder)
    (run_folder / "figures" / "mine.png").write_bytes(b"\x89PNG mine")
    again = quiet(run_folder, test=str(files / "noisy.h5"))
    assert again.headline != first.headline
    assert (run_folder / "figures" / "mine.png").exists()
    for name in ("report.html", "report.json"):
        (run_folder / name).write_text("mine")
        with pytest.raises(FileExistsError, match=r"no report of dense-imb.*`overwrite`"):
            quiet(run_folder)
        assert (run_folder / name).read_text() == "mine"
        quiet(run_folder, overwrite=True)
    other = tmp_path / "deep" / "page.html"
    quiet(run_folder, out=other)
    assert sorted(p.name for p in other.parent.iterdir()) == ["page.html", "page.json"]
    with pytest.raises(FileExistsError, match="`overwrite`"):
        quiet(run_folder, out=other)
    with pytest.raises(ValueError, match=r"end in \.html"):
        quiet(run_folder, out=tmp_path / "page.pdf")


def test_moved_data_leave_the_curves(edited, files):
    folder = edited("config.yaml", "train.h5", "gone.h5")
    report = quiet(folder)
    assert report.evaluation is None
    (note,) = report.notes
    assert "gone.h5" in note
    assert "--test" in note
    assert pngs(folder) == ["training"]
    assert "(validation)" in report.headline
    # with a test file there is a table; every fifth event chooses
    report = quiet(folder, test=str(files / "noisy.h5"))
    assert "every 5th event (8), scores on the 32 others" in report.evaluation.chosen_on
    assert pngs(folder) == FIGURES
    quiet(folder)
    assert pngs(folder) == ["training"]  # figures of the earlier report went


def test_validation_files_do_without_those_of_the_training(edited, files):
    folder = edited("config.yaml", "train.h5", "gone.h5")
    text = (folder / "config.yaml").read_text()
    text = text.replace("validation: []", f"validation: {files / 'train.h5'}")
    (folder / "config.yaml").write_text(text)
    assert quiet(folder).evaluation["tiny"]["n_events"] == 40


@pytest.mark.parametrize("name", ["history.csv", "metrics.json", "environment.json"])
def test_damaged_records_are_noted(run_folder, name):
    (run_folder / name).write_text("step,loss\nx,y\n" if name.endswith("csv") else '{"broken')
    report = quiet(run_folder)
    assert any(name in note for note in report.notes)
    assert report.evaluation is not None


def test_a_damaged_checkpoint_is_noted(run_folder):
    for path in (run_folder / "checkpoints").glob("best-*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    report = quiet(run_folder)
    assert report.evaluation is None
    assert "can't be loaded" in report.notes[0]
    assert "training" in pngs(run_folder)


def test_a_run_named_like_a_baseline_keeps_its_row(run_folder, files):
    folder = run_folder.rename(run_folder.with_name("hit density"))
    report = quiet(folder, test=str(files / "noisy.h5"))
    names = [row["scorer"] for row in report.evaluation.rows]
    assert names[0] == "hit density (run)"
    assert "hit density" in names[1:]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_events": 0}, "`n_events` to be a number of at least 1"),
        ({"retention": 1.5}, "above 0 and up to 1, got 1.5"),
        ({"test": "missing.h5"}, "missing.h5"),
    ],
)
def test_bad_input_is_one_sentence(run_folder, options, sentence):
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        quiet(run_folder, **options)
    assert not (run_folder / "report.html").exists()


def test_test_events_of_other_frames_are_refused(run_folder, tmp_path):
    from dense_imb.hits import Degradation, Geometry, degrade, simulate

    events = simulate("arc", 4, 1, Geometry(30, 20, 100), n_photons=60)
    noisy = degrade(events, Degradation(signal=8, noise=5), seed=1)
    path = write(tmp_path / "other.h5", noisy)
    with pytest.raises(ValueError, match="30 x 20"):
        quiet(run_folder, test=str(path))


def test_an_empty_test_file_is_refused(run_folder, tmp_path):
    path = write(tmp_path / "empty.h5", clean_events(0, 1))
    with pytest.raises(ValueError, match="Expected test events"):
        quiet(run_folder, test=str(path))


def test_no_event_chooses_and_is_measured(run_folder):
    from dense_imb.report.hits.measures import _sources, validation_events

    held_out = validation_events(open_run(run_folder))
    for n_events, wanted in ((500, 24), (5, 10)):
        (n, chooses), (m, measures), _ = _sources(held_out, None, n_events)
        assert sorted([*chooses.numbers, *measures.numbers]) == [*range(wanted)]
        assert (n, m) == (len(chooses.numbers), len(measures.numbers))
        assert sum(len(batch) for batch in measures) == m


def test_hits_without_labels_are_noted(run_folder, tmp_path):
    from dataclasses import replace

    path = write(tmp_path / "plain.h5", replace(clean_events(6, 1), label=None))
    report = quiet(run_folder, test=str(path))
    assert any("have no labels" in note for note in report.notes)
    assert report.numbers["noise_added_to_test"]


def test_the_page_shows_its_date_and_the_test_files(run_folder, files):
    path = str(files / "noisy.h5")
    report = quiet(run_folder, test=path)
    date = report.numbers["date"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d[+-]\d\d:\d\d", date)
    assert f"Measured {date} on {path}." in html.unescape(report.path.read_text())
    quiet(run_folder)
    page = html.unescape((run_folder / "report.html").read_text())
    assert "on every second validation event of the run." in page


def test_the_page_holds_the_operating_points(run_folder, files, tmp_path):
    """Fakes need noise-only events, and the run's validation events hold none."""
    report = quiet(run_folder, test=str(files / "noisy.h5"))
    text = report.path.read_text()
    assert "97\N{NO-BREAK SPACE}%" in text, "a number and its sign share a line"
    page = Page(text)
    row = report.evaluation["tiny"]
    place = page.cells.index("tiny: retention 97 %")
    assert page.cells[place + 2] == f"{100 * row['retention_at_retention']:.2f} %"
    assert row["retention_at_retention"] == row["retention"]
    assert "tiny: fakes 1" not in page.cells
    assert "tiny: purity 95 %" in page.cells
    text = html.unescape(report.path.read_text())
    assert "signal efficiency (retention)" in text
    assert "background rejection (removal)" in text
    assert "Fakes" not in text
    assert "thresholds of tiny from the validation scores stored in training, of the o" in text


def test_evaluate_and_report_choose_thresholds_alike(run_folder, files, capsys, edited):
    """The network's are those of `denoise`, the baselines' of the run's validation events."""
    path = str(files / "noisy.h5")
    report = quiet(run_folder, test=path)
    words = ["evaluate", str(run_folder), path, "--quiet", "--format", "json"]
    assert main(words) == 0
    table = json.loads(capsys.readouterr().out)
    thresholds = {row["scorer"]: row["threshold"] for row in table["rows"]}
    assert thresholds == {row["scorer"]: row["threshold"] for row in report.evaluation.rows}
    assert thresholds["tiny"] == open_run(run_folder).operating_point().threshold
    assert table["chosen_on"] == report.evaluation.chosen_on
    assert main([*words, "--no-baselines"]) == 0  # no event is needed to choose on
    table = json.loads(capsys.readouterr().out)
    assert table["rows"][0]["n_events"] == 40
    assert table["rows"][0]["threshold"] == thresholds["tiny"]
    edited("config.yaml", "train.h5", "gone.h5")
    assert main(words) == 0
    table = json.loads(capsys.readouterr().out)
    assert "tiny from the validation scores stored in training, of the" in table["chosen_on"]
    assert "every 5th event (8), scores on the 32 others" in table["chosen_on"]
    assert any("validation events of" in note for note in table["notes"])
    assert any("192 signal and 720 noise scores, of which 5" in note for note in table["notes"])


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_run_on_a_table_of_sensors_has_its_report(tmp_path):
    from dense_imb.runs import train
    from tests.tasks.hits.test_networks_of_hits import config, telescope_events

    path = tmp_path / "telescope.h5"
    write(path, telescope_events(24))
    train(config(str(path)), tmp_path / "run", is_quiet=True)
    report = quiet(tmp_path / "run", test=str(path))
    assert pngs(tmp_path / "run") == FIGURES
    scorers = [row["scorer"] for row in report.evaluation.rows]
    assert {"run", "hit density"} <= {*scorers}
    assert "blurred hits" not in scorers
    page = report.path.read_text()
    assert "Colours show the time of signal hits" in page
    assert "in x-y-z, x-z, y-z and time-z" in page
    assert "Hidden behind" not in page
