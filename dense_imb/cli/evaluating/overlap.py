"""A warning of test data that the runs were trained on."""

from __future__ import annotations

import sys
from typing import Any

from dense_imb.cli._parser import Namespace
from dense_imb.runs import Run
from dense_imb.runs.seen import SILENCE, describe_overlap


def warn_of_overlap(
    options: Namespace, runs: list[Run], samples: Any, most: int | None = None
) -> None:
    """Print one line if the runs were trained on test samples, or if that cannot be known.

    Args:
        options: options of the command.
        runs: the runs.
        samples: the test samples.
        most: number of samples that are measured; all by default.
    """
    if options.allow_overlap or not runs:
        return
    if sentence := describe_overlap(runs, samples, most):
        print(f"dense-imb evaluate: warning: {sentence}, {SILENCE}", file=sys.stderr)
