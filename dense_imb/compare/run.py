"""Train every contestant with every seed, and measure it on what none has seen."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import write_whole
from dense_imb.compare.contestants import FIRST, Contestant, contestants
from dense_imb.compare.plan import Plan, plan, run_seconds
from dense_imb.compare.table import ComparisonTable
from dense_imb.config import TrainConfig
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.engine import CollapseWarning
from dense_imb.hits import evaluate
from dense_imb.losses import class_weights
from dense_imb.runs import Run, train
from dense_imb.tasks.images.evaluate import chosen_thresholds, evaluate_images
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.recipe import build_loss, build_task

N_VALIDATIONS = 4  # of a run; the best of them is measured
_TIMED = 4  # steps that the speed is measured on
_CLASS_WEIGHTS = "$inverse"
_N_FIRST = len(FIRST)
Row = dict[str, float]


class _Field(Protocol):
    """What contestants are trained and measured on."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Names; the first one decides."""

    def contestants(self) -> list[Contestant]:
        """Everybody who may compete."""

    def loss(self, contestant: Contestant) -> str:
        """As a config says it."""

    def speed(self) -> tuple[float, float]:
        """Seconds of a step, and of all validations and tests of a run."""

    def measure(self, run: Run) -> Row:
        """Scores on the data that nobody has seen."""


def compare(
    config: TrainConfig,
    folder: str | os.PathLike[str],
    *,
    losses: Sequence[Contestant] | None = None,
    n_seeds: int = 3,
    first_seeds: int | None = None,
    minutes: float = 20.0,
    steps: int | None = None,
    tolerance: float = 2.0,
    precision: float = 0.5,
    is_quiet: bool = False,
    say: Callable[[str], object] = print,
) -> ComparisonTable:
    """Train each loss with each seed, alike in all else, and measure on held-out data.

    What is in the folder already is not made again, so a comparison that was stopped goes on.

    Args:
        config: what all runs share; images with a `test_share`, or hits, of whose validation
            events one half chooses thresholds and the other is measured.
        folder: for the runs, and the results.
        losses: that compete; all of `contestants` by default.
        n_seeds: of each; the same ones for all.
        first_seeds: of the first six losses, if they shall have more.
        minutes: the budget of all runs, from which the number of steps follows.
        steps: of each run, in place of what follows from the budget.
        tolerance, precision: of the scores of images, see `evaluate_images`.
        is_quiet: no progress bars.
        say: told what happens.
    """
    check_at_least("n_seeds", n_seeds, 1)
    if not minutes > 0:
        raise ValueError(f"Expected `minutes` above 0, got {minutes}.")
    if config.trains_on_classes:
        raise ValueError(
            "Expected a config of hits or of images with masks to compare losses on, got one of "
            "whole images; train a run for each loss, and evaluate them together."
        )
    folder = Path(folder)
    where: _Field = (
        _Images(config, tolerance, precision) if config.trains_on_images else _Hits(config)
    )
    wanted = list(losses) if losses is not None else where.contestants()
    for one in wanted:  # a misspelt one is refused before anything is timed
        build_loss(where.loss(one), (1, 1))
    twice = {one.folder for one in wanted if [w.folder for w in wanted].count(one.folder) > 1}
    if len(wanted) < 2 or twice:
        got = f"{len(wanted)}" if not twice else f"{sorted(twice)[0]} twice"
        raise ValueError(
            f"Expected at least two losses of different names, got {got}; name another one "
            "(--loss NAME=LOSS), or none for all."
        )
    planned = _planned(folder, config, where, wanted, n_seeds, minutes, steps)
    chosen = wanted[: planned.n_losses]
    say(
        f"{len(chosen)} losses x {planned.n_seeds} seeds x {planned.steps} steps, about "
        f"{max(planned.seconds / 60, 0.1):.1f} min"
        + (f"; left out for time: {', '.join(one.name for one in wanted[planned.n_losses:])}"
           if planned.n_losses < len(wanted) else "")
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    most = [max(planned.n_seeds, first_seeds or 0)] * _N_FIRST
    seeds_of = dict(zip(chosen, [*most, *[planned.n_seeds] * len(chosen)], strict=False))
    total = sum(seeds_of.values())
    for seed in range(max(seeds_of.values())):  # a first seed of all before the second of any
        for one in (one for one in chosen if seed < seeds_of[one]):
            row = _result(folder, config, where, one, seed, planned.steps, is_quiet)
            rows.append({"loss": one.name, "seed": seed, **row})
            say(
                f"{len(rows)}/{total} {one.name}, seed {seed}: "
                + ", ".join(f"{name} {row[name]:.3f}" for name in where.scores[:2])
                + f" ({row['cpu_seconds']:.0f} CPU s)"
            )
    table = ComparisonTable.of_runs(rows, where.scores, chosen, planned.steps)
    table.save(folder / "comparison.json")
    table.save(folder / "comparison.csv")
    return table


def _planned(
    folder: Path,
    config: TrainConfig,
    where: _Field,
    losses: Sequence[Contestant],
    n_seeds: int,
    minutes: float,
    steps: int | None,
) -> Plan:
    """What was planned when the comparison began, or a plan made now."""
    path = folder / "plan.json"
    shared = json.loads(json.dumps(asdict(config)))
    asked = {
        "losses": {one.name: one.loss for one in losses},
        "n_seeds": n_seeds,
        "minutes": None if steps is not None else minutes,
        "steps": steps,
        "config": shared,
    }
    if path.exists():
        stored = json.loads(path.read_text())
        differ = [name for name in asked if stored["asked"].get(name) != asked[name]]
        if differ:
            raise ValueError(
                f"Expected the comparison that {folder} holds, to go on with it, got another "
                f"({', '.join(differ)} differ); choose a new folder."
            )
        return Plan(**stored["plan"])
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"Expected a new or empty folder, got {folder}, with files.")
    step_seconds, score_seconds = where.speed()
    if steps is None:
        found = plan(
            60 * minutes,
            step_seconds=step_seconds,
            score_seconds=score_seconds,
            n_losses=len(losses),
            n_seeds=n_seeds,
        )
    else:
        seconds = n_seeds * len(losses) * run_seconds(steps, step_seconds, score_seconds)
        found = Plan(steps, n_seeds, len(losses), seconds)
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, {"asked": asked, "plan": found._asdict()})
    return found


def _result(
    folder: Path,
    config: TrainConfig,
    where: _Field,
    one: Contestant,
    seed: int,
    steps: int,
    is_quiet: bool,
) -> Row:
    place = folder / f"{one.folder}-{seed}"
    stored = place / "result.json"
    if stored.exists():
        return {name: float(value) for name, value in json.loads(stored.read_text()).items()}
    start = time.process_time()
    with warnings.catch_warnings():  # a contestant may go blank: the table says so
        warnings.simplefilter("ignore", CollapseWarning)
        run = train(
            replace(
                config,
                loss=where.loss(one),
                seed=seed,
                steps=steps,
                validate_every=max(steps // N_VALIDATIONS, 1),
            ),
            place,
            resume=True,
            is_quiet=is_quiet,
        )
    row = where.measure(run)
    row["cpu_seconds"] = time.process_time() - start
    _write(stored, row)
    return row


def _write(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1)
    write_whole(path, lambda partial: partial.write_text(text))


class _Images:
    scores = (
        "average_precision",
        "tolerant_f1",
        "f1",
        "recall_at_precision",
        "calibration_error",
        "likeliest_iou",
    )

    def __init__(self, config: TrainConfig, tolerance: float, precision: float) -> None:
        self.config, self.tolerance, self.precision = config, tolerance, precision
        self.test: LabelledImages = open_test_images(config.images)
        self._task = build_task(replace(config, loss="CrossEntropyLoss"))

    def contestants(self) -> list[Contestant]:
        return contestants(n_classes=self.test.n_classes)

    def loss(self, contestant: Contestant) -> str:
        return _with_weights(contestant.loss, self._task.class_counts)

    def speed(self) -> tuple[float, float]:
        task, device = self._task, torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda")
            task.network.to(device)
        seconds = _timed_steps(task, self.config.batch_size, device)
        shown = torch.from_numpy(task.reading.shown(task.validation.image(0)))[None]
        with torch.no_grad():
            for _ in range(2):  # the first time also imports what looks through windows
                start = time.perf_counter()
                task.reading.logits(task.network.eval(), shown.to(device))
                of_image = time.perf_counter() - start
        # scoring takes about as long as a small network does
        n_images = N_VALIDATIONS * len(task.validation) + 2 * len(self.test)
        return seconds, 1.3 * of_image * n_images

    def measure(self, run: Run) -> Row:
        table = evaluate_images(
            [run.trained()],
            self.test,
            thresholds=[chosen_thresholds(run.scores())],
            tolerance=self.tolerance,
            precision=self.precision,
        )
        row = table.rows[0]
        return {name: float(row[name]) for name in self.scores}


class _Hits:
    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        wanted = f"removal_at_{100 * config.hits.retention:g}"
        self.scores: tuple[str, ...] = tuple(
            dict.fromkeys([wanted, "removal_at_95", "removal_at_99", "auc", "retention_at_half"])
        )
        self._task = build_task(replace(config, loss="CrossEntropyLoss"))

    def contestants(self) -> list[Contestant]:
        return contestants(of_hits=True)

    def loss(self, contestant: Contestant) -> str:
        return _with_weights(contestant.loss, self._task.class_counts)

    def speed(self) -> tuple[float, float]:
        seconds = _timed_steps(self._task, self.config.batch_size, torch.device("cpu"))
        n_batches = len(self._task.validation) / self.config.batch_size
        return seconds, 0.5 * seconds * n_batches * (N_VALIDATIONS + 1)

    def measure(self, run: Run) -> Row:
        events: VirtualEvents = self._task.validation
        half = len(events) // 2
        first, second = (
            events.degraded(np.arange(*ends), VALIDATION_EPOCH)
            for ends in ((0, half), (half, len(events)))
        )
        row = evaluate([run.trained()], first, second).rows[0]
        return {name: float(row[name]) for name in self.scores}


def _with_weights(loss: str, class_counts: Sequence[int]) -> str:
    weights = class_weights(class_counts, "inverse")
    told = "(" + ", ".join(f"{weight:.4g}" for weight in weights) + ")"
    return loss.replace(_CLASS_WEIGHTS, told)


def _timed_steps(task: Any, batch_size: int, device: torch.device) -> float:
    """The median of some steps after a first one."""
    size = min(batch_size, task.n_samples)
    optimizer = torch.optim.AdamW(task.network.parameters(), 1e-9)
    task.network.train()
    seconds = []
    for k in range(_TIMED + 1):
        start = time.perf_counter()
        samples = (np.arange(size) + k * size) % task.n_samples
        task.cost(task.network, task.batch(samples, 0, device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
