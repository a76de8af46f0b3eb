"""Key points as heat maps, and the peaks of heat maps as key points.

Coordinates are in pixels, x first, then y (then z): the last axis of a map first. The centre of
the first pixel is 0, so an image reaches from -0.5 to its size - 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_finite, check_floating

REACH = 4.0  # a blob is 0 beyond this many sigma; its value there is 0.0003
THRESHOLD = 0.5  # half the height of a blob
_FLOOR = 1e-4  # of the peak, for the logarithm of pixels that are 0 or below
_AXES = "xyz"


def heat_maps(points: Any, shape: Sequence[int], sigma: float, *, reach: float = REACH) -> Tensor:
    """Return a map with a Gaussian blob of height 1 for each key point.

        map(q) = exp(-|q - point|^2 / (2 sigma^2))   where |q - point| <= reach sigma, else 0

    Losses that balance hits against empty pixels take the pixels inside the reach as hits.

    Args:
        points: positions (..., K, 2) or (..., K, 3); NaN for a point that is not visible, whose
            map is empty.
        shape: size of a map, (H, W) or (D, H, W).
        sigma: standard deviation of a blob, in pixels.
        reach: radius of a blob in units of sigma; inf for a blob without an edge.

    Returns:
        float32 maps (..., K, *shape).

    Example:
        >>> maps = heat_maps([[2.25, 1.0], [float("nan")] * 2], (3, 5), sigma=1.0)
        >>> maps.shape, round(float(maps[0, 1, 2]), 4), float(maps[1].max())
        (torch.Size([2, 3, 5]), 0.9692, 0.0)
    """
    points = torch.as_tensor(points, dtype=torch.float64)
    shape = tuple(shape)
    check_sigma(sigma)
    if not reach > 0:
        raise ValueError(f"Expected `reach` above 0, got {reach}.")
    if points.dim() < 2 or points.shape[-1] != len(shape) or len(shape) not in (2, 3):
        raise ValueError(
            f"Expected `points` (..., K, {len(shape)}) for maps of {shape}, (H, W) or (D, H, W), "
            f"got {tuple(points.shape)}."
        )
    outside = first_outside(points.reshape(-1, *points.shape[-2:]), shape)
    if outside is not None:
        image, point, where = outside
        raise ValueError(
            f"Expected `points` inside maps of {shape}, got point {point} of image {image} at "
            f"{where}; pass NaN for a point that is not visible."
        )
    square = torch.zeros(())
    for axis, size in enumerate(shape):
        position = points[..., len(shape) - 1 - axis, None]
        along = ((torch.arange(size) - position) / sigma).square().float()  # (..., K, size)
        square = square[..., None] + along[(..., *[None] * axis, slice(None))]
    # also 0 where the distance is NaN
    return torch.where(square <= reach**2, (-square / 2).exp(), 0.0)


def check_sigma(sigma: float) -> None:
    """Refuse a width of blobs that is not a number above 0."""
    check_finite("sigma", sigma)
    if sigma <= 0:
        raise ValueError(
            f"Expected `sigma` above 0, got {sigma:g}; it is the standard deviation of a blob in "
            "pixels, often 2."
        )


def first_outside(points: Tensor, shape: Sequence[int]) -> tuple[int, int, str] | None:
    """Return image, number and position of the first point outside the image; None if none is.

    Args:
        points: (N, K, n_dims); NaN is not outside.
        shape: size of the image, (H, W) or (D, H, W).
    """
    high = torch.tensor(tuple(shape)[::-1], dtype=points.dtype) - 0.5
    places = ((points < -0.5) | (points > high)).any(-1).nonzero()
    if not len(places):
        return None
    image, point = places[0].tolist()
    pairs = zip(_AXES, points[image, point].tolist(), strict=False)
    return image, point, ", ".join(f"{axis} = {value:g}" for axis, value in pairs)


class Peaks(NamedTuple):
    """Highest points of heat maps, on the CPU.

    Args:
        position: (B, K, n_dims) float64; NaN for a map whose pixels are all equal.
        value: (B, K) float64, value of the highest pixel.
        is_visible: (B, K) bool, whether the value reaches the threshold.
    """

    position: Tensor
    value: Tensor
    is_visible: Tensor

    @property
    def points(self) -> Tensor:
        """Positions with NaN in place of points that are not visible."""
        return torch.where(self.is_visible[..., None], self.position, math.nan)


def find_points(maps: Tensor, *, threshold: float = THRESHOLD, sigma: float | None = None) -> Peaks:
    """Return the peak of each map, between pixels.

    The logarithm of a Gaussian is a parabola along each axis. The parabola through the highest
    pixel and its two neighbours therefore has its top exactly at the centre of the blob (the
    Taylor step of DARK, Zhang et al. 2020). At the border it runs through the three outermost
    pixels.

    Args:
        maps: values (B, K, *spatial), not logits.
        threshold: smallest value of the peak of a visible point.
        sigma: standard deviation of the blobs, in pixels; the neighbours are then this far from
            the peak, which averages noise. None takes the next pixels.

    Example:
        >>> peaks = find_points(heat_maps([[[0.3, 7.45]]], (12, 10), sigma=1.5))
        >>> [round(x, 3) for x in peaks.position[0, 0].tolist()], peaks.is_visible.tolist()
        ([0.3, 7.45], [[True]])
    """
    check_floating("maps", maps)
    check_finite("threshold", threshold)
    if sigma is not None:
        check_sigma(sigma)
    if maps.dim() not in (4, 5) or 0 in maps.shape[2:]:
        raise ValueError(
            f"Expected `maps` (B, K, H, W) or (B, K, D, H, W), got {tuple(maps.shape)}."
        )
    if bool(maps.isnan().any()):
        raise ValueError("Expected `maps` without NaN, got one; look for it in the network.")
    step = 1 if sigma is None else max(1, round(sigma))
    flat = maps.detach().flatten(2)  # (B, K, pixels)
    value, highest = flat.max(-1)
    index = torch.stack(torch.unravel_index(highest, maps.shape[2:]), -1)  # (B, K, n_dims)
    position = index.cpu().double()
    stride = torch.tensor([math.prod(maps.shape[3 + axis :]) for axis in range(maps.dim() - 2)])
    for axis, size in enumerate(maps.shape[2:]):
        position[..., axis] = _refined(
            flat, highest, index[..., axis], int(stride[axis]), size, step
        )
    position[(value == flat.amin(-1)).cpu()] = math.nan
    value = value.cpu().double()
    return Peaks(position.flip(-1), value, value >= threshold)


def _refined(
    flat: Tensor, highest: Tensor, index: Tensor, stride: int, size: int, step: int
) -> Tensor:
    """Return the top of the parabola through three logarithms along one axis, (B, K)."""
    step = min(step, (size - 1) // 2)
    if step == 0:
        return index.cpu().double()
    centre = index.clamp(step, size - 1 - step)
    line = (highest + (centre - index) * stride)[..., None]
    reach = torch.tensor([-step, 0, step], device=flat.device) * stride
    values = flat.gather(-1, line + reach).cpu().double()  # (B, K, 3)
    peak = flat.gather(-1, highest[..., None]).cpu().double()
    low, middle, high = (values / peak).clamp(min=_FLOOR).log().unbind(-1)
    curvature = low - 2 * middle + high
    index, centre = index.cpu().double(), centre.cpu().double()
    top = centre + step * (low - high) / (2 * curvature)
    top = top.clamp(index - step, index + step).clamp(-0.5, size - 0.5)
    # without a bend, and where the peak is 0 or below, which bends no logarithm, the pixel stays
    return torch.where(curvature < 0, top, index)
