"""Classes with very few pixels are named where their scores enter a mean."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dense_imb.data.images.labelled import open_labelled
from dense_imb.tasks.images.evaluate import FEW_PIXELS, Blank, evaluate_images, few_pixels
from dense_imb.tasks.images.recipe import FewPixelsWarning
from dense_imb.tasks.recipe import build_task
from tests.runs.pictures import tiny_images, write_folders


def write(folder: Path, rare: int) -> tuple[str, str]:
    """Eight images with three classes, the third with `rare` pixels in one of them."""
    images, masks = write_folders(folder, 8, (40, 48))
    for path in sorted(Path(masks).glob("*.png")):
        mask = np.asarray(Image.open(path)).copy()
        mask[0, :rare] = 2 if path.stem == "000" else 0
        Image.fromarray(mask).save(path)
    return images, masks


def test_evaluate_counts_the_pixels_and_images_of_each_class(tmp_path):
    images = open_labelled(*write(tmp_path, 12), n_classes=3)
    table = evaluate_images([Blank(3)], images)
    content = np.array([np.bincount(images.label(i).ravel(), minlength=3) for i in range(8)])
    for row in table.rows[1:]:
        k = int(str(row["class"]))
        assert row["n_pixels"] == content[:, k].sum()
        assert row["n_with"] == (content[:, k] > 0).sum()
    assert table.rows[0]["n_pixels"] == content[:, 1:].sum()
    assert table.rows[0]["n_with"] == 8
    text = table.text()
    assert "class 2 has 12 pixels in 1 image: its scores are luck, and so is 1/2 of" in text
    header, _, first, second = text.splitlines()[:4]
    assert header.split()[:3] == ["class", "pixels", "images"]
    assert first.split()[2:5] == ["1", str(content[:, 1].sum()), "8"]
    assert second.split()[2:5] == ["2", "12", "1"]


def test_two_classes_are_counted_and_not_warned_of(tmp_path):
    table = evaluate_images([Blank(2)], open_labelled(*write_folders(tmp_path)))
    assert table.rows[0]["n_pixels"] > 0
    assert table.few() == []
    assert "pixels" not in table.text().splitlines()[0]


@pytest.mark.parametrize("is_rare", [True, False])
def test_training_warns_before_a_checkpoint_is_chosen_by_luck(tmp_path, is_rare):
    many = FEW_PIXELS + 5
    train = write(tmp_path / "train", many)
    validation = write(tmp_path / "validation", 12 if is_rare else many)
    held_out = {"validation": validation[0], "validation_masks": validation[1]}
    config = tiny_images(train, images=held_out)
    if is_rare:
        with pytest.warns(FewPixelsWarning, match="class 2 has 12 pixels in 1 image.*1/2 of the"):
            build_task(config)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            build_task(config)


@pytest.mark.parametrize(("n", "is_few"), [(0, False), (1, True), (FEW_PIXELS - 1, True),
                                           (FEW_PIXELS, False)])  # fmt: skip
def test_a_class_without_pixels_has_no_part_in_a_mean(n, is_few):
    assert bool(few_pixels("a", n, 1)) is is_few
