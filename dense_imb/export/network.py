"""The exportable network of a run."""

from __future__ import annotations

from dense_imb.export.base import Exportable
from dense_imb.runs import Run
from dense_imb.tasks.kind import module_of_kind


def exportable(run: Run) -> Exportable:
    """Return the best network of a run, on the CPU, with inputs to compare on."""
    what: Exportable = module_of_kind("dense_imb.export", run.kind, "export").exportable(run)
    return what
