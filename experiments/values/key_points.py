"""Does balanced regression find key points in fewer steps?

    DENSE_IMB_DATA=... OMP_NUM_THREADS=1 python experiments/values/key_points.py runs/values
    ... key_points.py runs/values --tables                   # table of the finished runs
    ... key_points.py runs/values_full --full --device cuda --seeds 0 1 2 3 4    # not measured

Heat maps of the four key points of a mouse, sigma 2 to 4, divided by time. The runs are those of
`collapse.py`, which has the losses, the steps and the sizes; finished ones are kept. Positions and
errors are in pixels of the maps.

    error          mean distance of the highest pixel, refined, to the true point
    PCK            fraction of the points with an error of at most 4 pixels
    blank          fraction of the frames in which no point reaches half the height of a blob

A read-out keeps the order of the pixels, so it moves no point. It moves the level above which a
point counts as visible: "blank, after read-out".

Answer: see experiments/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from collapse import FULL, SMALL, tasks_of
from contest import Size, parser_of, run_tasks, tables

from dense_imb.base.files import write_whole

SIGMAS = (2, 3, 4)
COLUMNS = {
    "error": "error", "median_error": "median error", "pck_4": "PCK at 4 pixels",
    "raw blank": "blank", "blank": "after read-out",
}  # fmt: skip


def main(arguments: Sequence[str], sizes: dict[str, Size] | None = None) -> None:
    parser = parser_of(__doc__, [f"mouse-{sigma}" for sigma in SIGMAS])
    parser.set_defaults(tasks=["mouse-2", "mouse-4"])
    options = parser.parse_args(arguments)
    tasks = tasks_of(options, sizes or (FULL if options.full else SMALL))
    if not options.tables:
        run_tasks(tasks, options)
    text = tables([task for task, _ in tasks], options.out, COLUMNS)
    write_whole(options.out / "key_points.md", lambda to: to.write_text(text))
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # blank networks have tiny gradients
    main(sys.argv[1:])
