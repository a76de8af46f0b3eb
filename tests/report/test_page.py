"""The page stands on its own, whatever there is to show."""

from __future__ import annotations

import json
import math
import re
import shutil

from dense_imb.hits.baselines import BASELINES
from tests.hits.files import write
from tests.report.conftest import clean_events
from tests.report.reports import FIGURES, Page, pngs, quiet, strict_json


def test_the_page_stands_on_its_own(run_folder, files):
    report = quiet(run_folder, test=str(files / "noisy.h5"))
    assert report.path == run_folder / "report.html"
    text = report.path.read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.sources) == page.tags.count("img") == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?:|url\(|@import", text)
    assert 'name="viewport"' in text
    assert pngs(run_folder) == FIGURES
    assert not list(run_folder.rglob("*.partial"))
    names = {*BASELINES, "tiny"}
    assert names <= {*page.cells}
    assert report.headline in text.replace("&#39;", "'")


def test_wide_tables_wrap_rather_than_scroll(run_folder, files):
    """Only the facts forbid line breaks: twelve columns of scores fit a page of 62 rem."""
    text = quiet(run_folder, test=str(files / "noisy.h5")).path.read_text()
    style = text.partition("<style>")[2].partition("</style>")[0]
    rules = [rule for rule in style.split("}") if "nowrap" in rule]
    assert [rule.partition("{")[0].strip() for rule in rules] == ["table.facts td:first-child"]
    assert "table { border-collapse: collapse; font-size: .85rem" in style


def test_a_run_without_validation_has_a_page(run_folder):
    for path in [*run_folder.iterdir()]:
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = quiet(run_folder)
    assert report.evaluation is None
    assert report.headline == "No scores yet."
    text = report.path.read_text()
    Page(text)
    assert "not come to its first validation" in text
    assert "the network can&#39;t be loaded" in text
    assert "BalancedSoftmaxLoss" in text  # the config, which names the loss of the data
    assert strict_json(run_folder / "report.json")["config"]["steps"] == 30
    assert pngs(run_folder) == []


def test_nan_and_collapse_are_shown(run_folder):
    header, first, *rest = (run_folder / "history.csv").read_text().splitlines()
    empty = ",".join([first.split(",")[0], *[""] * header.count(",")])
    (run_folder / "history.csv").write_text("\n".join([header, empty, *rest]) + "\n")
    metrics = json.loads((run_folder / "metrics.json").read_text())
    metrics |= {"best": {}, "stopped": "collapsed: the network ranks no better than chance"}
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    report = quiet(run_folder)
    assert report.numbers["history"]["auc"][0] is None
    assert math.isfinite(report.numbers["history"]["auc"][1])
    assert report.notes[0].startswith("The run was ended early: collapsed")
    assert "(validation)" not in report.headline
    assert strict_json(run_folder / "report.json")["history"]["loss"][0] is None


def test_a_run_value_run_has_a_report(value_run):
    report = quiet(value_run)
    assert report.evaluation["values"]["n_signal"] > 0
    assert pngs(value_run) == FIGURES


def test_markup_in_names_is_text(run_folder):
    folder = run_folder.rename(run_folder.with_name("a<b>&'c"))
    text = quiet(folder).path.read_text()
    Page(text)
    assert "<h1>a&lt;b&gt;&amp;&#39;c</h1>" in text


def test_test_events_of_noise_only_have_a_report(run_folder, tmp_path):
    from dense_imb.hits import Degradation, degrade

    noise = degrade(clean_events(6, 1), Degradation(signal=0, noise=9), seed=1)
    report = quiet(run_folder, test=str(write(tmp_path / "noise.h5", noise)))
    assert math.isnan(report.evaluation["tiny"]["retention"])
    assert strict_json(run_folder / "report.json")["evaluation"]["rows"][0]["retention"] is None
