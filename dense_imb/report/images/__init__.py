"""The report of a run on images with masks."""

from dense_imb.report.images.live import LiveExamples
from dense_imb.report.images.source import ImagesSource as Source

__all__ = ["LiveExamples", "Source"]
