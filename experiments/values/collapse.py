"""Which losses leave a map of values blank, and which light too many pixels?

    DENSE_IMB_DATA=... OMP_NUM_THREADS=1 python experiments/values/collapse.py runs/values
    ... collapse.py runs/values --tables                  # tables and figure of the finished runs
    ... collapse.py runs/values_full --full --device cuda --seeds 0 1 2 3 4    # not measured

The share of the target is swept: crosses on 0.03 to 9.6 % of the frame, and heat maps of a mouse
with sigma 1 to 8. Each loss of `contest.py` is scored after several numbers of steps of one
training, as trained and after a read-out that validation maps fit.

    blank           fraction of the frames in which no pixel is lit
    lit / target    lit pixels over those of the target
    F1              of lit pixels, against those of the target
    error           root mean square of the error, over that of a blank map

A pixel is lit above 0.25 in crosses, whose values are 0.5 to 1, and above 0.5 in heat maps. After
the read-out, the level lights as many validation pixels as the target has. The small size has
4,000 steps in the rarest crosses alone, and 1,000 elsewhere.

Answer: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import collapse_figure
import torch
from contest import Size, Task, parser_of, run_tasks, summary, tables
from crosses import SHAPES, crosses
from mouse import folder_of, mouse

from dense_imb.base.files import write_whole

SMALL = {
    "crosses-0.03": Size((250, 1000, 4000), 2, 16, 150, 200),
    "crosses": Size((250, 1000), 2, 16, 150, 200),
    "mouse": Size((250, 1000), 3, 16, 0, 0),
}
FULL = {
    "crosses": Size((250, 1000, 4000, 16000), 16, 0, 1000, 2000),
    "mouse": Size((250, 1000, 4000, 16000), 16, 0, 0, 0),
}
SIGMAS = (1, 2, 4, 8)
LIT = {
    "raw blank": "blank", "blank": "after read-out", "raw lit": "lit / target",
    "lit": "after read-out", "raw F1": "F1", "F1": "after read-out", "raw rmse": "error",
    "rmse": "after read-out",
}  # fmt: skip
NAMES = (*(f"crosses-{share}" for share in SHAPES), *(f"mouse-{sigma}" for sigma in SIGMAS))
DEFAULT = tuple(name for name in NAMES if name not in ("crosses-0.08", "crosses-1.3"))


def tasks_of(options: argparse.Namespace, sizes: dict[str, Size]) -> list[tuple[Task, Size]]:
    """Return the tasks that are asked for, and their sizes."""
    tasks = []
    for name in options.tasks:
        kind, _, number = name.partition("-")
        size = sizes.get(name, sizes[kind])
        if options.steps:
            size = replace(size, steps=tuple(options.steps))
        if kind == "crosses":
            tasks.append((crosses(number, size), size))
        else:
            shrink = 1 if options.full else 2
            tasks.append((mouse(float(number), size, folder_of(options.data), shrink), size))
    return tasks


def rounded(numbers: Any) -> Any:
    """Return nested lists and dictionaries of numbers with four digits each."""
    match numbers:
        case float():
            return float(f"{numbers:.4g}")
        case list():
            return [rounded(one) for one in numbers]
        case dict():
            return {key: rounded(one) for key, one in numbers.items()}
    return numbers


def main(arguments: Sequence[str], sizes: dict[str, Size] | None = None) -> None:
    parser = parser_of(__doc__, NAMES)
    parser.set_defaults(tasks=[*DEFAULT])
    options = parser.parse_args(arguments)
    tasks = tasks_of(options, sizes or (FULL if options.full else SMALL))
    if not options.tables:
        run_tasks(tasks, options)
    known = [task for task, _ in tasks]
    text, numbers = tables(known, options.out, LIT), summary(known, options.out)
    write_whole(options.out / "collapse.md", lambda to: to.write_text(text))
    place = options.out / "collapse.json"
    write_whole(place, lambda to: to.write_text(json.dumps(rounded(numbers))))
    collapse_figure.draw(numbers, options.out / "collapse.png")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # blank networks have tiny gradients
    main(sys.argv[1:])
