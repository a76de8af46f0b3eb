"""Heat maps of key points and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dense_imb.data.values.key_points import find_points, heat_maps

SIGMAS = (0.7, 1.0, 2.0, 4.0, 8.0)


def random_points(shape, n=60, seed=0):
    """Points anywhere in the image, also between the centre of a border pixel and the edge."""
    size = torch.tensor(tuple(shape)[::-1], dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, len(shape), generator=rng, dtype=torch.float64) * size - 0.5


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("width", [None, "sigma"])
def test_positions_between_pixels_return(sigma, width):
    points = random_points((30, 41))
    peaks = find_points(heat_maps(points, (30, 41), sigma), sigma=sigma if width else None)
    assert (peaks.position - points).abs().max() < 0.01
    assert peaks.is_visible.all()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_corners_return(sigma):
    points = torch.tensor([[[-0.5, -0.5], [40.5, 29.5], [-0.49, 29.3], [40.2, 0.0]]])
    peaks = find_points(heat_maps(points, (30, 41), sigma))
    torch.testing.assert_close(peaks.position, points.double(), rtol=0, atol=0.01)


@given(
    sigma=st.floats(0.7, 8.0),
    x=st.floats(-0.5, 20.5),
    y=st.floats(-0.5, 17.5),
)
def test_any_position_returns(sigma, x, y):
    peaks = find_points(heat_maps([[[x, y]]], (18, 21), sigma))
    np.testing.assert_allclose(peaks.position[0, 0].numpy(), [x, y], atol=0.01)


def test_volumes_have_x_y_and_z():
    points = random_points((12, 14, 16), n=5)
    maps = heat_maps(points, (12, 14, 16), 1.3)
    assert maps.shape == (5, 3, 12, 14, 16)
    z, y, x = np.unravel_index(int(maps[2, 1].argmax()), (12, 14, 16))
    assert np.abs(points[2, 1].numpy() - [x, y, z]).max() <= 0.5
    assert (find_points(maps).position - points).abs().max() < 0.01


def test_maps_are_the_formula():
    maps = heat_maps([[3.25, 1.5]], (6, 9), 1.5, reach=2.0)
    for y in range(6):
        for x in range(9):
            square = (x - 3.25) ** 2 + (y - 1.5) ** 2
            expected = math.exp(-square / (2 * 1.5**2)) if square <= (2.0 * 1.5) ** 2 else 0.0
            assert float(maps[0, y, x]) == pytest.approx(expected, abs=1e-6)
    assert heat_maps([[3.25, 1.5]], (6, 9), 1.5, reach=math.inf).min() > 0


def test_points_that_are_not_visible_have_empty_maps_and_no_position():
    maps = heat_maps([[[math.nan, math.nan], [2.0, 3.0]]], (6, 7), 1.0)
    assert maps[0, 0].abs().max() == 0
    peaks = find_points(maps)
    assert peaks.position[0, 0].isnan().all()
    assert peaks.is_visible.tolist() == [[False, True]]
    assert peaks.value.tolist() == [[0.0, 1.0]]


def test_the_threshold_decides_on_visibility_alone():
    maps = 0.3 * heat_maps([[[2.25, 3.0]]], (6, 7), 1.0)
    blank, seen = find_points(maps), find_points(maps, threshold=0.2)
    assert (blank.is_visible.item(), seen.is_visible.item()) == (False, True)
    assert torch.equal(blank.position, seen.position)  # of the peak, whatever it is called
    assert blank.points.isnan().all()
    torch.testing.assert_close(
        seen.points[0, 0], torch.tensor([2.25, 3.0]).double(), atol=1e-3, rtol=0
    )


def test_wide_neighbours_average_noise():
    points = random_points((40, 50), n=40)
    rng = torch.Generator().manual_seed(1)
    maps = heat_maps(points, (40, 50), 6.0)
    noisy = maps + 0.02 * torch.randn(maps.shape, generator=rng)
    near, wide = (
        (find_points(noisy, sigma=sigma).position - points).norm(dim=-1).mean()
        for sigma in (None, 6.0)
    )
    assert wide < near / 2


@pytest.mark.parametrize("size", [(1, 5), (2, 5), (3, 3)])
def test_tiny_maps_keep_the_pixel_along_short_axes(size):
    peaks = find_points(heat_maps([[[1.0, 0.0]]], size, 1.0), sigma=8.0)
    assert peaks.position[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_peaks_below_zero_and_plateaus_stay_on_pixels():
    maps = torch.full((1, 2, 5, 5), -3.0)
    maps[0, 0, 2, 3], maps[0, 0, 2, 2] = -1.0, -1.5
    maps[0, 1, 1, 1:4] = 1.0
    peaks = find_points(maps)
    assert peaks.position[0, 0].tolist() == [3.0, 2.0]
    zero = torch.full((1, 1, 5, 5), -1.0)
    zero[..., 2, 3], zero[..., 2, 2] = 0.0, -0.5
    assert find_points(zero).position[0, 0].tolist() == [3.0, 2.0]
    assert all(1.0 <= x <= 3.0 for x in peaks.position[0, 1].tolist())


def test_half_precision_maps_have_peaks():
    points = random_points((30, 41), n=10)
    maps = heat_maps(points, (30, 41), 2.0)
    for dtype in (torch.float16, torch.bfloat16):
        assert (find_points(maps.to(dtype)).position - points).abs().max() < 0.1


def test_bad_input_is_one_sentence():
    points = torch.tensor([[[1.0, 1.0], [2.0, 2.0]], [[1.0, 1.0], [7.0, 2.0]]])
    with pytest.raises(ValueError, match=r"got point 1 of image 1 at x = 7, y = 2; pass NaN"):
        heat_maps(points, (5, 6), 1.0)
    with pytest.raises(ValueError, match=r"got point 0 of image 0 at x = inf"):
        heat_maps([[math.inf, 2.0]], (5, 6), 1.0)
    for sigma in (0, -1.0):
        with pytest.raises(ValueError, match=f"`sigma` above 0, got {sigma:g}; it is the"):
            heat_maps(points, (9, 9), sigma)
    with pytest.raises(ValueError, match="`sigma` above 0, got 0"):
        find_points(torch.zeros(1, 1, 4, 4), sigma=0.0)
    with pytest.raises(ValueError, match="`sigma` to be a finite number, got nan"):
        heat_maps(points, (9, 9), math.nan)
    with pytest.raises(ValueError, match="`reach` above 0, got 0"):
        heat_maps(points, (9, 9), 1.0, reach=0)
    with pytest.raises(ValueError, match=r"`points` \(..., K, 3\) for maps of \(9, 9, 9\)"):
        heat_maps(points, (9, 9, 9), 1.0)
    with pytest.raises(ValueError, match="without NaN"):
        find_points(torch.full((1, 1, 4, 4), math.nan))
    with pytest.raises(ValueError, match=r"\(B, K, H, W\) or \(B, K, D, H, W\), got \(4, 4\)"):
        find_points(torch.zeros(4, 4))
    with pytest.raises(TypeError, match="floating point"):
        find_points(torch.zeros(1, 1, 4, 4, dtype=torch.int64))
