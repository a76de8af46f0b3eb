"""The measurement of the options of a loss, at a tiny size."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")

FOLDER = Path(__file__).parents[2] / "experiments"
MODULES = ("balance_options", "option_images", "option_tasks", "outliers", "thin_structures")


@pytest.fixture
def options(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import balance_options
    import option_images

    for key, task in balance_options.TASKS.items():
        make = option_images.lines if key == "cracks" else task.data
        n = 20 if key in ("rare", "longer", "faint") else 6  # every kind is there
        data = lambda seed, make=make, n=n: make(seed, n=n)  # noqa: E731
        side = 64 if key == "cracks" else task.side
        tiny = replace(task, data=data, batch_size=2, side=side)
        monkeypatch.setitem(balance_options.TASKS, key, tiny)
    yield SimpleNamespace(
        run=balance_options, images=option_images, tiny=balance_options.Size((4, 8), 0.01)
    )
    for name in MODULES:
        sys.modules.pop(name)


@pytest.mark.parametrize("key", ["rare", "flipped", "cracks"])
def test_every_loss_has_a_run_and_every_option_a_gain(options, key, tmp_path, capsys, monkeypatch):
    arguments = [str(tmp_path), "--tasks", key, "--seeds", "0", "1"]
    options.run.main(arguments, options.tiny)
    text = capsys.readouterr().out
    task = options.run.TASKS[key]
    for name in task.losses():
        assert f"| {name} (2) |" in text
    for pair in task.pairs:
        start = f"| {pair.option} | {key} | {pair.one}, {pair.other} |"
        row = next(line for line in text.splitlines() if line.startswith(start))
        assert all(f" {score} " in row for score in pair.scores)
    for path in (tmp_path / key).glob("*.json"):
        scores = json.loads(path.read_text())["scores"]
        assert all(0 <= score <= 1 for score in scores.values()), path
    monkeypatch.setattr(options.run, "train", None)  # a run that is trained again fails
    options.run.main([str(tmp_path), "--tasks"], options.tiny)
    assert capsys.readouterr().out == text


def test_all_losses_compete_somewhere(options):
    used = {name for task in options.run.TASKS.values() for name in task.losses()}
    assert used == set(options.run.LOSSES)


def test_seeds_repeat_and_labels_are_wrong_in_training_alone(options):
    right, wrong = (options.images.discs(3, flipped=share, n=4) for share in (0.0, 0.1))
    for one, other in zip(right.test, wrong.test, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    changed = [(x[1] != y[1]).double().mean() for x, y in zip(*(right[0], wrong[0]), strict=True)]
    assert 0.05 < float(sum(changed)) / 4 < 0.15
    moved = options.images.discs(3, shift=1, n=4)
    assert all(x[1].sum() == y[1].sum() for x, y in zip(right[0], moved[0], strict=True))


def test_a_skeleton_is_thin_and_keeps_its_pieces(options):
    from scipy import ndimage

    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.normal(size=(1, 60, 60)), (0, 3, 3)) > 0.05
    mask[0, :, 20] = True
    mask[:, 40:44, 30:58] = True
    thin = options.images.skeletons(mask)
    touching = np.ones((1, 3, 3), int)
    structure = np.zeros((3, 3, 3), int)
    structure[1] = touching[0]
    assert not (thin & ~mask).any()
    assert ndimage.label(thin, structure)[1] == ndimage.label(mask, structure)[1]
    bar = np.zeros((2, 9, 20), bool)
    bar[1, 3:6, 3:17] = True
    one = options.images.skeletons(bar)
    assert not one[0].any()
    assert one[1].sum(0).max() == 1
    assert one[1, 4].sum() == one.sum() >= 10


def test_gains_are_paired_by_seed(options):
    one = {seed: {"AP": 0.5 + 0.1 * seed + 0.01 * (seed == 1)} for seed in range(3)}
    other = {seed: {"AP": 0.4 + 0.1 * seed} for seed in (2, 1, 0)}
    gain, p = options.run.difference(one, other, "AP")
    assert gain == pytest.approx(0.1033, abs=1e-4)
    assert p < 0.005
    assert np.isnan(options.run.difference(one, {9: {"AP": 1.0}}, "AP")[0])


def test_help_names_the_options(options, capsys):
    with pytest.raises(SystemExit):
        options.run.main(["--help"])
    text = capsys.readouterr().out
    for key in options.run.TASKS:
        assert f"    {key} " in text
    for option in ("count_power", "Hardest", "WorstNeighbour", "Linear", "--full --device"):
        assert option in text
