"""Loss-response curves: how losses answer a series of predictions, as numbers and as figures.

A scenario makes (prediction, target) pairs and names its axis; `sweep` evaluates losses along it
and returns a `Table`; `draw` draws the table on axes of the caller's:

    table = sweep(SignalSize(), [ACBMSELoss(), torch.nn.MSELoss()])
    table.write("signal-size.csv")
    draw(table, axes)

`dense-imb curves` makes all figures at once, as `write_figures` does.
"""

from dense_imb.curves.figure import draw, save_figure
from dense_imb.curves.gallery import write_figures
from dense_imb.curves.scenarios import (
    SCENARIOS,
    ClassFrequency,
    Collapse,
    GradientShare,
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
