"""The main job from end to end, at a tiny size."""

from __future__ import annotations

import warnings

import pytest

from dense_imb.cli import main
from dense_imb.engine import CollapseWarning
from dense_imb.hits import open_hits
from dense_imb.runs import open_run

pytestmark = pytest.mark.slow
TINY = ["--events", "100", "--test-events", "10", "--steps", "4", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # four steps teach nothing
        assert main(["demo", "--out", str(folder), *TINY]) == 0
    return folder


def test_the_demo_trains_compares_denoises_and_reports(made):
    assert open_run(made / "hits").metrics["steps"] == 4
    with (
        open_hits(str(made / "denoised" / "raw.h5")) as denoised,
        open_hits(made / "raw.h5") as raw,
    ):
        assert (denoised[:].t == raw[:].t).all()
        assert {"score", "keep"} <= denoised[:].hit.keys()
    table = (made / "evaluation.json").read_text()
    assert all(name in table for name in ("hits", "hit density", "blank", "identity"))
    assert "<html" in (made / "hits" / "report.html").read_text()


def test_a_demo_goes_on_where_it_was(made, capsys):
    weights = (made / "hits" / "last.safetensors").stat().st_mtime_ns
    denoised = (made / "denoised" / "raw.h5").stat().st_mtime_ns
    assert main(["demo", "--out", str(made), *TINY]) == 0
    assert "finished before" in capsys.readouterr().out
    assert (made / "denoised" / "raw.h5").stat().st_mtime_ns == denoised
    assert open_run(made / "hits").metrics["is_finished"]
    assert weights <= (made / "hits" / "last.safetensors").stat().st_mtime_ns


def test_a_demo_of_other_sizes_is_refused(made, capsys):
    assert main(["demo", "--out", str(made), *TINY, "--events", "120"]) == 2
    assert "the same sizes, or another folder" in capsys.readouterr().err
