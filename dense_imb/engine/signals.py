"""Signals that ask a run to stop: recorded on arrival, obeyed between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dense_imb.config import SAVED


class Interrupted(Exception):
    """A signal asked the run to stop; it is saved and can be resumed.

    Example:
        >>> import signal
        >>> from dense_imb.engine import Interrupted
        >>> stopped = Interrupted(signal.SIGTERM, step=120)
        >>> str(stopped), stopped.exit_code
        ('stopped by SIGTERM after step 120, saved', 75)
    """

    def __init__(self, number: int, step: int, stage: str = "") -> None:
        where = f"step {step} of {stage}" if stage else f"step {step}"
        super().__init__(f"stopped by {signal.Signals(number).name} after {where}, saved")
        self.number, self.step = number, step

    @property
    def exit_code(self) -> int:
        """Exit code of a command that was stopped by this signal."""
        return 130 if self.number == signal.SIGINT else SAVED


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Record signals that ask to stop, so that the step can end; a second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    noted = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGUSR1", None)])]
    try:
        before = {number: signal.signal(number, note) for number in noted}
    except ValueError:  # not the main thread, where signals never arrive
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
