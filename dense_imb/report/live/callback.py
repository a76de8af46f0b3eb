"""The callback that writes the live page of a training."""

from __future__ import annotations

import base64
import math
import os
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dense_imb.base.files import write_whole
from dense_imb.base.refusals import RefusedFile
from dense_imb.engine.loop import Callback, Loop
from dense_imb.engine.pace import Pace, format_duration
from dense_imb.engine.score_lines import score_title
from dense_imb.report.drawing import draw_png
from dense_imb.report.live.page import Figure, curves_of, percent_done, render_live, score_rows
from dense_imb.report.page import is_report
from dense_imb.runs.folder import LIVE
from dense_imb.runs.read import Run
from dense_imb.tasks.kind import Kind, kind_of, module_of_kind

_MOST = 0.02  # fraction of the time that figures may take, after the first ones
_REFRESH = 10  # seconds between two pages, and between two looks of the browser
_RARELY = 200  # a page waits for this many times the time that writing it took


class LiveWarning(UserWarning):
    """A live page that could not be drawn or written; the training goes on.

    Example:
        >>> import warnings
        >>> from dense_imb.report import LiveWarning
        >>> warnings.simplefilter("error", LiveWarning)  # to end the training, where pages matter
        >>> warnings.resetwarnings()
    """


class LivePage(Callback):
    """Write `live.html` into the folder of a run: its progress, its curves, and a few examples.

    A browser opens the file by its path, and it refreshes itself. The numbers are written every
    ten seconds, curves and scores at each validation. Examples are drawn at validations, too, but
    at most in 2 % of the time, beside the first ones and the last. Only the main process writes.
    The page changes nothing that is learnt, and its failures are one warning.

    Args:
        folder: folder of the run.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> from dense_imb.report import LivePage
        >>> folder, rings = tempfile.mkdtemp(), simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> with HitsWriter(folder + "/rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(folder + "/rings.h5", signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> page = LivePage(folder + "/run")
        >>> config = TrainConfig(hits, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder + "/run", is_quiet=True, callbacks=[page])
        >>> page.path.name, page.path.exists()
        ('live.html', True)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / LIVE
        if self.path.exists() and not (self.path.is_file() and is_report(_start_of(self.path))):
            raise RefusedFile(
                f"no file at {self.path}", "one that is no page of dense-imb", "move it elsewhere"
            )
        self._warned = self._is_broken = False
        self._begin(Pace(0, 0))

    def _begin(self, pace: Pace) -> None:
        """Forget everything of an earlier stage."""
        self._pace, self._spent, self._written, self._wait = pace, 0.0, 0.0, float(_REFRESH)
        self._is_active = self._is_over = False
        self._kind: Kind | None = None
        self._examples: Any = None
        self._figures: list[Figure] = []
        self._drawn_at, self._seen = -1.0, -1.0  # steps
        self._earlier: list[dict[str, float]] = []  # history of a first stage
        self._stage = ""
        self._curves: list[str] = []
        self._rows: tuple[list[str], list[Any]] = ([], [])

    def on_start(self, loop: Loop) -> None:
        state, settings = loop.state, loop.settings
        self._begin(Pace(state.step, settings.steps))
        if not loop.is_main or state.stop is not None or state.step >= settings.steps:
            return  # nothing is left to do: the page stays as it is
        self._is_active = True
        self._try(partial(self._open, loop))
        self._try(partial(self._update, loop))

    def on_step(self, loop: Loop) -> None:
        if self._is_active and time.monotonic() - self._written > self._wait:
            self._try(partial(self._write, loop))

    def on_saved(self, loop: Loop) -> None:
        history = loop.state.history
        if not self._is_active or not history or history[-1]["step"] <= self._seen:
            return
        is_first = self._drawn_at < 0
        if is_first or self._spent <= _MOST * self._pace.seconds():
            self._try(partial(self._draw, loop))
        self._try(partial(self._update, loop))

    def on_end(self, loop: Loop) -> None:
        if not self._is_active:
            return
        self._is_over = True
        if loop.state.history and self._drawn_at < loop.state.history[-1]["step"]:
            self._try(partial(self._draw, loop))
        self._try(partial(self._update, loop))

    def on_close(self, loop: Loop) -> None:
        if self._is_active and not self._is_over:
            self._is_over = True
            self._try(partial(self._write, loop))
        self._is_active = False

    def _try(self, work: Callable[[], object]) -> None:
        """Do some work; an error is a warning, the first time."""
        started = time.monotonic()
        try:
            work()
        except Exception as problem:
            self._is_broken = True
            if not self._warned:
                self._warned = True
                reason = " ".join(f"{type(problem).__name__}: {problem}".split())
                warnings.warn(
                    f"the live page {self.path} is not up to date ({reason}); training goes on",
                    LiveWarning,
                    stacklevel=2,
                )
        self._spent += time.monotonic() - started

    def _open(self, loop: Loop) -> None:
        """Read what the page needs of the run: its kind, and the history of a first stage."""
        assert loop.folder is not None
        own = loop.folder.parent
        self._kind = kind_of(Run(own).config)
        run = Run(self.path.parent)
        if run.whole_config.second.steps:
            is_first = own != self.path.parent
            self._stage = f"stage {1 if is_first else 2} of 2"
            first = None if is_first else run.first
            self._earlier = [] if first is None else first.history

    def _draw(self, loop: Loop) -> None:
        """Draw the examples with the network as it is."""
        if self._is_broken or self._kind is None:  # drawing may fail each time, and take long
            return
        self._drawn_at = loop.state.history[-1]["step"]
        if self._examples is None:
            module = module_of_kind("dense_imb.report", self._kind, "live page")
            task = getattr(loop.task, "task", loop.task)  # of a mean teacher, the labelled part
            self._examples = module.LiveExamples(task)
        network = loop.accelerator.unwrap_model(loop.network)
        network.eval()
        self._figures = []
        for one in self._examples.drawings(network, loop.accelerator.device):
            png = base64.b64encode(draw_png(one.draw, one.size)).decode("ascii")
            self._figures.append(Figure(png, one.alt, one.caption))

    def _update(self, loop: Loop) -> None:
        """Draw the curves of the history, and write the page."""
        history = loop.state.history
        self._seen = history[-1]["step"] if history else -1.0
        watched = () if self._kind is None else self._kind.watched
        names = ["loss", loop.task.monitor, *watched]
        self._curves = curves_of(self._earlier, history, [*names, "learning_rate"])
        self._rows = score_rows(history, ["step", *names], loop.state.best_step)
        self._write(loop)

    def _write(self, loop: Loop) -> None:
        started = time.monotonic()
        header, rows = self._rows
        page = render_live(
            name=self.path.parent.resolve().name,
            status=self._status(loop),
            is_running=not self._is_over,
            refresh=_REFRESH,
            step=loop.state.step,
            n_steps=loop.settings.steps,
            facts=self._facts(loop),
            written=self._written_line(),
            notes=self._notes(loop),
            curves=self._curves,
            header=header,
            rows=rows,
            figures=self._figures,
            samples="samples" if self._kind is None else self._kind.samples,
            drawn_at=f"{self._drawn_at:,.0f}",
        )
        content = page.encode(errors="replace")
        write_whole(self.path, lambda to: to.write_bytes(content))
        self._written = time.monotonic()
        self._wait = max(_REFRESH, _RARELY * (self._written - started))

    def _status(self, loop: Loop) -> str:
        state, n_steps = loop.state, loop.settings.steps
        words = f"{self._stage}: " if self._stage else ""
        words += f"step {state.step:,} of {n_steps:,} ({percent_done(state.step, n_steps)})"
        if not self._is_over:
            left = self._pace.left(state.step)
            return words if math.isnan(left) else f"{words}, {format_duration(left)} left"
        if state.stop is not None:
            return f"{words}, ended early: {state.stop}"
        if state.step >= n_steps:
            return f"{words}, finished"
        return f"{words}, stopped; --resume continues it"

    def _facts(self, loop: Loop) -> dict[str, str]:
        state = loop.state
        last = state.history[-1] if state.history else {}
        loss = last.get("loss", math.nan)
        if state.cost_count:
            loss = state.cost_sums[loop.process] / state.cost_count
        facts = {
            "loss, mean since the last validation": f"{loss:.4g}",
            "learning rate": f"{loop.rate:.3g}",
            "steps a second": f"{self._pace.rate(state.step):.3g}",
            "time since the start": format_duration(self._pace.seconds()),
        }
        if state.best_step >= 0:
            monitor = score_title(loop.task.monitor)
            facts[f"best {monitor}, at step {state.best_step:,}"] = f"{state.best:.4g}"
        return {name: value.replace("nan", "-") for name, value in facts.items()}

    def _written_line(self) -> str:
        written = f"Written {datetime.now().astimezone().isoformat(' ', 'seconds')}"
        if self._is_over:
            return f"{written}."
        return (
            f"{written}. The page refreshes itself. If this time is more than a few minutes old, "
            "the training was killed or is validating."
        )

    def _notes(self, loop: Loop) -> list[str]:
        notes = []
        if not loop.state.history:
            first = loop.settings.validate_every
            notes.append(f"No validation yet; the first one comes after step {first:,}.")
        elif not self._figures and not self._is_over:
            notes.append("Examples come with the next validation.")
        if self._is_broken:
            notes.append("A part of this page could not be drawn; the terminal says why.")
        return notes


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2000)
