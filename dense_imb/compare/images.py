"""Comparison of losses on images with masks."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from dense_imb.compare.benchmark import (
    N_VALIDATIONS,
    Row,
    Settings,
    device_of_runs,
    refuse_test,
    step_seconds,
)
from dense_imb.compare.contestants import Contestant
from dense_imb.config import TrainConfig
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.runs import Run
from dense_imb.tasks.images.evaluate import chosen_thresholds, evaluate_images
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.recipe import build_task


class ImagesBenchmark:
    """Images with masks; runs are scored on the images of `test_share`.

    Args:
        config: config that all runs share.
        settings: tolerance and precision of the scores.
    """

    scores = (
        "average_precision",
        "tolerant_f1",
        "f1",
        "recall_at_precision",
        "calibration_error",
        "likeliest_iou",
    )

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        refuse_test(settings, "images with masks")
        self._config, self._settings = config, settings
        self._test: LabelledImages = open_test_images(config.images)
        self.n_classes = self._test.n_classes
        self._task = build_task(replace(config, loss="CrossEntropyLoss"))

    def config(self, contestant: Contestant) -> TrainConfig:
        return replace(self._config, loss=contestant.loss)

    def speed(self) -> tuple[float, float]:
        task, device = self._task, device_of_runs()
        seconds = step_seconds(task, self._config.batch_size, device)
        shown = torch.from_numpy(task.reading.shown(task.validation.image(0)))[None]
        with torch.no_grad():
            for _ in range(2):  # the first time also imports what looks through windows
                start = time.perf_counter()
                task.reading.logits(task.network.eval(), shown.to(device))
                image_seconds = time.perf_counter() - start
        # scoring takes about as long as a small network does
        n_images = N_VALIDATIONS * len(task.validation) + 2 * len(self._test)
        return seconds, 1.3 * image_seconds * n_images

    def measure(self, run: Run) -> Row:
        table = evaluate_images(
            [run.trained()],
            self._test,
            thresholds=[chosen_thresholds(run.scores())],
            tolerance=self._settings.tolerance,
            precision=self._settings.precision,
        )
        return {name: float(table.rows[0][name]) for name in self.scores}


BENCHMARK = ImagesBenchmark
