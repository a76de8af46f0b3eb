"""The classification recipe: its configs fit, and all of it runs on generated data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dense_imb.runs.read import config_from
from dense_imb.tasks.recipe import Recipe
from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "classification"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("loss", ["ce", "csce", "hmld10000000g05a75", "BalancedSoftmaxLoss"])
def test_every_config_can_be_trained(path, loss):
    stored = yaml.safe_load(path.read_text())
    if "cifar" in stored:
        stored["cifar"]["path"] = "cifar.tar.gz"
    config = config_from({**stored, "loss": loss})
    Recipe.of(config)
    assert config.kinds == ("labels",)
    assert config.steps % config.validate_every == 0


def test_every_config_is_in_the_readme():
    readme = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"experiments/classification/(\w+\.yaml)", readme))
    assert named | {"cifar100.yaml"} == {path.name for path in CONFIGS}
    for script in re.findall(r"data_tools/(\w+\.py)", readme):
        assert (ROOT / "data_tools" / script).exists()


@pytest.mark.slow
def test_the_whole_recipe_runs(tmp_path):
    environment = {
        **os.environ, "PYTHON": sys.executable, "STEPS": "4", "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [FOLDER / "smoke.sh", tmp_path / "smoke"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "balanced" in done.stdout
    assert "melanoma: true, called" in done.stdout
    rows = json.loads((tmp_path / "smoke" / "cifar_table" / "evaluation.json").read_text())["rows"]
    scorers = [row["scorer"] for row in rows if row["class"] == "all"]
    assert scorers == ["ce", "hmld10000000g05a75", "BalancedSoftmaxLoss", "commonest"]
