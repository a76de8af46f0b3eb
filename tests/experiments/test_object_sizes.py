"""The comparison of losses on objects of very different sizes, at a tiny size."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("monai")
ndimage = pytest.importorskip("scipy.ndimage")

FOLDER = Path(__file__).parents[2] / "experiments" / "object_sizes"
MODULES = ("recall_by_size", "size_images", "size_tables")


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import recall_by_size
    import size_images
    import size_tables

    tiny = recall_by_size.Size(6, 5, 6, 64, 2, (4, 8), (2, 3))
    yield SimpleNamespace(run=recall_by_size, images=size_images, tables=size_tables, tiny=tiny)
    for name in MODULES:
        sys.modules.pop(name)


def test_every_loss_has_a_run_and_a_row(sizes, tmp_path, capsys, monkeypatch):
    arguments = [str(tmp_path), "--seeds", "0", "1"]
    sizes.run.main(arguments, sizes.tiny)
    for steps in sizes.tiny.steps:
        with (tmp_path / f"table_{steps}.csv").open(newline="") as file:
            rows = {row["loss"]: row for row in csv.DictReader(file)}
        assert set(rows) == set(sizes.run.CONTESTANTS) == set(sizes.tables.COLOURS)
        for row in rows.values():
            assert float(row["n_seeds"]) == 2
            assert all(0 <= float(row[score]) <= 1 for score in ("AP", "F1", "small"))
        assert len(list((tmp_path / str(steps)).glob("*.json"))) == 2 * len(rows)
    text = (tmp_path / "table_3.md").read_text()
    assert text.strip() in capsys.readouterr().out
    for pair in sizes.tables.PAIRS:
        assert ", ".join(pair) in text
    assert (tmp_path / "recall_by_size.png").stat().st_size > 10_000
    monkeypatch.setattr(sizes.run, "train", None)  # a run that is trained again fails
    sizes.run.main(arguments, sizes.tiny)
    assert (tmp_path / "table_3.md").read_text() == text


def test_runs_repeat(sizes, tmp_path):
    for out in ("one", "two"):
        sizes.run.main(
            [str(tmp_path / out), "--seeds", "0", "--steps", "2", "--losses", "CC + CE"], sizes.tiny
        )
    rows = [
        json.loads((tmp_path / out / "2" / "CC-+-CE-0.json").read_text()) for out in ("one", "two")
    ]
    for row in rows:
        row.pop("train_seconds")
    assert rows[0] == rows[1]


def test_images_hold_objects_of_the_stated_sizes(sizes):
    made = sizes.images.make_images(60, 96, seed=0)
    n_pixels = np.concatenate(made.sizes())
    assert n_pixels.min() >= sizes.images.SMALLEST
    assert n_pixels.max() <= sizes.images.LARGEST
    assert (np.histogram(n_pixels, sizes.images.BINS)[0] > 0).all()
    assert 0.005 < made.mask.mean() < 0.02
    for component, nearest in zip(made.component, made.nearest, strict=True):
        assert ndimage.label(component > 0, sizes.images.TOUCHING)[1] == component.max()
        is_object = component > 0
        assert (nearest[is_object] == component[is_object]).all()
        assert (nearest > 0).all() or not is_object.any()
    again = sizes.images.make_images(60, 96, seed=0)
    assert (again.image == made.image).all()
    assert (sizes.images.make_images(60, 96, seed=1).image != made.image).any()


def test_objects_are_found_by_the_stated_rules(sizes):
    component = np.zeros((2, 8, 8), np.int16)
    component[0, 1, 0:6] = 1  # found with four of its six pixels
    component[0, 5, 0:6] = 2  # touched with one pixel
    component[1, 3, 3] = 1  # covered by an object of 64 pixels, which is false
    images = sizes.images.SizeImages(component.astype(np.float32), component, component)
    logits = np.full(component.shape, -1.0, np.float32)
    logits[0, 1, 0:4] = 1
    logits[0, 5, 5:8] = 1
    logits[1] = 1
    objects = sizes.run.Objects(images)
    pixels, false = objects.count(logits, 0.0)
    assert pixels.tolist() == [4, 1, 0]
    assert false.tolist() == [0, 1]
    assert objects.image_of.tolist() == [0, 0, 1]
    pixels, false = objects.count(logits, 2.0)
    assert pixels.sum() == false.sum() == 0


def test_thresholds_keep_to_the_number_of_false_objects(sizes):
    images = sizes.images.make_images(8, 64, seed=3)
    objects = sizes.run.Objects(images)
    logits = images.image + 30 * np.random.default_rng(0).normal(size=images.image.shape) ** 3
    chosen = objects.thresholds_at(logits.astype(np.float32), (2.0, 0.5))
    assert chosen[2.0] < chosen[0.5]
    for limit, threshold in chosen.items():
        n_false = objects.count(logits, threshold)[1].mean()
        assert limit - 0.5 <= n_false <= limit


def test_average_precision_and_f1_by_hand(sizes):
    logits = np.array([[[3.0, 2.0, 1.0, 0.0]]], np.float32)
    mask = np.array([[[1, 0, 1, 0]]], bool)
    average, f1, threshold = sizes.run.pixel_scores(logits, mask)
    assert average == pytest.approx((1 + 2 / 3) / 2)
    assert (f1, threshold) == (pytest.approx(0.8), 1.0)
    tied = sizes.run.pixel_scores(np.zeros_like(logits), mask)
    assert tied[0] == pytest.approx(0.5)


def test_recall_is_read_at_the_same_number_of_false_objects(sizes, tmp_path):
    objects = sizes.tables.TrueObjects(np.full(10, 8), np.arange(10), 10)
    points = {
        "1": {"false_objects": 0.5, "touch": [1] * 6 + [0] * 4},
        "0.1": {"false_objects": 0.05, "touch": [1] * 4 + [0] * 6},
    }
    (tmp_path / "a.json").write_text(json.dumps({"loss": "Dice", "seed": 0, "points": points}))
    runs = sizes.tables.Runs(tmp_path, objects)
    assert runs.recall_at_one("Dice") == [pytest.approx(0.6 + 0.2 * math.log10(2))]


def test_the_paired_test_counts_seeds_and_images_as_random(sizes):
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(50), 2)
    same = rng.integers(0, 2, (3, 100))
    none = sizes.tables.compare_found(same, same, image, 50)
    assert none.gain == 0
    assert math.isnan(none.p)
    better = np.maximum(same, rng.integers(0, 2, (3, 100)))
    steady = sizes.tables.compare_found(better, same, image, 50)
    assert steady.gain == pytest.approx((better - same).mean())
    assert steady.p < 0.001
    lucky = same.copy()
    lucky[0] = 1  # all of the gain is in one seed
    assert sizes.tables.compare_found(lucky, same, image, 50).p > 0.2


def test_the_test_is_calibrated_where_nothing_differs(sizes):
    rng = np.random.default_rng(1)
    image = np.arange(60)
    p = []
    for _ in range(300):
        shift = 0.1 * rng.normal(size=(2, 3, 1)) + 0.5
        found = (rng.uniform(size=(2, 3, 60)) < shift).astype(int)
        p.append(sizes.tables.compare_found(found[0], found[1], image, 60).p)
    assert np.mean(np.array(p) < 0.05) < 0.08
