"""Plot of dose-volume histograms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dense_imb.metrics import dose_volume_curve
from dense_imb.report.drawing import line_style, plain_label, write_message

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

_N_DOSES = 301
_N_MARKS = 5
_GREY = "#555555"


def plot_dvh(
    axes: Axes,
    dose: Tensor,
    prediction: Tensor | None,
    structures: Mapping[str, Tensor],
) -> None:
    """Draw the volume of each structure that gets at least a dose, against the dose.

    Lines are solid for the clinical dose and dashed for the predicted one. The legend stands to
    the right of the axes: give its figure `layout="constrained"`, or room there.

    Args:
        axes: matplotlib axes; they are not cleared.
        dose: clinical dose of one patient, in Gy.
        prediction: predicted dose, same shape; None draws the clinical dose alone.
        structures: mask of each structure by name, same shape; empty ones are not drawn.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure(layout="constrained").add_subplot()
        >>> dose = 70 * torch.rand(8, 8, 8)
        >>> plot_dvh(axes, dose, dose + 1, {"Larynx": dose > 20, "PTV70": dose > 60})
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['Larynx', 'PTV70', 'clinical', 'predicted']
    """
    from matplotlib.lines import Line2D

    doses: list[tuple[Tensor | None, Any, str]] = [
        (dose, "-", "clinical"),
        (prediction, (0, (4, 2)), "predicted"),
    ]
    highest = max(float(one.max()) for one, _, _ in doses if one is not None)
    at = torch.linspace(0.0, max(1.04 * highest, 1.0), _N_DOSES, dtype=torch.float64)
    handles = []
    present = {name: mask for name, mask in structures.items() if bool(mask.any())}
    for k, (name, mask) in enumerate(present.items()):
        style = {**line_style(k), "markersize": 4.0, "linewidth": 1.4}
        for one, dashes, _ in doses:
            if one is None:
                continue
            volume = 100 * dose_volume_curve(one, mask, at)
            axes.plot(at.numpy(), volume.numpy(), **{**style, "linestyle": dashes},
                      markevery=_marks(volume, k))  # fmt: skip
        handles.append(Line2D([], [], label=plain_label(name), **{**style, "linestyle": "-"}))
    for one, dashes, label in doses:
        if one is not None:
            handles.append(Line2D([], [], color=_GREY, linestyle=dashes, label=label))
    axes.set(xlabel="dose [Gy]", ylabel="volume with at least this dose [%]")
    axes.set(xlim=(0.0, float(at[-1])), ylim=(0.0, 103.0))
    if not present:
        write_message(axes, "no structure has a voxel")
        return
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0,
                frameon=False, handlelength=2.6)  # fmt: skip


def _marks(volume: Tensor, k: int) -> list[int]:
    """Return points of a falling curve at equal steps of volume, shifted from curve to curve."""
    wanted = 100 * (torch.arange(_N_MARKS) + 0.35 + 0.3 * (k % 2)) / _N_MARKS
    places = (volume[:, None] >= wanted).sum(0) - 1
    return sorted({int(place) for place in places if place > 0})
