"""Membership in the group of processes that torchrun or Accelerate started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from dense_imb.engine.launch import is_launched

_TIMEOUT = timedelta(hours=1)  # until a process gives up waiting for the others


@dataclass(frozen=True)
class Processes:
    """The processes that work together.

    Args:
        rank: number of this process.
        n: number of processes.
        device: device of this process; None where only one process runs, which may choose.
    """

    rank: int = 0
    n: int = 1
    device: str | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def wait_for_all(device: torch.device) -> None:
    """Wait until every process is here.

    Accelerate's own barrier asks for the GPU of the process's number, also if it runs on the CPU.

    Args:
        device: device of this process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier(device_ids=[device.index or 0] if device.type == "cuda" else None)


@contextmanager
def joined(device: str | None = None) -> Iterator[Processes]:
    """Join the group of processes if this one is one of several; leave it at the end.

    Args:
        device: "cpu", "cuda", or None for a GPU if there is one. Each process has a GPU of its own.
    """
    if not is_launched():
        yield Processes()
        return
    from accelerate import PartialState
    from accelerate.utils import is_cuda_available

    was_joined = dist.is_initialized()
    on_cpu = device == "cpu" or not is_cuda_available()
    state = PartialState(cpu=on_cpu, timeout=_TIMEOUT)
    try:
        yield Processes(state.process_index, state.num_processes, str(state.device))
    finally:
        # without a barrier: a process that failed must not keep the others waiting
        if not was_joined and dist.is_initialized():
            dist.destroy_process_group()
            PartialState._reset_state()
