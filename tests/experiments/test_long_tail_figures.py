"""The figures of range loss and bias compensation: drawn at a tiny size, with their numbers."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from tests.scripts import run_script

FOLDER = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(FOLDER))

from long_tail_figures import GRID, best_accuracy, spread_and_distance  # noqa: E402


def figures(*arguments):
    return run_script(FOLDER / "long_tail_figures.py", *arguments)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_figures_and_their_numbers_are_written(tmp_path):
    tiny = ("--seeds", 0, 1, "--steps", 3, "--images", 20, "--test", 5, "--points", 200)
    done = figures(tmp_path, *tiny, "--toy_steps", 20)
    assert done.returncode == 0, done.stderr
    for name in ("features.png", "boundary.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert len(rows(tmp_path / "features.csv")) == 2 * 6 * 5
    ratios = rows(tmp_path / "feature_ratios.csv")
    assert len(ratios) == 2 * 2 * 6
    for row in ratios:
        expected = float(row["spread"]) / float(row["distance"])
        assert float(row["ratio"]) == pytest.approx(expected, rel=1e-4)
    pairs = [
        [row["spread"] for row in ratios if row["range_loss"] == name]
        for name in ("without", "with")
    ]
    assert pairs[0] != pairs[1]
    assert len(rows(tmp_path / "margins.csv")) == len(GRID) ** 2
    accuracies = rows(tmp_path / "accuracies.csv")
    assert len(accuracies) == 2 * 2 * 20
    assert {row["progress"] for row in accuracies} >= {"0.1", "1"}
    assert not list(tmp_path.glob("*.partial"))

    again = figures(tmp_path, *tiny)
    assert again.returncode == 2
    assert "Expected no file at" in again.stderr.splitlines()[-1]


def test_spread_and_distance_of_points_worked_out_by_hand():
    features = torch.tensor([[-1.0, 0], [1, 0], [10, 0], [10, 4], [0, 30], [0, 30]])
    spread, distance = spread_and_distance(features, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert spread.tolist() == [1, 2, 0]
    near = (10**2 + 2**2) ** 0.5
    assert distance.tolist() == pytest.approx([near, near, (10**2 + 28**2) ** 0.5])


def test_the_best_accuracy_is_that_of_the_line_halfway():
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0)) + 1
    assert best_accuracy() == pytest.approx(float((x > 0).float().mean()), abs=2e-3)
