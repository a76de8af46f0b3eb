"""Start processes on one machine, forward signals to them, end all when one dies."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from dense_imb.base.refusals import Refused
from dense_imb.base.threads import share_of_cpus
from dense_imb.config import SAVED

_GRACE = 30.0  # seconds that processes have to end by themselves once one has
SECONDS_TO_END = 2 * _GRACE  # after which no process is left once one has failed


def is_launched() -> bool:
    """Tell whether the process is one of several, started by torchrun, Accelerate or `launch`.

    Example:
        >>> from dense_imb.engine import is_launched
        >>> is_launched()  # this process is alone
        False
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(
    main: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    n: int,
    *,
    on_cpu: bool = False,
) -> int:
    """Run `main(arguments)` in n distributed processes; return the exit code of the first to end.

    Args:
        main: function at the top level of a module, so that a new process can import it.
        arguments: arguments of each process.
        n: number of processes, one per device.
        on_cpu: whether the processes leave the GPUs of this machine alone.

    Example:
        >>> from dense_imb.engine import launch
        >>> launch(len, [], n=1)  # any function that a new process can import; 0 is success
        0
    """
    if not on_cpu and torch.cuda.is_available() and n > (n_gpus := torch.cuda.device_count()):
        raise Refused(
            f"{{devices}} up to {n_gpus}, one for each GPU of this machine",
            n,
            f"use {{devices={n_gpus}}}, or share the processors with {{device=cpu}}",
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(share_of_cpus(n))
    received: list[int] = []
    processes: list[Any] = []

    def send(number: int) -> None:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        send(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    context: Any = None
    try:
        resource_tracker.ensure_running()  # its start would unblock SIGINT
        # until they have imported everything, SIGINT waits: it would end them with a traceback
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            context = start_processes(  # type: ignore[no-untyped-call]
                _work,
                (main, list(arguments), shared, os.getpid()),
                nprocs=n,
                join=False,
                start_method="spawn",
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        processes.extend(context.processes)
        for number in [*received]:  # while the processes were started
            send(number)
        while not context.join(grace_period=_GRACE):
            pass
    except ProcessExitedException as ended:
        return _killed(context, received) or int(ended.exit_code)
    except ProcessRaisedException:
        # the errors of the surviving processes only hide the cause
        if code := _killed(context, received):
            return code
        raise
    except KeyboardInterrupt:  # a signal that is not passed on, such as SIGHUP
        send(signal.SIGTERM)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _killed(context: Any, received: list[int]) -> int:
    """Return the exit code if a signal ended a process, after printing which; else 0."""
    for rank, process in enumerate(context.processes):
        if -(process.exitcode or 0) in received:  # before training began
            print(
                f"dense-imb: stopped by {signal.Signals(-process.exitcode).name}", file=sys.stderr
            )
            return 130 if -process.exitcode == signal.SIGINT else SAVED
        if (process.exitcode or 0) < 0:
            name = signal.Signals(-process.exitcode).name
            message = f"process {rank} was ended by {name}; the others were stopped"
            message += ", continue the run with `resume`"
            print(f"dense-imb: error: {message}", file=sys.stderr)
            return 1
    return 0


def _work(
    rank: int,
    main: Callable[[Sequence[str]], int],
    arguments: list[str],
    shared: dict[str, str],
    parent: int,
) -> None:
    if os.getppid() != parent:  # killed while this one imported: later a signal tells of it
        os._exit(1)
    # Ctrl-C in a terminal reaches a whole group; the first process forwards it once
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` has handlers of its own
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    code = main(arguments)
    if code:  # threads of a group that is still open would abort an orderly exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)
