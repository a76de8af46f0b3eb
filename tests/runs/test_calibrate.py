"""A finished run is calibrated later: as one that was trained with `calibrate`, and safely."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dense_imb.base import files as base_files
from dense_imb.base.files import write_whole_folder
from dense_imb.cli import main
from dense_imb.runs import Recipe, Run, calibrate, open_run, train
from dense_imb.runs.apply import segment
from dense_imb.runs.natural import NATURAL
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore")  # ten steps collapse, and say so
_QUICK: dict[str, Any] = {"steps": 30, "optimizer": {"learning_rate": 0.02}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n=12)


@pytest.fixture(scope="module")
def trained(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with a fitted bias, and the same one trained with `calibrate`."""
    place = tmp_path_factory.mktemp("runs")
    config = {"loss": "FocalLoss(gamma=2.0, balance={})", "images": {"test_share": 0.25}, **_QUICK}
    return [
        train(
            tiny_images(folders, **config, calibrate=is_calibrated),
            place / str(is_calibrated), device="cpu", is_quiet=True,
        )
        for is_calibrated in (False, True)
    ]  # fmt: skip


@pytest.fixture
def run(trained: list[Run], tmp_path: Path) -> Run:
    """A copy of the run with a fitted bias."""
    return Run(shutil.copytree(trained[0].folder, tmp_path / "run"))


def old(run: Run) -> Run:
    """Make a run one of an older version, without natural probabilities."""
    shutil.rmtree(run.folder / NATURAL)
    return Run(run.folder)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_it_equals_a_training_with_calibrate(run: Run, trained: list[Run]) -> None:
    before = files(old(run).folder)
    assert open_run(run.folder).natural is None
    done = calibrate(run, device="cpu")
    assert done.natural == trained[1].natural
    assert done.natural is not None
    assert done.natural.fit == "affine"
    after = files(run.folder)
    assert {name: after[name] for name in before} == before
    theirs = {name: b for name, b in files(trained[1].folder).items() if name.startswith(NATURAL)}
    assert {name: b for name, b in after.items() if name not in before} == theirs
    assert not [path.name for path in run.folder.iterdir() if path.name.startswith("natural.")]


def test_test_images_are_not_read(
    run: Run, trained: list[Run], folders: tuple[str, str], tmp_path: Path
) -> None:
    """Black test images, whose masks are all foreground, change nothing."""
    from dense_imb.tasks.images import recipe

    test = recipe.open_test_images(run.config.images).names
    assert len(test) == 3
    for place in map(Path, folders):
        shutil.copytree(place, tmp_path / place.name)
    config = (run.folder / "config.yaml").read_text()
    for place in map(Path, folders):
        config = config.replace(str(place), str(tmp_path / place.name))
    (run.folder / "config.yaml").write_text(config)
    for name in test:
        for place, value in (("images", 0), ("masks", 1)):
            path = tmp_path / place / f"{name}.png"
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), value)).save(path)
    assert calibrate(old(run), device="cpu").natural == trained[1].natural


def test_natural_probabilities_are_replaced_when_asked_only(run: Run, trained: list[Run]) -> None:
    before = files(run.folder)
    with pytest.raises(ValueError, match="with a bias fitted.*replace them with `overwrite`"):
        calibrate(run.folder, device="cpu")
    assert files(run.folder) == before
    assert calibrate(run, overwrite=True, device="cpu").natural == trained[1].natural
    with pytest.raises(ValueError, match="slope and bias fitted"):
        calibrate(run.folder, device="cpu")


def test_a_failure_leaves_what_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(run.folder)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("dense_imb.runs.natural._write_record", fail)
    with pytest.raises(OSError, match="disk full"):
        calibrate(run, overwrite=True, device="cpu")
    assert files(run.folder) == before


def test_a_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "natural"
    write_whole_folder(place, lambda to: (to / "a").write_text("1"))
    write_whole_folder(place, lambda to: (to / "b").write_text("2"))
    assert files(tmp_path) == {"natural/b": b"2"}
    monkeypatch.setattr(base_files, "_exchange", lambda *paths: False)  # as on old systems
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        write_whole_folder(place, lambda to: (to / "c").write_text("3"))
    assert files(tmp_path) == {"natural/b": b"2"}


def test_bad_runs_are_one_sentence(run: Run, tmp_path: Path) -> None:
    run = old(run)
    path = run.folder / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({**metrics, "is_finished": False}))
    with pytest.raises(ValueError, match="Expected a finished run .* --resume"):
        calibrate(run, device="cpu")
    del metrics["is_finished"]  # of an older version
    path.write_text(json.dumps(metrics))
    assert calibrate(run, device="cpu").natural is not None
    tables = write_tables(tmp_path / "tables")
    labels = train(of_table(tables, steps=2), tmp_path / "labels", device="cpu", is_quiet=True)
    with pytest.raises(ValueError, match="Runs on whole images cannot be calibrated"):
        calibrate(labels, device="cpu")
    few = write_events(tmp_path / "few.h5", clean_events(6))
    config = tiny(few, hits={"validation_share": 0.2, "signal": 3}, steps=2)
    small = train(config, tmp_path / "small", device="cpu", is_quiet=True)
    with pytest.raises(ValueError, match="Expected at least 20 validation pixels or hits"):
        calibrate(small, overwrite=True, device="cpu")
    value = tiny(few, loss="ACBMSELoss", hits={"output": "value", "pixels": "frame"}, steps=2)
    times = train(value, tmp_path / "times", device="cpu", is_quiet=True)
    with pytest.raises(ValueError, match="`hits.output=value` cannot be calibrated"):
        calibrate(times, device="cpu")


def test_changed_validation_data_are_refused(tmp_path: Path) -> None:
    events = write_events(tmp_path / "hits.h5", clean_events(40))
    run = old(train(tiny(events), tmp_path / "run", device="cpu", is_quiet=True))
    write_events(tmp_path / "hits.h5", clean_events(40, seed=1))
    with pytest.raises(ValueError, match="Expected the validation data of .*run, got others"):
        calibrate(run, device="cpu")
    assert not (run.folder / NATURAL).exists()


class Own(nn.Module):
    """A loss of the user's own, under the name of one of ours."""

    feeds_on = "logits"
    target_form = "binary"

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits - 1, target)


@pytest.mark.parametrize("name", ["mine", "FocalLoss(gamma=2.0, balance={})"])
def test_a_loss_that_is_unknown_is_fitted_from_its_outputs(
    folders: tuple[str, str], tmp_path: Path, name: str
) -> None:
    config = tiny_images(folders, loss=name, **_QUICK)
    run = train(Recipe.of(config, loss=Own()), tmp_path / "run", device="cpu", is_quiet=True)
    assert "no probabilities (dense-imb evaluate RUN --calibrate fits them)" in run.summary()
    with pytest.raises(ValueError, match=r"dense-imb evaluate .*run --calibrate, or omit"):
        segment(run, folders[0], tmp_path / "out", threshold="auto", show_progress=False)
    record = calibrate(run, device="cpu").natural
    assert record is not None
    assert record.natural is not None
    assert record.natural.penalty is None
    assert record.natural.weight == (1.0, 1.0)
    assert record.error is not None
    assert record.error[1] < record.error[0]
    segment(run.folder, folders[0], tmp_path / "out", threshold="auto", show_progress=False)


def test_three_classes(tmp_path: Path) -> None:
    folders = write_folders(tmp_path / "data", n=12, n_classes=3)
    loss = "DiceLoss + CrossEntropyLoss"
    config = tiny_images(folders, loss=loss, **_QUICK)
    run = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert run.natural is not None
    assert run.natural.natural is None
    done = calibrate(run, device="cpu")
    assert done.natural is not None
    assert done.natural.natural is not None
    assert len(done.natural.natural.slope) == 3
    task, network = run.recipe.build_task(), done.trained(device="cpu")
    total, counts = torch.zeros(3), np.zeros(3)
    for i in range(len(task.validation)):
        total += network.probability(task.validation.image(i)).sum((1, 2))
        counts += np.bincount(task.validation.label(i).ravel(), minlength=3)
    np.testing.assert_allclose(total.numpy() / counts, 1, atol=0.05)


def test_the_command(
    run: Run, folders: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def evaluate(*words: object) -> int:
        return main(["evaluate", *map(str, words), "--device", "cpu", "--quiet"])

    old(run)
    where = ["--format", "json", "--no-baselines"]
    assert evaluate(run.folder, "--calibrate", *where) == 0  # and measures its test images
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["rows"]
    assert len(rows) > 0
    assert f"{run.folder}: probabilities: natural with slope and bias fitted" in printed.err
    assert "made before are old now; repeat dense-imb report and export" in printed.err
    assert evaluate(run.folder, "--calibrate") == 2
    assert "replace them with --overwrite" in capsys.readouterr().err
    assert evaluate(*folders[:1], "--calibrate") == 2
    assert "Expected a run for --calibrate, got none" in capsys.readouterr().err
    events = write_events(tmp_path / "hits.h5", clean_events(40))
    hits = old(train(tiny(events), tmp_path / "hits", device="cpu", is_quiet=True))
    assert evaluate(hits.folder, "--calibrate") == 0  # no test data: nothing else to do
    assert "natural with slope and bias fitted" in capsys.readouterr().out
    assert evaluate(hits.folder, events, "--noise", 20, "--calibrate", "--overwrite") == 0
    assert "20 noise hits added" in capsys.readouterr().out
