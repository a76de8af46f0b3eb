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
    budget: float,
    *,
    step_seconds: float,
    score_seconds: float,
    n_losses: int,
    n_seeds: int,
    steps: int | None = None,
) -> Plan:
    """Fill the budget: with steps, where it is small with fewer seeds, and last with fewer losses.

    Args:
        budget: in seconds.
        step_seconds, score_seconds: that a step takes, and all validations and tests of a run.
        n_losses, n_seeds: wanted.
        steps: wanted; None fills the budget.

    Example:
        >>> plan(3600, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3).steps
        1100
        >>> plan(60, step_seconds=0.1, score_seconds=8, n_losses=10, n_seeds=3)[:3]
        (100, 1, 3)
    """
    least = LEAST_STEPS if steps is None else steps
    for seeds in range(n_seeds, 0, -1):
        for losses in range(n_losses, n_losses - 1 if seeds > 1 else 1, -1):
            of_run = budget / (seeds * losses) - score_seconds - _OVERHEAD
            possible = int(of_run / step_seconds) if of_run > 0 else 0
            if possible >= least:
                chosen = min(possible, MOST_STEPS) if steps is None else steps
                chosen = max(chosen // 50 * 50, least) if steps is None else chosen
                return _plan(chosen, seeds, losses, step_seconds, score_seconds)
    return _plan(least, 1, min(2, n_losses), step_seconds, score_seconds)


def _plan(steps: int, seeds: int, losses: int, of_step: float, of_scores: float) -> Plan:
    each = steps * of_step + of_scores + _OVERHEAD
    return Plan(steps, seeds, losses, seeds * losses * each)
