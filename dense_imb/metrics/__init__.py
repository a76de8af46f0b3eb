"""Scores for evaluation: streaming counts of constant memory, exact over processes.

`update` adds a batch, `merge` adds another part of the data, and one call of
`reduce_over_processes` at the end sums over processes. `save` and `load` keep the counts as JSON.
A score without data, such as the removal where there is no noise, is NaN, never 0 or 1.
"""

from dense_imb.metrics._counts import StreamingCounts
from dense_imb.metrics.classification import ClassificationScores, class_groups
from dense_imb.metrics.dose import (
    DoseScores,
    dose_score,
    dose_volume,
    dose_volume_curve,
    dvh_score,
)
from dense_imb.metrics.histogram import Curve, ScoreHistogram
from dense_imb.metrics.hits import HitScores
from dense_imb.metrics.image_quality import ImageQuality
from dense_imb.metrics.key_points import KeyPointScores
from dense_imb.metrics.natural import fit_probability
from dense_imb.metrics.operating_point import OperatingPoint
from dense_imb.metrics.read_out import ReadOut, ReadOutTally
from dense_imb.metrics.segmentation import ObjectScores, SegmentationScores
from dense_imb.metrics.tolerant import TolerantCurve, TolerantF1, TolerantPoint
from dense_imb.metrics.unlabelled import best_f1_threshold
from dense_imb.metrics.values import ValueScores

__all__ = [
    "ClassificationScores",
    "Curve",
    "DoseScores",
    "HitScores",
    "ImageQuality",
    "KeyPointScores",
    "ObjectScores",
    "OperatingPoint",
    "ReadOut",
    "ReadOutTally",
    "ScoreHistogram",
    "SegmentationScores",
    "StreamingCounts",
    "TolerantCurve",
    "TolerantF1",
    "TolerantPoint",
    "ValueScores",
    "best_f1_threshold",
    "class_groups",
    "dose_score",
    "dose_volume",
    "dose_volume_curve",
    "dvh_score",
    "fit_probability",
]
