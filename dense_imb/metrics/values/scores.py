"""Scores of value maps: errors of pixels, cells and values, next to those of a blank map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dense_imb.base.tabular import Rows, cells_of_rows
from dense_imb.metrics._counts import ratio
from dense_imb.metrics.score_table import Row, aligned, finite_rows, mean_of_known
from dense_imb.metrics.values.sums import BLANK, INPUT, MEAN, PREDICTION, ValueSums

__all__ = ["BLANK", "INPUT", "MEAN", "PREDICTION", "ValueScores"]


class ValueScores(ValueSums):
    """Errors of value maps over all pixels, channels, cells and values of the target.

        mae = mean |p - t|,   rmse = sqrt(mean (p - t)^2),   bias = mean (p - t)
        lit_ratio = number of p > level / number of t > level
        f1 = 2 number of (p > level and t > level) / (number of p > level + number of t > level)

    A cell has the errors of its pixels, and the mean and the standard deviation over images of the
    mean absolute error in one image (`image_mae`, `image_spread`). A value bin holds the pixels
    with a target in it. A pixel counts once for each channel. Where nearly every pixel is empty, a
    blank map has nearly the best error: a prediction must beat the rows of reference. A score
    without pixels is NaN, and `notes` names the cells and bins without any.

    Args:
        n_channels: number of channels of the maps.
        level: value above which a pixel is lit; None leaves out `lit_ratio` and `f1`.
        lit_level: value above which a prediction is lit, if not `level`, one or one for each
            channel; for example `ReadOutEffect.matched_level`. The other rows keep `level`.
        value_edges: rising edges of the value bins; an edge belongs to the bin above it. () is
            without bins.
        cells: names of the cells, in the order of labels, masks or bits; () is without cells.
        labels: True for a label map, whose label k is cell k; False for cells that may overlap.
        rest: whether the pixels in no cell are one more cell, the last, named "rest".
        mean: mean training target of each channel, for the row "mean of training".
        with_input: whether each `update` gets an input, for the row "input".

    Example:
        >>> scores = ValueScores(level=0.5, cells=["organ"])
        >>> target = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
        >>> organ = torch.tensor([[[False, False, True, True]]])
        >>> scores.update(torch.tensor([[[0.0, 0.0, 0.75, 0.75]]]), target, organ)
        >>> [round(scores.scores()[name], 3) for name in ("mae", "mae_organ", "lit_ratio", "f1")]
        [0.25, 0.5, 2.0, 0.667]
        >>> scores.scores()["mae"] < scores.rows()[1]["mae"]  # not better than a blank map
        False
    """

    def rows(self) -> list[Row]:
        """Return a row of scores for each scorer over all channels, then for each channel.

        Columns: `scorer`, `channel` ("all" or its number), `n`, `mae`, `rmse`, `bias`, and with a
        level `lit_ratio` and `f1`.
        """
        parts: list[tuple[str, slice]] = [("all", slice(None))]
        if self.n_channels > 1:
            parts += [(str(k), slice(k, k + 1)) for k in range(self.n_channels)]
        return [
            {"scorer": scorer, "channel": name, **self._scores_of(number, part)}
            for name, part in parts
            for number, scorer in enumerate(self.scorers)
        ]

    def table_rows(self) -> Rows:
        """Return the rows over all pixels, see `rows`."""
        return self.rows()

    def text_tables(self) -> list[list[list[str]]]:
        """Return the tables over pixels, cells and value bins, as texts."""
        return [cells_of_rows(rows) for rows in (self.rows(), self.cell_rows(), self.bin_rows())]

    def text_notes(self) -> list[str]:
        """Return the notes on scores without data."""
        return self.notes()

    def _scores_of(self, number: int, part: slice) -> dict[str, float]:
        n, n_target = self._count[part].sum(0).tolist()
        scores = _errors(n, self._error[number, part].sum(0).tolist())
        if self.level is not None:
            n_lit, n_both = self._lit[number, part].sum(0).tolist()
            scores |= {
                "lit_ratio": ratio(n_lit, n_target),
                "f1": ratio(2 * n_both, n_lit + n_target),
            }
        return scores

    def cell_rows(self) -> list[Row]:
        """Return a row for each cell and scorer.

        Columns: `cell`, `scorer`, `n` (pixels), `n_images` (with the cell), `share` of the pixels,
        `mae`, `rmse`, `bias`, `image_mae`, `image_spread`.
        """
        return [
            {"cell": cell, "scorer": scorer, **self._scores_of_cell(number, k)}
            for k, cell in enumerate(self.cell_names)
            for number, scorer in enumerate(self.scorers)
        ]

    def _scores_of_cell(self, number: int, k: int) -> dict[str, float]:
        n, n_images = self._cell_count[k].tolist()
        total, squares = self._cell_image[number, k].tolist()
        mean = ratio(total, n_images)
        variance = ratio(max(squares - total * mean, 0.0), n_images - 1) if n_images else math.nan
        errors = _errors(n, self._cell_error[number, k].tolist())
        counts = {"n": errors.pop("n"), "n_images": float(n_images)}
        counts["share"] = ratio(n, self._count[:, 0].sum())
        return {**counts, **errors, "image_mae": mean, "image_spread": math.sqrt(variance)}

    def bin_rows(self) -> list[Row]:
        """Return a row for each value bin and scorer.

        Columns: `bin`, `scorer`, `n` (pixels), `mae`, `rmse`, `bias`.
        """
        return [
            {
                "bin": name,
                "scorer": scorer,
                **_errors(int(self._bin_count[k]), self._bin_error[number, k].tolist()),
            }
            for k, name in enumerate(self.bin_names())
            for number, scorer in enumerate(self.scorers)
        ]

    def bin_names(self) -> list[str]:
        """Return the names of the value bins, such as "below 1", "1 to 5" and "from 5"."""
        if not self.value_edges:
            return []
        edges = [f"{edge:g}" for edge in self.value_edges]
        inner = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
        return [f"below {edges[0]}", *inner, f"from {edges[-1]}"]

    def notes(self) -> list[str]:
        """Return a sentence for each kind of score that has no data."""
        no_cell = [
            name
            for name, (n, _) in zip(self.cell_names, self._cell_count.tolist(), strict=True)
            if n == 0
        ]
        no_bin = [
            name
            for name, n in zip(self.bin_names(), self._bin_count.tolist(), strict=True)
            if n == 0
        ]
        notes = []
        if no_cell:
            notes.append(f"No image has a pixel of these cells: {', '.join(no_cell)}.")
        if self.cells and not self.rest and int(self._n_outside):
            share = ratio(self._n_outside, self._count[:, 0].sum())
            notes.append(f"{int(self._n_outside):,} pixels ({100 * share:.3g} %) are in no cell.")
        if no_bin:
            notes.append(f"No pixel has a target in these value bins: {', '.join(no_bin)}.")
        if self.level is not None and int(self._count[:, 1].sum()) == 0:
            notes.append(f"No pixel has a target above the level {self.level:g}.")
        return notes

    def scores(self) -> dict[str, float]:
        """Return every score of the prediction by name; NaN without data.

        `mae`, `rmse`, `bias`, `lit_ratio`, `f1`; `mae_channel_k`; `mae_CELL`, `image_mae_CELL`,
        `image_spread_CELL` and `mean_cell_mae`, the mean over cells; `bias_bin_k` and `mae_bin_k`.
        """
        scores = self._scores_of(0, slice(None))
        if self.n_channels > 1:
            for k in range(self.n_channels):
                scores[f"mae_channel_{k}"] = self._scores_of(0, slice(k, k + 1))["mae"]
        of_cells = [self._scores_of_cell(0, k) for k in range(len(self.cell_names))]
        for name, of_cell in zip(self.cell_names, of_cells, strict=True):
            scores |= {
                f"{key}_{name}": of_cell[key] for key in ("mae", "image_mae", "image_spread")
            }
        if of_cells:
            scores["mean_cell_mae"] = mean_of_known([of_cell["mae"] for of_cell in of_cells])
        for k, n in enumerate(self._bin_count.tolist()):
            of_bin = _errors(n, self._bin_error[0, k].tolist())
            scores |= {f"{key}_bin_{k}": of_bin[key] for key in ("bias", "mae")}
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return all tables for strict JSON; a score without data is None beside its `n` of 0."""
        return {
            "n_images": int(self._n_images),
            "rows": finite_rows(self.rows()),
            "cells": finite_rows(self.cell_rows()),
            "bins": finite_rows(self.bin_rows()),
            "notes": self.notes(),
        }

    def text(self) -> str:
        """Return the tables over pixels, cells and value bins, and the notes, as aligned text."""
        overall: list[Row] = []
        for row in self.rows():
            scorer, channel = str(row.pop("scorer")), str(row.pop("channel"))
            if channel == "all":
                overall.append({"": scorer, **row})
            elif scorer == PREDICTION:
                overall.append({"": f"{scorer}, channel {channel}", **row})
        tables = [
            _lines_of(table) for table in (overall, self.cell_rows(), self.bin_rows()) if table
        ]
        blocks = [*tables, self.notes()]
        return "\n\n".join("\n".join(lines) for lines in blocks if lines)

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        overall, blank = (self._scores_of(number, slice(None)) for number in (0, 1))
        counts = {"images": int(self._n_images), "pixels": int(overall["n"])}
        return counts, {"MAE": overall["mae"], "RMSE": overall["rmse"], "blank MAE": blank["mae"]}


def _errors(n: int, sums: Sequence[float]) -> dict[str, float]:
    error, absolute, square = sums
    return {
        "n": float(n),
        "mae": ratio(absolute, n),
        "rmse": math.sqrt(ratio(square, n)),
        "bias": ratio(error, n),
    }


def _lines_of(rows: Sequence[Row]) -> list[str]:
    cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
    return aligned([list(rows[0]), *cells])


def _cell(name: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if name in ("n", "n_images") else f"{value:.4g}"
