"""Images in a folder whose labels stand in a CSV file, as ISIC, EyePACS and Kvasir come.

data = open_table("train.csv", "images", classes=("nevus", "melanoma"), size=(224, 224))
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dense_imb.base.files import write_whole
from dense_imb.data.images.folders import LARGEST, _told
from dense_imb.data.images.sources import _add_file
from dense_imb.data.labels.classified import ClassifiedImages, Pictures

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_BESIDE = (".txt", ".md", ".csv", ".json")  # licences and tables, which archives bring along
_LISTED = 3
_HASHED_WHOLE = 1 << 30  # bytes of all files together; of more, both ends of each are hashed


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file.

    Args:
        path: of the file.
        columns: their names.
        rows: cells by column name, as text.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def column(self, name: str | None, default: int) -> list[str]:
        """The cells of a column, by name or else by place."""
        if name is None:
            if default >= len(self.columns):
                raise ValueError(
                    f"Expected at least {default + 1} columns in {self.path}, got "
                    f"{', '.join(self.columns)}."
                )
            name = self.columns[default]
        if name not in self.columns:
            raise ValueError(
                f"Expected a column {name!r} in {self.path}, got {', '.join(self.columns)}."
            )
        return [row[name].strip() for row in self.rows]


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a CSV file whose first line names the columns."""
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"Expected a CSV file, got {place}, which is none.")
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"Expected CSV in UTF-8 in {place}, got {problem}.") from problem
    if len(lines) < 2:
        raise ValueError(
            f"Expected a line with names and rows below it in {place}, got {len(lines)} lines."
        )
    columns = [name.strip() for name in lines[0]]
    if len(set(columns)) < len(columns):
        raise ValueError(f"Expected each column of {place} once, got {', '.join(columns)}.")
    for i, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise ValueError(
                f"Expected {len(columns)} cells in each row of {place}, got {len(line)} in row {i}."
            )
    rows = tuple(dict(zip(columns, line, strict=True)) for line in lines[1:])
    return Table(place, tuple(columns), rows)


def write_table(path: str | os.PathLike[str], columns: Sequence[str], rows: Any) -> None:
    """Write a CSV file, whole or not at all."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def open_table(
    table: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    name_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] | None = None,
    size: Sequence[int] | None = None,
    show_progress: bool = True,
) -> ClassifiedImages:
    """Images with the labels of a CSV file.

    Args:
        table: a CSV file, whose first line names the columns.
        images: the folder that the names are of; that of the table by default.
        name_column: of the file names, with or without suffix; the first one by default.
        label_column: of the labels; the second one by default. They are whole numbers from 0,
            or names out of `classes`.
        classes: the names of class 0, class 1 and so on; without any the labels are numbers.
        size: height and width that each image is resized to, bilinearly, whatever its shape;
            None where all have one size.
        show_progress: draw a bar where looking at the files takes long.
    """
    read = read_table(table)
    folder = read.path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of images, got {folder}, which is none.")
    labels, names = _labels(read, label_column, classes)
    paths = _paths(read, read.column(name_column, 0), folder)
    source = FilePictures(paths, size, str(read.path), show_progress=show_progress)
    return ClassifiedImages(source, labels, names)


def open_unlabelled_pictures(
    place: str | os.PathLike[str],
    size: Sequence[int] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    name_column: str | None = None,
    show_progress: bool = True,
) -> Pictures:
    """Images without labels: all of a folder, or those that a CSV file names.

    Args:
        place: the folder, of which hidden files, texts and tables are left out; or a CSV file.
        size: height and width that each image is resized to, see `open_table`.
        images, name_column: of the CSV file, see `open_table`; its other columns are not read.
        show_progress: draw a bar where looking at the files takes long.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     len(open_unlabelled_pictures(folder)), open_unlabelled_pictures(folder).size
        (1, (4, 6))
    """
    where = Path(place)
    if where.is_dir():
        paths = _pictures_in(where)
    elif where.suffix.lower() == ".csv":
        read = read_table(where)
        folder = where.parent if images is None else Path(images)
        paths = _paths(read, read.column(name_column, 0), folder)
    else:
        raise ValueError(f"Expected a folder of images, or a CSV file of names, got {where}.")
    bar = tqdm(paths, "look at images", unit="image", disable=not show_progress, delay=1)
    _refuse_others(where, [path.name for path in bar if not _is_picture(path)])
    source = FilePictures(paths, size, str(where), show_progress=show_progress)
    return Pictures(source, range(len(paths)))


def _pictures_in(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    files = [path for path in files if not path.name.lower().endswith(_BESIDE)]
    if not files:
        raise ValueError(
            f"Expected images without labels ({', '.join(SUFFIXES)}) in {folder}, got none."
        )
    return files


def _is_picture(path: Path) -> bool:
    """Whether a file begins as an image of a kind that is read."""
    if not path.name.lower().endswith(SUFFIXES):
        return False
    try:
        _size_of(path)
    except ValueError:
        return False
    return True


def _refuse_others(where: Path, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise ValueError(
            f"Expected images ({', '.join(SUFFIXES)}) in {where}, got "
            f"{', '.join(names[:_LISTED])}{more}, which can't be read as one; move them away."
        )


def _labels(
    read: Table, column: str | None, classes: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    cells = read.column(column, 1)
    told = f"column {column or read.columns[1]} of {read.path}"
    if classes is not None:
        if all(name.isdecimal() for name in classes):
            cells = [cell.removesuffix(".0") for cell in cells]  # as pandas writes them
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(
                f"Expected `classes` with at least two names, each once, got {list(classes)}."
            )
        place = {name: k for k, name in enumerate(classes)}
        # numbers are labels too, unless they are names themselves
        numbers = {} if any(name.isdecimal() for name in classes) else range(len(classes))
        place |= {str(k): k for k in numbers if str(k) not in place}
        unknown = [(row, cell) for row, cell in enumerate(cells, 2) if cell not in place]
        if unknown:
            raise ValueError(
                f"Expected one of {', '.join(classes)} in {told}, got {_listed(unknown)}; add the "
                "class, or drop these rows."
            )
        return [place[cell] for cell in cells], tuple(classes)
    wrong = [(row, cell) for row, cell in enumerate(cells, 2) if not _is_whole(cell)]
    if wrong:
        raise ValueError(
            f"Expected whole numbers from 0 in {told}, got {_listed(wrong)}; name the classes "
            "(classes=NAMES, --labels.classes) where labels are names."
        )
    labels = [int(float(cell)) for cell in cells]
    n_classes = max(max(labels) + 1, 2)
    if n_classes > max(len(labels), 2):
        raise ValueError(
            f"Expected labels 0, 1, 2 and so on in {told}, got {max(labels)} in {len(labels)} "
            "rows; number the classes without gaps."
        )
    return labels, tuple(map(str, range(n_classes)))


def _is_whole(cell: str) -> bool:
    """Whether a cell holds 0, 1, 2 ...; pandas writes 1.0 where another cell was empty."""
    digits = cell.removesuffix(".0")
    return digits.isdecimal() and digits.isascii() and len(digits) < 7


def _listed(found: Sequence[tuple[int, str]]) -> str:
    told = ", ".join(f"{cell!r} in row {row}" for row, cell in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return told + more


def _paths(read: Table, names: Sequence[str], folder: Path) -> list[Path]:
    """The file of each row; all of what lacks is found before anything is said."""
    outside = [
        (row, name)
        for row, name in enumerate(names, 2)
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise ValueError(
            f"Expected file names inside {folder} in {read.path}, got {_listed(outside)}."
        )
    paths = [_path_of(folder, name) for name in names]
    missing = [(row, names[row - 2]) for row, path in enumerate(paths, 2) if path is None]
    if missing:
        raise ValueError(
            f"Expected the files of {read.path} in {folder}, got none for {_listed(missing)}; "
            "say which folder they are in, or drop these rows."
        )
    found = [path for path in paths if path is not None]
    first: dict[Path, int] = {}
    twice = [(i, names[i - 2]) for i, path in enumerate(found, 2) if first.setdefault(path, i) != i]
    if twice:
        raise ValueError(
            f"Expected each file once in {read.path}, got again {_listed(twice)}, first in row "
            f"{first[found[twice[0][0] - 2]]}; drop rows."
        )
    return found


def _path_of(folder: Path, name: str) -> Path | None:
    path = folder / name
    if path.is_file():
        return path
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        with_suffix = folder / f"{name}{suffix}"
        if with_suffix.is_file():
            return with_suffix
    return None


class FilePictures:
    """Image files, read as colours of one size.

    Args:
        paths: of the files.
        size: height and width to resize to; None where all have one size, which is looked at.
        where: for people.
        show_progress: draw a bar where that takes long.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: Sequence[int] | None,
        where: str,
        *,
        show_progress: bool = True,
    ) -> None:
        self.paths, self.where = list(paths), where
        self.resizes = size is not None
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"Expected `size` with height and width, got {list(size)}.")
        self.size = self._common_size(show_progress) if size is None else (size[0], size[1])

    def _common_size(self, show_progress: bool) -> tuple[int, int]:
        bar = tqdm(self.paths, "look at images", unit="image", disable=not show_progress, delay=1)
        common: tuple[int, int] | None = None
        for path in bar:
            size = _size_of(path)
            common = common or size
            if size != common:
                raise ValueError(
                    f"Expected images of one size in {self.where}, got {_as_text(common)} in "
                    f"{self.paths[0].name} and {_as_text(size)} in {path.name}; resize them "
                    "(size=(224, 224), --labels.size '[224, 224]')."
                )
        assert common is not None
        return common

    def image(self, number: int) -> NDArray[np.uint8]:
        """(3, height, width)."""
        pixels = read_picture(self.paths[number], self.size if self.resizes else None)
        if pixels.shape[1:] != self.size:
            raise ValueError(
                f"Expected {self.paths[number]} of {_as_text(self.size)} pixels, got "
                f"{_as_text(pixels.shape[1:])}; it has changed."
            )
        return pixels

    def name(self, number: int) -> str:
        """The path."""
        return str(self.paths[number])

    def digest(self, numbers: Iterable[int]) -> str:
        """Of names, sizes and bytes; of more than 1 GB, of both ends of each file."""
        chosen = [self.paths[i] for i in numbers]
        is_whole = sum(path.stat().st_size for path in chosen) <= _HASHED_WHOLE
        found = hashlib.blake2b(repr(self.size).encode(), digest_size=16)
        for path in chosen:
            found.update(path.name.encode(errors="surrogateescape") + b"\0")
            _add_file(found, path, is_whole)
        return found.hexdigest()


def read_picture(
    path: Path,
    size: Sequence[int] | None = None,
    *,
    change: Callable[[Any], Any] | None = None,
) -> NDArray[np.uint8]:
    """(3, height, width) red, green and blue of an image file; grey ones have three alike.

    Args:
        path: of the file.
        size: height and width to resize to, bilinearly.
        change: of the colours before they are resized, (height, width, 3) to the same.
    """
    from PIL import Image

    with _told(path), Image.open(path) as image:
        if image.width * image.height > LARGEST:
            raise ValueError(f"it declares {image.width} x {image.height} pixels")
        colours = image.convert("RGB")
        if change is not None:
            colours = Image.fromarray(change(np.asarray(colours)))
        if size is not None and (colours.height, colours.width) != tuple(size):
            colours = colours.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.moveaxis(np.asarray(colours), -1, 0))


def _size_of(path: Path) -> tuple[int, int]:
    from PIL import Image

    with _told(path), Image.open(path) as image:
        return image.height, image.width


def _as_text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
