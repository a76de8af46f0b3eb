"""What the commands call a model: the folder of a run, or the name of a baseline."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.hits.baselines import Scorer


def open_run(path: str) -> Any:
    """The run in a folder, with `scorer()` and `operating_point(retention)`."""
    try:
        training = importlib.import_module("dense_imb.training")
    except ImportError as why:
        raise ValueError(
            f"Expected to load the trained model in {path}, got: {why}; install what is missing."
        ) from why
    return training.open_run(path)


def baseline(name: str) -> Scorer:
    """A baseline by its name in lower case with dashes, "hit-density" say."""
    from dense_imb.hits import available_baselines
    from dense_imb.losses._checks import check_choice

    scorers, missing = available_baselines()
    known = {scorer.name.lower().replace(" ", "-"): scorer for scorer in scorers}
    if name == "dbscan" and missing:
        raise ValueError(f"Expected scikit-learn for dbscan, got {missing[0]}")
    if name not in known and "/" in name:
        raise FileNotFoundError(f"Expected the folder of a run at {name}, got none.")
    check_choice("MODEL", name, ["RUN (the folder of a run)", *known])
    return known[name]
