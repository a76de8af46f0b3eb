"""Sentences of commands on machines with GPUs, faked."""

from __future__ import annotations

import importlib

import pytest
import torch

from dense_imb.cli import COMMANDS
from dense_imb.cli._parser import Parser
from dense_imb.cli._script import guarded
from dense_imb.engine import launch

# torch's and NCCL's own words, shortened
CUDA = (
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 79.18 GiB of "
    "which 1.06 GiB is free."
)
FULL = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
TWICE = (
    "NCCL error in: ProcessGroupNCCL.cpp:3356, invalid usage (run with NCCL_DEBUG=WARN for "
    "details)\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 5d000"
)


def failing(problem: Exception):
    def action() -> None:
        raise problem

    return action


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "Expected data that fit into the memory of the GPU, got 2.25 GiB more; use smaller "
            "--batch_size, free the GPU of other programs, or add --device cpu.",
        ),
        (
            RuntimeError(FULL),
            "Expected data that fit into the memory of the GPU, got more; use smaller "
            "--batch_size, free the GPU of other programs, or add --device cpu.",
        ),
        (
            RuntimeError(CPU),
            "Expected data that fit into memory, got more; use a part, or smaller batches.",
        ),
        (
            RuntimeError(TWICE),
            "Expected a GPU for each process, got several processes on one; start one process for "
            "each GPU, or share the processors with --device cpu.",
        ),
    ],
)
def test_too_little_of_a_gpu_is_one_sentence(problem, said, capsys):
    parser = COMMANDS["train hits"].make_parser()
    parser.prog = "dense-imb train hits"
    assert guarded(parser, failing(problem)) == 2
    assert capsys.readouterr().err == f"dense-imb train hits: error: {said}\n"


def test_another_error_of_torch_stays_a_traceback():
    with pytest.raises(RuntimeError, match="size mismatch"):
        guarded(Parser(), failing(RuntimeError("size mismatch")))


def test_more_processes_than_gpus_are_refused_with_both_cures(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ValueError, match="each GPU") as refused:
        launch(print, [], 2)
    assert str(refused.value) == (
        "Expected `devices` up to 1, one for each GPU of this machine, got 2; use `devices=1`, or "
        "share the processors with `device=cpu`."
    )


def test_processes_on_the_cpu_need_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    started = []
    monkeypatch.setattr(
        importlib.import_module("dense_imb.engine.launch"),
        "start_processes",
        lambda *_, nprocs, **__: started.append(nprocs) or _Ended(),
    )
    assert launch(print, [], 2, on_cpu=True) == 0
    assert started == [2]


class _Ended:
    processes = ()

    def join(self, grace_period: float) -> bool:
        return True
