"""Comparison of losses on images with maps of values."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.compare.benchmark import (
    N_VALIDATIONS,
    ReferenceRow,
    Row,
    Settings,
    device_of_runs,
    refuse_test,
    step_seconds,
)
from dense_imb.compare.contestants import PLAIN_OF_VALUES, Contestant, contestants
from dense_imb.config import TrainConfig
from dense_imb.data.values.pairs import ValueImages
from dense_imb.losses.foreign.short_names import SHORT_NAMES
from dense_imb.runs import Run
from dense_imb.tasks.recipe import Recipe
from dense_imb.tasks.values.evaluate import Predicts, ValuesTable, evaluate_values
from dense_imb.tasks.values.recipe import ValuesRecipe, open_test_images
from dense_imb.tasks.values.task import ValuesReading

_READ_OUT, _RAW = "read out", "as trained"  # rows of a network


class ValuesBenchmark:
    """Images with maps of values; runs are scored on the images of `test_share`.

    Args:
        config: config that all runs share.
        settings: settings of other kinds of data.
    """

    scores = (
        "skill",
        "read_out_skill",
        "lit_f1",
        "rmse",
        "lit_ratio",
        "read_out_lit_ratio",
        "blank_rate",
    )

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        refuse_test(settings, "images with maps of values")
        self._config = config
        self._test: ValueImages = open_test_images(config.values)
        recipe = Recipe.of(replace(config, loss=SHORT_NAMES[PLAIN_OF_VALUES]))
        assert isinstance(recipe, ValuesRecipe)
        self._opened = recipe.open()
        self._task = replace(recipe, opened=self._opened).labelled_task()
        reading: ValuesReading = self._task.reading
        self._lit = [i for i in range(len(self._test)) if self._has_lit(i, reading.level)]

    def _has_lit(self, i: int, level: float) -> bool:
        return self._test.pixels_above(i, level) > 0

    def contestants(self) -> list[Contestant]:
        cells = self._task.reading.cells
        partition = None if cells is None else ("masks" if cells.overlap else "labels", cells.n)
        edges = self._opened.train.bin_edges(self._opened.tally)
        return contestants("values", edges=edges, cells=partition)

    def references(self) -> list[ReferenceRow]:
        """Return the scores of a blank map and of the mean of training."""
        blank = _Blank("blank", self._task.reading)
        table = evaluate_values([Predicts(blank.name, blank, True)], self._test)
        rows: list[ReferenceRow] = []
        for scorer in ("blank", "mean of training"):
            scores = _scores_of(table, scorer, scorer)
            rows.append({"loss": scorer, **scores, "blank_rate": float(scores["lit_ratio"] == 0)})
        return rows

    def config(self, contestant: Contestant) -> TrainConfig:
        return replace(self._config, loss=contestant.text)

    def speed(self) -> tuple[float, float]:
        task, device = self._task, device_of_runs()
        seconds = step_seconds(task, self._config.batch_size, device)
        task.network.eval()
        for _ in range(2):  # the first time also imports what looks through windows
            start = time.perf_counter()
            task.validate(task.network, device, 0, len(task.validation))  # one image
            image_seconds = time.perf_counter() - start
        # the read-out is fitted and scored at the end
        n_images = (N_VALIDATIONS + 2) * len(task.validation) + 2 * len(self._test)
        return seconds, image_seconds * n_images

    def measure(self, run: Run) -> Row:
        network = run.trained()
        reading: ValuesReading = network.reading
        is_blank = dict.fromkeys(self._lit, False)
        lit_level = reading.lit_levels() or (reading.level,) * reading.n_targets
        level = torch.tensor(lit_level, dtype=torch.float64).view(-1, *(1,) * len(reading.patch))

        def watch(name: str, i: int, prediction: Tensor) -> None:
            if name == _READ_OUT and i in is_blank:
                is_blank[i] = not self._test.only_counted(prediction > level, i).any()

        rows = [Predicts(_READ_OUT, network, False), Predicts(_RAW, network, True)]
        table = evaluate_values(rows, self._test, baselines=False, watch=watch)
        return {
            **_scores_of(table, _RAW, _READ_OUT),
            "blank_rate": float(np.mean([*is_blank.values()])) if is_blank else math.nan,
        }


class _Blank(NamedTuple):
    """A network whose maps are 0."""

    name: str
    reading: ValuesReading

    def predict(self, image: NDArray[np.generic], *, raw: bool = False) -> Tensor:
        return torch.zeros(self.reading.n_targets, *image.shape[1:])


def _scores_of(table: ValuesTable, raw: str, read_out: str) -> Row:
    """Return the scores of a network, by their names in a comparison.

    Args:
        table: errors of the network.
        raw, read_out: names of its rows as trained and with the read-out.
    """
    before, after = table[raw], table[read_out]
    scores = {
        "skill": before["skill"],
        "read_out_skill": after["skill"],
        "lit_f1": after["f1"],
        "rmse": after["rmse"],
        "lit_ratio": before["lit_ratio"],
        "read_out_lit_ratio": after["lit_ratio"],
    }
    return {name: float(value) for name, value in scores.items()}


BENCHMARK = ValuesBenchmark
