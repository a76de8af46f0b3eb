"""The report of a run on whole images with a label each."""

from dense_imb.report.labels.live import LiveExamples
from dense_imb.report.labels.source import LabelsSource as Source

__all__ = ["LiveExamples", "Source"]
