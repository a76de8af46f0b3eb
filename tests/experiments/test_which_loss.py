"""The recipe of the table of losses, at a tiny size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import HANG_SECONDS

SCRIPT = Path(__file__).parents[2] / "experiments" / "which_loss" / "run.sh"


@pytest.mark.slow
def test_the_recipe_runs_and_goes_on(tmp_path):
    options = "--steps 2 --seeds 1 --first-seeds 1 --loss cross-entropy --loss Dice"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OPTIONS": options}
    command = ["bash", str(SCRIPT), str(tmp_path / "out"), "kinds"]
    for _ in range(2):  # the second time there is nothing left to do
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=HANG_SECONDS,
        )
        assert "The first is" in done.stdout
    assert (tmp_path / "out" / "kinds" / "comparison.csv").exists()


def test_an_unknown_part_is_refused(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path), "rings"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Expected cracks, showers, kinds, longer, signs or regions, got rings" in done.stderr
