"""Comparison of losses on images with masks."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
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
from dense_imb.compare.contestants import Contestant, contestants
from dense_imb.compare.objects import CURVE, HAS_SCIPY, HalfScores, Objects, Scores, write_curve
from dense_imb.config import TrainConfig
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.metrics import SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.runs import Run
from dense_imb.tasks.images.evaluate import Segments, chosen_thresholds, evaluate_images
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
        "object_recall",
        "false_objects",
        "f1",
        "natural_f1",
        "tolerant_f1",
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

    def contestants(self) -> list[Contestant]:
        return contestants("images", n_classes=self.n_classes)

    def references(self) -> list[ReferenceRow]:
        return []

    def config(self, contestant: Contestant) -> TrainConfig:
        return replace(self._config, loss=contestant.text)

    def speed(self) -> tuple[float, float]:
        task, device = self._task, device_of_runs()
        seconds = step_seconds(task, self._config.batch_size, device)
        image, label = task.validation.image(0), task.validation.label(0)
        shown = torch.from_numpy(task.reading.shown(image))[None]
        with torch.no_grad():
            for _ in range(2):  # the first time also imports what looks through windows
                start = time.perf_counter()
                logits = task.reading.logits(task.network.eval(), shown.to(device)).cpu()
                image_seconds = time.perf_counter() - start
        start = time.perf_counter()
        if HAS_SCIPY:
            scores = Scores(self.n_classes)
            scores.update(logits, label)
            Objects(scores.thresholds()).update(logits, label)
        object_seconds = time.perf_counter() - start
        # scoring takes about as long as a small network does
        n_images = N_VALIDATIONS * len(task.validation) + 2 * len(self._test)
        n_images += 2 * len(task.validation) if HAS_SCIPY else 0
        n_counted = len(task.validation) + len(self._test)
        return seconds, 1.3 * image_seconds * n_images + object_seconds * n_counted

    def measure(self, run: Run) -> Row:
        network = run.trained()
        chosen = self._chosen(network)
        measured = Objects([curve.thresholds for curve in chosen.curves])
        half = HalfScores(self.n_classes)
        # logits are as trained where the loss has no natural probabilities
        is_natural = getattr(network.reading, "natural", None) is not None

        def watch(_: str, scores: SegmentationScores, i: int, logits: Tensor) -> None:
            if HAS_SCIPY:
                measured.update(logits, self._test.label(i))
            half.update(logits, self._test.label(i))

        table = evaluate_images(
            [network],
            self._test,
            thresholds=[chosen_thresholds(run.scores())],
            tolerance=self._settings.tolerance,
            precision=self._settings.precision,
            watch=watch,
        )
        row = {name: float(table.rows[0][name]) for name in self.scores if name in table.rows[0]}
        points = measured.at(chosen.thresholds_at(self._settings.false_objects))
        row |= {
            "object_recall": mean_of_known([point.recall for point in points]),
            "false_objects": mean_of_known([point.false_objects for point in points]),
            "natural_f1": half.f1() if is_natural else math.nan,
        }
        write_curve(run.folder / CURVE, measured)
        return row

    def _chosen(self, network: Segments) -> Objects:
        """Return the curves of objects on the validation images, which pass twice."""
        scores, images = Scores(self.n_classes), self._task.validation
        places = range(len(images) if HAS_SCIPY else 0)
        for i in places:
            scores.update(network.logits(images.image(i)), images.label(i))
        objects = Objects(scores.thresholds())
        for i in places:
            objects.update(network.logits(images.image(i)), images.label(i))
        return objects


BENCHMARK = ImagesBenchmark
