"""Scores of value maps."""

from dense_imb.metrics.values.scores import BLANK, INPUT, MEAN, PREDICTION, ValueScores

__all__ = ["BLANK", "INPUT", "MEAN", "PREDICTION", "ValueScores"]
