"""The bench of a MONAI step runs and compares; how fast anything is, no test asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "monai_step.py"


def bench(*arguments):
    pytest.importorskip("monai")
    return run_script(SCRIPT, *arguments)


@pytest.mark.parametrize("size", ["2x1x16x16", "1x1x16x16x16"])
def test_every_loss_has_its_row(size):
    run = bench("--size", size, "--rounds", "1", "--warmup", "0")
    assert run.returncode == 0, run.stderr
    rows = run.stdout.splitlines()[2:]
    assert rows[0].split()[-6:][1::3] == ["1.00", "1.00"]  # the floor against itself
    assert len(rows) == 5
    assert all(float(number) > 0 for row in rows for number in row[36:].split())


def test_bad_input_is_refused_in_a_sentence():
    refused = bench("--size", "64")
    assert refused.returncode == 2
    assert "Expected --" in refused.stderr.splitlines()[-1]
