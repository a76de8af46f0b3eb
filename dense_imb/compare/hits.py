"""Comparison of losses on hits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
from dense_imb.config import TrainConfig
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.hits import evaluate
from dense_imb.runs import Run
from dense_imb.tasks.recipe import build_task


class HitsBenchmark:
    """Events of hits; one half of the validation events chooses thresholds, the other is scored.

    Args:
        config: config that all runs share.
        settings: settings of other kinds of data.
    """

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        refuse_test(settings, "hits")
        self._config = config
        wanted = f"removal_at_{100 * config.hits.retention:g}"
        self.scores: tuple[str, ...] = tuple(
            dict.fromkeys(
                [
                    *(wanted, "removal_at_95", "removal_at_99", "average_precision", "auc"),
                    *("retention_at_fakes", "retention_at_half"),
                ]
            )
        )
        self._task = build_task(replace(config, loss="CrossEntropyLoss"))

    def contestants(self) -> list[Contestant]:
        return contestants("hits")

    def references(self) -> list[ReferenceRow]:
        return []

    def config(self, contestant: Contestant) -> TrainConfig:
        return replace(self._config, loss=contestant.text)

    def speed(self) -> tuple[float, float]:
        seconds = step_seconds(self._task, self._config.batch_size, device_of_runs())
        n_batches = len(self._task.validation) / self._config.batch_size
        return seconds, 0.5 * seconds * n_batches * (N_VALIDATIONS + 1)

    def measure(self, run: Run) -> Row:
        events: VirtualEvents = self._task.validation
        half = len(events) // 2
        first, second = (
            events.degraded(np.arange(*ends), VALIDATION_EPOCH)
            for ends in ((0, half), (half, len(events)))
        )
        wanted = self._config.hits.retention
        row = evaluate([run.trained()], first, second, retention=wanted).rows[0]
        return {name: float(row[name]) for name in self.scores}


BENCHMARK = HitsBenchmark
