"""Two processes say what one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dense_imb.metrics import OperatingPoint
from tests.limits import HANG_SECONDS

pytest.importorskip("ignite", reason="pytorch-ignite is not installed: MONAI's engines need it")


@pytest.mark.slow
def test_two_processes_write_the_scores_of_all_images(tmp_path):
    script = str(Path(__file__).with_name("pair.py"))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert OperatingPoint.load(tmp_path / "point.json").retention >= 0.9
