"""Timing and scoring of contestants on hits, on images with masks and on whole images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from dense_imb.compare.contestants import Contestant
from dense_imb.config import TrainConfig
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.hits import evaluate
from dense_imb.losses import class_weights
from dense_imb.losses.core.adjustment import Margin
from dense_imb.runs import Run
from dense_imb.tasks.build import build_denoiser, build_segmenter, open_test_images
from dense_imb.tasks.images.evaluate import chosen_thresholds, evaluate_segmenters
from dense_imb.tasks.labels.evaluate import evaluate_classifiers
from dense_imb.tasks.labels.recipe import build_classifier, open_cifar_test, open_test_table
from dense_imb.tasks.recipe import build_loss

N_VALIDATIONS = 4  # validations of a run; the best of them is measured
_N_TIMED = 4  # steps that the speed is measured on
_N_SCORED = 64  # whole images that the speed is measured on
_CLASS_WEIGHTS = "$inverse"
Row = dict[str, float]


class Benchmark(Protocol):
    """Data on which contestants are trained and scored."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores; the first one decides."""

    @property
    def n_classes(self) -> int:
        """Number of classes of the data."""

    def config(self, contestant: Contestant) -> TrainConfig:
        """Return the config that trains with a contestant."""

    def speed(self) -> tuple[float, float]:
        """Return the seconds of a step, and of all validations and tests of a run."""

    def measure(self, run: Run) -> Row:
        """Return the scores of a run on held-out data."""


class ImagesBenchmark:
    """Images with masks; runs are scored on the images of `test_share`.

    Args:
        config: config that all runs share.
        tolerance, precision: see `evaluate_segmenters`.
    """

    scores = (
        "average_precision",
        "tolerant_f1",
        "f1",
        "recall_at_precision",
        "calibration_error",
        "likeliest_iou",
    )

    def __init__(self, config: TrainConfig, tolerance: float, precision: float) -> None:
        self._config, self._tolerance, self._precision = config, tolerance, precision
        self._test: LabelledImages = open_test_images(config.images)
        self.n_classes = self._test.n_classes
        self._task = build_segmenter(replace(config, loss="CrossEntropyLoss"))

    def config(self, contestant: Contestant) -> TrainConfig:
        return _with_loss(self._config, contestant, self._task.class_counts)

    def speed(self) -> tuple[float, float]:
        task, device = self._task, _device()
        seconds = _step_seconds(task, self._config.batch_size, device)
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
        table = evaluate_segmenters(
            [run.segmenter()],
            self._test,
            thresholds=[chosen_thresholds(run.class_scores())],
            tolerance=self._tolerance,
            precision=self._precision,
        )
        return {name: float(table.rows[0][name]) for name in self.scores}


class HitsBenchmark:
    """Events of hits; one half of the validation events chooses thresholds, the other is scored.

    Args:
        config: config that all runs share.
    """

    n_classes = 2

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        wanted = f"removal_at_{100 * config.retention:g}"
        self.scores: tuple[str, ...] = tuple(
            dict.fromkeys([wanted, "removal_at_95", "removal_at_99", "auc", "retention_at_half"])
        )
        self._task = build_denoiser(replace(config, loss="CrossEntropyLoss"))

    def config(self, contestant: Contestant) -> TrainConfig:
        return _with_loss(self._config, contestant, self._task.class_counts)

    def speed(self) -> tuple[float, float]:
        seconds = _step_seconds(self._task, self._config.batch_size, _device())
        n_batches = len(self._task.validation) / self._config.batch_size
        return seconds, 0.5 * seconds * n_batches * (N_VALIDATIONS + 1)

    def measure(self, run: Run) -> Row:
        events: VirtualEvents = self._task.validation
        half = len(events) // 2
        first, second = (
            events.degraded(np.arange(*ends), VALIDATION_EPOCH)
            for ends in ((0, half), (half, len(events)))
        )
        row = evaluate([run.scorer()], first, second).rows[0]
        return {name: float(row[name]) for name in self.scores}


class LabelsBenchmark:
    """Whole images with a label each.

    Runs are scored on the images of `test`; without it on CIFAR's test images, or on the
    validation images of a table.

    Args:
        config: config that all runs share.
        test: CSV file of test images, or a CIFAR archive.
    """

    def __init__(self, config: TrainConfig, test: str | None = None) -> None:
        self._config = config
        self._task = build_classifier(replace(config, loss="CrossEntropyLoss"))
        self.n_classes = self._task.reading.n_classes
        self._test = self._open_test(test)
        has_tail = bool(self._task.scores.groups["tail"])
        tail = ("tail_accuracy",) if has_tail else ()
        self.scores: tuple[str, ...] = ("balanced_accuracy", *tail, "accuracy", "calibration_error")

    def _open_test(self, path: str | None) -> ClassifiedImages:
        if self._config.cifar.path is not None:
            return open_cifar_test(self._config, path)
        if path is None:
            return self._task.validation
        names = self._task.reading.class_names
        return open_test_table(self._config, path, self._config.table.images, names)

    def config(self, contestant: Contestant) -> TrainConfig:
        config = _with_loss(self._config, contestant, self._task.class_counts)
        loss = build_loss(config.loss, self._task.class_counts)
        if not isinstance(getattr(loss, "adjustment", None), Margin):
            return config
        # margins are between cosines
        options = {**config.model.options, "head": "cosine"}
        return replace(config, model=replace(config.model, options=options))

    def speed(self) -> tuple[float, float]:
        task, device = self._task, _device()
        seconds = _step_seconds(task, self._config.batch_size, device)
        images = task.validation.images(range(min(_N_SCORED, len(task.validation))))
        network = task.network.eval()
        start = time.perf_counter()
        with torch.no_grad():
            task.reading.logits(network, images, device)
        image_seconds = (time.perf_counter() - start) / len(images)
        n_images = N_VALIDATIONS * len(task.validation) + len(self._test)
        return seconds, 1.3 * image_seconds * n_images

    def measure(self, run: Run) -> Row:
        classifier = run.classifier()
        table = evaluate_classifiers([classifier], self._test, classifier.reading)
        return {name: float(table[classifier.name][name]) for name in self.scores}


def _with_loss(
    config: TrainConfig, contestant: Contestant, class_counts: Sequence[int]
) -> TrainConfig:
    weights = class_weights(class_counts, "inverse")
    text = "(" + ", ".join(f"{weight:.4g}" for weight in weights) + ")"
    return replace(config, loss=contestant.loss.replace(_CLASS_WEIGHTS, text))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _step_seconds(task: Any, batch_size: int, device: torch.device) -> float:
    """Return the median duration of a few steps after a first one."""
    size = min(batch_size, task.n_samples)
    network = task.network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-9)
    seconds = []
    for k in range(_N_TIMED + 1):
        start = time.perf_counter()
        samples = (np.arange(size) + k * size) % task.n_samples
        task.cost(network, task.batch(samples, 0, device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
