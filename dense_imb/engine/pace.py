"""The pace of a training: steps in a second, and the time that is left."""

from __future__ import annotations

import math
import time


class Pace:
    """Steps in a second since a start, validations included.

    Args:
        step: step at the start.
        n_steps: number of all steps.
    """

    def __init__(self, step: int, n_steps: int) -> None:
        self._first, self._n_steps, self._started = step, n_steps, time.monotonic()

    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self._started

    def rate(self, step: int) -> float:
        """Return the steps in a second; NaN before the first one."""
        n, seconds = step - self._first, self.seconds()
        return n / seconds if n > 0 and seconds > 0 else math.nan

    def left(self, step: int) -> float:
        """Return the seconds to the last step; NaN before the first one."""
        return (self._n_steps - step) / self.rate(step)


def format_duration(seconds: float) -> str:
    """Return a duration as text; a dash for NaN.

    Example:
        >>> format_duration(75.2), format_duration(3 * 3600 + 62), format_duration(math.nan)
        ('1:15', '3:01:02', '-')
    """
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
