"""Several processes equal one, for every loss: torchrun, gloo, DDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import HANG_SECONDS

from .cases import CASES

WORKER = Path(__file__).parent / "processes.py"


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [2, 3])
def test_processes_equal_one(n_processes):
    """Uneven shares, one rank without a hit, one with an empty batch, weighted pixels, windows."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    finished = subprocess.run(
        [*command, f"--nproc-per-node={n_processes}", str(WORKER)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert f"{len(CASES)} losses agree in {n_processes} processes" in finished.stdout
