"""The table of methods of long-tail training, at a tiny size."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dense_imb.tasks.recipe import Recipe, build_loss

FOLDER = Path(__file__).parents[2] / "experiments" / "long_tail"

# tiny validation sets hold few pixels of each class
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.FewPixelsWarning")


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import answers

    tiny = {
        "kinds": answers.Size(3, 4, {"widths": [4, 8]}, 60, (24, 16)),
        "cracks": answers.Size(3, 4, {"widths": [4, 8]}, 0, (16, 16)),
        "images": answers.Size(3, 8, {"depth": 8, "width": 4}, 60, (12, 12)),
    }
    monkeypatch.setattr(answers, "SMALL", tiny)
    yield answers
    for name in ("answers", "shapes"):
        sys.modules.pop(name)


@pytest.fixture
def cracks(tmp_path, monkeypatch):
    """Dark lines on grey, where the real ones would lie."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / "crackforest" / kind).mkdir(parents=True)
    for i in range(24):
        image = rng.integers(120, 160, (32, 40, 3)).astype(np.uint8)
        mask = np.zeros((32, 40), np.uint8)
        mask[i] = 255
        image[i] //= 3
        for kind, pixels in (("images", image), ("masks", mask)):
            Image.fromarray(pixels).save(tmp_path / "data" / "crackforest" / kind / f"{i}.png")
    monkeypatch.setenv("DENSE_IMB_DATA", str(tmp_path / "data"))


def table(answers, folder, task, *arguments):
    code = answers.main([str(folder), "--tasks", task, "--quiet", *arguments])
    assert code == 0
    with (folder / f"{task}.csv").open(newline="") as file:
        rows = {row["loss"]: row for row in csv.DictReader(file)}
    return (folder / f"{task}.txt").read_text(), rows


@pytest.mark.parametrize("task", ["kinds", "images"])
def test_a_table_has_every_row_and_no_run_is_trained_twice(
    answers, tmp_path, capsys, monkeypatch, task
):
    methods = ("balanced-mixup", "instance")  # the others are compared with the second
    arguments = ("--methods", *methods, "--seeds", "1")
    text, rows = table(answers, tmp_path, task, *arguments)
    assert set(rows) == {f"{m} ({loss})" for m in methods for loss in ("plain", "balanced")}
    for name, row in rows.items():
        assert name in text
        scores = [float(row[score]) for score in answers.TASKS[task].scores if row[score]]
        assert scores
        assert all(0 <= score <= 1 for score in scores)
        assert float(row["n_seeds"]) == 1
    first = answers.TASKS[task].scores[0]
    plain = float(rows["instance (plain)"][first])
    for row in rows.values():
        assert float(row["gain"]) == pytest.approx(float(row[first]) - plain)
    assert text.strip() in capsys.readouterr().out
    monkeypatch.setattr(answers, "train", None)  # a run that is trained again fails
    assert table(answers, tmp_path, task, *arguments) == (text, rows)
    stored = json.loads((tmp_path / f"{task}.json").read_text())
    assert len(stored["runs"]) == 4


def test_a_sampling_that_changes_nothing_is_not_trained_but_told(answers, tmp_path, cracks):
    text, rows = table(
        answers, tmp_path / "out", "cracks", "--methods", "instance", "class", "progressive",
        "balanced-mixup", "--losses", "plain",
        "--seeds", "1",
    )  # fmt: skip
    assert set(rows) == {"instance (plain)", "balanced-mixup (plain)"}
    for method in ("class", "progressive"):
        assert f"{method}: not trained, it equals instance here" in text


@pytest.mark.slow
@pytest.mark.parametrize("task", ["kinds", "cracks", "images"])
def test_every_method_trains_on_every_task(answers, tmp_path, cracks, task):
    text, rows = table(
        answers, tmp_path / "out", task, "--losses", "balanced", "--seeds", "1"
    )  # fmt: skip
    told = {name.partition(" ")[0] for name in rows}
    told |= {line.partition(":")[0] for line in text.splitlines() if "not trained" in line}
    assert told == set(answers.METHODS)


def test_another_size_is_not_taken_for_a_run_that_is_done(answers, tmp_path, capsys):
    arguments = [str(tmp_path), "--tasks", "images", "--methods", "instance", "--seeds", "1",
                 "--losses", "plain", "--quiet"]  # fmt: skip
    assert answers.main(arguments) == 0
    assert answers.main([*arguments, "--steps", "6"]) == 2
    assert "Expected the config of the run" in capsys.readouterr().err


def test_methods_that_are_all_instance_are_refused(answers, tmp_path, cracks, capsys):
    assert answers.main([str(tmp_path), "--tasks", "cracks", "--methods", "class"]) == 2
    assert "every image holds every class" in capsys.readouterr().err


def test_an_unknown_method_is_refused(answers, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        answers.main([str(tmp_path), "--methods", "classes"])
    assert stopped.value.code == 2
    assert "classes" in capsys.readouterr().err


def test_cracks_need_their_folder(answers, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DENSE_IMB_DATA", raising=False)
    assert answers.main([str(tmp_path), "--tasks", "cracks"]) == 2
    assert "DENSE_IMB_DATA" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["kinds", "cracks", "images"])
def test_every_method_is_a_config_of_as_many_steps(answers, tmp_path, cracks, task):
    base = answers.TASKS[task].config(tmp_path, answers.SMALL[task])
    for size in (base, replace(base, steps=360)):
        seen = []
        for method, change in answers.METHODS.items():
            for loss in answers.LOSSES.values():
                config = replace(change(size), loss=loss)
                Recipe.of(config)
                build_loss(config.loss, (5, 1))
            assert config.steps + config.second.steps == size.steps, method
            seen.append(change(size))
        assert all(a != b for i, a in enumerate(seen) for b in seen[:i])


def test_shapes_are_long_tailed_in_training_only(answers, tmp_path):
    import shapes

    counts = shapes.write_shapes(tmp_path, largest=50, imb_ratio=10, n_held_out=3, side=12)
    assert (counts[0], counts[-1]) == (50, 5)
    for part, sizes in (("train", counts), ("validation", (3,) * 8), ("test", (3,) * 8)):
        with (tmp_path / f"{part}.csv").open(newline="") as file:
            labels = [row["label"] for row in csv.DictReader(file)]
        assert tuple(labels.count(name) for name in shapes.SHAPES) == sizes
    drawn = shapes.pictures([0, 0], 12, seed=0)
    assert (drawn[0] != drawn[1]).any()  # a class varies inside
    assert (shapes.pictures([0, 0], 12, seed=0) == drawn).all()


@pytest.mark.skipif("DENSE_IMB_DATA" not in os.environ, reason="DENSE_IMB_DATA is unset")
def test_the_real_cracks_hold_both_classes_in_every_image(answers, tmp_path):
    base = answers.TASKS["cracks"].config(tmp_path, answers.SMALL["cracks"])
    assert answers.draws_as_instance(answers.METHODS["class"](base))
