"""Weights of value bins: between plain and balanced, smoothed, and as published."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d, gaussian_filter1d
from scipy.signal.windows import triang

from dense_imb.losses import (
    Balance,
    BalancedRegressionLoss,
    Kernel,
    ValueBins,
    balanced_regression_loss,
)
from dense_imb.statistics import ClassStatistics

from .cases import frames

EDGES = (0.05, 0.4, 0.7)
KERNELS = (
    Kernel("gaussian", 5, 2.0),
    Kernel("gaussian", 9, 1.0),
    Kernel("triang", 7),
    Kernel("laplace", 5, 2.0),
)


def published_window(kernel: Kernel) -> np.ndarray:
    """The windows of label distribution smoothing, from SciPy's filters."""
    half = kernel.size // 2
    if kernel.name == "triang":
        return triang(kernel.size)
    offset = np.arange(-half, half + 1)
    if kernel.name == "laplace":
        return np.exp(-np.abs(offset) / kernel.sigma)
    window = gaussian_filter1d((offset == 0).astype(float), kernel.sigma)
    return window / window.max()


def published_weights(value, n_bins: int, kernel: Kernel | None, is_inverse: bool) -> np.ndarray:
    """The weight of each value, in whole numbers as bins; they have a mean of 1."""
    bin_of = np.minimum(value.astype(int), n_bins - 1)
    count = np.bincount(bin_of, minlength=n_bins)
    size = np.clip(count, 5, 1000) if is_inverse else np.sqrt(count)
    if kernel is not None:
        size = convolve1d(size.astype(float), published_window(kernel), mode="constant")
    weight = 1 / size[bin_of]
    return weight * len(weight) / weight.sum()


def ages(seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (40 + 14 * torch.randn(20_000, generator=rng, dtype=torch.float64)).clamp(0, 99)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_windows_are_those_published(kernel):
    assert kernel.window() == pytest.approx(published_window(kernel), rel=1e-12)


@pytest.mark.parametrize("kernel", [None, *KERNELS], ids=str)
@pytest.mark.parametrize("is_inverse", [False, True])
def test_label_distribution_smoothing_as_published(kernel, is_inverse):
    target = ages().clamp(15, 70)  # 1 / sqrt(0) of an empty bin is no weight
    edges = [float(edge) for edge in range(16, 71)]
    prediction = target + torch.sin(target)
    bins = ValueBins(edges, power=1 if is_inverse else 0.5, kernel=kernel)
    counts = torch.bincount(bins(target, target), minlength=bins.n_classes)
    weight = bins.weights(counts, clip=(5, 1000) if is_inverse else None)
    loss = BalancedRegressionLoss("mse", ValueBins(edges, power=0), Balance(weight=weight))
    each = torch.from_numpy(published_weights(target.numpy() - 15, 56, kernel, is_inverse))
    expected = (each * (prediction - target) ** 2).mean()
    torch.testing.assert_close(loss(prediction, target), expected, rtol=1e-10, atol=0)
    if is_inverse:
        return  # the counts of a batch are not clipped
    of_batch = BalancedRegressionLoss("mse", bins)
    torch.testing.assert_close(of_batch(prediction, target), expected, rtol=1e-10, atol=0)


def test_a_power_is_a_count_power_of_the_balance():
    inputs = frames(3)
    for power in (0, 0.25, 0.5, 1):
        bins = BalancedRegressionLoss("l1", ValueBins(EDGES, power=power))
        balance = BalancedRegressionLoss("l1", ValueBins(EDGES), Balance(count_power=1 - power))
        assert bins(**inputs) == balance(**inputs)
    plain = BalancedRegressionLoss("l1", ValueBins(EDGES, power=0))(**inputs)
    torch.testing.assert_close(plain, torch.nn.functional.l1_loss(*inputs.values()))
    root = BalancedRegressionLoss("l1", ValueBins([0.05], power=0.5))(**inputs)
    error = (inputs["prediction"] - inputs["target"]).abs()
    is_hit = inputs["target"] > 0
    each = torch.where(is_hit, 1 / is_hit.sum().sqrt(), 1 / (~is_hit).sum().sqrt())
    torch.testing.assert_close(
        root, ((each * error).sum() / each.sum()).double(), rtol=1e-6, atol=0
    )


def test_a_kernel_of_one_bin_changes_nothing():
    inputs = frames(3)
    for scope in ("image", "batch"):
        one = ValueBins(EDGES, power=0.5, kernel=Kernel("laplace", 1))
        plain = ValueBins(EDGES, power=0.5)
        balance = Balance(scope=scope, frame_weight=0.5, combine="sum")
        torch.testing.assert_close(
            BalancedRegressionLoss("mse", one, balance)(**inputs),
            BalancedRegressionLoss("mse", plain, balance)(**inputs),
        )


def test_names_stand_for_kernels_and_quantile_bins_have_them():
    assert ValueBins(EDGES, kernel="triang").kernel == Kernel("triang")
    bins = ValueBins.from_quantiles(torch.arange(101.0), 4, 0.5, "laplace")
    assert bins == ValueBins((25.0, 50.0, 75.0), power=0.5, kernel=Kernel("laplace", 5, 2.0))


def test_weights_have_a_mean_of_one_over_the_pixels():
    bins = ValueBins(EDGES, power=0.7, kernel="gaussian")
    counts = [1000, 30, 0, 4]
    weight = bins.weights(counts)
    assert sum(n * w for n, w in zip(counts, weight, strict=True)) == pytest.approx(sum(counts))
    assert all(math.isfinite(w) for w in weight)
    statistics = ClassStatistics(2)
    statistics.update(torch.tensor([[0, 0, 0, 1]]))
    assert ValueBins([0.5]).weights(statistics) == pytest.approx((2 / 3, 2))


@pytest.mark.parametrize("error", ["mse", "l1"])
def test_rain_nowcasting(error):
    """B-MSE and B-MAE (Shi et al. 2017), over the pixels of a frame."""
    rng = torch.Generator().manual_seed(0)
    rain = 60 * torch.rand(2, 5, 1, 8, 9, generator=rng, dtype=torch.float64) ** 4
    prediction = rain + torch.randn(rain.shape, generator=rng, dtype=torch.float64)
    is_known = torch.rand(rain.shape, generator=rng) < 0.9
    weight = torch.ones_like(rain)
    for bound, more in ((2, 2), (5, 5), (10, 10), (30, 30)):
        weight[rain >= bound] = more
    difference = (prediction - rain).abs()
    each = weight * (difference if error == "l1" else difference**2)
    loss = BalancedRegressionLoss(
        error, ValueBins((2, 5, 10, 30), power=0), Balance(weight=(1, 2, 5, 10, 30))
    )
    n_frames, n_pixels = 10, 72
    published = each.sum() / n_frames
    torch.testing.assert_close(n_pixels * loss(prediction, rain), published)
    masked = loss(prediction, rain, mask=is_known)
    torch.testing.assert_close(masked, each[is_known].mean())


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: ValueBins(EDGES, power=1.5), ValueError, "`power` between 0 .plain mean. and 1"),
        (lambda: ValueBins(EDGES, power=math.nan), ValueError, "`power` between 0 .* got nan"),
        (lambda: ValueBins(EDGES, kernel="gauss"), ValueError, "Did you mean 'gaussian'"),
        (lambda: ValueBins(EDGES, kernel=5), TypeError, "a Kernel or its name, got 5"),
        (lambda: Kernel("triang", 4), ValueError, "`size` to be odd and at least 1, got 4"),
        (lambda: Kernel("triang", 2.0), TypeError, "`size` to be a whole number of bins, got 2.0"),
        (lambda: Kernel("laplace", 3, 0.0), ValueError, "Expected `sigma` above 0, got 0.0"),
        (
            lambda: ValueBins(EDGES).weights([3, 0, 2, 0]),
            ValueError,
            "above 0, got 0 in bin 1, 3; merge empty bins with their neighbours, or pass a kernel",
        ),
        (
            lambda: ValueBins(EDGES, kernel=Kernel("triang", 3)).weights([3, 0, 0, 0]),
            ValueError,
            "got 0 in bin 2, 3; .* or pass a wider kernel",
        ),
        (lambda: ValueBins(EDGES).weights([0] * 4), ValueError, "of some pixels, got 0 in every"),
        (lambda: ValueBins(EDGES).weights([1, 2]), ValueError, "each of the 4 classes, got 2"),
        (
            lambda: BalancedRegressionLoss(
                "l1", ValueBins(EDGES, power=0.5), Balance(count_power=0.5)
            ),
            ValueError,
            "weights of the bins once, got ValueBins with a power or a kernel and count_power",
        ),
        (
            lambda: balanced_regression_loss(
                *frames(1).values(),
                partition=ValueBins(EDGES, kernel="triang"),
                balance=Balance(count_power=1),
            ),
            ValueError,
            "count_power=1; drop one of them",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
