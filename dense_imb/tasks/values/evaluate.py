"""Errors of trained networks on images with maps of values, beside those of baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.data.values.pairs import ValueImages
from dense_imb.metrics.score_table import Row, ScoreTable, aligned
from dense_imb.metrics.values import PREDICTION, ValueScores
from dense_imb.tasks.values.scores import (
    add_image,
    balanced_mae,
    counted_pixels,
    larger_balanced_error,
    new_scores,
)
from dense_imb.tasks.values.task import ValuesReading

ALL = "all"  # pixels of a row over the whole image
_FORMAT, _VERSION = "dense-imb-values", 1
_OVERALL = (
    ("balanced MAE", "balanced_mae"),
    ("skill", "skill"),
    ("MAE", "mae"),
    ("RMSE", "rmse"),
    ("bias", "bias"),
    ("lit / target", "lit_ratio"),
    ("F1", "f1"),
)
_PARTS = (
    ("MAE", "mae"),
    ("RMSE", "rmse"),
    ("bias", "bias"),
    ("MAE an image", "image_mae"),
    ("spread", "image_spread"),
)


class PredictsValues(Protocol):
    """A network of values, or a rule in its place."""

    @property
    def reading(self) -> ValuesReading:
        """Meaning of its maps."""

    def predict(self, image: NDArray[Any], *, raw: bool = False) -> Tensor:
        """Return the values (K, *spatial) of one image, see `TrainedValues.predict`."""


class Predicts(NamedTuple):
    """A network in a table.

    Args:
        name: name in the table.
        network: trained network, such as `TrainedValues`.
        raw: whether its read-out is left out.
    """

    name: str
    network: PredictsValues
    raw: bool


@dataclass(frozen=True, repr=False)
class ValuesTable(ScoreTable):
    """Errors of networks and baselines: a row for all pixels, one for each cell and value bin.

        scorer, kind, part     `kind` is "all", "cell" or "bin", `part` the name of cell or bin
        n, n_images, share     pixels, images that hold any, and fraction of all pixels
        mae, rmse, bias        mean absolute error, root mean square error, mean error
        image_mae, image_spread   mean and deviation over images of the mean absolute error
        balanced_mae           mean over cells of `mae`; without cells over empty and lit pixels
        skill                  1 - balanced_mae / that of a blank map
        lit_ratio, f1          pixels predicted above the level over those with such a target, and
                               F1 of these pixels

    Args:
        rows: rows, in the order of the scorers.
        level: value above which a pixel is lit.
        n_images: number of images.
        has_cells: whether the images have cells.
        notes: remarks on cells and bins without data.
    """

    rows: tuple[Row, ...]
    level: float
    n_images: int
    has_cells: bool
    notes: tuple[str, ...] = ()

    def __getitem__(self, scorer: str) -> Row:
        """Return the row of a scorer over all pixels."""
        return self._row_of(scorer, kind=ALL)

    def as_json(self) -> dict[str, Any]:
        """Return strict JSON: NaN becomes null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "level": self.level,
            "images": self.n_images,
            "notes": list(self.notes),
            "rows": self.finite_rows(),
        }

    def text(self) -> str:
        """Format a table over all pixels, one of the cells, and one of the value bins."""
        over = "cells" if self.has_cells else f"pixels below and above {self.level:.3g}"
        blocks = [
            self._lines(ALL, _OVERALL),
            *(lines for kind in ("cell", "bin") if (lines := self._lines(kind, _PARTS))),
            [
                f"{self.n_images:,} images; balanced MAE is the mean over {over}; skill is 1 "
                f"for a perfect map and 0 for a blank one; lit targets are above {self.level:.3g}, "
                "and lit predictions, too, unless a line below says otherwise.",
                *self.notes,
            ],
        ]
        return "\n\n".join("\n".join(lines) for lines in blocks)

    def _lines(self, kind: str, columns: Sequence[tuple[str, str]]) -> list[str]:
        rows = [row for row in self.rows if row["kind"] == kind]
        if not rows:
            return []
        columns = [one for one in columns if any(not _is_nan(row[one[1]]) for row in rows)]
        named = [] if kind == ALL else [kind, "pixels"]
        table = [["", *named, *(header for header, _ in columns)]]
        for row in rows:
            first = [] if kind == ALL else [str(row["part"]), f"{float(row['n']):,.0f}"]
            numbers = [_number(row[name]) for _, name in columns]
            table.append([str(row["scorer"]), *first, *numbers])
        return aligned(table)


def evaluate_values(
    networks: Sequence[Predicts],
    images: ValueImages,
    *,
    baselines: bool = True,
    progress: Callable[[int], object] | None = None,
    watch: Callable[[str, int, Tensor], object] | None = None,
) -> ValuesTable:
    """Score networks on images with maps of values.

    Args:
        networks: networks, whose first one gives the level, the bins and the training mean.
        images: images with maps; with cells if errors by cell are wanted.
        baselines: add rows of a blank map, of the mean of training, and of the image itself if it
            has as many channels as a map.
        progress: called with the number of images done.
        watch: called with the name of a network, the index of an image and its prediction.
    """
    reading = networks[0].network.reading
    has_cells = images.cells is not None and reading.cells == images.cells
    with_input = baselines and images.n_channels == images.n_targets
    rows: list[Row] = []
    scores: ValueScores | None = None
    for number, one in enumerate(networks):
        own_reading = replace(one.network.reading, level=reading.level, edges=reading.edges)
        own = new_scores(
            replace(own_reading, target_mean=reading.target_mean),
            cells=has_cells,
            with_input=with_input and number == 0,
            raw=one.raw,
        )
        for i in range(len(images)):
            prediction = one.network.predict(images.image(i), raw=one.raw)[None]
            target = torch.from_numpy(images.target(i).copy())[None]
            shown = torch.from_numpy(images.image(i).astype("float32"))[None]
            cells = images.cell_map(i)
            add_image(
                own,
                prediction,
                target,
                cells,
                shown if own.with_input else None,
                counted_pixels(reading, cells, images.counted(i)),
            )
            if watch is not None:
                watch(one.name, i, prediction[0])
            if progress is not None:
                progress(1)
        rows += _rows(own, 0, one.name)
        scores = scores or own
    assert scores is not None
    if baselines:
        for place, scorer in enumerate(scores.scorers):
            if scorer != PREDICTION:
                rows += _rows(scores, place, scorer)
    rows.sort(key=lambda row: (ALL, "cell", "bin").index(str(row["kind"])))
    notes = scores.notes()
    for one in networks:
        if (levels := one.network.reading.lit_levels(raw=one.raw)) is not None:
            listed = ", ".join(f"{value:.3g}" for value in levels)
            notes.append(
                f"{one.name}: predictions with the read-out are lit above {listed}, which lights "
                "as many validation pixels as their targets."
            )
    notes += _costs_of_read_outs(networks, rows, len(images))
    if reading.only_cells and has_cells:
        whose = f"the loss of {networks[0].name}" if _n_different(networks) > 1 else "the loss"
        notes.append(f"Pixels in no cell are left out, as {whose} leaves them out.")
    return ValuesTable(tuple(rows), reading.level, len(images), has_cells, tuple(notes))


def _n_different(networks: Sequence[Predicts]) -> int:
    """Return the number of networks; one with and without its read-out counts once."""
    return len({id(one.network) for one in networks})


def _costs_of_read_outs(networks: Sequence[Predicts], rows: Sequence[Row], n: int) -> list[str]:
    """Return a line for each network whose read-out makes the balanced error larger.

    Args:
        networks: networks, with their read-outs and without.
        rows: rows of the table.
        n: number of images.
    """
    error = {row["scorer"]: float(row["balanced_mae"]) for row in rows if row["kind"] == ALL}
    as_trained = {id(one.network): one.name for one in networks if one.raw}
    lines = []
    for one in networks:
        raw = as_trained.get(id(one.network))
        if one.raw or raw is None:
            continue
        if line := larger_balanced_error(f"these {n:,} images", error[raw], error[one.name]):
            lines.append(f"{one.name}: {line}.")
    return lines


def _rows(scores: ValueScores, place: int, name: str) -> list[Row]:
    """Return the rows of one scorer."""
    scorer = scores.scorers[place]
    whole = next(r for r in scores.rows() if r["scorer"] == scorer and r["channel"] == "all")
    own, blank = balanced_mae(scores, place), balanced_mae(scores, 1)
    overall: Row = {
        **whole,
        "balanced_mae": own,
        "skill": 1 - own / blank if blank > 0 else math.nan,
    }
    rows: list[Row] = [_row(name, ALL, ALL, overall)]
    for kind, parts in (("cell", scores.cell_rows()), ("bin", scores.bin_rows())):
        rows += [_row(name, kind, str(r[kind]), r) for r in parts if r["scorer"] == scorer]
    return rows


def _row(name: str, kind: str, part: str, values: Row) -> Row:
    """Return a row with every column; NaN where one does not apply."""
    columns = dict.fromkeys(
        ("n", "n_images", "share", *dict.fromkeys(n for _, n in (*_OVERALL, *_PARTS))), math.nan
    )
    known = {key: float(values[key]) for key in columns if key in values}
    return {"scorer": name, "kind": kind, "part": part, **columns, **known}


def _is_nan(value: str | float) -> bool:
    return math.isnan(float(value))


def _number(value: str | float) -> str:
    return "-" if _is_nan(value) else f"{float(value):.4g}"
