"""The exportable network of a run."""

from __future__ import annotations

from types import ModuleType

from dense_imb.export import hits, images, labels
from dense_imb.export.base import Exportable
from dense_imb.runs import Run


def exportable(run: Run) -> Exportable:
    """Return the best network of a run, on the CPU, with inputs to compare on."""
    what: Exportable = _kind_of(run).exportable(run)
    return what


def _kind_of(run: Run) -> ModuleType:
    if run.config.trains_on_images:
        return images
    return labels if run.config.trains_on_classes else hits
