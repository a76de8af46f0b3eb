"""Trainable tasks: score hits, segment images, classify whole images."""

from dense_imb.tasks.hits.task import (
    Denoiser,
    HitBatch,
    Reading,
)
from dense_imb.tasks.labels.task import (
    ClassBatch,
    Classifier,
    ClassReading,
    TrainedClassifier,
)

__all__ = [
    "ClassBatch",
    "ClassReading",
    "Classifier",
    "Denoiser",
    "HitBatch",
    "Reading",
    "TrainedClassifier",
]
