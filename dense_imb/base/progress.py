"""Progress bars: a notebook's where its widgets are installed, a terminal's elsewhere."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # no ipywidgets: the bar of text will do
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
