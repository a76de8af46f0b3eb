"""The main job from end to end: simulate, train, denoise, compare, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dense_imb.base.locks import locked_folder
from dense_imb.base.progress import tqdm
from dense_imb.config import HitsConfig, ModelConfig, OptimizerConfig, TrainConfig
from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import Degradation, MaskedFile, evaluate, mask_files, open_hits
from dense_imb.hits.table import Evaluation
from dense_imb.report import write_report
from dense_imb.runs import Run, open_run, train

SIGNAL, NOISE = 30, 200
STEPS = 600
_UNET_STEPS = 900
_UNET_BEFORE = (
    "For comparison, measured before: fast_unet, a network of frames with 1.35 million weights, "
    "removes 98.6 % at 97 % after 900 steps, two minutes of two cores; --with-unet trains it."
)


class Demo(NamedTuple):
    """Results of the demo."""

    evaluation: Evaluation
    masked: MaskedFile
    run: Run
    seconds: float


def demo(
    folder: str | os.PathLike[str],
    *,
    events: int = 4000,
    test_events: int = 1000,
    steps: int = STEPS,
    seed: int = 0,
    with_unet: bool = False,
    is_quiet: bool = False,
    say: Callable[[str], object] = print,
) -> Demo:
    """Simulate the arc task, train on it, compare with the baselines, denoise a held-out file.

    Results that are in the folder already are kept, so a demo that was stopped continues.

    Args:
        folder: folder of the data and the run.
        events: number of clean patterns to train and validate on.
        test_events: number of noisy held-out events to score and denoise.
        steps: number of training steps.
        seed: random seed.
        with_unet: also train a `fast_unet` on frames, which takes two minutes more.
        is_quiet: show no progress bars.
        say: called with a line on each stage.
    """
    start = time.monotonic()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder, makes_file=False):
        clean, raw = folder / "clean.h5", folder / "raw.h5"

        say(
            f"1/4 simulate {events} clean patterns and {test_events} raw events: {NOISE} noise hits"
        )
        _simulate(clean, events, seed, None, is_quiet)
        _simulate(raw, test_events, seed + 1, Degradation(signal=SIGNAL, noise=NOISE), is_quiet)

        say(f"2/4 train a network of hits, {steps} steps")
        run = train(
            recipe(str(clean), steps=steps, seed=seed),
            folder / "hits",
            resume=True,
            is_quiet=is_quiet,
        )
        others = []
        if with_unet:
            say(f"    train a network of frames, fast_unet, {_UNET_STEPS} steps")
            unet = recipe(str(clean), steps=_UNET_STEPS, seed=seed, model="fast_unet")
            others = [train(unet, folder / "fast_unet", resume=True, is_quiet=is_quiet)]

        say("3/4 denoise the raw file")
        with _bar("denoise", is_quiet) as advance:
            (masked,) = mask_files(
                raw, folder / "denoised", run.trained(), run.operating_point(), progress=advance
            )
        say(masked.summary())

        say("4/4 compare with the classical rules at thresholds from validation events, and report")
        report = write_report(
            run.folder, test=[str(raw)], n_events=test_events, show_progress=not is_quiet
        )
        evaluation = report.evaluation
        assert isinstance(evaluation, Evaluation)  # the run is trained, and its data are here
        for other in others:
            evaluation = _with_row(evaluation, other, raw)
        evaluation.save(folder / "evaluation.json")
        say(
            f"{evaluation.text()}\n\n{report.headline}\n"
            f"{'' if others else _UNET_BEFORE}\n\n"
            f"  {report.path}  the report: open it in a browser\n"
            f"  {masked.path}  every raw hit with its score, and whether to keep it\n"
            f"  {run.folder}  the run: config, history, checkpoints, weights\n"
            f"  {folder / 'evaluation.json'}  the table above, as numbers\n"
        )
        seconds = time.monotonic() - start
        say(f"done in {seconds:.0f} s")
        return Demo(evaluation, masked, open_run(run.folder), seconds)


def _with_row(evaluation: Evaluation, other: Run, raw: Path) -> Evaluation:
    """Return the table with a row for another run, below the first one."""
    scorer = other.trained()
    with open_hits(raw) as test:
        more = evaluate([scorer], None, test, stored={scorer.name: other.scores()})
    first, *rest = evaluation.rows
    return replace(evaluation, rows=(first, *more.rows, *rest))


def recipe(train_file: str, *, steps: int, seed: int = 0, model: str = "hits:tiny") -> TrainConfig:
    """Return the config of a run of the demo."""
    return TrainConfig(
        hits=HitsConfig(
            train=[train_file],
            signal=SIGNAL,
            noise=NOISE,
            validation_events=400,
        ),
        model=ModelConfig(model),
        optimizer=OptimizerConfig(learning_rate=1e-2 if model == "fast_unet" else None),
        steps=steps,
        validate_every=max(steps // 2, 1),
        seed=seed,
    )


def _simulate(
    path: Path, n: int, seed: int, degradation: Degradation | None, is_quiet: bool
) -> None:
    if path.exists():
        with open_hits(path, in_memory=False) as there:
            if len(there) == n:
                return
            raise ValueError(
                f"Expected {path} of an earlier demo to hold {n} events, got {len(there)}; use "
                "the same sizes, or another folder."
            )
    write_simulated(
        path, n, pattern="arc", seed=seed, degradation=degradation, progress=not is_quiet
    )


@contextmanager
def _bar(title: str, is_quiet: bool) -> Iterator[Callable[[int], object]]:
    with tqdm(desc=title, unit="event", disable=is_quiet, leave=False) as bar:
        yield bar.update
