"""The bench of mixing runs and compares; how fast anything is, no test asks."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "mixing_step.py"


def bench(*arguments):
    return run_script(SCRIPT, *arguments)


def test_every_mixing_has_its_row():
    run = bench("--patch", "16", "--batch", "2", "--rounds", "1", "--warmup", "0")
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if line[:1] != " " and ", batch" not in line]
    assert [row[:24].strip() for row in rows].count("none") == 2
    assert len(rows) == 5 + 8  # "none" twice: what the clock can tell
    assert all(float(number) > 0 for row in rows for number in row[24:].split())


def test_bad_input_is_refused_in_a_sentence():
    refused = bench("--rounds", "0")
    assert refused.returncode == 2
    assert "Expected --" in refused.stderr.splitlines()[-1]
