"""Comparison of losses on whole images."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from dense_imb.compare.benchmark import (
    N_VALIDATIONS,
    ReferenceRow,
    Row,
    Settings,
    device_of_runs,
    step_seconds,
)
from dense_imb.compare.contestants import Contestant, contestants
from dense_imb.config import TrainConfig
from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.losses.named.ldam import Margin
from dense_imb.runs import Run
from dense_imb.tasks.labels.evaluate import evaluate_labels
from dense_imb.tasks.labels.recipe import open_cifar_test, open_test_table
from dense_imb.tasks.recipe import build_loss, build_task

_N_SCORED = 64  # images that the speed is measured on


class LabelsBenchmark:
    """Whole images with a label each.

    Runs are scored on the test images of the settings; without it on CIFAR's test images, or on the
    validation images of a table.

    Args:
        config: config that all runs share.
        settings: the test images, a CSV file or a CIFAR archive.
    """

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        self._config = config
        self._task = build_task(replace(config, loss="CrossEntropyLoss"))
        self.n_classes = self._task.reading.n_classes
        self._test = self._open_test(settings.test)
        has_tail = bool(self._task.scores.groups["tail"])
        tail = ("tail_accuracy",) if has_tail else ()
        self.scores: tuple[str, ...] = ("balanced_accuracy", *tail, "accuracy", "calibration_error")

    def _open_test(self, path: str | None) -> ClassifiedImages:
        labels = self._config.labels
        if not labels.is_table:
            return open_cifar_test(labels, path)
        if path is None:
            validation: ClassifiedImages = self._task.validation
            return validation
        names = self._task.reading.class_names
        return open_test_table(labels, path, labels.images, names)

    def contestants(self) -> list[Contestant]:
        return contestants("labels", n_classes=self.n_classes)

    def references(self) -> list[ReferenceRow]:
        return []

    def config(self, contestant: Contestant) -> TrainConfig:
        config = replace(self._config, loss=contestant.text)
        loss = contestant.module or build_loss(
            config.loss, self._task.class_counts, allow_import=config.allow_import
        )
        if not isinstance(getattr(loss, "adjustment", None), Margin):
            return config
        # margins are between cosines
        options = {**config.model.options, "head": "cosine"}
        return replace(config, model=replace(config.model, options=options))

    def speed(self) -> tuple[float, float]:
        task, device = self._task, device_of_runs()
        seconds = step_seconds(task, self._config.batch_size, device)
        images = task.validation.images(range(min(_N_SCORED, len(task.validation))))
        network = task.network.eval()
        start = time.perf_counter()
        with torch.no_grad():
            task.reading.logits(network, images, device)
        image_seconds = (time.perf_counter() - start) / len(images)
        n_images = N_VALIDATIONS * len(task.validation) + len(self._test)
        return seconds, 1.3 * image_seconds * n_images

    def measure(self, run: Run) -> Row:
        classifier = run.trained()
        table = evaluate_labels([classifier], self._test, classifier.reading)
        return {name: float(table[classifier.name][name]) for name in self.scores}


BENCHMARK = LabelsBenchmark
