"""Large images in a report: few pixels are drawn, and none of the rare ones is lost."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.report import blocks
from dense_imb.report.blocks import (
    block_side,
    classes_by_rarity,
    first_of_blocks,
    largest_of_blocks,
    mean_of_blocks,
)
from dense_imb.report.images.figures import draw_sample
from dense_imb.report.images.measures import sample_of
from dense_imb.report.values.measures import sample_of as value_sample_of


@pytest.mark.parametrize("shape", [(1, 1), (1200, 3), (1201, 1), (2, 5000)])
def test_no_side_is_longer_than_the_page_needs(shape):
    side = block_side(shape)
    classes = np.zeros(shape, np.uint8)
    drawn = first_of_blocks(classes, side, [1])
    assert max(drawn.shape) <= blocks.MOST
    assert side == 1 or max(drawn.shape) >= blocks.MOST / 2
    assert mean_of_blocks(classes[..., None], side).shape == (*drawn.shape, 1)
    assert largest_of_blocks(classes.astype(np.float32), side).shape == drawn.shape


def test_blocks_are_the_plain_loops():
    rng = np.random.default_rng(0)
    classes = rng.choice(5, (23, 17), p=[0.7, 0.1, 0.1, 0.05, 0.05]).astype(np.uint8)
    image = rng.integers(0, 255, (23, 17, 3), np.uint8)
    values = rng.normal(size=(23, 17)).astype(np.float32)
    order = classes_by_rarity(classes, last=[2])
    assert order[-1] == 2
    assert set(order) == {1, 2, 3, 4}
    shown, means, most = (
        first_of_blocks(classes, 4, order), mean_of_blocks(image, 4), largest_of_blocks(values, 4)
    )  # fmt: skip
    assert shown.shape == (6, 5)
    for i in range(6):
        for j in range(5):
            block = np.s_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            present = [k for k in order if (classes[block] == k).any()]
            assert shown[i, j] == (present[0] if present else 0)
            if i < 5 and j < 4:  # others have the edge several times
                assert means[i, j] == pytest.approx(image[block].mean((0, 1)), abs=0.51)
            flat = values[block].ravel()
            assert most[i, j] == flat[np.abs(flat).argmax()]


def test_a_missed_pixel_of_a_large_image_is_drawn_and_counted(monkeypatch):
    monkeypatch.setattr(blocks, "MOST", 20)
    truth = np.zeros((101, 61), np.uint8)
    truth[50, 33] = truth[100, 60] = 1
    verdict = 3 * truth
    verdict[50, 31:33] = 1  # of the same block
    probability = np.full(truth.shape, 0.01, np.float32)
    sample = sample_of(
        "any", "a", "", {}, np.zeros((*truth.shape, 1), np.uint8), truth, probability, verdict
    )
    assert sample.block == 6
    assert sample.truth.shape == sample.verdict.shape == (17, 11)
    assert sample.verdict[8, 5] == sample.verdict[16, 10] == 3
    assert sample.truth.sum() == 2
    assert sample.n_pixels == (6157, 2, 0, 2, 0, 0)
    figure = Figure(layout="constrained")
    draw_sample(sample, ["spot"], None, figure)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0] == "background (pale): 6,157"
    assert "missed: 2" in words


def test_a_map_of_values_keeps_its_peaks(monkeypatch):
    monkeypatch.setattr(blocks, "MOST", 20)
    target = np.zeros((1, 40, 40), np.float32)
    target[0, 7, 9] = 5
    prediction = np.full_like(target, np.nan)
    prediction[0, :20] = -1
    reading = SimpleNamespace(level=0.5, names=None)
    sample = value_sample_of(reading, "a", np.zeros((1, 40, 40)), target, prediction, 0.1)
    assert sample.block == 2
    assert sample.target[0, 3, 4] == 5
    assert sample.target.sum() == 5
    assert np.isnan(sample.prediction[0, 10:]).all()
    assert (sample.prediction[0, :10] == -1).all()
    assert sample.difference[0, 3, 4] == -6  # where the peak is, not of the largest values
    assert sample.difference[0, 0, 0] == -1


def test_a_misplaced_peak_is_an_error(monkeypatch):
    monkeypatch.setattr(blocks, "MOST", 20)
    target, prediction = np.zeros((2, 1, 40, 40), np.float32)
    target[0, 6, 8] = prediction[0, 7, 9] = 5  # of one block
    reading = SimpleNamespace(level=0.5, names=None)
    sample = value_sample_of(reading, "a", np.zeros((1, 40, 40)), target, prediction, 0.1)
    assert abs(sample.difference[0, 3, 4]) == 5


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.uint16, np.float64])
def test_sparse_images_are_not_black(dtype):
    image = np.zeros((8, 8, 1), dtype)
    image[::4, ::4] = 1
    assert (mean_of_blocks(image, 4) == 1 / 16).all()


def test_bright_images_stay_as_they_are():
    image = np.full((8, 8, 3), 200, np.uint8)
    assert mean_of_blocks(image, 4).dtype == np.uint8
    assert (mean_of_blocks(image, 4) == 200).all()
