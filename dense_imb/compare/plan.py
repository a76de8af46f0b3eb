"""How many steps and seeds a time budget allows."""

from __future__ import annotations

from typing import NamedTuple

LEAST_STEPS = 100
MOST_STEPS = 4000
_OVERHEAD = 2.0  # seconds of a run for all but steps and images: building, checkpoints


class Plan(NamedTuple):
    """What is run.

    Args:
        steps: of each run.
        n_seeds: of each loss.
        n_losses: of those that compete, the first ones.
        seconds: that it will take.
    """

    steps: int
    n_seeds: int
    n_losses: int
    seconds: float


def plan(
    budget: float, *, step_seconds: float, score_seconds: float, n_losses: int, n_seeds: int
) -> Plan:
    """Fill the budget: with steps, where it is small with fewer seeds, and last with fewer losses.

    Args:
        budget: in seconds.
        step_seconds, score_seconds: that a step takes, and all validations and tests of a run.
        n_losses, n_seeds: wanted.

    Example:
        >>> plan(3600, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3).steps
        1100
        >>> plan(60, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3)[:3]
        (100, 1, 3)
    """
    for seeds in range(n_seeds, 0, -1):
        for losses in range(n_losses, n_losses - 1 if seeds > 1 else 1, -1):
            left = budget / (seeds * losses) - score_seconds - _OVERHEAD
            steps = int(left / step_seconds) // 50 * 50 if left > 0 else 0
            if steps >= LEAST_STEPS:
                steps = min(steps, MOST_STEPS)
                return Plan(
                    steps, seeds, losses,
                    seeds * losses * run_seconds(steps, step_seconds, score_seconds),
                )  # fmt: skip
    least = min(2, n_losses)
    return Plan(
        LEAST_STEPS, 1, least, least * run_seconds(LEAST_STEPS, step_seconds, score_seconds)
    )


def run_seconds(steps: int, step_seconds: float, score_seconds: float) -> float:
    """What a run takes."""
    return steps * step_seconds + score_seconds + _OVERHEAD
