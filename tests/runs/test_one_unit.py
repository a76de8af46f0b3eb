"""Weights, validation scores and what is fitted on them are of one network, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dense_imb.engine import CheckpointError
from dense_imb.engine.checkpoint import digest_weights
from dense_imb.runs import Run, denoise, open_run, train
from dense_imb.runs import write as writing
from dense_imb.runs.natural import NATURAL
from dense_imb.runs.write import CHECKPOINTS, SCORES, RunFiles, scored_weights
from tests.runs.tiny import assert_same_runs, clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore")  # ten steps collapse, and say so


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(20))


@pytest.fixture(scope="module")
def whole(path: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two best networks, of which the second one counts."""
    config = tiny(path, optimizer={"learning_rate": 0.05}, loss="FocalLoss")
    run = train(config, tmp_path_factory.mktemp("runs") / "whole", device="cpu", is_quiet=True)
    assert len(list((run.folder / CHECKPOINTS).glob("best-*.pt"))) == 2
    return run


def copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder)
    return open_run(folder)


def best_step(run: Run) -> int:
    return int(run.checkpoint()["state"]["best_step"])


def replace_text(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("place", ["on_best", "_write_text"])
def test_a_kill_while_the_best_is_saved_leaves_the_best_before(whole, tmp_path, monkeypatch, place):
    bests = []

    def killed(*given):
        if place == "_write_text" and given[0].name != SCORES:
            return original(*given)
        bests.append(1)
        if len(bests) > 1:
            raise Killed
        return original(*given)

    holder = RunFiles if place == "on_best" else writing
    original = getattr(holder, place)
    monkeypatch.setattr(holder, place, killed)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(whole.config, folder, device="cpu", is_quiet=True)
    monkeypatch.undo()
    run = open_run(folder)
    first, last = sorted((folder / CHECKPOINTS).glob("best-*.pt"))
    assert best_step(run) == int(first.stem.removeprefix("best-")) < best_step(whole)
    assert digest_weights(run.weights()) == scored_weights(folder)
    assert last.exists()  # not used before its scores are there
    run.operating_point(retention=0.97)
    train(whole.config, folder, resume=True, device="cpu", is_quiet=True)
    assert_same_runs(folder, whole.folder)


def test_scores_of_other_weights_are_refused(whole, path, tmp_path):
    run = copy(whole, tmp_path / "run")
    replace_text(run.folder / SCORES, scored_weights(run.folder), "0" * 32)
    for use in (run.trained, run.checkpoint, lambda: denoise(run, path, tmp_path / "out.h5")):
        with pytest.raises(CheckpointError, match=r"Expected the network that .*, got others; br"):
            use()
    assert not (tmp_path / "out.h5").exists()


def test_probabilities_of_other_weights_are_refused(whole, tmp_path):
    run = copy(whole, tmp_path / "run")
    record = run.folder / NATURAL / "natural.json"
    before = record.read_bytes()
    replace_text(record, scored_weights(run.folder), "0" * 32)
    sentence = f"got that of another; dense-imb train hits --out {run.folder} --resume fits it anew"
    with pytest.raises(CheckpointError, match=sentence):
        run.trained()
    train(run.config, run.folder, resume=True, device="cpu", is_quiet=True)
    assert record.read_bytes() == before


def test_runs_of_older_versions_take_the_newest(whole, tmp_path):
    run = copy(whole, tmp_path / "run")
    replace_text(run.folder / SCORES, f', "weights": "{scored_weights(run.folder)}"', "")
    assert scored_weights(run.folder) is None
    assert best_step(run) == best_step(whole)
    run.trained()
