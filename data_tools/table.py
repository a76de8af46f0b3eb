"""How are images split into training, validation and test with every class in each part?

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

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("source", type=str, help="CSV file, or folder with a folder for each class")
    parser.add_argument("--out", type=str, required=True, help="folder of the tables")
    parser.add_argument("--one-hot", action="store_true", help="a column of 0 and 1 for each class")
    parser.add_argument("--name-column", type=str | None, help="default: the first column")
    parser.add_argument("--label-column", type=str | None, help="default: the second column")
    parser.add_argument(
        "--classes", type=str, nargs="+", default=[], help="use only these classes, in this order"
    )
    parser.add_argument(
        "--shares",
        type=str,
        nargs="+",
        default=["train=0.7", "validation=0.1", "test=0.2"],
        help="the parts, and the share of each class in each",
    )
    parser.add_argument(
        "--group-pattern",
        type=str | None,
        help="regular expression whose (group) in the file name keeps images together",
    )
    parser.add_argument(
        "--group-table", type=str | None, help="CSV file with the group of each image"
    )
    parser.add_argument("--group", type=str | None, help="column of the group in --group-table")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the split")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.base.files import refuse_inputs
    from dense_imb.base.refusals import Refused

    if (options.group_table is None) != (options.group is None):
        raise Refused("{group_table} and {group} together", "one of them")
    labels = read_labels(
        options.source,
        name_column=options.name_column,
        label_column=options.label_column,
        one_hot=options.one_hot,
    )
    n_all = len(labels.names)
    if options.classes:
        labels = labels.select(options.classes)
    groups = None
    if options.group_pattern is not None:
        groups = group_by_pattern(labels.names, options.group_pattern)
    elif options.group_table is not None:
        groups = group_by_table(labels.names, options.group_table, options.group)
    parts: dict[str | Path, float] = {}
    for share in options.shares:
        name, _, number = share.partition("=")
        try:
            parts[Path(options.out) / f"{name}.csv"] = float(number)
        except ValueError:
            raise Refused("{shares} like train=0.8", repr(share)) from None
    refuse_inputs(parts, [options.source, options.group_table])
    counts = split_table(
        labels, parts, groups=groups, seed=options.seed, overwrite=options.overwrite
    )
    for path, count in zip(parts, counts, strict=True):
        by_class = ", ".join(f"{name} {n}" for name, n in count.items())
        print(f"{path}: {sum(count.values())} images ({by_class})")
    if options.classes:
        print(f"{n_all - len(labels.names)} images of other classes left out")
    if labels.classes != tuple(map(str, range(len(labels.classes)))):  # no names are needed
        print(f"--labels.classes '[{', '.join(labels.classes)}]'")


@dataclass(frozen=True)
class ImageLabels:
    """One label for each image.

    Args:
        names: names of the image files, with or without suffix.
        labels: class name of each image.
        classes: all class names, in order.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def select(self, classes: Sequence[str]) -> ImageLabels:
        """Return the images of some classes, with the classes in this order."""
        unknown = [name for name in classes if name not in self.classes]
        if unknown or len(set(classes)) < max(len(classes), 2):
            raise ValueError(
                f"Expected two or more of the classes {', '.join(self.classes)}, got "
                f"{', '.join(classes)}."
            )
        stay = [(n, k) for n, k in zip(self.names, self.labels, strict=True) if k in classes]
        return ImageLabels(tuple(n for n, _ in stay), tuple(k for _, k in stay), tuple(classes))


def read_labels(
    source: str | Path,
    *,
    name_column: str | None = None,
    label_column: str | None = None,
    one_hot: bool = False,
) -> ImageLabels:
    """Read the labels of a CSV file, or of a folder with a folder for each class.

    Args:
        source: the file or folder.
        name_column: column of the file names; by default the first.
        label_column: column of the class names; by default the second.
        one_hot: the other columns are the classes, and each row holds a single 1, as in ISIC.
    """
    from dense_imb.data.labels.tables import SUFFIXES, read_table

    place = Path(source)
    if place.is_dir():
        folders = sorted(path for path in place.iterdir() if path.is_dir())
        pairs = [
            (f"{folder.name}/{path.name}", folder.name)
            for folder in folders
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if len({label for _, label in pairs}) < 2:
            raise ValueError(
                f"Expected a folder with images for each of two classes or more in {place}, got "
                f"{', '.join(folder.name for folder in folders[:5]) or 'none'}."
            )
        return _collect(pairs)
    table = read_table(place)
    names = table.column(name_column, 0)
    if not one_hot:
        return _collect(list(zip(names, table.column(label_column, 1), strict=True)))
    classes = [name for name in table.columns if name != (name_column or table.columns[0])]
    labels = []
    for row, cells in enumerate(table.rows, 2):
        hot = [name for name in classes if cells[name].strip() in ("1", "1.0")]
        cold = [name for name in classes if cells[name].strip() in ("0", "0.0")]
        if len(hot) != 1 or len(hot) + len(cold) < len(classes):
            raise ValueError(
                f"Expected a single 1 and zeros in row {row} of {place}, got "
                f"{', '.join(cells[name] for name in classes)}."
            )
        labels.append(hot[0])
    present = tuple(name for name in classes if name in labels)
    return ImageLabels(tuple(names), tuple(labels), present)


def _collect(pairs: Sequence[tuple[str, str]]) -> ImageLabels:
    labels = tuple(label for _, label in pairs)
    is_number = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=int) if is_number else sorted(set(labels))
    return ImageLabels(tuple(name for name, _ in pairs), labels, tuple(classes))


def group_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    r"""Return the group of each image: the first group of a regular expression in its name.

    Example:
        >>> group_by_pattern(["10_left", "10_right", "11_left"], r"(\d+)_")
        ['10', '10', '11']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as problem:
        raise ValueError(f"Expected a regular expression, got {pattern!r}: {problem}.") from problem
    if compiled.groups < 1:
        raise ValueError(f"Expected a pattern with a group in parentheses, got {pattern!r}.")
    matches = [compiled.search(name) for name in names]
    missed = [name for name, match in zip(names, matches, strict=True) if match is None]
    if missed:
        raise ValueError(
            f"Expected {pattern!r} in each name, got none in {', '.join(missed[:3])} "
            f"({len(missed)} in all)."
        )
    return [match[1] for match in matches if match is not None]


def group_by_table(names: Sequence[str], path: str | Path, column: str) -> list[str]:
    """Return the group of each image: a column of a CSV file whose first column is the name.

    An image without a value or without a row is a group of its own.
    """
    from dense_imb.data.labels.tables import read_table

    table = read_table(path)
    group_of = dict(zip(table.column(None, 0), table.column(column, 0), strict=True))
    return [group_of.get(name) or f"only {name}" for name in names]


def split_table(
    labels: ImageLabels,
    parts: Mapping[str | Path, float],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> list[dict[str, int]]:
    """Write a CSV file for each part, with a share of each class.

    Args:
        labels: labels of all images.
        parts: path and share of each file; the first one gets the remainders.
        groups: images with equal values stay in one part; written as the column `group`.
        seed: random seed of the split.
        overwrite: replace files that exist.

    Returns:
        The number of images of each class, for each part.
    """
    import numpy as np

    from dense_imb.base.files import refuse_existing
    from dense_imb.data.labels.classified import split_by_class

    paths = [Path(path) for path in parts]
    shares = list(parts.values())
    if not shares or min(shares) <= 0:
        raise ValueError(f"Expected shares above 0, got {shares}.")
    for path in paths:
        refuse_existing(path, overwrite)
    number = {name: k for k, name in enumerate(labels.classes)}
    label = np.array([number[name] for name in labels.labels])
    left = list(range(len(label)))
    members: dict[int, list[int]] = {}
    for i in range(len(shares) - 1, 0, -1):
        left_groups = None if groups is None else [groups[j] for j in left]
        share = shares[i] / sum(shares[: i + 1])
        kept, held = split_by_class(label[left], share, seed + i, left_groups)
        members[i] = [left[j] for j in held]
        left = [left[j] for j in kept]
    members[0] = left
    counts = []
    columns = ["image", "label", *([] if groups is None else ["group"])]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            (labels.names[j], labels.labels[j], *([] if groups is None else [groups[j]]))
            for j in members[i]
        ]
        _write_csv(path, [columns, *rows])
        names = [labels.labels[j] for j in members[i]]
        counts.append({name: names.count(name) for name in labels.classes})
    return counts


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    from dense_imb.base.files import write_whole

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    write_whole(path, write)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("table.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
