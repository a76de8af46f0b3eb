"""The bench of the baselines runs at a tiny size and writes what it prints."""

import json
from pathlib import Path

import pytest

from dense_imb.hits.baselines import BASELINES
from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "hit_baselines.py"


def bench(*arguments):
    pytest.importorskip("sklearn", reason="the bench scores DBSCAN too")
    return run_script(SCRIPT, "--events", "8", "--validation-events", "8", *arguments)


def test_a_tiny_run_has_a_row_for_each_baseline_and_is_not_overwritten(tmp_path):
    out = tmp_path / "new" / "table.json"
    run = bench("--seeds", "0", "1", "--out", str(out))
    assert run.returncode == 0, run.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [(row["n_noise"], row["baseline"]) for row in rows] == [
        (n_noise, name) for n_noise in (200, 500) for name in BASELINES
    ]
    for row in rows:
        assert row["baseline"] in run.stdout
        assert len(row["removal_at_97"]["by_seed"]) == 2
        if row["baseline"] in ("identity", "blank"):
            assert row["removal_at_97"]["mean"] == 0  # ties are kept together
            assert row["retention_at_97"]["mean"] == 1
    density = next(row for row in rows if row["baseline"] == "hit density")
    assert density["removal_at_97"]["mean"] > 0.3
    before = out.read_bytes()
    again = bench("--seeds", "0", "--out", str(out))
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["table.json"]
