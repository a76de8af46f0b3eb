"""Scores we report and never train on: streaming counts of constant memory, exact over processes.

Each takes batches with `update`, parts with `merge`, the other processes with one
`reduce_over_processes` at the end, and keeps its counts in JSON. What was never seen, the removal
of noise where there was none say, is NaN, never 0 or 1.
"""

from dense_imb.metrics.classification import ClassificationScores, class_groups
from dense_imb.metrics.histogram import Curve, ScoreHistogram
from dense_imb.metrics.hits import HitScores
from dense_imb.metrics.image_quality import ImageQuality
from dense_imb.metrics.operating_point import OperatingPoint
from dense_imb.metrics.segmentation import ObjectScores, SegmentationScores
from dense_imb.metrics.tolerant import TolerantCurve, TolerantF1, TolerantPoint

__all__ = [
    "ClassificationScores",
    "Curve",
    "HitScores",
    "ImageQuality",
    "ObjectScores",
    "OperatingPoint",
    "ScoreHistogram",
    "SegmentationScores",
    "TolerantCurve",
    "TolerantF1",
    "TolerantPoint",
    "class_groups",
]
