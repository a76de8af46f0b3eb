"""Images in a folder with labels in a CSV file, as in ISIC, EyePACS and Kvasir.

data = open_table("train.csv", "images", classes=("nevus", "melanoma"), size=(224, 224))
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, literal, option
from dense_imb.data.images.decode import decode_colours, open_picture, upright_size
from dense_imb.data.images.sources import digest_files
from dense_imb.data.labels.classified import ClassifiedImages, WholeImages

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_NO_IMAGES = (".txt", ".md", ".csv", ".json")  # licences and tables beside the images
_LISTED = 3


@dataclass(frozen=True)
class CSVTable:
    """Rows of a CSV file.

    Args:
        path: path of the file.
        columns: names of the columns.
        rows: cells by column name, as text.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def column(self, name: str | None, default: int) -> list[str]:
        """Return the cells of a column, by name, or by position `default`."""
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


def read_table(path: str | os.PathLike[str]) -> CSVTable:
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
    return CSVTable(place, tuple(columns), rows)


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
    """Open images with the labels of a CSV file.

    Args:
        table: CSV file whose first line names the columns.
        images: folder of the images; by default that of the table.
        name_column: column of the file names, with or without suffix; by default the first.
        label_column: column of the labels, which are whole numbers from 0, or names in `classes`;
            by default the second.
        classes: name of each class; None if the labels are numbers.
        size: height and width to resize each image to, bilinearly; None if all have one size.
        show_progress: draw a bar where reading the files takes long.
    """
    read = read_table(table)
    folder = read.path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of images, got {folder}, which is none.")
    labels, names = _labels(read, label_column, classes)
    paths = _paths(read, read.column(name_column, 0), folder)
    source = FileImages(paths, size, str(read.path), show_progress=show_progress)
    return ClassifiedImages(source, labels, names)


def open_whole_images(
    place: str | os.PathLike[str],
    size: Sequence[int] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    name_column: str | None = None,
    show_progress: bool = True,
) -> WholeImages:
    """Open images without labels: all of a folder, or those that a CSV file names.

    Args:
        place: folder, in which hidden files, texts and tables are ignored; or a CSV file.
        size: height and width to resize to, see `open_table`.
        images: folder of the images that a CSV file names, see `open_table`.
        name_column: column of the file names, see `open_table`; other columns are not read.
        show_progress: draw a bar where reading the files takes long.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     len(open_whole_images(folder)), open_whole_images(folder).size
        (1, (4, 6))
    """
    where = Path(place)
    if where.is_dir():
        paths = _list_files(where)
    elif where.suffix.lower() == ".csv":
        read = read_table(where)
        folder = where.parent if images is None else Path(images)
        paths = _paths(read, read.column(name_column, 0), folder)
    else:
        raise ValueError(f"Expected a folder of images, or a CSV file of names, got {where}.")
    bar = tqdm(paths, "read images", unit="image", disable=not show_progress, delay=1)
    _refuse_other_files(where, [path.name for path in bar if not _is_image(path)])
    source = FileImages(paths, size, str(where), show_progress=show_progress)
    return WholeImages(source, range(len(paths)))


def _list_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    files = [path for path in files if not path.name.lower().endswith(_NO_IMAGES)]
    if not files:
        raise ValueError(
            f"Expected images without labels ({', '.join(SUFFIXES)}) in {folder}, got none."
        )
    return files


def _is_image(path: Path) -> bool:
    """Whether a file has the suffix and the header of an image."""
    if not path.name.lower().endswith(SUFFIXES):
        return False
    try:
        _size_of(path)
    except ValueError:
        return False
    return True


def _refuse_other_files(where: Path, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise ValueError(
            f"Expected images ({', '.join(SUFFIXES)}) in {where}, got "
            f"{', '.join(names[:_LISTED])}{more}, which can't be read as one; move them away."
        )


def _labels(
    read: CSVTable, column: str | None, classes: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    cells = read.column(column, 1)
    place = f"column {column or read.columns[1]} of {read.path}"
    if classes is not None:
        if all(name.isdecimal() for name in classes):
            cells = [cell.removesuffix(".0") for cell in cells]  # as pandas writes them
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(
                f"Expected `classes` with at least two names, each once, got {list(classes)}."
            )
        number = {name: k for k, name in enumerate(classes)}
        # numbers are labels too, unless they are names themselves
        numbers = {} if any(name.isdecimal() for name in classes) else range(len(classes))
        number |= {str(k): k for k in numbers if str(k) not in number}
        unknown = [(row, cell) for row, cell in enumerate(cells, 2) if cell not in number]
        if unknown:
            raise ValueError(
                f"Expected one of {', '.join(classes)} in {place}, got {_list_cells(unknown)}; add "
                "the class, or drop these rows."
            )
        return [number[cell] for cell in cells], tuple(classes)
    wrong = [(row, cell) for row, cell in enumerate(cells, 2) if not _is_whole(cell)]
    if wrong:
        raise Refused(
            f"whole numbers from 0 in {place}",
            _list_cells(wrong),
            "if labels are names, list them with {classes}",
        )
    labels = [int(float(cell)) for cell in cells]
    n_classes = max(max(labels) + 1, 2)
    if n_classes > max(len(labels), 2):
        raise ValueError(
            f"Expected labels 0, 1, 2 and so on in {place}, got {max(labels)} in {len(labels)} "
            "rows; number the classes without gaps."
        )
    return labels, tuple(map(str, range(n_classes)))


def _is_whole(cell: str) -> bool:
    """Whether a cell holds 0, 1, 2 ...; pandas writes 1.0 where another cell was empty."""
    digits = cell.removesuffix(".0")
    return digits.isdecimal() and digits.isascii() and len(digits) < 7


def _list_cells(cells: Sequence[tuple[int, str]]) -> str:
    first = ", ".join(f"{cell!r} in row {row}" for row, cell in cells[:_LISTED])
    more = f" and {len(cells) - _LISTED} more" if len(cells) > _LISTED else ""
    return first + more


def _paths(read: CSVTable, names: Sequence[str], folder: Path) -> list[Path]:
    """Return the file of each row; the error lists all rows without one."""
    outside = [
        (row, name)
        for row, name in enumerate(names, 2)
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise ValueError(
            f"Expected file names inside {folder} in {read.path}, got {_list_cells(outside)}."
        )
    paths = [_path_of(folder, name) for name in names]
    missing = [(row, names[row - 2]) for row, path in enumerate(paths, 2) if path is None]
    if missing:
        raise Refused(
            f"the files of {literal(read.path)} in {literal(folder)}",
            f"none for {_list_cells(missing)}",
            f"name their folder with {option('images', 'FOLDER')}, or drop these rows",
        )
    files = [path for path in paths if path is not None]
    first: dict[Path, int] = {}
    twice = [(i, names[i - 2]) for i, path in enumerate(files, 2) if first.setdefault(path, i) != i]
    if twice:
        raise ValueError(
            f"Expected each file once in {read.path}, got again {_list_cells(twice)}, first in row "
            f"{first[files[twice[0][0] - 2]]}; drop rows."
        )
    return files


def _path_of(folder: Path, name: str) -> Path | None:
    path = folder / name
    if path.is_file():
        return path
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        with_suffix = folder / f"{name}{suffix}"
        if with_suffix.is_file():
            return with_suffix
    return None


class FileImages:
    """Image files, read as colours of one size.

    Args:
        paths: the files.
        size: height and width to resize to; None if all have one size, which is checked.
        where: name of the data, for messages.
        show_progress: draw a bar where the check takes long.
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
        bar = tqdm(self.paths, "read images", unit="image", disable=not show_progress, delay=1)
        common: tuple[int, int] | None = None
        for path in bar:
            size = _size_of(path)
            common = common or size
            if size != common:
                raise Refused(
                    f"images of one size in {self.where}",
                    f"{_as_text(common)} in {self.paths[0].name} and {_as_text(size)} in "
                    f"{path.name}",
                    "resize them, for example with {size=224 224}",
                )
        assert common is not None
        return common

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return (3, height, width) red, green and blue."""
        pixels = read_colours(self.paths[number], self.size if self.resizes else None)
        if pixels.shape[1:] != self.size:
            raise ValueError(
                f"Expected {self.paths[number]} of {_as_text(self.size)} pixels, got "
                f"{_as_text(pixels.shape[1:])}; it has changed."
            )
        return pixels

    def name(self, number: int) -> str:
        """Return the path."""
        return str(self.paths[number])

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of the files and the size, see `digest_files`."""
        return digest_files([self.paths[i] for i in numbers], repr(self.size).encode())


def read_colours(
    path: Path,
    size: Sequence[int] | None = None,
    *,
    change: Callable[[Any], Any] | None = None,
    white: float | None = None,
) -> NDArray[np.uint8]:
    """Read (3, height, width) red, green and blue of an image file; grey images have three equal.

    Args:
        path: the file.
        size: height and width to resize to, bilinearly.
        change: function of the colours (height, width, 3), applied before resizing.
        white: value of more than 8 bits that becomes 255; without it such images are refused.
    """
    from PIL import Image

    with open_picture(path) as image:
        if image.format == "TIFF" and (n_pages := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"{n_pages} pages; save each as a file of its own")
        pixels = decode_colours(image, path, white)
        if change is not None:
            pixels = change(pixels)
        if size is not None and pixels.shape[:2] != tuple(size):
            colours = Image.fromarray(np.ascontiguousarray(pixels))
            pixels = np.asarray(colours.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _size_of(path: Path) -> tuple[int, int]:
    """Return height and width of an image file, upright, from its header."""
    with open_picture(path) as image:
        return upright_size(image)


def _as_text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
