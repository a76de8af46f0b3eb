"""Trainable tasks: score hits, segment images, classify whole images, predict values."""

from dense_imb.tasks.base import TaskOptions, TrainedNetwork, TrainingData
from dense_imb.tasks.hits.frames import FrameBatch, FrameReading, FramesTask
from dense_imb.tasks.hits.scoring import HitsOptions
from dense_imb.tasks.hits.task import HitsBatch, HitsReading, HitsTask
from dense_imb.tasks.hits.trained import TrainedHits
from dense_imb.tasks.images.task import ImagesBatch, ImagesOptions, ImagesReading, ImagesTask
from dense_imb.tasks.images.trained import TrainedImages
from dense_imb.tasks.labels.task import LabelsBatch, LabelsOptions, LabelsReading, LabelsTask
from dense_imb.tasks.labels.trained import Commonest, TrainedLabels
from dense_imb.tasks.mean_teacher import SemiSupervised, StrongViews, TeacherOptions
from dense_imb.tasks.recipe import Recipe, build_task
from dense_imb.tasks.values.task import ValuesBatch, ValuesOptions, ValuesReading, ValuesTask
from dense_imb.tasks.values.trained import TrainedValues

__all__ = [
    "Commonest",
    "FrameBatch",
    "FrameReading",
    "FramesTask",
    "HitsBatch",
    "HitsOptions",
    "HitsReading",
    "HitsTask",
    "ImagesBatch",
    "ImagesOptions",
    "ImagesReading",
    "ImagesTask",
    "LabelsBatch",
    "LabelsOptions",
    "LabelsReading",
    "LabelsTask",
    "Recipe",
    "SemiSupervised",
    "StrongViews",
    "TaskOptions",
    "TeacherOptions",
    "TrainedHits",
    "TrainedImages",
    "TrainedLabels",
    "TrainedNetwork",
    "TrainedValues",
    "TrainingData",
    "ValuesBatch",
    "ValuesOptions",
    "ValuesReading",
    "ValuesTask",
    "build_task",
]
