"""Large images in a report: few pixels are drawn, and none of the rare ones is lost."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.report import blocks
from dense_imb.report.blocks import block_side, largest_of_blocks, mean_of_blocks, prevailing
from dense_imb.report.images.figures import draw_sample
from dense_imb.report.images.measures import sample_of
from dense_imb.report.values.measures import sample_of as value_sample_of


@pytest.mark.parametrize("shape", [(1, 1), (1200, 3), (1201, 1), (2, 5000)])
def test_no_side_is_longer_than_the_page_needs(shape):
    side = block_side(shape)
    classes = np.zeros(shape, np.uint8)
    drawn = prevailing(classes, side)
    assert max(drawn.shape) <= blocks.MOST
    assert side == 1 or max(drawn.shape) >= blocks.MOST / 2
    assert mean_of_blocks(classes[..., None], side).shape == (*drawn.shape, 1)
    assert largest_of_blocks(classes.astype(np.float32), side).shape == drawn.shape


def test_blocks_are_the_plain_loops():
    rng = np.random.default_rng(0)
    classes = rng.choice(5, (23, 17), p=[0.7, 0.1, 0.1, 0.05, 0.05]).astype(np.uint8)
    image = rng.integers(0, 255, (23, 17, 3), np.uint8)
    values = rng.normal(size=(23, 17)).astype(np.float32)
    shown, means, most = (
        prevailing(classes, 4), mean_of_blocks(image, 4), largest_of_blocks(values, 4)
    )  # fmt: skip
    assert shown.shape == (5, 4)
    for i in range(5):
        for j in range(4):
            block = np.s_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            n = np.bincount(classes[block].ravel(), minlength=5)
            assert shown[i, j] == (1 + n[1:].argmax() if n[1:].any() else 0)
            assert means[i, j] == pytest.approx(image[block].mean((0, 1)), abs=1)
            flat = values[block].ravel()
            assert most[i, j] == flat[np.abs(flat).argmax()]


def test_a_missed_pixel_of_a_large_image_is_drawn_and_counted(monkeypatch):
    monkeypatch.setattr(blocks, "MOST", 20)
    truth = np.zeros((100, 60), np.uint8)
    truth[50, 33] = 1
    probability = np.full(truth.shape, 0.01, np.float32)
    sample = sample_of(
        "any", "a", "", {}, np.zeros((*truth.shape, 1), np.uint8), truth, probability, 3 * truth
    )
    assert sample.truth.shape == sample.verdict.shape == (20, 12)
    assert sample.verdict[10, 6] == 3
    assert sample.truth.sum() == 1
    assert sample.n_pixels == (5999, 0, 0, 1, 0, 0)
    figure = Figure(layout="constrained")
    draw_sample(sample, ["spot"], None, figure)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0] == "background (pale): 5,999"
    assert "missed: 1" in words


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
