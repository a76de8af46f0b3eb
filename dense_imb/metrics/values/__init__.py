"""Scores of value maps.

Example:
    >>> from dense_imb.metrics.values import BLANK, INPUT, MEAN, PREDICTION
    >>> BLANK, INPUT, MEAN, PREDICTION  # names of the rows of `ValueScores`
    ('blank', 'input', 'mean of training', 'prediction')
"""

from dense_imb.metrics.values.scores import BLANK, INPUT, MEAN, PREDICTION, ValueScores

__all__ = ["BLANK", "INPUT", "MEAN", "PREDICTION", "ValueScores"]
