"""Cells: six ways to split the pixels of an image, or the hits of an event, into classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, hide_ticks

from dense_imb import label_instances
from dense_imb.losses import ValueBins

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (10.0, 7.2)
SIDE = 64
PALE = "#F4F4F4"
COLOURS = (PALE, SKY, BLUE, ORANGE, RED, GREEN, PINK)


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw the partitions with the option that asks for each."""
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    above, below = figure.subplots(2, 3)
    objects = discs([(16, 18, 9), (46, 14, 4), (20, 48, 5), (44, 42, 12), (56, 58, 2.2)])
    classes = objects + discs([(16, 18, 9), (46, 14, 4)])
    heat = np.maximum(bump(20, 24, 9), 0.75 * bump(46, 44, 6))
    bins = ValueBins([0.02, 0.2, 0.5])(*2 * (torch.from_numpy(heat),)).numpy()
    organs = discs([(28, 30, 17)]) + 2 * discs([(42, 40, 13)]) + 4 * discs([(27, 26, 5)])

    show(above[0], classes, "classes", "Balance()")
    show(above[1], bins, "bins of the value", "ValueBins([0.02, 0.2, 0.5])")
    show(above[2], (heat > 0.02).astype(int), "empty and lit", 'partition="hits"')
    show(below[0], label_instances(objects), "instances", 'per="instance"')
    show(below[1], organs, "cells that overlap", 'Cover(3, rest="cell")')
    particles(below[2])


def show(axes: Axes, cells: NDArray[Any], title: str, option: str) -> None:
    """Draw a map of cells, a colour each."""
    from matplotlib.colors import ListedColormap

    axes.imshow(cells, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1)
    name(axes, title, option)


def name(axes: Axes, title: str, option: str) -> None:
    hide_ticks(axes)
    axes.set_title(title)
    axes.set_xlabel(option, family="monospace", fontsize="small")


def particles(axes: Axes) -> None:
    """Draw the hits of three particles, and noise."""
    rng = np.random.default_rng(3)
    axes.scatter(*SIDE * rng.random((2, 90)), s=8, color=GREY, linewidths=0)
    for k, (n, colour) in enumerate(((40, BLUE), (12, RED), (5, GREEN))):
        along = np.linspace(0, 1, n)
        x, y = 8 + 44 * along, 12 + 18 * k + (-1) ** k * 12 * along**2
        axes.scatter(x + rng.normal(0, 0.7, n), y + rng.normal(0, 0.7, n), s=16, color=colour,
                     linewidths=0)  # fmt: skip
    axes.set(xlim=(0, SIDE), ylim=(0, SIDE), aspect="equal")
    name(axes, "particles of an event", "--hits.balance_over particle")


def discs(places: list[tuple[float, float, float]]) -> NDArray[np.int64]:
    """Return an image that is 1 in discs of x, y and radius."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = [(x - a) ** 2 + (y - b) ** 2 <= (r + 0.4) ** 2 for a, b, r in places]
    return np.any(inside, axis=0).astype(np.int64)


def bump(x: float, y: float, width: float) -> NDArray[np.float64]:
    """Return an image of a Gaussian."""
    down, across = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * width**2))
