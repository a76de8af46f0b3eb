"""Image quality against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import ImageQuality

from .samples import generator


def plain_ssim(p, t, data_range):
    """One window after the other, with NumPy's weighted moments."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(line, line) / line.sum() ** 2
    c_1, c_2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for y in range(p.shape[0] - 10):
        for x in range(p.shape[1] - 10):
            a, b = p[y : y + 11, x : x + 11], t[y : y + 11, x : x + 11]
            m_a, m_b = (weight * a).sum(), (weight * b).sum()
            s_a, s_b = (weight * (a - m_a) ** 2).sum(), (weight * (b - m_b) ** 2).sum()
            s_ab = (weight * (a - m_a) * (b - m_b)).sum()
            top = (2 * m_a * m_b + c_1) * (2 * s_ab + c_2)
            values.append(top / ((m_a**2 + m_b**2 + c_1) * (s_a + s_b + c_2)))
    return np.mean(values)


def test_image_quality_is_the_plain_loops():
    rng = generator(6)
    prediction, target, measured = torch.rand(3, 5, 1, 13, 15, generator=rng) * 2
    quality = ImageQuality(data_range=2.0)
    quality.update(prediction[:1], target[:1], measured[:1])
    quality.update(prediction[1:], target[1:], measured[1:])
    rows = quality.rows()
    assert list(rows) == ["prediction", "blank", "input"]
    images = {"prediction": prediction, "blank": torch.zeros_like(target), "input": measured}
    for row, image in images.items():
        p, t = image.double().numpy(), target.double().numpy()
        expected = np.mean([plain_ssim(p[i, 0], t[i, 0], 2.0) for i in range(5)])
        assert rows[row]["ssim"] == pytest.approx(expected, abs=1e-9)
        assert rows[row]["psnr"] == pytest.approx(10 * np.log10(4 / np.mean((p - t) ** 2)))


def test_a_perfect_image_and_bad_ones():
    image = torch.rand(2, 2, 11, 12, 13, generator=generator(7))
    quality = ImageQuality()
    quality.update(image, image, image)
    actual = quality.rows()["prediction"]
    assert actual["psnr"] == math.inf
    assert actual["ssim"] == pytest.approx(1.0)
    assert math.isnan(ImageQuality().rows()["blank"]["psnr"])
    with pytest.raises(ValueError, match="without NaN"):
        quality.update(image * math.nan, image, image)
    with pytest.raises(ValueError, match="at least 11 pixels a side"):
        quality.update(image[..., :10], image[..., :10], image[..., :10])
    with pytest.raises(ValueError, match="`data_range` above 0"):
        ImageQuality(data_range=0.0)
    assert quality.rows()["prediction"]["psnr"] == math.inf
