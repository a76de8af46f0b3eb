"""Dose-volume histograms: the numbers on the axes."""

from __future__ import annotations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dense_imb.report.dvh import plot_dvh


def drawn(prediction=True, **structures):
    axes = Figure(layout="constrained").add_subplot()
    dose = torch.linspace(0.0, 70.0, 64).reshape(4, 4, 4)
    masks = {name: dose >= low for name, low in structures.items()}
    plot_dvh(axes, dose, dose + 5.0 if prediction else None, masks)
    return axes


def test_lines_are_solid_and_dashed_and_hold_percents():
    axes = drawn(Larynx=20.0, PTV70=60.0)
    larynx, predicted, *target = axes.lines
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"] * 2
    assert larynx.get_color() == predicted.get_color() != target[0].get_color()
    dose, volume = larynx.get_data()
    assert volume[0] == 100.0
    assert volume[-1] == 0.0
    inside = torch.linspace(0.0, 70.0, 64)
    inside = inside[inside >= 20.0].double()
    for x, y in zip(dose[::17], volume[::17], strict=True):
        assert y == pytest.approx(100 * float((inside >= x).double().mean()))
    _, shifted = predicted.get_data()
    assert (shifted >= volume).all()


def test_the_legend_stands_beside_the_curves():
    axes = drawn(Larynx=20.0, Empty=99.0, **{"_PTV $": 60.0})
    legend = axes.get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["Larynx", r" _PTV \$", "clinical", "predicted"]
    FigureCanvasAgg(axes.figure).draw()  # lays the figure out
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= axes.figure.bbox.x1


def test_one_dose_alone_and_no_structure():
    assert len(drawn(prediction=False, Larynx=20.0).lines) == 1
    axes = drawn(Empty=99.0)
    assert not axes.lines
    assert [text.get_text() for text in axes.texts] == ["no structure has a voxel"]
