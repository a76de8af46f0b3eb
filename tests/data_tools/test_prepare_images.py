"""Photographs made ready to train on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data_tools.scripts import load

script = load("prepare_images")


@pytest.mark.parametrize("power", [1.0, 6.0])
def test_the_colour_of_the_lamp_is_taken_away(power):
    rng = np.random.default_rng(0)
    scene = rng.integers(20, 120, (40, 50, 3)).astype(np.float64)
    lamps = [scene * lamp for lamp in ([1.0, 1.0, 1.0], [1.6, 1.2, 0.8], [0.7, 1.1, 1.9])]
    found = [
        script.correct_colours(np.rint(seen).astype(np.uint8), power).astype(float)
        for seen in lamps
    ]
    for one in found:
        mean = (one**power).mean((0, 1)) ** (1 / power)
        assert mean.max() - mean.min() < 1.0
        ratio = one / one.mean() - found[0] / found[0].mean()
        assert np.abs(ratio).max() < 0.05


def test_a_grey_scene_stays_and_black_too():
    grey = np.repeat(np.arange(60, dtype=np.uint8).reshape(6, 10, 1), 3, axis=2)
    assert (script.correct_colours(grey) == grey).all()
    assert (script.correct_colours(np.zeros((3, 3, 3), np.uint8)) == 0).all()


def test_the_square_is_in_the_middle():
    image = np.arange(7 * 12).reshape(7, 12)
    assert (script.crop_centre(image) == image[:, 2:9]).all()
    assert (script.crop_centre(image, 0.5) == image[2:5, 4:7]).all()
    with pytest.raises(ValueError, match="`share`"):
        script.crop_centre(image, 0)


def test_a_folder_is_prepared_with_the_folders_in_it(tmp_path):
    for name, size in (("a.jpg", (30, 20)), ("b/c.png", (16, 40)), ("b/d.bmp", (9, 9))):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 60, 30)).save(tmp_path / "in" / name)
    options = {"size": 8, "crop": 1.0, "power": 1.0, "show_progress": False}
    assert script.prepare_images(tmp_path / "in", tmp_path / "out", **options) == 3
    for name in ("a.jpg", "b/c.png", "b/d.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (8, 8)
            assert image.getpixel((4, 4)) == pytest.approx((60, 60, 60), abs=2)  # JPEG
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(FileExistsError, match="with `overwrite`"):
        script.prepare_images(tmp_path / "in", tmp_path / "out", **options)
    assert script.prepare_images(tmp_path / "in", tmp_path / "out", overwrite=True, **options) == 3


def test_values_of_16_bits_need_their_white(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.array([[0, 2048, 4095, 60000]], np.uint16)).save(tmp_path / "in" / "a.png")
    with pytest.raises(ValueError, match=r"got uint16, which would be clipped .* --white 65535"):
        script.prepare_images(tmp_path / "in", tmp_path / "out", show_progress=False)
    script.prepare_images(tmp_path / "in", tmp_path / "out", white=4095, show_progress=False)
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_bad_folders_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="Expected images"):
        script.prepare_images(tmp_path / "in", tmp_path / "out")
    for out in ("in", "in/within"):
        with pytest.raises(ValueError, match="another folder"):
            script.prepare_images(tmp_path / "in", tmp_path / out)
    for name in ("x.png", "x.bmp"):
        Image.new("RGB", (4, 4)).save(tmp_path / "in" / name)
    with pytest.raises(ValueError, match=r"different names, got x.png twice"):
        script.prepare_images(tmp_path / "in", tmp_path / "out")
