"""Trainable tasks: score hits, segment images, classify whole images."""

from dense_imb.tasks.hits.task import (
    HitsBatch,
    HitsTask,
    Reading,
)
from dense_imb.tasks.labels.task import (
    LabelsBatch,
    LabelsReading,
    LabelsTask,
    TrainedLabels,
)

__all__ = [
    "LabelsBatch",
    "LabelsReading",
    "LabelsTask",
    "HitsTask",
    "HitsBatch",
    "Reading",
    "TrainedLabels",
]
