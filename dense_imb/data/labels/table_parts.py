"""Labels as data sets publish them, made tables of names and labels, in parts without leakage."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_imb.base.files import refuse_existing
from dense_imb.data.labels.classified import split_by_class
from dense_imb.data.labels.tables import SUFFIXES, read_table, write_table

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Labels:
    """A label for each image.

    Args:
        names: of the image files, with or without suffix.
        labels: the names of their classes.
        classes: the names there are, in order.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def only(self, classes: Sequence[str]) -> Labels:
        """The images of some classes, in this order of the classes."""
        unknown = [name for name in classes if name not in self.classes]
        if unknown or len(set(classes)) < max(len(classes), 2):
            raise ValueError(
                f"Expected two or more of the classes {', '.join(self.classes)}, got "
                f"{', '.join(classes)}."
            )
        stay = [(n, k) for n, k in zip(self.names, self.labels, strict=True) if k in classes]
        return Labels(tuple(n for n, _ in stay), tuple(k for _, k in stay), tuple(classes))


def read_labels(
    source: _Path,
    *,
    name_column: str | None = None,
    label_column: str | None = None,
    one_hot: bool = False,
) -> Labels:
    """The labels of a CSV file, or of a folder with a folder for each class.

    Args:
        source: the file or folder.
        name_column, label_column: the first and the second one by default.
        one_hot: the other columns are the classes, each row holding a single 1, as ISIC has it.
    """
    place = Path(source)
    if place.is_dir():
        folders = sorted(path for path in place.iterdir() if path.is_dir())
        found = [
            (f"{folder.name}/{path.name}", folder.name)
            for folder in folders
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if len({label for _, label in found}) < 2:
            raise ValueError(
                f"Expected a folder with images for each of two classes or more in {place}, got "
                f"{', '.join(folder.name for folder in folders[:5]) or 'none'}."
            )
        return _labels(found)
    table = read_table(place)
    names = table.column(name_column, 0)
    if not one_hot:
        return _labels(list(zip(names, table.column(label_column, 1), strict=True)))
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
    there = tuple(name for name in classes if name in labels)
    return Labels(tuple(names), tuple(labels), there)


def _labels(found: Sequence[tuple[str, str]]) -> Labels:
    labels = tuple(label for _, label in found)
    is_number = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=int) if is_number else sorted(set(labels))
    return Labels(tuple(name for name, _ in found), labels, tuple(classes))


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    r"""What stays together, by the first group of a regular expression in the file's name.

    Example:
        >>> groups_by_pattern(["10_left", "10_right", "11_left"], r"(\d+)_")
        ['10', '10', '11']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as problem:
        raise ValueError(f"Expected a regular expression, got {pattern!r}: {problem}.") from problem
    if compiled.groups < 1:
        raise ValueError(f"Expected a pattern with a group in parentheses, got {pattern!r}.")
    found = [compiled.search(name) for name in names]
    missed = [name for name, match in zip(names, found, strict=True) if match is None]
    if missed:
        raise ValueError(
            f"Expected {pattern!r} in each name, got none in {', '.join(missed[:3])} "
            f"({len(missed)} in all)."
        )
    return [match[1] for match in found if match is not None]


def groups_by_table(names: Sequence[str], path: _Path, column: str) -> list[str]:
    """What stays together, by a column of another CSV file whose first one is the name.

    An image without a value there, or without a row, is a group of its own.
    """
    table = read_table(path)
    group_of = dict(zip(table.column(None, 0), table.column(column, 0), strict=True))
    return [group_of.get(name) or f"only {name}" for name in names]


def split_table(
    labels: Labels,
    parts: Mapping[_Path, float],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> list[dict[str, int]]:
    """Write a CSV file for each part, a share of each class in each; returns counts by class.

    Args:
        labels: of all images.
        parts: the share of each file; the first one gets what can't be shared.
        groups: images of one value stay in one part; a column `group` says so.
        seed: of who goes where.
        overwrite: replace files that exist.
    """
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
        of_left = None if groups is None else [groups[j] for j in left]
        share = shares[i] / sum(shares[: i + 1])
        kept, held = split_by_class(label[left], share, seed + i, of_left)
        members[i] = [left[j] for j in held]
        left = [left[j] for j in kept]
    members[0] = left
    counts = []
    columns = ["image", "label", *([] if groups is None else ["group"])]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "image": labels.names[j],
                "label": labels.labels[j],
                "group": "" if groups is None else groups[j],
            }
            for j in members[i]
        ]
        write_table(path, columns, rows)
        of_part = [labels.labels[j] for j in members[i]]
        counts.append({name: of_part.count(name) for name in labels.classes})
    return counts
