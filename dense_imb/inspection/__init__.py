"""Inspection of data before training: class imbalance, and advice that follows from it.

inspection = inspect_hits("tof.h5")
print(text_of(inspection))
save_figure(inspection, "inspect.png")
"""

from dense_imb.inspection.figure import save_figure
from dense_imb.inspection.hits import inspect_hits
from dense_imb.inspection.images import inspect_images
from dense_imb.inspection.report import Inspection
from dense_imb.inspection.text import text_of
from dense_imb.inspection.values import inspect_values

__all__ = [
    "Inspection",
    "inspect_hits",
    "inspect_images",
    "inspect_values",
    "save_figure",
    "text_of",
]
