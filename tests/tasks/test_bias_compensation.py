"""Bias-compensated cross-entropy in runs of every task: its counts, and its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_imb.engine import Interrupted
from dense_imb.losses import BiasCompensatedLoss
from dense_imb.runs import TrainConfig, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.recipe import build_task
from tests.engine.test_loop import Signal
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import assert_same_runs, clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
TASKS = ("classifier", "segmenter", "binary segmenter", "denoiser", "frame denoiser")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "classifier": write_tables(folder / "table"),
        "segmenter": write_folders(folder / "three", n_classes=3),
        "binary segmenter": write_folders(folder / "two"),
        "denoiser": write_events(folder / "hits.h5", clean_events(24)),
    }


def config_of(name: str, data: dict[str, Any]) -> TrainConfig:
    kind = name.removeprefix("binary ").removeprefix("frame ")
    make = {"classifier": of_table, "segmenter": tiny_images, "denoiser": tiny}[kind]
    more = {"hits": {"pixels": "frame"}} if name.startswith("frame") else {}
    return make(data[name if name in data else kind], loss="BiasCompensatedLoss", **more)


@pytest.mark.parametrize("name", TASKS)
def test_the_counts_are_those_of_the_training_set(data, name):
    task = build_task(config_of(name, data))
    (loss,) = (part for part in task.loss.modules() if isinstance(part, BiasCompensatedLoss))
    is_binary = "binary" in name or "denoiser" in name
    assert tuple(loss.compensation.class_counts) == tuple(task.class_counts)
    assert len(task.class_counts) == (2 if is_binary else 3)
    assert min(task.class_counts) < max(task.class_counts) / 2
    if is_binary:
        logits = task.network(task.batch(np.arange(2), 0, torch.device("cpu")).shown)
        assert logits.shape[1] == 1


@pytest.mark.parametrize("name", TASKS)
def test_a_stopped_run_goes_on_where_its_schedule_was(data, tmp_path, monkeypatch, name):
    config = config_of(name, data)
    told: list[float] = []
    set_progress = BiasCompensatedLoss.set_progress

    def noted(loss: BiasCompensatedLoss, progress: float) -> None:
        told.append(progress)
        set_progress(loss, progress)

    def run(folder: Path, **options: Any) -> Any:
        return train(config, folder, is_quiet=True, **options)

    monkeypatch.setattr(BiasCompensatedLoss, "set_progress", noted)
    whole = run(tmp_path / "whole")
    assert told == [k / config.steps for k in range(config.steps)]
    signal_at = Signal(7)
    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
        with pytest.raises(Interrupted):
            run(tmp_path / "again")
    told.clear()
    run(tmp_path / "again", resume=True)
    assert told == [k / config.steps for k in range(7, config.steps)]
    assert_same_runs(tmp_path / "again", tmp_path / "whole")
    place = "0.progress" if "denoiser" in name else "progress"
    assert float(whole.checkpoint("last")["loss"][place]) == pytest.approx(0.9)
