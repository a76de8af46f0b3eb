"""The tables of runs, at a tiny size."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = """
simulate: {pattern: arc, events: 60, size: 16x12, n_photons: 200}
base:
  hits.signal: 6
  hits.noise: 10
  model.name: fast_unet
  model.options: {widths: [4, 8]}
  steps: 3
  validate_every: 3
  batch_size: 8
rows:
  lit: {}
  pattern: {loss: ACBMSELoss, hits.pixels: frame, hits.target: pattern, hits.output: value}
  two: {simulate.patterns_per_event: 2}
"""


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_table_is_trained_row_by_row_and_not_twice(tmp_path, capsys):
    run_table = load("run_table")
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = [str(tmp_path / "tiny.yaml"), "--seeds", "0", "1", "--test-events", "30",
                 "--quiet", "--out", str(tmp_path / "out")]  # fmt: skip
    run_table.main(arguments)
    printed = capsys.readouterr().out
    assert [line.split()[:2] for line in printed.splitlines()[1:]] == [
        ["lit", "2"], ["pattern", "2"], ["two", "2"],
    ]  # fmt: skip
    results = json.loads((tmp_path / "out" / "table.json").read_text())["results"]
    assert all(0 <= row["removal_at_97"] <= 1 for rows in results.values() for row in rows)
    before = (tmp_path / "out" / "lit-0" / "history.csv").stat().st_mtime_ns
    run_table.main(arguments)
    assert capsys.readouterr().out == printed
    assert (tmp_path / "out" / "lit-0" / "history.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_row_of_a_table_is_a_config(path):
    from dense_imb.runs.read import config_from
    from dense_imb.tasks.recipe import Recipe, build_loss

    run_table = load("run_table")
    table = yaml.safe_load(path.read_text())
    for row in table["rows"].values():
        changes = run_table.nested(row or {})
        changes.pop("simulate", None)
        stored = run_table.merged(run_table.nested(table["base"]), changes)
        config = config_from(run_table.merged(stored, {"hits": {"train": ["x.h5"]}}))
        Recipe.of(config)
        build_loss(config.loss)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_config(path):
    from dense_imb.runs.read import config_from
    from dense_imb.tasks.recipe import Recipe

    stored = yaml.safe_load(path.read_text())
    for kind in ("hits", "images", "labels"):  # CIFAR: the command line names the archive
        if kind in stored:
            stored[kind].setdefault("train", "cifar-10-python.tar.gz")
    Recipe.of(config_from(stored))


def test_hard_mining_is_measured_with_wrong_labels(capsys):
    words = ["--noise", "0.02", "--delta", "1e6", "--seeds", "0", "--steps", "2"]
    load("outliers").main(words)
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["cross-entropy", "focal", "hard mining, delta 1e+06"]


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_the_default_loss_of_hits_is_measured(tmp_path, capsys):
    words = ["hits", "--loss", "cross-entropy", "--seeds", "0", "--steps", "2", "--events", "40"]
    load("default_loss").main([*words, "--out", str(tmp_path)])
    first, _, row = capsys.readouterr().out.splitlines()
    assert first == "| loss | removed at 97 % | removed at 99 % | AUC |"
    assert row.startswith("| cross-entropy | ")
