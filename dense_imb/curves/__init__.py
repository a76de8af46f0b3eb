"""Loss-response curves: values and gradients of losses along a series of predictions.

A scenario makes (prediction, target) pairs and names their axis. `sweep` evaluates losses along it
and returns a `Table`. `draw` draws the table on given axes:

    table = sweep(SignalSize(), [ACBMSELoss(), torch.nn.MSELoss()])
    table.write("signal-size.csv")
    draw(table, axes)

`dense-imb curves` and `write_figures` make all figures at once.

Example:
    >>> from dense_imb.curves import SCENARIOS
    >>> list(SCENARIOS)[:5]
    ['signal-size', 'recovery', 'probability', 'class-frequency', 'value-error']
"""

from dense_imb.curves.figure import draw, save_figure
from dense_imb.curves.gallery import write_figures
from dense_imb.curves.scenarios import (
    SCENARIOS,
    ClassFrequency,
    Collapse,
    GradientShare,
    OverlappingCells,
    Point,
    Probability,
    Recovery,
    Scenario,
    SignalSize,
    ValueResidual,
)
from dense_imb.curves.subjects import parse_losses
from dense_imb.curves.sweep import CurveWarning, sweep
from dense_imb.curves.table import Column, Table
from dense_imb.losses.foreign.parse import parse_loss

__all__ = [
    "SCENARIOS",
    "ClassFrequency",
    "Collapse",
    "Column",
    "CurveWarning",
    "GradientShare",
    "OverlappingCells",
    "Point",
    "Probability",
    "Recovery",
    "Scenario",
    "SignalSize",
    "Table",
    "ValueResidual",
    "draw",
    "parse_loss",
    "parse_losses",
    "save_figure",
    "sweep",
    "write_figures",
]
