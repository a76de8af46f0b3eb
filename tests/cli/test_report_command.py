"""dense-imb report: what it prints and writes; the commands that it names work."""

from __future__ import annotations

import shlex
import warnings

import pytest

from dense_imb.cli import main
from dense_imb.report.hits.source import HitsSource
from dense_imb.runs import open_run
from tests.report.conftest import files, run_folder, trained  # noqa: F401


def run(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr("dense_imb.report.write.draw_png", lambda draw, size: b"\x89PNG")


def test_prints_the_result_and_where_it_is(run_folder, files, capsys):  # noqa: F811
    assert run(run_folder, "--test", files / "noisy.h5", "--events", 20) == 0
    printed = capsys.readouterr()
    result, place, following = printed.out.splitlines()
    assert "removed at" in result
    assert place == str(run_folder / "report.html")
    assert following == f"next: dense-imb export {run_folder} model.onnx"
    assert "100%" in printed.err  # the progress bar, full
    assert (run_folder / "report.json").exists()


def test_another_place_is_kept_unless_told(run_folder, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "page.html"
    assert run(run_folder, "--out", out) == 0
    assert run(run_folder, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err.splitlines()[-1]
    assert run(run_folder, "--out", out, "--overwrite") == 0


@pytest.mark.parametrize("is_clean", [True, False])
def test_the_commands_of_the_page_work(
    run_folder,  # noqa: F811
    files,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
    is_clean,
):
    monkeypatch.chdir(tmp_path)
    test = files / ("clean.h5" if is_clean else "noisy.h5")
    (tmp_path / "raw.h5").write_bytes((files / "noisy.h5").read_bytes())
    source = HitsSource(open_run(run_folder), (str(test),), 20, retention=0.9, adds_noise=is_clean)
    text = source.commands()
    lines = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("dense-imb")]
    assert [words[0] for words in lines] == ["train", "evaluate", "denoise", "report"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a network that learnt little
        for words in lines:
            assert main(words) == 0, words
    first, again = (open_run(folder).metrics["best"] for folder in (run_folder, "again"))
    assert first == again


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["."], "Expected the folder of a run, with config.yaml"),
        (["RUN", "--events", "0"], "`n_events` to be a number of at least 1"),
        (["RUN", "--test", "missing.h5"], "missing.h5"),
        (["RUN", "--out", "page.txt"], "to end in .html"),
    ],
)
def test_bad_input_is_one_sentence(
    run_folder,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
    arguments,
    sentence,
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(run_folder) if word == "RUN" else word for word in arguments]
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
