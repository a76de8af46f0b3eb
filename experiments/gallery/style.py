"""Common style of the figures of the gallery: size, fonts, colours, and small PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_imb.base.axes import BLUE as BLUE
from dense_imb.base.axes import GREEN as GREEN
from dense_imb.base.axes import GREY as GREY
from dense_imb.base.axes import ORANGE as ORANGE
from dense_imb.base.axes import PINK as PINK
from dense_imb.base.axes import RED as RED
from dense_imb.base.axes import SKY as SKY
from dense_imb.base.files import write_whole

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PIXELS = 1600  # width of every figure
_WIDTH = 10.0  # inches for which the sizes of text below are meant
_N_COLOURS = 128
RC: dict[Any, Any] = {
    "font.size": 12.0,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
    "lines.linewidth": 2.0,
    "image.interpolation": "nearest",
}


def write_figure(
    draw: Callable[[Figure], None], size: tuple[float, float], path: Path, sources: str
) -> None:
    """Draw a figure without a display, and write it as a PNG file of few colours.

    Args:
        draw: function that draws on an empty figure.
        size: width and height in inches; text is as large on the page for any width.
        path: file to write.
        sources: hash of the code and the numbers, kept in the file.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, PngImagePlugin

    scale = size[0] / _WIDTH
    sizes = {key: scale * value for key, value in RC.items() if isinstance(value, float)}
    with rc_context({**RC, **sizes}):
        figure = Figure(figsize=size, dpi=_PIXELS / size[0], layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(pixels).quantize(_N_COLOURS, dither=Image.Dither.NONE)
    text = PngImagePlugin.PngInfo()
    text.add_text("sources", sources)
    write_whole(path, lambda to: picture.save(to, format="PNG", optimize=True, pnginfo=text))


def hide_ticks(axes: Axes) -> None:
    """Remove the ticks of an image and keep a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="#BBBBBB")


def soften(axes: Axes) -> None:
    """Draw a light grid behind the data."""
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
