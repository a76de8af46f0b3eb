"""Validation scores of maps of values: errors by cell, and signs of a collapse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.metrics.values import ValueScores

if TYPE_CHECKING:
    from dense_imb.tasks.values.task import ValuesReading

_PREDICTION, _BLANK = 0, 1  # rows of the scores


class Validation:
    """Errors of a pass over images, and a histogram of predictions at lit and empty pixels.

    Args:
        reading: reading of the network.
    """

    def __init__(self, reading: ValuesReading) -> None:
        self.reading, self.scores = reading, new_scores(reading)
        self.histogram = ScoreHistogram(scale="logit")

    def update(
        self,
        prediction: Tensor,
        target: NDArray[np.float32],
        cells: NDArray[Any] | None,
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add an image.

        Args:
            prediction: (1, K, *spatial).
            target: (K, *spatial).
            cells: (*spatial); None without cells.
            counted: (*spatial) pixels that count; None for all.
        """
        reading = self.reading
        truth = torch.from_numpy(target.copy())[None]
        mask = counted_pixels(reading, cells, counted)
        add_image(self.scores, prediction, truth, cells, mask=mask)
        score, lit = 8 * prediction / reading.scale - 4, truth > reading.level
        if mask is not None:
            is_in = mask.unsqueeze(1).expand_as(lit)
            score, lit = score[is_in], lit[is_in]
        self.histogram.update(score, lit)

    def reduce_over_processes(self) -> Self:
        """Sum over all processes, in place."""
        self.scores.reduce_over_processes()
        self.histogram.reduce_over_processes()
        return self

    def numbers(self) -> dict[str, float]:
        """Return the scores of the history.

        Where some pixels are lit and others empty, `auc` and `average_precision` are those of the
        order of predictions, and `lit_at_half` the fraction of all pixels predicted to be lit.
        """
        numbers = headline_scores(self.scores)
        n_empty, n_lit = self.histogram.counts.sum(1).tolist()
        if n_empty and n_lit:
            numbers["auc"] = self.histogram.auc()
            numbers["average_precision"] = self.histogram.average_precision()
            numbers["lit_at_half"] = numbers["lit_ratio"] * n_lit / (n_empty + n_lit)
        return numbers

    def save(self, path: Path) -> None:
        """Write the errors."""
        self.scores.save(path)


def new_scores(
    reading: ValuesReading, *, cells: bool = True, with_input: bool = False, raw: bool = False
) -> ValueScores:
    """Return empty scores of the values of a reading.

    Args:
        reading: reading of the network.
        cells: whether the images have the cells of the reading.
        with_input: whether the image itself is a row of the table.
        raw: whether predictions are as trained, without the read-out.
    """
    known = reading.cells if cells else None
    return ValueScores(
        reading.n_targets,
        level=reading.level,
        lit_level=reading.lit_levels(raw=raw),
        value_edges=reading.edges,
        cells=() if known is None else known.names,
        labels=known is not None and not known.overlap,
        mean=reading.target_mean,
        with_input=with_input,
    )


def add_image(
    scores: ValueScores,
    prediction: Tensor,
    target: Tensor,
    cells: NDArray[Any] | None,
    shown: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """Add an image to scores.

    Args:
        scores: scores.
        prediction: (1, K, *spatial).
        target: (1, K, *spatial).
        cells: (*spatial); None without cells.
        shown: (1, K, *spatial) the image, where it is a row of the table.
        mask: (1, *spatial) pixels that count; None for all.
    """
    stored = None if cells is None or not scores.cells else torch.from_numpy(cells.copy())[None]
    scores.update(prediction, target, stored, input=shown, mask=mask)


def counted_pixels(
    reading: ValuesReading, cells: NDArray[Any] | None, counted: NDArray[np.bool_] | None
) -> Tensor | None:
    """Return the pixels that count, (1, *spatial); None for all.

    Args:
        reading: reading of the network.
        cells: (*spatial) bit field; None without cells.
        counted: (*spatial) pixels that count by a map of their own; None for all.
    """
    is_in = cells != 0 if reading.only_cells and cells is not None else None
    if is_in is None or counted is None:
        is_in = counted if is_in is None else is_in
    else:
        is_in = is_in & counted
    return None if is_in is None else torch.from_numpy(is_in.copy())[None]


def headline_scores(scores: ValueScores) -> dict[str, float]:
    """Return the main scores by name.

    balanced_mae   mean over the cells of the mean absolute error; without cells, over the
                   pixels with a target below and above the level
    skill          1 - balanced_mae / balanced_mae of a blank map: 1 is perfect, 0 as bad as
                   blank
    recall_at_half   fraction of the lit pixels that are predicted to be lit
    """
    every = scores.scores()
    own, blank = (balanced_mae(scores, row) for row in (_PREDICTION, _BLANK))
    numbers = {
        "skill": 1 - own / blank if blank > 0 else math.nan,
        "balanced_mae": own,
        **{name: every[name] for name in ("mae", "rmse", "bias", "lit_ratio", "f1")},
    }
    # f1 = 2 both / (predicted + lit), lit_ratio = predicted / lit
    numbers["recall_at_half"] = every["f1"] * (every["lit_ratio"] + 1) / 2
    cells = [row for row in scores.cell_rows() if row["scorer"] == scores.scorers[0]]
    numbers |= {f"mae_{row['cell']}": float(row["mae"]) for row in cells}
    return numbers


def balanced_mae(scores: ValueScores, row: int = _PREDICTION) -> float:
    """Return the mean over cells of the mean absolute error of a row; see `headline_scores`."""
    scorer = scores.scorers[row]
    if scores.cells:
        cells = [one for one in scores.cell_rows() if one["scorer"] == scorer]
        return mean_of_known([float(one["mae"]) for one in cells])
    bins = [one for one in scores.bin_rows() if one["scorer"] == scorer]
    errors = []
    for part in (bins[:1], bins[1:]):
        n = sum(float(one["n"]) for one in part)
        if n:
            errors.append(sum(float(one["n"] or 0) * _known(one["mae"]) for one in part) / n)
    return mean_of_known(errors) if errors else math.nan


def larger_balanced_error(where: str, before: float, after: float) -> str:
    """Return the sentence on a read-out that makes the balanced error larger; "" if it does not.

    Args:
        where: description of the measured images.
        before, after: mean over cells of the mean absolute error, as trained and read out.
    """
    if not after > before:
        return ""
    return (
        f"the read-out makes the balanced error larger, {before:.3g} -> {after:.3g} ({where}): "
        "--raw leaves it out, for rare values, arg-max and key points"
    )


def _known(value: Any) -> float:
    """Return a number, 0 for NaN."""
    number = float(value)
    return 0.0 if math.isnan(number) else number
