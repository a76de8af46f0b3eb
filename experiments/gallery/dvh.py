"""Dose-volume histograms of one patient: planned dose, and the doses predicted by two losses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dense_imb.report.dvh import plot_dvh

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 4.6)
LOSSES = {"MAE": "MAE", "value bins, power 1/2": "bins L1, power 1/2"}
STRUCTURES = {
    "PTV70": "target, 70 Gy", "Mandible": "mandible", "RightParotid": "right parotid",
    "Brainstem": "brainstem", "SpinalCord": "spinal cord",
}  # fmt: skip
N_QUANTILES = 101
N_STEPS = 840


def measure() -> dict[str, Any]:
    """Train on OpenKBP with two losses, and predict one patient; 2 min.

    Only quantiles of the dose of each structure are stored, in Gy: they are its histogram.
    """
    folder = os.environ.get("DENSE_IMB_DATA")
    if folder is None:
        sys.exit("The doses are those of OpenKBP: set DENSE_IMB_DATA to the folder of openkbp64.")
    sys.path.insert(0, str(Path(__file__).parents[1] / "values"))
    import dose as doses

    size = doses.Size(doses.SMALL.widths, doses.SMALL.window, 1, N_STEPS)
    data = Path(folder) / "openkbp64"
    training, names = doses.read_patients(data / "train.h5", size)
    held_out, _ = doses.read_patients(data / "validation.h5", size)
    choosing, test = held_out[:8:2], held_out[1::2]
    bits = {name: names.index(name) for name in STRUCTURES}
    patient = next(p for p in test if all((p.field >> bit & 1).any() for bit in bits.values()))
    maps = {"planned": patient.dose}
    for title, loss in LOSSES.items():
        network = doses.train(loss, training, choosing, names, size, 0, "cpu")
        (maps[title],) = doses.predicted(network, [patient], size)
    at = torch.linspace(0, 1, N_QUANTILES)
    return {
        title: {
            name: [
                round(dose, 2)
                for dose in (
                    doses.UNIT * one[(patient.field >> bit & 1).bool()].quantile(at)
                ).tolist()
            ]
            for name, bit in bits.items()
        }
        for title, one in maps.items()
    }


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw the planned dose, solid, with the predicted dose of each loss, dashed."""
    # a stored quantile stands for a voxel
    dose = {title: torch.tensor([*structures.values()]) for title, structures in numbers.items()}
    planned = dose.pop("planned")
    structures = {
        label: torch.arange(len(planned))[:, None].expand_as(planned)
        == [*numbers["planned"]].index(name)
        for name, label in STRUCTURES.items()
    }
    panels = figure.subplots(1, len(dose), sharey=True)
    for axes, (title, predicted) in zip(panels, dose.items(), strict=True):
        plot_dvh(axes, planned, predicted, structures)
        axes.set_title(title)
    for axes in panels[:-1]:
        axes.get_legend().remove()
    panels[1].set_ylabel("")
