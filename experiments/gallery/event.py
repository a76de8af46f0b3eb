"""One event before and after denoising: recorded hits, kept hits, and the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dense_imb import Events, Geometry

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 6.0)


def measure() -> dict[str, Any]:
    """Denoise one simulated event with the network `arc` of the package; 5 s."""
    from dense_imb import denoise, pretrained
    from dense_imb.hits import Degradation, degrade, simulate

    clean = simulate("arc", 8, seed=7)
    noisy = degrade(clean, Degradation(signal=30, noise=200), seed=7)
    event = denoise(pretrained("arc"), noisy)[0].numpy()  # at 97 % of the signal
    columns = {"x": event.x, "y": event.y, "t": event.t, "label": event.label, **event.hit}
    return {name: columns[name].tolist() for name in ("x", "y", "t", "label", "keep")}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw three panels of positions over three panels of times."""
    column = {name: np.array(numbers[name]) for name in ("x", "y", "t", "label")}
    grid = Geometry(width=88, height=128, time_steps=1000)
    event = Events.from_arrays(grid, **column, counts=[len(column["x"])])
    keep = np.array(numbers["keep"])
    panels = {
        "recorded": replace(event, label=None),
        "kept by the network": event.select(keep),
        "truth": event.select(event.label > 0),
    }
    rows = figure.subplots(2, 3, sharey=True, height_ratios=(1.6, 1))
    for k, (title, hits) in enumerate(panels.items()):
        hits.plot(rows[0, k]).set_title(title, pad=26, fontweight="bold")  # above the legend
        hits.plot(rows[1, k], view=("t", "y")).get_legend().remove()
        rows[1, k].set_xticks([0, 500, 1000])
    for axes in rows[:, 1:].flat:
        axes.set_ylabel("")
