"""The table of natural probabilities, at a tiny size."""

from pathlib import Path

from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "natural_probabilities" / "table.py"


def test_the_inverse_repairs_the_calibration_and_leaves_the_ranking():
    run = run_script(SCRIPT, "--pixels", 20_000, "--seeds", 1)
    assert run.returncode == 0, run.stderr
    rows = {line[:24].strip(): line[24:].split() for line in run.stdout.splitlines()}
    assert len(rows["CE"]) == 16
    for name in ("balanced CE", "balanced softmax", "balanced focal 2"):
        before, after = (float(rows[name][place]) for place in (0, 2))
        assert before > 0.1
        assert after < 0.005
        assert abs(float(rows[name][9]) - float(rows[name][11])) < 0.02  # average precision
    assert "->" not in rows["hard mining"]
