"""The report of a run on hits."""

from dense_imb.report.hits.live import LiveExamples
from dense_imb.report.hits.source import HitsSource as Source

__all__ = ["LiveExamples", "Source"]
