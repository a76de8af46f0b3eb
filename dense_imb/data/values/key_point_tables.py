"""Key points in CSV files: one row an image, in plain columns or in those of DeepLabCut."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.checks import check_choice
from dense_imb.base.files import refuse_existing, write_whole
from dense_imb.base.refusals import Refused
from dense_imb.data.values.key_points import first_outside

Layout = Literal["plain", "deeplabcut"]
_COORDS = ("x", "y")


@dataclass(frozen=True)
class KeyPoints:
    """Key points of images.

    Args:
        images: name of each image file.
        names: name of each key point.
        points: x and y in pixels, (N, K, 2) float64; NaN where a point is not visible.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    points: NDArray[np.float64]

    def __post_init__(self) -> None:
        for what, names in (("image", self.images), ("key point", self.names)):
            twice = _repeated(names)
            if twice is not None:
                raise ValueError(
                    f"Expected each {what} once, got {twice!r} twice; rename or remove one of them."
                )
        if self.points.shape != (len(self.images), len(self.names), 2):
            raise ValueError(
                f"Expected `points` ({len(self.images)} images, {len(self.names)} names, 2), got "
                f"{self.points.shape}."
            )

    def check_inside(self, i: int, shape: Sequence[int]) -> None:
        """Refuse image i if one of its points lies outside its size (H, W)."""
        outside = first_outside(torch.as_tensor(self.points[i : i + 1]), shape)
        if outside is not None:
            _, k, where = outside
            raise ValueError(
                f"Expected the key points of {self.images[i]} inside its {shape[1]} x {shape[0]} "
                f"pixels, got {self.names[k]} at {where}; correct it, or leave its cells empty if "
                "it is not visible."
            )

    def find_images(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Return the path of each image: its name in the folder, with or without its folders."""
        root = Path(folder)
        if not root.is_dir():
            raise ValueError(f"Expected a folder of images, got {root}, which is none.")
        paths = [_first_file(root / name, root / Path(name).name) for name in self.images]
        missing = [name for name, path in zip(self.images, paths, strict=True) if path is None]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"Expected every image of the key points in {root}, got none for "
                f"{', '.join(missing[:3])}{more}; add them or remove their rows."
            )
        return [path for path in paths if path is not None]

    def divide(self, shares: Sequence[float]) -> list[KeyPoints]:
        """Return parts of the images in their order, for example the begin and end of a video.

        Args:
            shares: fraction of the images in each part, up to a common factor.
        """
        if not shares or not min(shares) > 0:
            raise ValueError(f"Expected `shares` above 0, got {list(shares)}.")
        edges = [0, *(round(len(self.images) * s / sum(shares)) for s in accumulate(shares))]
        if any(start == stop for start, stop in pairwise(edges)):
            raise ValueError(
                f"Expected an image in each part, got {len(self.images)} images for shares "
                f"{', '.join(f'{share:g}' for share in shares)}."
            )
        return [
            KeyPoints(self.images[start:stop], self.names, self.points[start:stop])
            for start, stop in pairwise(edges)
        ]


def read_key_points(path: str | os.PathLike[str]) -> KeyPoints:
    """Read key points from a CSV file.

    Plain files have a column `image`, then `NAME_x` and `NAME_y` of each key point. Files of
    DeepLabCut have the header lines `scorer`, `bodyparts` and `coords`; columns of likelihoods are
    ignored. Empty cells and "nan" mean that a point is not visible.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"Expected a CSV file of key points, got {place}, which is none.")
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, strict=True)]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"Expected CSV in UTF-8 in {place}, got {problem}.") from problem
    lines = [line for line in lines if any(line)]
    is_theirs = bool(lines) and lines[0][0] == "scorer"
    heads, n_heads = _their_heads(lines, place) if is_theirs else _plain_heads(lines, place)
    rows = lines[n_heads:]
    if not rows:
        raise ValueError(f"Expected a row for each image in {place}, got none below its header.")
    for number, row in enumerate(rows, n_heads + 1):
        if len(row) != len(lines[0]):
            raise ValueError(
                f"Expected {len(lines[0])} cells in each row of {place}, got {len(row)} in row "
                f"{number}."
            )
    columns = _columns_of(heads, place)
    first = min(min(pair) for pair in columns.values())
    images = tuple("/".join(cell for cell in row[:first] if cell) for row in rows)
    twice = _repeated(images)
    if twice is not None:
        raise ValueError(
            f"Expected one row for each image in {place}, got two for {twice}; remove one of them."
        )
    points = np.array(
        [
            [
                _position(row, pair, f"{name} of {image} in {place}")
                for name, pair in columns.items()
            ]
            for image, row in zip(images, rows, strict=True)
        ],
        np.float64,
    )
    return KeyPoints(images, tuple(columns), points)


def write_key_points(
    table: KeyPoints,
    path: str | os.PathLike[str],
    *,
    layout: Layout = "plain",
    overwrite: bool = False,
) -> None:
    """Write key points to a CSV file.

    Args:
        table: key points to write.
        path: file to write.
        layout: "plain", or "deeplabcut" for its three header lines.
        overwrite: replace a file that exists.
    """
    check_choice("layout", layout, ("plain", "deeplabcut"))
    place = Path(path)
    refuse_existing(place, overwrite)
    pairs = [(name, coord) for name in table.names for coord in _COORDS]
    if layout == "plain":
        header = [["image", *(f"{name}_{coord}" for name, coord in pairs)]]
    else:
        header = [
            ["scorer", *("dense_imb" for _ in pairs)],
            ["bodyparts", *(name for name, _ in pairs)],
            ["coords", *(coord for _, coord in pairs)],
        ]
    rows = [
        [image, *("" if math.isnan(value) else repr(value) for value in points.ravel().tolist())]
        for image, points in zip(table.images, table.points, strict=True)
    ]

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([*header, *rows])

    write_whole(place, write)


def _plain_heads(lines: Sequence[Sequence[str]], place: Path) -> tuple[list[tuple[str, str]], int]:
    """Return name and coordinate of each column, ("", "") for the image; and the header lines."""
    if not lines or lines[0][0] != "image":
        raise ValueError(
            f"Expected the columns image, NAME_x, NAME_y in {place}, or a file of DeepLabCut, got "
            f"{repr(lines[0][0]) if lines else 'nothing'} first."
        )
    heads = [("", "")]
    for column in lines[0][1:]:
        name, _, coord = column.rpartition("_")
        if not name or coord not in _COORDS:
            raise ValueError(
                f"Expected columns NAME_x and NAME_y after `image` in {place}, got {column!r}; "
                "rename or remove it."
            )
        heads.append((name, coord))
    return heads, 1


def _their_heads(lines: Sequence[Sequence[str]], place: Path) -> tuple[list[tuple[str, str]], int]:
    """Return the same of DeepLabCut's header; likelihoods count as columns of no point."""
    titles = [line[0] for line in lines[:4]]
    if "individuals" in titles:
        raise ValueError(
            f"Expected key points of one animal in {place}, got several individuals; write a file "
            "for each."
        )
    if titles[:3] != ["scorer", "bodyparts", "coords"] or len({len(e) for e in lines[:3]}) > 1:
        raise ValueError(
            f"Expected the header lines scorer, bodyparts and coords in {place}, got "
            f"{', '.join(titles[:3])}."
        )
    heads = [
        (name, coord) if coord in _COORDS else ("", "")
        for name, coord in zip(lines[1][1:], lines[2][1:], strict=True)
    ]
    return [("", ""), *heads], 3


def _columns_of(heads: Sequence[tuple[str, str]], place: Path) -> dict[str, tuple[int, int]]:
    """Return the columns of x and y of each name."""
    named = [head for head in heads if head[0]]
    twice = _repeated(named)
    if twice is not None:
        raise ValueError(
            f"Expected each key point once in {place}, got {twice[0]!r} twice; rename or remove "
            "one of them."
        )
    names = tuple(dict.fromkeys(name for name, _ in named))
    for name in names:
        for coord in _COORDS:
            if (name, coord) not in named:
                raise ValueError(
                    f"Expected x and y of {name} in {place}, got no {coord}; add its column."
                )
    if not names:
        raise ValueError(f"Expected at least one key point in {place}, got no column for any.")
    return {name: (heads.index((name, "x")), heads.index((name, "y"))) for name in names}


def _position(row: Sequence[str], columns: tuple[int, int], where: str) -> tuple[float, float]:
    try:
        x, y = (float(row[column] or "nan") for column in columns)
    except ValueError as problem:
        raise ValueError(f"Expected numbers for {where}, got {problem}.") from problem
    if math.isinf(x) or math.isinf(y) or math.isnan(x) != math.isnan(y):
        raise Refused(
            f"x and y of {where}, or two empty cells",
            f"{row[columns[0]] or 'nothing'!r} and {row[columns[1]] or 'nothing'!r}",
            "fill both or empty both",
        )
    return x, y


def _first_file(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _repeated(values: Sequence[Any]) -> Any:
    """Return the first value that is there twice; None if each is there once."""
    visited: set[Any] = set()
    for value in values:
        if value in visited:
            return value
        visited.add(value)
    return None
