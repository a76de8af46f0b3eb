"""The steps, seeds and losses that a time budget allows."""

from __future__ import annotations

import math
from typing import NamedTuple

from dense_imb.base.refusals import Refused
from dense_imb.compare.contestants import N_FIRST

LEAST_STEPS = 100
MOST_STEPS = 4000
_OVERHEAD = 2.0  # seconds of a run for all but steps and images: building, checkpoints


class Plan(NamedTuple):
    """The runs of a comparison.

    Args:
        steps: steps of each run.
        n_seeds: seeds of each loss.
        n_losses: number of losses that compete, the first ones.
        seconds: expected duration of all runs.
    """

    steps: int
    n_seeds: int
    n_losses: int
    seconds: float


def plan(
    budget: float,
    *,
    step_seconds: float,
    score_seconds: float,
    n_losses: int,
    n_seeds: int,
    first_seeds: int = 0,
) -> Plan:
    """Choose the runs that fit a budget.

    A smaller budget gets fewer steps, then fewer seeds, and last fewer losses.

    Args:
        budget: duration of all runs, in seconds.
        step_seconds, score_seconds: duration of a step, and of all validations and tests of a run.
        n_losses, n_seeds: losses that compete, and seeds of each, at most.
        first_seeds: seeds of each of the first six losses, if more.

    Example:
        >>> plan(3600, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3).steps
        1100
        >>> plan(60, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3)[:3]
        (100, 1, 3)
    """
    least = min(2, n_losses)
    for seeds in range(n_seeds, 0, -1):
        for losses in range(n_losses, n_losses - 1 if seeds > 1 else least - 1, -1):
            n_runs = count_runs(losses, seeds, first_seeds)
            left = budget / n_runs - score_seconds - _OVERHEAD
            steps = min(int(left / step_seconds + 1e-6) // 50 * 50, MOST_STEPS)
            if steps >= LEAST_STEPS:
                seconds = n_runs * run_seconds(steps, step_seconds, score_seconds)
                return Plan(steps, seeds, losses, seconds)
    n_runs = count_runs(least, 1, first_seeds)
    seconds = n_runs * run_seconds(LEAST_STEPS, step_seconds, score_seconds)
    raise Refused(
        f"{{minutes}} of at least {math.ceil(seconds / 6) / 10:g} here, for {n_runs} runs of "
        f"{LEAST_STEPS} steps",
        f"{budget / 60:.3g}",
        "raise {minutes}, or set the length of the runs with {steps}",
    )


def count_runs(n_losses: int, n_seeds: int, first_seeds: int = 0) -> int:
    """Return the number of runs; the first six losses may have more seeds.

    Example:
        >>> count_runs(8, 1, first_seeds=3)
        20
    """
    n_first = min(n_losses, N_FIRST)
    return n_first * max(n_seeds, first_seeds) + (n_losses - n_first) * n_seeds


def run_seconds(steps: int, step_seconds: float, score_seconds: float) -> float:
    """Return the expected duration of a run."""
    return steps * step_seconds + score_seconds + _OVERHEAD
