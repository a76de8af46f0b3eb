"""The bench of the loss of features runs and compares; how fast anything is, no test asks."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "feature_step.py"


def test_every_loss_has_its_row():
    run = run_script(SCRIPT, "--patch", 16, "--batch", 2, "--rounds", 1, "--warmup", 0)
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if line[:1] != " " and ", batch" not in line]
    assert [row[:26].strip() for row in rows].count("RangeLoss") == 3
    assert len(rows) == 3 * 3
    assert all(float(number) > 0 for row in rows for number in row[26:].split())
