"""Learning-rate schedules and seeds of steps; pure functions, without state to restore."""

from __future__ import annotations

import math

import numpy as np

from dense_imb.base.checks import check_choice

SCHEDULES = ("one-cycle", "cosine", "constant")
_WARM_UP = {"one-cycle": 0.15, "cosine": 0.05, "constant": 0.0}  # fraction of the steps
_FIRST = 0.04  # fraction of the peak at the first step of the warm-up


def rate_factor(schedule: str, progress: float) -> float:
    """Return the factor of the learning rate at a fraction `progress` of all steps.

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
    """Return the seed of the random numbers of a step, for example of dropout."""
    mixed = np.random.SeedSequence([seed, step, process]).generate_state(2)
    return int(mixed[0]) << 31 ^ int(mixed[1])
