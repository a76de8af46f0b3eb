"""Number of CPU threads of a process: what the machine, a container and Slurm let it use."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dense_imb.base.refusals import Refused

_ROOT = Path("/")  # tests replace it


def cpus_of_affinity() -> int:
    """Return the number of CPUs that the process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cpus() -> int:
    """Return the number of CPUs that the process may use.

    The smallest of three: the CPUs that the process may run on, the quota of its control group
    (of a container, rounded up), and SLURM_CPUS_PER_TASK.
    """
    limits = [cpus_of_affinity(), *map(math.ceil, _quotas())]
    if (of_task := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        limits.append(int(of_task))
    return max(min(limits), 1)


def share_of_cpus(n_processes: int) -> int:
    """Return the number of threads of each of n processes that share the usable CPUs."""
    return max(usable_cpus() // max(n_processes, 1), 1)


def use_threads(threads: int | None = None, n_processes: int = 1) -> None:
    """Choose the number of CPU threads of this process and of those that it starts.

    Call it before torch and NumPy are imported: their libraries read OMP_NUM_THREADS once. Without
    `threads`, a number in OMP_NUM_THREADS stays, and so does the default of these libraries, the
    cores that the process may run on, where that is no more than its share.

    Args:
        threads: number of threads of each process; None for its share of the usable CPUs.
        n_processes: number of processes that will share them.
    """
    if threads is None:
        if "OMP_NUM_THREADS" in os.environ:
            return
        threads = share_of_cpus(n_processes)
        if threads >= cpus_of_affinity():
            return
    elif threads < 1:
        raise Refused("{threads} of at least 1", threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def sleep_while_waiting() -> None:
    """Let waiting threads sleep soon in place of spinning; call it before torch is imported.

    On a machine that others use too, a thread that spins takes the core from the one it waits for.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _quotas() -> Iterator[float]:
    """Yield the quota in CPUs of each control group that holds the process and has one."""
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        files: tuple[str, ...] = ("cpu.max",)
        folder = _ROOT / "sys/fs/cgroup" / controllers
        if "cpu" in controllers.split(","):
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        elif controllers:  # of version 1, for other things; version 2 is one tree without a name
            continue
        inner = folder / path.lstrip("/")  # in a container it may not exist: then the root is ours
        for group in (inner, *inner.parents):
            if (quota := _quota(group, files)) is not None:
                yield quota
            if group == folder:
                break


def _quota(group: Path, files: tuple[str, ...]) -> float | None:
    try:
        words = [word for name in files for word in (group / name).read_text().split()]
        quota, period = map(int, words)
    except (OSError, ValueError):  # "max" is no quota
        return None
    return quota / period if quota > 0 and period > 0 else None
