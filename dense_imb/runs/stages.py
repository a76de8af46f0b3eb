"""Training in two stages: what each of them is, as a run of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dense_imb.base.checks import check_at_least
from dense_imb.config import SecondConfig, TrainConfig, UnlabelledConfig

FIRST = "first"  # the folder of the first stage in that of the run: a whole run of its own
_SLOWER = 10  # times, where no learning rate is asked for; a head alone has no features to spoil
# in the setup of a checkpoint: what no second stage may change
_SHARED = ("network", "frame", "data", "validation data", "degradation")


def stages_of(config: TrainConfig) -> tuple[TrainConfig, TrainConfig | None]:
    """The first stage and the second one, each as the config of a run in one stage.

    The second learns from labelled images only, and where the head alone is trained, without a
    loss of the features, which stay as they are.

    Example:
        >>> config = TrainConfig(steps=200, loss="FocalLoss", second=SecondConfig(50))
        >>> first, second = stages_of(config)
        >>> first.steps, first.loss, first.sampling.kind, first.optimizer.learning_rate
        (200, 'FocalLoss', 'instance', 0.006)
        >>> second.steps, second.loss, second.sampling.kind
        (50, 'FocalLoss', 'class')
        >>> round(second.optimizer.learning_rate, 6)
        0.0006
        >>> stages_of(TrainConfig())[1] is None
        True
    """
    wanted = config.second
    first = replace(config, second=SecondConfig())
    if wanted.steps == 0:
        return first, None
    rate = wanted.learning_rate
    if rate is None:
        rate = config.optimizer.learning_rate / (_SLOWER if wanted.parts == "all" else 1)
    second = replace(
        first,
        steps=wanted.steps,
        loss=config.loss if wanted.loss is None else wanted.loss,
        feature_loss=config.feature_loss if wanted.parts == "all" else None,
        optimizer=replace(config.optimizer, learning_rate=rate, parts=wanted.parts),
        sampling=wanted.sampling,
        mixing=wanted.mixing,
        unlabelled=UnlabelledConfig(),
    )
    return first, second


def last_stage(config: TrainConfig) -> TrainConfig:
    """The stage that a run's network comes from, as the config of a run in one stage."""
    first, second = stages_of(config)
    return second or first


def check_second(wanted: SecondConfig) -> None:
    """Refuse what no second stage can be."""
    check_at_least("second.steps", wanted.steps, 0)
    if wanted.learning_rate is not None:
        check_at_least("second.learning_rate", wanted.learning_rate, 0)
    plain, asked = asdict(SecondConfig()), asdict(wanted)
    given = [f"second.{name}" for name in plain if asked[name] != plain[name]]
    if wanted.steps == 0 and given:
        raise ValueError(
            f"Expected the length of a second stage with {', '.join(given)} (--second.steps N), "
            "got 0 steps."
        )


def check_same_data(mine: Mapping[str, str], first: Mapping[str, str], folder: object) -> None:
    """Refuse to go on from a first stage of another network or other data.

    Args:
        mine: what describes the second stage's task.
        first: the setup in the first stage's checkpoint.
        folder: the first stage's.
    """
    differ = [name for name in _SHARED if mine.get(name) != first.get(name)]
    if differ:
        told = "; ".join(f"{n}: {first.get(n)} there, {mine.get(n)} here" for n in differ)
        raise ValueError(
            f"Expected the first stage of this run in {folder}, got another one ({told}); bring "
            "it back, or train in a new folder."
        )


def of_second(problem: Exception) -> ValueError:
    """What is wrong with the second stage, said so."""
    told = f"second stage: {problem}"
    if "sampling" in told:  # by class unless another is asked for
        told = f"{told.rstrip('.')} (--second.sampling.kind instance)."
    return ValueError(told)


def told_stages(metrics: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """The best score of both stages, of what `metrics.json` in the folder of a run holds.

    Example:
        >>> told_stages({"monitor": "dice", "first": {"dice": 0.5}, "best": {"dice": 0.625}}, "run")
        'first stage -> second stage: dice 0.5000 -> 0.6250'
    """
    name = metrics["monitor"]
    first, second = ((metrics.get(stage) or {}).get(name, math.nan) for stage in (FIRST, "best"))
    retention = name.removeprefix("removal_at_")
    if retention != name:
        what = f"noise removed at {retention} %: {100 * first:.2f} % -> {100 * second:.2f} %"
    else:
        what = f"{name.replace('_', ' ')} {first:.4f} -> {second:.4f}"
    told = f"first stage -> second stage: {what}"
    better = f"; the network in {Path(folder) / FIRST} is the better one"
    return told + better if second < first else told
