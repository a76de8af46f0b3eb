"""The table of validation scores that grows in the terminal while a network is trained."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence

from dense_imb.base.progress import tqdm
from dense_imb.engine.loop import Callback, Loop
from dense_imb.engine.pace import Pace, format_duration

_EVERY = 60.0  # seconds without a line after which a log gets one
_AGAIN = 30  # rows after which the header is repeated
_EARLIER = 3  # rows of the history that a resumed run shows again
_LEAST = 6  # letters of a column
_SHORT = {"auc": "AUC", "mae": "MAE", "f1": "F1"}
_STEP, _LEFT, _BEST = "step", "left", " *"


class ScoreLines(Callback):
    """A line for each validation, on stderr: the loss, some scores, and the time that is left.

    In a terminal the lines stand above the progress bar. In a log a line a minute takes the place
    of the bar. The best validation so far has a star.

    Args:
        scores: validation scores to show beside the monitored one; unknown ones are left out.
        is_quiet: print nothing.
        name: name of the training in its first line.

    Example:
        >>> from types import SimpleNamespace
        >>> from dense_imb.engine import ScoreLines
        >>> lines = ScoreLines(["auc"], name="arc", is_quiet=True)
        >>> lines.scores, lines.name
        (('auc',), 'arc')
    """

    def __init__(
        self, scores: Sequence[str] = (), *, is_quiet: bool = False, name: str = "train"
    ) -> None:
        self.scores, self.is_quiet, self.name = tuple(scores), is_quiet, name
        self._columns: list[str] = []
        self._n_rows = 0
        self._shown = self._printed = 0.0  # step of the last row, time of the last line
        self._pace = Pace(0, 0)

    def on_start(self, loop: Loop) -> None:
        state, settings = loop.state, loop.settings
        self._pace, self._columns, self._n_rows = Pace(state.step, settings.steps), [], 0
        self._shown, self._printed = float(state.step), time.monotonic()
        if not self._prints(loop) or state.stop is not None or state.step >= settings.steps:
            return
        if not has_bars():
            self._print(f"{self.name}: {_steps(state.step, settings.steps)}")
        for row in state.history[-_EARLIER:]:
            self._add(loop, row, "")

    def on_step(self, loop: Loop) -> None:
        if time.monotonic() - self._printed < _EVERY or not self._prints(loop):
            return
        if has_bars():  # which show it
            self._printed = time.monotonic()
            return
        state = loop.state
        line = f"{_steps(state.step, loop.settings.steps)}"
        if state.cost_count:
            line += f", loss {state.cost_sums[loop.process] / state.cost_count:.4g}"
        self._print(f"{line}, {format_duration(self._pace.left(state.step))} left")

    def on_saved(self, loop: Loop) -> None:
        history = loop.state.history
        if self._prints(loop) and history and history[-1]["step"] > self._shown:
            self._shown = history[-1]["step"]
            self._add(loop, history[-1], format_duration(self._pace.left(loop.state.step)))

    def _prints(self, loop: Loop) -> bool:
        return loop.is_main and not self.is_quiet

    def _add(self, loop: Loop, row: Mapping[str, float], left: str) -> None:
        """Print a row, below a header where it is due."""
        if not self._columns:
            wanted = ("loss", loop.task.monitor, *self.scores)
            self._columns = [name for name in dict.fromkeys(wanted) if name in row]
        names = [score_title(name) for name in self._columns]
        widths = [max(len(name), _LEAST) for name in names]
        if self._n_rows % _AGAIN == 0:
            header = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
            self._print("  ".join([f"{_STEP:>8}", *header]) + f"{'':{len(_BEST)}}  {_LEFT:>7}")
        self._n_rows += 1
        cells = [
            f"{_score(row.get(name, math.nan)):>{width}}"
            for name, width in zip(self._columns, widths, strict=True)
        ]
        star = _BEST if row["step"] == loop.state.best_step else ""
        line = "  ".join([f"{row['step']:>8,.0f}", *cells])
        self._print(f"{line}{star:{len(_BEST)}}  {left:>7}".rstrip())

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        if has_bars():
            tqdm.write(line, file=sys.stderr)  # above the bar
        else:
            print(line, file=sys.stderr, flush=True)


def has_bars() -> bool:
    """Whether progress bars can be drawn: in a terminal or in a notebook, but not in a log."""
    is_notebook = any(one.__module__ == "tqdm.notebook" for one in tqdm.__mro__)
    return is_notebook or sys.stderr.isatty()


def score_title(name: str) -> str:
    """Return the name of a score as people write it.

    Example:
        >>> score_title("balanced_mae"), score_title("best_f1"), score_title("removal_at_97")
        ('balanced MAE', 'best F1', 'removal at 97')
    """
    return " ".join(_SHORT.get(word, word) for word in name.split("_"))


def _steps(step: int, n_steps: int) -> str:
    return f"step {step:,} of {n_steps:,}" if step else f"{n_steps:,} steps"


def _score(value: float) -> str:
    """Return a score as text: four digits behind the point, or four digits of others.

    Example:
        >>> _score(0.98765), _score(1234.5), _score(1e-6), _score(math.nan)
        ('0.9877', '1234', '1e-06', '-')
    """
    if math.isnan(value):
        return "-"
    is_share = 0.001 <= abs(value) < 10 or value == 0
    return f"{value:.4f}" if is_share else f"{value:.4g}"
