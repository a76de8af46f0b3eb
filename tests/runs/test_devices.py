"""Runs that change their device: faked, where there is no GPU; on one, where there is."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from dense_imb.engine import Callback, Interrupted
from dense_imb.engine.loop import Loop
from dense_imb.engine.processes import wait_for_all
from dense_imb.runs import open_run, train
from tests.engine.test_loop import Signal
from tests.runs.tiny import clean_events, tiny, write_events

fit_module = importlib.import_module("dense_imb.runs.train")

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(20))


def stop_at_six(patch: pytest.MonkeyPatch) -> None:
    """Stop the next runs after six steps."""
    signal = Signal(6)

    class Both(fit_module.RunFiles):
        def on_step(self, loop: Loop) -> None:
            signal.on_step(loop)

    patch.setattr(fit_module, "RunFiles", Both)


def test_a_run_takes_its_own_device_not_that_of_an_earlier_run(path, tmp_path, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=False).device = torch.device("meta")  # as an earlier run on a GPU leaves it
    seen: list[torch.device] = []

    class Look(Callback):
        def on_start(self, loop: Loop) -> None:
            seen.append(loop.accelerator.device)

    monkeypatch.setattr(fit_module, "ProgressBar", lambda *_: Look())
    train(tiny(path, steps=2), tmp_path / "run", device="cpu", is_quiet=True)
    assert seen == [torch.device("cpu")]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["device"] == "cpu"


def test_a_run_of_automatic_precision_keeps_it_on_another_device(path, tmp_path, monkeypatch):
    config = tiny(path, precision="auto")
    with monkeypatch.context() as patch:
        patch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
        stop_at_six(patch)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "run", device="cpu", is_quiet=True)
    setup = open_run(tmp_path / "run").checkpoint("last")["setup"]
    assert setup["precision"] == "bf16"
    monkeypatch.setattr("torch.cpu.get_capabilities", dict, raising=False)
    run = train(config, tmp_path / "run", device="cpu", resume=True, is_quiet=True)
    assert run.metrics["is_finished"]


def test_processes_on_the_cpu_wait_without_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.barrier", lambda device_ids: waited.append(device_ids))
    wait_for_all(torch.device("cpu"))
    wait_for_all(torch.device("cuda", 1))
    assert waited == [None, [1]]


@needs_gpu
@pytest.mark.parametrize("order", [("auto", "cpu"), ("cpu", "auto")])
def test_a_run_goes_on_with_another_device(path, tmp_path, monkeypatch, order):
    first, second = order
    config = tiny(path)
    whole = train(config, tmp_path / "whole", device=first, is_quiet=True)
    with monkeypatch.context() as patch:
        stop_at_six(patch)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "moved", device=first, is_quiet=True)
    moved = train(config, tmp_path / "moved", device=second, resume=True, is_quiet=True)
    for name, weight in whole.weights("last").items():
        torch.testing.assert_close(moved.weights("last")[name], weight, rtol=1e-2, atol=1e-3)


@needs_gpu
def test_a_run_on_a_gpu_is_repeated_and_resumed_to_the_bit(path, tmp_path, monkeypatch):
    config = tiny(path, model={"options": {"widths": [16, 32, 64]}}, steps=12, batch_size=16)
    whole = train(config, tmp_path / "whole", is_quiet=True)
    with monkeypatch.context() as patch:
        stop_at_six(patch)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "stopped", is_quiet=True)
    resumed = train(config, tmp_path / "stopped", resume=True, is_quiet=True)
    again = train(config, tmp_path / "again", is_quiet=True)
    for other in (resumed, again):
        weights = other.weights("last")
        assert all(torch.equal(weights[name], one) for name, one in whole.weights("last").items())
