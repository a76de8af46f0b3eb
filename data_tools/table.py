"""Which images train, validate and test, with every class in each part? Labels in, tables out.

    python data_tools/table.py ISIC_2019_Training_GroundTruth.csv --one-hot --out isic_tables
    python data_tools/table.py ISIC_2019_Training_GroundTruth.csv --one-hot --classes NV MEL \\
        --group-table ISIC_2019_Training_Metadata.csv --group lesion_id --out melanoma_tables
    python data_tools/table.py trainLabels.csv --group-pattern '(\\d+)_' --out eyepacs_tables
    python data_tools/table.py kvasir-dataset-v2 --out kvasir_tables

The source is a CSV file (name and label, or a column for each class) or a folder with a folder
for each class. Writes train.csv, validation.csv and test.csv with a share of each class. Images of
one lesion or one patient leak from training into the test unless they are grouped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("source", type=str, help="a CSV file, or a folder of folders")
    parser.add_argument("--out", type=str, required=True, help="folder of the tables")
    parser.add_argument("--one-hot", action="store_true", help="a column of 0 and 1 for each class")
    parser.add_argument("--name-column", type=str | None, help="the first one by default")
    parser.add_argument("--label-column", type=str | None, help="the second one by default")
    parser.add_argument(
        "--classes", type=str, nargs="+", default=[], help="take these only, in this order"
    )
    parser.add_argument(
        "--shares",
        type=str,
        nargs="+",
        default=["train=0.7", "validation=0.1", "test=0.2"],
        help="the parts, and the share of each class in each",
    )
    parser.add_argument(
        "--group-pattern", type=str | None, help="the part of a name that stays together, as (..)"
    )
    parser.add_argument("--group-table", type=str | None, help="a CSV file that says what does")
    parser.add_argument("--group", type=str | None, help="its column")
    parser.add_argument("--seed", type=int, default=0, help="of who goes where")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.labels.table_parts import (
        groups_by_pattern,
        groups_by_table,
        read_labels,
        split_table,
    )

    if (options.group_table is None) != (options.group is None):
        raise ValueError("Expected `--group-table` and `--group` together, got one of them.")
    labels = read_labels(
        options.source,
        name_column=options.name_column,
        label_column=options.label_column,
        one_hot=options.one_hot,
    )
    n_all = len(labels.names)
    if options.classes:
        labels = labels.only(options.classes)
    groups = None
    if options.group_pattern is not None:
        groups = groups_by_pattern(labels.names, options.group_pattern)
    elif options.group_table is not None:
        groups = groups_by_table(labels.names, options.group_table, options.group)
    parts: dict[str | Path, float] = {}
    for share in options.shares:
        name, _, number = share.partition("=")
        try:
            parts[Path(options.out) / f"{name}.csv"] = float(number)
        except ValueError:
            raise ValueError(f"Expected --shares like train=0.8, got {share!r}.") from None
    counts = split_table(
        labels, parts, groups=groups, seed=options.seed, overwrite=options.overwrite
    )
    for path, count in zip(parts, counts, strict=True):
        told = ", ".join(f"{name} {n}" for name, n in count.items())
        print(f"{path}: {sum(count.values())} images ({told})")
    if options.classes:
        print(f"{n_all - len(labels.names)} images of other classes left out")
    if labels.classes != tuple(map(str, range(len(labels.classes)))):  # no names are needed
        print(f"--labels.classes '[{', '.join(labels.classes)}]'")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("table.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
