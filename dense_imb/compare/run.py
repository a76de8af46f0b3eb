"""Train every contestant with every seed, and score it on held-out data."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import write_whole
from dense_imb.base.locks import locked_folder
from dense_imb.compare.benchmark import N_VALIDATIONS, Benchmark, Row, Settings
from dense_imb.compare.contestants import N_FIRST, Contestant, contestants, parse_contestant
from dense_imb.compare.plan import Plan, count_runs, plan, run_seconds
from dense_imb.compare.table import ComparisonTable
from dense_imb.config import TrainConfig
from dense_imb.engine import CollapseWarning, Interrupted
from dense_imb.losses.foreign.parse import parse_spec
from dense_imb.runs import Recipe, train
from dense_imb.tasks.kind import kind_of, module_of_kind

_PLAN = "plan.json"
_LONGEST = 250  # characters of the sentence with which a loss fails


def compare(
    config: TrainConfig,
    folder: str | os.PathLike[str],
    *,
    losses: Sequence[Contestant | str] | None = None,
    n_seeds: int = 3,
    first_seeds: int | None = None,
    minutes: float = 20.0,
    steps: int | None = None,
    test: str | None = None,
    tolerance: float = 2.0,
    precision: float = 0.5,
    false_objects: float = 1.0,
    typed: str = "",
    is_quiet: bool = False,
    say: Callable[[str], object] = print,
) -> ComparisonTable:
    """Train the same network with each loss and each seed, and score it on held-out data.

    Runs that are in the folder already are kept, so a comparison that was stopped continues. A
    loss that fails, also by becoming NaN, is a row that says why; repeating the call tries it
    again. Only a wrong text of a known loss, such as a misspelt option, is refused at once.

    Args:
        config: config that all runs share: hits, images with a `test_share` and masks or maps of
            values, or whole images with labels. Scores are those of half of the validation events,
            of the images of `test_share`, or of `test`.
        folder: folder of the runs and the results.
        losses: losses that compete, as `Contestant` with a text or a Module, or as texts, see
            `parse_contestant`; by default all of `contestants`.
        n_seeds: number of seeds of each loss, the same for all.
        first_seeds: number of seeds of the first six losses, if more.
        minutes: duration of all runs; the number of steps follows from it.
        steps: number of steps of each run, whatever the duration.
        test: for whole images: CSV file of test images, or a CIFAR archive; by default CIFAR's
            own test images, or the validation images.
        tolerance, precision: for images with masks, see `evaluate_images`.
        false_objects: for images with masks: number of false objects an image at which the recall
            of objects is measured; its threshold is chosen on the validation images.
        typed: command that makes this comparison, without its losses, seeds and folder, for the
            advice.
        is_quiet: show no progress bars.
        say: called with a line on each step of the comparison.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig
        >>> from dense_imb.compare import compare
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> rings = simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with HitsWriter(folder / "rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(str(folder / "rings.h5"), signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> table = compare(
        ...     TrainConfig(hits, model=tiny), folder / "losses", losses=["cross-entropy", "focal"],
        ...     n_seeds=1, steps=2, is_quiet=True, say=lambda line: None,
        ... )
        >>> sorted(row["loss"] for row in table.rows)
        ['cross-entropy', 'focal']
    """
    check_at_least("n_seeds", n_seeds, 1)
    if not minutes > 0:
        raise ValueError(f"Expected `minutes` above 0, got {minutes}.")
    check_at_least("false_objects", false_objects, 0)
    folder, kind = Path(folder), kind_of(config)
    settings = Settings(test, tolerance, precision, false_objects)
    make = module_of_kind("dense_imb.compare", kind, "comparison").BENCHMARK
    benchmark: Benchmark = make(config, settings)
    competing, failed = _competing(config, benchmark, losses)
    asked = {
        "losses": {one.name: one.text for one in [*competing, *failed]},
        "n_seeds": n_seeds,
        "minutes": None if steps is not None else minutes,
        "steps": steps,
        **settings._asdict(),
        "config": json.loads(json.dumps(asdict(config))),
    }
    _stored_plan(folder, asked)  # refuse another folder before it is locked
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder, makes_file=False):
        planned = _stored_plan(folder, asked)
        if planned is None:
            n_losses = len(competing)
            try:
                planned = _new_plan(benchmark, n_losses, n_seeds, first_seeds or 0, minutes, steps)
            except Exception:  # it starts nothing
                with suppress(OSError):
                    folder.rmdir()
                raise
            _write(folder / _PLAN, {"asked": asked, "plan": planned._asdict()})
        chosen, left_out = competing[: planned.n_losses], competing[planned.n_losses :]
        line = (
            f"{len(chosen)} losses x {planned.n_seeds} seed{'s' * (planned.n_seeds != 1)} x "
            f"{planned.steps} steps, about "
            f"{max(planned.seconds / 60, 0.1):.1f} min"
        )
        if left_out:
            line += f"; left out for time: {', '.join(one.name for one in left_out)}"
        say(line)
        problems = {one.name: why for one, why in failed.items()}
        for name, why in problems.items():
            say(f"{name} fails: {why}")
        rows: list[dict[str, Any]] = []
        first = max(planned.n_seeds, first_seeds or 0)
        seeds_of = {one: first if k < N_FIRST else planned.n_seeds for k, one in enumerate(chosen)}
        for seed in range(max(seeds_of.values())):  # the first seed of all before the second of any
            for one in (one for one in chosen if seed < seeds_of[one] and one.name not in problems):
                row = _outcome(folder, benchmark, one, seed, planned.steps, is_quiet)
                if isinstance(row, str):
                    problems[one.name] = f"{row} (seed {seed})"
                    say(f"{one.name} fails: {problems[one.name]}")
                    continue
                rows.append({"loss": one.name, "seed": seed, **row})
                say(
                    f"{len(rows)}/{sum(seeds_of.values())} {one.name}, seed {seed}: "
                    + ", ".join(f"{name} {row[name]:.3f}" for name in benchmark.scores[:2])
                    + f" ({row['cpu_seconds']:.0f} CPU s)"
                )
        if not rows:
            name, why = next(iter(problems.items()))
            raise ValueError(f"Expected a loss that trains, got none; {name}: {why}")
        table = ComparisonTable.from_runs(
            rows,
            benchmark.scores,
            [*chosen, *failed],
            planned.steps,
            folder=str(folder),
            kind=kind.name,
            failed=problems,
            false_objects=false_objects,
            typed=typed,
            references=benchmark.references(),
        )
        table.save(folder / "comparison.json")
        table.save(folder / "comparison.csv")
        return table


def _competing(
    config: TrainConfig, benchmark: Benchmark, losses: Sequence[Contestant | str] | None
) -> tuple[list[Contestant], dict[Contestant, str]]:
    """Return the losses that compete, and those that cannot be built with the reason.

    A wrong text of a known loss is refused, before anything is timed.
    """
    is_typed, default = losses is not None, benchmark.contestants()
    if losses is None:
        losses = default
    known = [*default, *contestants(kind_of(config).name, n_classes=3)]
    competing = [parse_contestant(one, known) if isinstance(one, str) else one for one in losses]
    able: list[Contestant] = []
    failed: dict[Contestant, str] = {}
    for one in competing:
        try:
            Recipe.of(benchmark.config(one), loss=one.module)
        except Exception as problem:  # a loss of the user's may raise anything
            if is_typed and not _is_own(one, config.allow_import):
                raise
            failed[one] = _sentence(problem)
        else:
            able.append(one)
    folders = [one.folder for one in competing]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if len(competing) < 2 or twice:
        got = f"{twice[0]} twice" if twice else len(competing)
        raise ValueError(
            f"Expected at least two losses of different names, got {got}; name another one, or "
            "none to compare all."
        )
    if not able:
        one, why = next(iter(failed.items()))
        raise ValueError(f"Expected a loss that can be built, got none; {one.name}: {why}")
    return able, failed


def _is_own(one: Contestant, allow_import: Sequence[str]) -> bool:
    """Whether a loss is the user's: a Module, or of a package that may be imported."""
    if not isinstance(one.loss, str):
        return isinstance(one.loss, nn.Module)
    try:
        terms = parse_spec(one.text).terms
    except ValueError:
        return False
    return any(str(term.module).partition(".")[0] in allow_import for term in terms)


def _stored_plan(folder: Path, asked: dict[str, Any]) -> Plan | None:
    """Return the plan of the comparison in a folder; None where the folder is new or empty."""
    path = folder / _PLAN
    if not path.exists():
        if folder.exists() and any(path.suffix != ".partial" for path in folder.iterdir()):
            raise ValueError(f"Expected a new or empty folder, got {folder}, with files.")
        return None
    stored = json.loads(path.read_text())
    differ = [name for name in asked if stored["asked"].get(name) != asked[name]]
    if differ:
        raise ValueError(
            f"Expected the comparison that {folder} holds, to go on with it, got another "
            f"({', '.join(differ)} differ); choose a new folder."
        )
    return Plan(**stored["plan"])


def _new_plan(
    benchmark: Benchmark,
    n_losses: int,
    n_seeds: int,
    first_seeds: int,
    minutes: float,
    steps: int | None,
) -> Plan:
    step_seconds, score_seconds = benchmark.speed()
    if steps is not None:
        n_runs = count_runs(n_losses, n_seeds, first_seeds)
        seconds = n_runs * run_seconds(steps, step_seconds, score_seconds)
        return Plan(steps, n_seeds, n_losses, seconds)
    return plan(
        60 * minutes,
        step_seconds=step_seconds,
        score_seconds=score_seconds,
        n_losses=n_losses,
        n_seeds=n_seeds,
        first_seeds=first_seeds,
    )


def _outcome(
    folder: Path, benchmark: Benchmark, one: Contestant, seed: int, steps: int, is_quiet: bool
) -> Row | str:
    """Return the scores of a run, or the sentence with which its loss fails."""
    try:
        return _result(folder, benchmark, one, seed, steps, is_quiet)
    except (Interrupted, OSError):  # no fault of the loss
        raise
    except Exception as problem:  # a loss may raise anything
        return _sentence(problem)


def _result(
    folder: Path, benchmark: Benchmark, one: Contestant, seed: int, steps: int, is_quiet: bool
) -> Row:
    """Return the scores of a run, which is trained unless the folder has its result."""
    place = folder / f"{one.folder}-{seed}"
    stored = place / "result.json"
    if stored.exists():
        row = json.loads(stored.read_text())
        return {name: math.nan if value is None else float(value) for name, value in row.items()}
    start = time.process_time()
    config = replace(
        benchmark.config(one),
        seed=seed,
        steps=steps,
        validate_every=max(steps // N_VALIDATIONS, 1),
    )
    recipe = Recipe.of(config, loss=one.module)
    with warnings.catch_warnings():  # the table shows a contestant that goes blank
        warnings.simplefilter("ignore", CollapseWarning)
        run = train(recipe, place, resume=True, is_quiet=is_quiet)
    row = benchmark.measure(run)
    row["cpu_seconds"] = time.process_time() - start
    _write(stored, {name: None if math.isnan(value) else value for name, value in row.items()})
    return row


def _sentence(problem: Exception) -> str:
    """Return what a problem says, on one line and without a full stop."""
    text = " ".join(str(problem).split()) or "no message"
    if not isinstance(problem, (ValueError, TypeError)):
        text = f"{type(problem).__name__}: {text}"
    return shorten(text, _LONGEST, placeholder=" ...").rstrip(".")


def _write(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1)
    write_whole(path, lambda partial: partial.write_text(text))
