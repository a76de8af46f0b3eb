"""Blank frames and lit pixels of maps of values, by the share of the pixels that are lit."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from style import BLUE, GREEN, GREY, PINK, RED, soften

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 7.6)
NUMBERS = (
    Path(__file__).parents[1] / "values" / "collapse.json"
)  # of experiments/values/collapse.py
STYLES = {  # colour and marker
    "MSE": ("#000000", "o"),
    "MAE": (GREY, "s"),
    "weighted MSE": (BLUE, "^"),
    "ACB-MSE": (RED, "o"),
    "value bins, power 1/2": (GREEN, "v"),
    "Balanced MSE": (PINK, "D"),
}
STEPS = "1000"
LEAST = 0.02  # smaller ratios are drawn here, at the edge of the axis
PANELS = {
    "raw blank": "blank frames, as trained",
    "raw lit": "lit / target pixels, as trained",
    "lit": "lit / target pixels, after read-out",
    "F1": "F1, after read-out",
}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw four scores of crosses against the share of the frame that they cover."""
    tasks = json.loads(NUMBERS.read_text())
    crosses = [task for name, task in tasks.items() if name.startswith("crosses")]
    shares = [100 * task["share"] for task in crosses]
    for axes, (score, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for name, (colour, marker) in STYLES.items():
            means = [fmean(task["losses"][name][STEPS][score]) for task in crosses]
            means = [max(one, LEAST) for one in means] if "lit" in score else means
            axes.plot(shares, means, color=colour, marker=marker, markersize=7, label=name)
        axes.set(title=title, xscale="log", xlabel="share of the frame that is lit (%)")
        axes.set_xticks(shares, [f"{share:.2g}" for share in shares], minor=False)
        axes.minorticks_off()
        if "lit" in score:
            axes.set_yscale("log")
            axes.set_ylim(LEAST / 1.2, 500)
            axes.set_yticks((LEAST, 0.1, 1, 10, 100), ("none", "0.1", "1", "10", "100"))
            axes.minorticks_off()
            axes.axhspan(0.8, 1.25, color=GREEN, alpha=0.15, linewidth=0)
        else:
            axes.set_ylim(-0.03, 1.03)
        soften(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=6,
                  columnspacing=1.2, handletextpad=0.4)  # fmt: skip
