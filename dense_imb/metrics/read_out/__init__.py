"""Read-out: a monotone map from predictions to the values that the data have there."""

from dense_imb.metrics.read_out.maps import OddsMap, PiecewiseMap
from dense_imb.metrics.read_out.read_out import ReadOut, ReadOutEffect
from dense_imb.metrics.read_out.tally import ReadOutTally

__all__ = ["OddsMap", "PiecewiseMap", "ReadOut", "ReadOutEffect", "ReadOutTally"]
