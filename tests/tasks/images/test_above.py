"""Runs on grey masks: `images.above` reaches every place that opens masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dense_imb.cli import main
from dense_imb.config import ImagesConfig
from dense_imb.tasks.images.recipe import open_images, open_test_images, open_validation_images


@pytest.fixture
def folders(tmp_path):
    """Ten images with masks of 256 grey values."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for k in range(10):
        mask = rng.permutation(np.arange(32 * 32) % 256).reshape(32, 32).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}.png")
        Image.fromarray(mask // 2).save(tmp_path / "images" / f"{k}.png")
    return str(tmp_path / "images"), str(tmp_path / "masks")


def test_training_validation_and_test_images_are_cut(folders):
    config = ImagesConfig(*folders, above=127, test_share=0.2)
    train, validation = open_images(config)
    for part in (train, validation, open_test_images(config), open_validation_images(config, 2)):
        assert part.n_classes == 2
        np.testing.assert_array_equal(part.label(0), part.image(0)[0] > 63)


def test_the_command_names_the_option_alone(folders, tmp_path, capsys):
    images, masks = folders
    words = ["train", "images", "--out", str(tmp_path / "run"), "--images.train", images,
             "--images.masks", masks, "--steps", "1", "--quiet"]  # fmt: skip
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "got 256 values from 0 to 255; " in error
    assert "--images.above 127" in error
    assert error.count("--") == 1
