"""The two stages of a run on disk: same data, and their scores side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics.score_table import percent_digits

FIRST = "first"  # folder of the first stage in that of the run: a whole run of its own
# in the setup of a checkpoint: parts that a second stage shares with the first
_SHARED = ("network", "frame", "data", "validation data", "degradation")


def check_same_data(mine: Mapping[str, str], first: Mapping[str, str], folder: object) -> None:
    """Refuse to continue a first stage of another network or other data.

    Args:
        mine: description of the second stage's task.
        first: setup in the first stage's checkpoint.
        folder: folder of the first stage.
    """
    differ = [name for name in _SHARED if mine.get(name) != first.get(name)]
    if differ:
        text = "; ".join(f"{n}: {first.get(n)} there, {mine.get(n)} here" for n in differ)
        raise ValueError(
            f"Expected the first stage of this run in {folder}, got another one ({text}); bring "
            "it back, or train in a new folder."
        )


def describe_stages(metrics: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Format the best scores of both stages.

    Args:
        metrics: content of the run's `metrics.json`.
        folder: folder of the run.

    Example:
        >>> metrics = {"monitor": "dice", "first": {"dice": 0.5}, "best": {"dice": 0.625}}
        >>> describe_stages(metrics, "run")
        'first stage -> second stage: dice 0.5000 -> 0.6250'
    """
    name = metrics["monitor"]
    first, second = ((metrics.get(stage) or {}).get(name, math.nan) for stage in (FIRST, "best"))
    retention = name.removeprefix("removal_at_")
    if retention != name:
        before, after = (percent_digits(share, 2) for share in (first, second))
        scores = f"noise removed at {retention} %: {before} % -> {after} %"
    else:
        scores = f"{name.replace('_', ' ')} {first:.4f} -> {second:.4f}"
    line = f"first stage -> second stage: {scores}"
    better = f"; the network in {Path(folder) / FIRST} is the better one"
    return line + better if second < first else line
