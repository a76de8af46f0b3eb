"""The learning rate and the seeds of steps: pure functions, so there is no state to restore."""

from __future__ import annotations

import math

import numpy as np

from dense_imb.base.checks import check_choice

SCHEDULES = ("one-cycle", "cosine", "constant")
_WARM_UP = {"one-cycle": 0.15, "cosine": 0.05, "constant": 0.0}  # share of the steps
_FIRST = 0.04  # of the peak, at the first step of the warm-up


def rate_factor(schedule: str, progress: float) -> float:
    """What the learning rate is multiplied with at a share `progress` of all steps.

        warm-up   first + (1 - first) (1 - cos(pi p / w)) / 2     p <= w
        after it  (1 + cos(pi (p - w) / (1 - w))) / 2             or 1, "constant"

    Example:
        >>> [round(rate_factor("one-cycle", p), 3) for p in (0.0, 0.15, 0.575, 1.0)]
        [0.04, 1.0, 0.5, 0.0]
    """
    check_choice("schedule", schedule, SCHEDULES)
    warm_up = _WARM_UP[schedule]
    if progress < warm_up:
        return _FIRST + (1 - _FIRST) * (1 - math.cos(math.pi * progress / warm_up)) / 2
    if schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def step_seed(seed: int, step: int, process: int) -> int:
    """A seed for what a network draws in a step, dropout say."""
    mixed = np.random.SeedSequence([seed, step, process]).generate_state(2)
    return int(mixed[0]) << 31 ^ int(mixed[1])
