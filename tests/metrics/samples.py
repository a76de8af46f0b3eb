"""Scores for histograms, and reference results in plain loops."""

from __future__ import annotations

import torch

from dense_imb.metrics import ScoreHistogram

SCALES = ("probability", "logit")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(n_signal=400, n_noise=2500, scale="probability", seed=0, dtype=torch.float32):
    rng = generator(seed)
    logit = torch.cat([
        torch.randn(n_signal, generator=rng) * 3 + 2, torch.randn(n_noise, generator=rng) * 3 - 2,
    ])  # fmt: skip
    order = torch.randperm(len(logit), generator=rng)
    is_signal = (torch.arange(len(logit)) < n_signal)[order]
    score = logit if scale == "logit" else logit.sigmoid()
    return score[order].to(dtype), is_signal


def filled(score, is_signal, n_bins=1000, scale="probability"):
    histogram = ScoreHistogram(n_bins, scale=scale)
    for part, truth in zip(score.split(177), is_signal.split(177), strict=True):
        histogram.update(part, truth)
    return histogram


def exact_threshold(score, is_signal, retention):
    """Plain loop: the highest score such that enough signal scores at least as much."""
    signal = sorted(score[is_signal].tolist(), reverse=True)
    for n_kept, threshold in enumerate(signal, 1):
        if n_kept / len(signal) >= retention:
            return threshold
    raise AssertionError


def rejected(score, is_signal, threshold):
    return float((score[~is_signal].double() < threshold).double().mean())


def counts(histogram):
    return histogram._counts.double()
