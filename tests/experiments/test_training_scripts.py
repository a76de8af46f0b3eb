"""The scripts for other ecosystems run as they are, at a tiny size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.scripts import run_script

ROOT = Path(__file__).parents[2]
SCRIPTS = {"plain_torch": 2, "segmentation_models_pytorch": 4}  # and how many losses each compares


def run(name, *arguments):
    if name != "plain_torch":
        pytest.importorskip(name)
    return run_script(ROOT / "experiments" / name / "train.py", *arguments)


def scores(finished):
    assert finished.returncode == 0, finished.stderr
    return [
        float(number) for number in re.findall(r"precision (\d\.\d+) on 2 held", finished.stdout)
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_it_is(name):
    found = scores(run(name, "--steps", 2, "--generated", 10))
    assert len(found) == SCRIPTS[name]
    assert all(0 < score < 1 for score in found)


@pytest.mark.parametrize(
    "name", ["plain_torch", pytest.param("segmentation_models_pytorch", marks=pytest.mark.slow)]
)
def test_a_script_reads_folders(name, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        mask = rng.random((100, 130)) < 0.05
        image = (255 * np.clip(0.5 - 0.4 * mask + 0.1 * rng.random(mask.shape), 0, 1)).astype("u1")
        Image.fromarray(np.stack([image] * 3, -1)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray((255 * mask).astype("u1")).save(tmp_path / "masks" / f"{number}.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    assert len(scores(run(name, "--steps", 2, *folders))) == SCRIPTS[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short(name):
    source = (ROOT / "experiments" / name / "train.py").read_text()
    assert len(source.splitlines()) < 60
