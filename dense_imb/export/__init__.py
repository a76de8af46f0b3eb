"""Export of a run to a file that needs no dense_imb: ONNX or torch.export, with a model card.

Example:
    >>> from dense_imb.export import FORMATS
    >>> FORMATS
    ('.onnx', '.pt2')
"""

from dense_imb.export.speed import Throughput, throughput
from dense_imb.export.write import FORMATS, Exported, export_run

__all__ = ["FORMATS", "Exported", "Throughput", "export_run", "throughput"]
