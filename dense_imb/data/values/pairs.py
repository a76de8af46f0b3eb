"""Images with maps of values, in 2-D or 3-D: random access, and statistics in one pass.

data = open_values("images", "targets")
image, target = data.image(0), data.target(0)  # (C, *spatial), (K, *spatial)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused
from dense_imb.data.images.labelled import BUDGET, Decoded, Moments
from dense_imb.data.values.cells import CellKind, Cells, check_cells, numbered_cells, whole_cells
from dense_imb.data.values.sources import Stored, ValueSource, as_values, find_values

LIT_EMPTY = ("empty", "lit")  # classes of pixels without cells


@dataclass(frozen=True)
class ValueTally:
    """Statistics of images with maps of values, from one pass over them.

    Those of values and cells are over the pixels that count.

    Args:
        mean: mean of each channel of the images over all pixels.
        std: standard deviation of each channel over the same pixels.
        sizes: number of images of each size (*spatial).
        n_values: values of all maps: pixels times channels.
        n_nonzero: values other than 0.
        target_mean: mean of each channel of the maps.
        absolute_sum: sum of their absolute values.
        square_sum: sum of their squares.
        low, high: smallest and largest value.
        cell_content: (n_images, n_cells) pixels of each cell in each image; None without cells.
        n_outside: pixels in no cell.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: Counter[tuple[int, ...]]
    n_values: int
    n_nonzero: int
    target_mean: tuple[float, ...]
    absolute_sum: float
    square_sum: float
    low: float
    high: float
    cell_content: NDArray[np.int64] | None = None
    n_outside: int = 0

    @property
    def nonzero_share(self) -> float:
        """Fraction of the values that are not 0."""
        return self.n_nonzero / max(self.n_values, 1)

    @property
    def largest(self) -> float:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def level(self) -> float:
        """Half the mean absolute value that is not 0: the default border of lit pixels."""
        return self.absolute_sum / max(self.n_nonzero, 1) / 2


class ValueImages:
    """Images and the values of each of their pixels, by number; made by `open_values`.

    Images are decoded on access, and stay in memory up to a budget of 1 GB. A `subset` shares the
    budget; a pickle drops the decoded images. Arrays are read-only: change a copy.

    Attributes:
        names: name of each image: the file name without suffix, or a number.
        numbers: number of each image in the folder or file.
        spatial_dims: 2 or 3.
        n_channels: number of channels of the images, equal for all; sizes may differ.
        n_targets: number of channels of the maps of values.
        cells: cells of the images; None without any.
        has_counted: whether some pixels may not count, see `counted`.
        channel_names: names of the channels of the maps in an HDF5 file; None without any.
    """

    def __init__(
        self, source: ValueSource, numbers: Sequence[int], decoded: Decoded, cells: Cells | None
    ) -> None:
        self._source, self._decoded, self.cells = source, decoded, cells
        self.numbers = [int(i) for i in numbers]
        self.names = [source.names[i] for i in self.numbers]
        self.spatial_dims, self.channel_names = source.spatial_dims, source.channel_names
        self.has_counted = source.has_counted
        self.n_channels = self.n_targets = 0  # unknown until the first image is read
        self.n_channels, self.n_targets = len(self.image(0)), len(self.target(0))

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        cells = f", {self.cells.n} cells" if self.cells is not None else ""
        return (
            f"ValueImages({len(self)} images in {self.spatial_dims}-D, {self.n_channels} channels "
            f"to {self.n_targets}{cells}, of {self._source.where})"
        )

    def _maps(self, i: int) -> Stored:
        """Return the maps of an image, checked: finite values, and counted pixels as bool."""
        if not 0 <= i < len(self):
            raise IndexError(f"Expected an image from 0 to {len(self) - 1}, got {i}.")
        number = self.numbers[i]
        if number in self._decoded.held:
            return Stored(*self._decoded.held[number])
        stored = self._source.stored(number)
        image, target, cells = stored.image, as_values(stored.target), stored.cells
        counted = None if stored.counted is None else stored.counted != 0
        if not np.isfinite(target).all():
            raise ValueError(
                f"Expected {self._source.place(number)} to hold values that float32 holds, got "
                f"values from {stored.target.min()} to {stored.target.max()}; scale them down."
            )
        for what, got, wanted in (
            ("", len(image), self.n_channels),
            (" of values", len(target), self.n_targets),
        ):
            if wanted not in (0, got):
                raise ValueError(
                    f"Expected all images with the {wanted} channels{what} of {self.names[0]}, got "
                    f"{got} in {self.names[i]} ({self._source.where}); convert it, or move it to "
                    "a folder of its own."
                )
        if self.cells is not None and cells is not None:
            cells = self.cells.read(cells, self._source.cell_place(number))
        maps = Stored(image, target, cells, counted)
        arrays = [array for array in maps if array is not None]
        for array in arrays:
            array.flags.writeable = False
        self._decoded.keep(self._decoded.held, number, tuple(maps), arrays)
        return maps

    def image(self, i: int) -> NDArray[Any]:
        """Return (C, *spatial) pixels of the stored type, read-only."""
        return self._maps(i).image

    def target(self, i: int) -> NDArray[np.float32]:
        """Return (K, *spatial) finite values, read-only; 0 where a pixel does not count."""
        return self._maps(i).target

    def cell_map(self, i: int) -> NDArray[Any] | None:
        """Return (*spatial) labels or bit fields of the cells; None without cells."""
        return self._maps(i).cells

    def counted(self, i: int) -> NDArray[np.bool_] | None:
        """Return (*spatial) True where a pixel counts; None where all do."""
        return self._maps(i).counted

    def counted_values(self, i: int) -> NDArray[np.float32]:
        """Return (K, n) the values of the pixels that count."""
        return self.only_counted(self.target(i), i)

    def only_counted(self, maps: ArrayLike, i: int) -> NDArray[Any]:
        """Return (K, n) the pixels of maps (K, *spatial) that count in an image."""
        pixels, counted = np.asarray(maps), self.counted(i)
        return pixels.reshape(len(pixels), -1) if counted is None else pixels[:, counted]

    def pixels(self, i: int, level: float) -> dict[int, NDArray[np.int64]]:
        """Return the flat indices of the pixels of each cell, or of the lit pixels without cells.

        Of a label map, cell 0 is left out, as it is the rest of the image. Pixels that do not count
        are left out.

        Args:
            i: number of the image.
            level: value above which a pixel is lit.
        """
        key = self.numbers[i], level
        if key in self._decoded.pixels:
            return self._decoded.pixels[key]
        target, cells = self.target(i), self.cell_map(i)
        if self.cells is not None and cells is not None:
            pixels = self.cells.pixels(cells)
        else:
            pixels = {1: np.flatnonzero(is_lit(target, level))}
        if (counted := self.counted(i)) is not None:
            pixels = {k: flat[counted.ravel()[flat]] for k, flat in pixels.items()}
        pixels = {k: flat for k, flat in pixels.items() if len(flat)}
        self._decoded.keep(self._decoded.pixels, key, pixels, pixels.values())
        return pixels

    def pixels_above(self, i: int, level: float) -> int:
        """Return the number of pixels of an image that count, with a value above a level."""
        return int(is_lit(self.counted_values(i), level).sum())

    def subset(self, numbers: Sequence[int]) -> ValueImages:
        """Return some of the images, in this order; decoded images are shared."""
        wrong = [i for i in numbers if not 0 <= i < len(self)]
        if wrong or not len(numbers):
            got = wrong[0] if wrong else "none"
            raise ValueError(f"Expected numbers of images from 0 to {len(self) - 1}, got {got}.")
        chosen = [self.numbers[i] for i in numbers]
        return ValueImages(self._source, chosen, self._decoded, self.cells)

    def files(self) -> list[Path]:
        """Return the image files, without maps; for HDF5 the one file."""
        return self._source.files(self.numbers)

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and bytes, independent of their folder.

        For data above 1 GB, only the first and last 512 kB of each file are read.
        """
        return self._source.digest(self.numbers)

    def content(self, level: float) -> NDArray[np.int64]:
        """Return the empty and the lit pixels of each image, (n_images, 2)."""
        lit = [self.pixels_above(i, level) for i in range(len(self))]
        sizes = [self.counted_values(i)[0].size for i in range(len(self))]
        return np.stack([np.array(sizes) - lit, np.array(lit)], 1).astype(np.int64)

    def bin_edges(self, tally: ValueTally) -> tuple[float, ...]:
        """Return edges of value bins: a fifth of a typical value, and that value.

        The typical value is sum(t^2) / sum(|t|): half the peak of a Gaussian spot in 2-D however
        wide it is cut, so its edges are 0.1 and 0.5 of the peak. A few outliers hardly move it.
        Negative values have the same edges below 0. No bin is empty.

        Args:
            tally: statistics of these images.
        """
        typical = tally.square_sum / tally.absolute_sum if tally.absolute_sum else 0.0
        edges = [float(f"{share * typical:.3g}") for share in (0.2, 1.0) if typical > 0]
        if tally.low < 0:
            edges = [*(-edge for edge in reversed(edges)), *edges]
        counts = np.zeros(len(edges) + 1, np.int64)
        for i in range(len(self)):
            # as a loss sees them: edges in the type of the values
            sides = np.array(edges, np.float32)
            places = np.searchsorted(sides, self.counted_values(i).ravel(), side="right")
            counts += np.bincount(places, minlength=len(counts))
        kept, below = [], 0  # an edge that has no values below it or above it goes
        for k, edge in enumerate(edges):
            below += counts[k]
            if below and counts[k + 1 :].any():
                kept.append(edge)
                below = 0
        return tuple(kept)

    def tally(self, show_progress: bool = True) -> ValueTally:
        """Count cells and sizes, and sum values and pixels, in one pass."""
        sizes: Counter[tuple[int, ...]] = Counter()
        moments, values = Moments(self.n_channels), Moments(self.n_targets)
        sums = np.zeros(4)
        low, high, n_outside = np.inf, -np.inf, 0
        content = None if self.cells is None else np.zeros((len(self), self.cells.n), np.int64)
        bar = tqdm(range(len(self)), "read images", unit="image", disable=not show_progress)
        for i in bar:
            image, cells, counted = self.image(i), self.cell_map(i), self.counted(i)
            sizes[image.shape[1:]] += 1
            moments.add(image)
            target = self.counted_values(i)
            if not target.size:
                continue
            values.add(target)
            low, high = min(low, float(target.min())), max(high, float(target.max()))
            absolute = np.abs(target).sum(dtype=np.float64)
            square = np.square(target, dtype=np.float64).sum()
            sums += np.array([target.size, np.count_nonzero(target), absolute, square])
            if content is not None and self.cells is not None and cells is not None:
                cells = cells if counted is None else cells[counted]
                content[i] = self.cells.count(cells)
                n_outside += int((cells == 0).sum()) if self.cells.overlap else 0
        n_values, n_nonzero, absolute, square = sums.tolist()
        return ValueTally(
            *moments.mean_and_std(), sizes, int(n_values), int(n_nonzero),
            values.mean_and_std()[0], absolute, square, low, high, content, n_outside,
        )  # fmt: skip


def is_lit(target: NDArray[Any], level: float) -> NDArray[np.bool_]:
    """Return where a value of any channel is above a level, (*spatial).

    Example:
        >>> is_lit(np.array([[0.0, 0.2, 1.0, -1.0]]), 0.5).tolist()
        [False, False, True, False]
    """
    return np.asarray((target > level).any(0))


def open_values(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str] | None = None,
    *,
    cells: str | os.PathLike[str] | None = None,
    cell_kind: CellKind = "labels",
    cell_names: Sequence[str] | None = None,
    spatial_dims: int | None = None,
    counted: str | os.PathLike[str] | None = None,
    budget: int = BUDGET,
    show_progress: bool = True,
) -> ValueImages:
    """Open images and maps of values in two folders, or in one HDF5 file.

    Folders hold PNG, TIFF (pages are the slices of a volume), .npy or NIfTI, images JPEG, too.
    Each image has a map of the same name. An HDF5 file holds the data sets `image` and `target`;
    see `HDF5Values`. Maps may have several channels.

    Args:
        images: folder, or HDF5 file.
        targets: folder of the maps; of an HDF5 file, the name of their data set.
        cells: folder of label maps or bit fields; of an HDF5 file, the name of their data set.
        cell_kind: "labels" or "bits", see `Cells`.
        cell_names: name of each cell; by default those in an HDF5 file. Without names, all cells
            are read to count them.
        spatial_dims: 2 or 3; by default as files and shapes say.
        counted: folder of maps that are nonzero where a pixel counts; of an HDF5 file, the name of
            their data set. By default all pixels count. Others may hold NaN.
        budget: bytes of decoded images that may stay in memory.
        show_progress: draw a bar where reading the cells takes long.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images", "targets"):
        ...         (pathlib.Path(folder) / name).mkdir()
        ...     np.save(f"{folder}/images/a.npy", np.zeros((4, 5, 3), np.uint8))
        ...     np.save(f"{folder}/targets/a.npy", np.full((4, 5), 0.5))
        ...     data = open_values(f"{folder}/images", f"{folder}/targets")
        ...     data.image(0).shape, data.target(0).shape
        ((3, 4, 5), (1, 4, 5))
    """
    check_cells(cell_kind, cell_names)
    source = find_values(images, targets, cells, spatial_dims, counted)
    known: Cells | None = None
    if cells is not None:
        names = tuple(cell_names or source.cell_names or ())
        names = names or numbered_cells(_count_cells(source, cell_kind, show_progress), cell_kind)
        known = Cells(names, cell_kind)
    elif cell_names is not None:
        raise Refused("cells for `cell_names`", "none", "add {cells=FOLDER}, or drop {cell_names}")
    return ValueImages(source, range(len(source.names)), Decoded(budget), known)


def _count_cells(source: ValueSource, kind: CellKind, show_progress: bool) -> int:
    """Return the number of cells: the largest label + 1, or the number of bits in use."""
    numbers, high = range(len(source.names)), 0
    for i in tqdm(numbers, "read cells", unit="image", disable=not show_progress, delay=1):
        high = max(high, int(whole_cells(source.cells(i), source.cell_place(i), kind).max()))
    if kind == "bits":
        if not high:
            raise Refused("bit fields with a cell", "0 in every pixel", "drop {cells}")
        return high.bit_length()
    return high + 1
