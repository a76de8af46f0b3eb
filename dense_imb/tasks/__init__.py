"""Trainable tasks: score hits, segment images, classify whole images."""

from dense_imb.tasks.hits.task import (
    HitsTask,
    HitsBatch,
    Reading,
)
from dense_imb.tasks.labels.task import (
    LabelsBatch,
    LabelsTask,
    LabelsReading,
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
