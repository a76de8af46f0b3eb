"""How are events split into training, validation and test? Each event goes to one part.

    python data_tools/split.py tof.h5 --shares train=0.8 validation=0.1 test=0.1
    python data_tools/split.py tof.h5 --group run --out parts

Writes tof_train.h5, tof_validation.h5 and tof_test.h5, with all columns. Events that belong
together (of one run, from one source frame) leak from training into the test, unless --group
names their common column.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=str, help="hits file to split")
    parser.add_argument(
        "--shares",
        type=str,
        nargs="+",
        default=["train=0.8", "validation=0.1", "test=0.1"],
        help="parts, and the share of the events in each",
    )
    parser.add_argument("--group", type=str | None, help="column that keeps events together")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the split")
    parser.add_argument("--out", type=str | None, help="folder of the parts")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.base.refusals import Refused
    from dense_imb.data.events.combine import split_hits
    from dense_imb.hits import open_hits

    source = Path(options.file)
    folder = source.parent if options.out is None else Path(options.out)
    parts: dict[str | os.PathLike[str], float] = {}
    for share in options.shares:
        name, _, number = share.partition("=")
        try:
            parts[folder / f"{source.stem}_{name}.h5"] = float(number)
        except ValueError:
            raise Refused("{shares} like train=0.8", repr(share)) from None
    with open_hits(source, in_memory=False) as hits:
        folder.mkdir(parents=True, exist_ok=True)
        counts = split_hits(
            hits, parts, seed=options.seed, group=options.group, overwrite=options.overwrite
        )
    for path, count in zip(parts, counts, strict=True):
        print(f"{path}: {count} events")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("split.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
