"""A warning of data that the runs were trained on."""

from __future__ import annotations

import sys
from typing import Any

from dense_imb.cli._parser import Namespace
from dense_imb.runs import Run
from dense_imb.runs.seen import SILENCE, describe_overlap


def warn_of_overlap(
    options: Namespace,
    runs: list[Run],
    samples: Any,
    most: int | None = None,
    command: str = "evaluate",
) -> bool:
    """Print one line if the runs were trained on test samples, or if that cannot be known.

    Returns True if it was printed.

    Args:
        options: options of the command.
        runs: the runs.
        samples: the test samples.
        most: number of samples that are measured; all by default.
        command: name of the command, in front of the line.
    """
    if options.allow_overlap or not runs:
        return False
    sentence = describe_overlap(runs, samples, most)
    if sentence:
        print(f"dense-imb {command}: warning: {sentence}, {SILENCE}", file=sys.stderr)
    return bool(sentence)
