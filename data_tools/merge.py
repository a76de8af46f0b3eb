"""How do several hits files become one? All columns are kept; geometries must agree.

python data_tools/merge.py all.h5 run1.h5 run2.h5 --source-column run
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("target", type=str, help="hits file to write")
    parser.add_argument("files", type=str, nargs="+", help="hits files, in this order")
    parser.add_argument(
        "--source-column",
        type=str | None,
        help="name of a new column of the events: number of their file, from 0",
    )
    parser.add_argument("--compression", type=int | None, help="gzip level, 1 to 9 (default: none)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.events.combine import merge_hits

    writer = merge_hits(
        options.files,
        options.target,
        source_column=options.source_column,
        overwrite=options.overwrite,
        compression=options.compression,
    )
    print(f"{options.target}: {writer.n_events} events, {writer.n_hits} hits")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("merge.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
