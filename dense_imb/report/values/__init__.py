"""The report of a run on images with maps of values."""

from dense_imb.report.values.live import LiveExamples
from dense_imb.report.values.source import ValuesSource as Source

__all__ = ["LiveExamples", "Source"]
