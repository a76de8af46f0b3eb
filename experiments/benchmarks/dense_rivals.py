"""Degradation of dense frames of times in plain torch: thin the pattern, add noise."""

from __future__ import annotations

import torch
from torch import Tensor

N_SIGNAL, N_NOISE = 30, 200


def in_batches(frame: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade frames (B, 1, H, W) as a batch: the fastest way in plain torch."""
    flat = frame.flatten(1)  # (B, n_pixels)
    key = torch.rand(flat.shape, generator=generator).masked_fill_(flat == 0, -1.0)
    chosen = key.topk(N_SIGNAL, dim=1).indices
    signal = torch.zeros_like(flat).scatter_(1, chosen, flat.gather(1, chosen))
    shape = (len(flat), N_NOISE)
    pixel = torch.randint(flat.shape[1], shape, generator=generator)
    t = torch.randint(1, 1001, shape, generator=generator).to(flat.dtype)
    noise = torch.zeros_like(flat).scatter_reduce_(1, pixel, t, "amax")
    return torch.maximum(signal, noise).reshape(frame.shape)


def by_points(frame: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade one frame and one noise hit after the other, as published code does."""
    degraded = torch.zeros_like(frame)
    height, width = frame.shape[2:]
    for clean, noisy in zip(frame[:, 0], degraded[:, 0], strict=True):
        lit = clean.nonzero()
        for y, x in lit[torch.randperm(len(lit), generator=generator)[:N_SIGNAL]]:
            noisy[y, x] = clean[y, x]
        xs = torch.randint(width, (N_NOISE,), generator=generator).tolist()
        ys = torch.randint(height, (N_NOISE,), generator=generator).tolist()
        ts = torch.randint(1, 1001, (N_NOISE,), generator=generator).tolist()
        for x, y, t in zip(xs, ys, ts, strict=True):
            noisy[y, x] = max(float(noisy[y, x]), t)
    return degraded


def by_frames(frame: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade one frame after the other, without a loop over its hits."""
    degraded = torch.zeros_like(frame)
    for clean, noisy in zip(frame.flatten(1), degraded.flatten(1), strict=True):
        lit = clean.nonzero()[:, 0]
        chosen = lit[torch.randperm(len(lit), generator=generator)[:N_SIGNAL]]
        noisy[chosen] = clean[chosen]
        pixel = torch.randint(len(clean), (N_NOISE,), generator=generator)
        t = torch.randint(1, 1001, (N_NOISE,), generator=generator).to(clean.dtype)
        noisy.scatter_reduce_(0, pixel, t, "amax")
    return degraded
